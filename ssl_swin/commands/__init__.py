"""The sub-commands of `ssl-swin`, one per file, each with `add_parser` and `run`."""
