"""Writing shards, in an order shuffled once and for all."""
