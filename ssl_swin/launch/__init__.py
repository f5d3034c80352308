"""From a Hydra configuration to a finished run: the only package that imports hydra."""
