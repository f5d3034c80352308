"""A network behind HTTP: uploads within limits, batches, one computing thread, an orderly end."""
