"""Where images to be packed, or read one by one, come from."""
