"""Weights in and out: one module per foreign checkpoint format."""
