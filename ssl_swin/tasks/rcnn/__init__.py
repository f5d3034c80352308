"""R-CNN: boxes that may hold an object, and what is in each of them."""
