"""Loaders: from a source of encoded images to batches, in an exact order."""
