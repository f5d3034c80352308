"""Whether training is well: steps that are not finite, collapse, the way back, the end."""
