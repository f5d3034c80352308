"""When a checkpoint is written, and how."""
