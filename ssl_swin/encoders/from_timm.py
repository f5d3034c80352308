"""Encoders made of timm's own models, whose sizes are read off their modules."""

from typing import Any

from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor

from ssl_swin.encoders.beit import BeitEncoder, beit
from ssl_swin.encoders.build import known_architectures
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Window, stage_window_sizes
from ssl_swin.encoders.swin import SwinEncoder, swin
from ssl_swin.errors import UserError


def encoder_of(model: Any) -> Encoder:
    """Copies a timm model without its head into an encoder that knows its sizes.

    Args:
        model: A Swin Transformer, Swin Transformer V2 or BEiT of timm, or a model that the class of
            another family adopts (`Encoder.of_timm`).

    Raises:
        UserError: If it is of another class, or a variant that the encoders here do not cover.
    """
    encoder = _adopted(model) or _built(model)
    try:
        encoder.model.load_state_dict(_without_head(model.state_dict(), encoder.head_prefix))
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:400]
        raise UserError(f"this variant of {type(model).__name__} is unknown: {problem}") from error
    return encoder


def _adopted(model: Any) -> Encoder | None:
    families = dict.fromkeys(known_architectures().values())
    adopted = (family.of_timm(model) for family in families)
    return next((encoder for encoder in adopted if encoder is not None), None)


def _built(model: Any) -> Encoder:
    if isinstance(model, SwinTransformer):
        return _swin_like(model, version=1)
    if isinstance(model, SwinTransformerV2):
        return _swin_like(model, version=2)
    if isinstance(model, Beit):
        return _beit_like(model)
    raise UserError(f"a {type(model).__name__} of timm cannot be an encoder here")


def _swin_like(model: Any, *, version: int) -> SwinEncoder:
    attentions = [stage.blocks[0].attn for stage in model.layers]
    windows = tuple(_as_window(attention.window_size) for attention in attentions)
    size, patch_size_px = model.patch_embed.img_size, model.patch_embed.patch_size[0]
    window_size = max(max(attention.window_size) for attention in attentions)
    uniform = stage_window_sizes(size, patch_size_px, window_size, num_stages=len(windows))
    if windows != uniform:
        raise UserError(f"a Swin whose stages have windows of {windows} tokens is not known here")
    return swin(
        version=version,
        img_size_px=size,
        patch_size_px=patch_size_px,
        in_chans=model.patch_embed.proj.in_channels,
        window_size=window_size,
        embed_dim=model.embed_dim,
        depths=[len(stage.blocks) for stage in model.layers],
        num_heads=[attention.num_heads for attention in attentions],
        pretrained_window_sizes=_pretrained_windows(attentions) if version == 2 else None,
    )


def _pretrained_windows(attentions: list[Any]) -> list[Window] | None:
    """Windows that the position bias was trained with; None (timm: 0) for the model's own."""
    windows = [_as_window(attention.pretrained_window_size) for attention in attentions]
    return windows if all(windows) else None


def _as_window(size: tuple[int, int]) -> Window:
    return size[0] if size[0] == size[1] else size


def _beit_like(model: Any) -> BeitEncoder:
    return beit(
        img_size_px=model.patch_embed.img_size,
        patch_size_px=model.patch_embed.patch_size[0],
        in_chans=model.patch_embed.proj.in_channels,
        embed_dim=model.embed_dim,
        depth=len(model.blocks),
        num_heads=model.blocks[0].attn.num_heads,
        final_norm="norm.weight" in model.state_dict(),
        shared_position_bias=model.rel_pos_bias is not None,
        fixed_positions=model.pos_embed is not None,
    )


def _without_head(state: dict[str, Tensor], head_prefix: str) -> dict[str, Tensor]:
    head = f"{head_prefix}."
    return {name: tensor for name, tensor in state.items() if not name.startswith(head)}
