"""How fast images are read."""
