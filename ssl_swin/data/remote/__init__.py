"""Shards that lie elsewhere, through a cache on this node."""
