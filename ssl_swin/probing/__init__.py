"""Judging frozen features: stored features, linear heads, nearest neighbours, their scores."""
