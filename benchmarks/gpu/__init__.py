"""The first hours on a GPU, as one command."""
