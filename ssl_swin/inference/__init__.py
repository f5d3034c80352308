"""From images to a file of results: vectors, neighbours, predictions."""
