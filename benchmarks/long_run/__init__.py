"""What grows with the length of a run: its files, its memory, its open files."""
