"""From a Hydra configuration to a finished run (L3): the only package that imports hydra."""
