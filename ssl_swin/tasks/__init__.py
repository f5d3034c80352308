"""Tasks: heads and losses on labels."""
