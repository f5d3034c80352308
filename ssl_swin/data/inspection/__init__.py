"""What is in a set, and whether it is sound."""
