"""Swin blocks on tokens grouped by window: every token, or the visible ones alone.

`layout` says where tokens sit, `dense` and `visible` make layouts, and `attention`, `blocks` and
`patches` are timm's modules, with their names and weights, that can be called with them. `adopt`
turns a model of timm into these.
"""
