"""Loaders: from a dataset of encoded images to batches, in an exact order."""
