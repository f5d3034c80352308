"""Encoders: what Swin Transformers and ViTs have in common, and building either again."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from ssl_swin.encoders.beit import BEIT_ARCHITECTURE, beit
from ssl_swin.encoders.sizes import Size, Window, check_sizes, stage_window_sizes
from ssl_swin.encoders.swin import TIMM_ARCHITECTURES, SwinEncoder, swin
from ssl_swin.errors import UserError

__all__ = [
    "ARCHITECTURES",
    "TIMM_ARCHITECTURES",
    "Encoder",
    "Size",
    "SwinEncoder",
    "Window",
    "build_encoder",
    "check_sizes",
    "stage_window_sizes",
    "swin",
]

ARCHITECTURES = (*TIMM_ARCHITECTURES.values(), BEIT_ARCHITECTURE)


class Encoder(Protocol):
    """What pretraining, probing and fine-tuning know of an encoder, whichever it is.

    Attributes:
        family: "swin" or "vit", which parameter rules go by.
        title: Its name for a reader.
        architecture: Name of the timm model that `model_args` vary.
        model: The timm module that owns every weight.
        model_args: Keyword arguments that rebuild it through `timm.create_model(architecture)`.
        in_chans: Image channels.
        img_size_px: (height, width) of the images.
        patch_size_px: Image pixels per token where the mask token enters.
        stride: Image pixels per token of the last map.
        embed_dim: Width where the mask token enters.
        num_features: Width of the last map.
        stage_dims: Width of each map that `stages` gives.
        depths: Blocks per stage.
        init_bound: Weights of tokens are drawn from N(0, 0.02^2), cut off at plus or minus this.
        head_init_scale: Factor on the initial weights of a classifier's head.
    """

    family: Literal["swin", "vit"]
    title: str
    architecture: str
    model: Any
    model_args: dict[str, Any]
    in_chans: int
    img_size_px: Size
    patch_size_px: int
    stride: int
    embed_dim: int
    num_features: int
    stage_dims: tuple[int, ...]
    depths: tuple[int, ...]
    init_bound: float
    head_init_scale: float

    def embed(self, images: Tensor) -> Tensor:
        """Turns normalised images (B, C, H, W) into patch tokens (B, H/p, W/p, embed_dim)."""

    def encode(self, tokens: Tensor) -> Tensor:
        """Turns patch tokens into the last map (B, num_features, H/stride, W/stride)."""

    def __call__(self, images: Tensor) -> Tensor:
        """Turns normalised images (B, C, H, W) into the last map."""

    def stages(self, images: Tensor) -> list[Tensor]:
        """Gives one map (B, C_i, H_i, W_i) per stage; the last one is that of `encode`."""

    def pool(self, features: Tensor) -> Tensor:
        """Turns the last map into the vector (B, num_features) that a classifier's head sees."""

    def for_finetuning(self) -> "Encoder":
        """Gives the encoder that fine-tuning trains, with these weights; may be this very one."""

    def compile_blocks(self) -> None:
        """Compiles what its blocks compute, without a change of names or weights."""

    def modules(self) -> Iterator[nn.Module]:
        """As in `torch.nn.Module`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As in `torch.nn.Module`."""

    def eval(self) -> Self:
        """As in `torch.nn.Module`."""

    def to(self, device: torch.device | str) -> Self:
        """As in `torch.nn.Module`."""


def build_encoder(
    architecture: str,
    model_args: Mapping[str, Any],
    *,
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
) -> Encoder:
    """Rebuilds an encoder, with random weights, from what `Encoder` says of itself.

    Args:
        architecture: One of `ARCHITECTURES`.
        model_args: The encoder's own; lists may stand for tuples, as in JSON.
        drop_path_rate: For the training to come.
        grad_checkpointing: For the training to come.

    Raises:
        UserError: If the architecture is unknown here, or the arguments are not those of an encoder
            of it.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"the architecture {architecture!r} is unknown here; known: {', '.join(ARCHITECTURES)}"
        )
    training = {"drop_path_rate": drop_path_rate, "grad_checkpointing": grad_checkpointing}
    rebuild = _rebuild_beit if architecture == BEIT_ARCHITECTURE else _rebuild_swin
    try:
        encoder = rebuild(architecture, dict(model_args), training)
    except KeyError as error:
        raise UserError(f"the arguments of {architecture} lack {error}") from error
    for name, value in model_args.items():
        if _as_json(value) != _as_json(encoder.model_args.get(name)):
            raise UserError(
                f"an encoder of the architecture {architecture} has "
                f"{name}={encoder.model_args.get(name)} here, not {value}"
            )
    return encoder


def _rebuild_swin(
    architecture: str, arguments: dict[str, Any], training: dict[str, Any]
) -> Encoder:
    versions = {name: version for version, name in TIMM_ARCHITECTURES.items()}
    return swin(
        version=versions[architecture],
        img_size_px=arguments["img_size"],
        patch_size_px=arguments["patch_size"],
        in_chans=arguments["in_chans"],
        window_size=arguments["window_size"],
        embed_dim=arguments["embed_dim"],
        depths=arguments["depths"],
        num_heads=arguments["num_heads"],
        pretrained_window_sizes=arguments.get("pretrained_window_sizes"),
        **training,
    )


def _rebuild_beit(_: str, arguments: dict[str, Any], training: dict[str, Any]) -> Encoder:
    return beit(
        img_size_px=arguments["img_size"],
        patch_size_px=arguments["patch_size"],
        in_chans=arguments["in_chans"],
        embed_dim=arguments["embed_dim"],
        depth=arguments["depth"],
        num_heads=arguments["num_heads"],
        final_norm=not arguments["use_fc_norm"],
        shared_position_bias=arguments["use_shared_rel_pos_bias"],
        **training,
    )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
