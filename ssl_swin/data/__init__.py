"""Reading and writing images: sources, shards, transforms, batches."""
