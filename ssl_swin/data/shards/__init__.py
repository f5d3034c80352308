"""WebDataset shards on this machine: tars, their index, and their images by number."""
