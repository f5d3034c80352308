"""What a backbone brings to dense tasks."""
