"""SimMIM masked image modeling on Swin Transformers: pretrain, probe, fine-tune, hand off."""

__version__ = "0.1.0"
