"""The jobs: what runs."""
