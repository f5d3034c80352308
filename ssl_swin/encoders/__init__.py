"""Encoders: what turns images into feature maps."""
