"""Swin blocks on tokens grouped by window: every token, or the visible ones alone.

`layout` says where tokens sit, `dense` and `packing` make layouts, `blocks` computes with timm's
own modules, whose parameters keep their names.
"""
