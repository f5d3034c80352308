"""What a trained task says of images: one module per kind of task, found by its folder's config."""
