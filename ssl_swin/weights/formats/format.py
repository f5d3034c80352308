"""What every checkpoint format has to say of itself, and the parts that most share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Window, stage_window_sizes
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.weights.formats.key_maps import Rule, rename, same

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
# Of tensors, what the file says, and image size and window where the user says them.
Builder = Callable[[State, "FileSettings", int | None, int | None], Encoder]
Layout = Literal["bare", "model", "state_dict", "safetensors", "folder"]


@dataclass(frozen=True)
class FileSettings:
    """What a file says beside its tensors; None where it says nothing.

    Attributes:
        img_size_px: Side, or (height, width).
        window_size: Window in tokens.
        pretrained_window_sizes: Swin V2 only, one per stage, 0 for the stage's own.
        claims: Fields of `Architecture` that the tensors must agree with.
        mean: Per channel, of pixel values in [0, 1].
        std: Per channel.
    """

    img_size_px: int | tuple[int, int] | None = None
    window_size: int | None = None
    pretrained_window_sizes: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What the configuration beside exported weights is written from.

    Attributes:
        encoder: The model.
        mean: Normalisation, per channel, of pixel values in [0, 1].
        std: Per channel.
        head: "simmim", "classifier" or "none": what comes with the encoder.
        num_classes: Number of classes of the classifier, or 0.
    """

    encoder: Encoder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: Literal["simmim", "classifier", "none"]
    num_classes: int


def says_nothing(config: Config) -> FileSettings:
    """Reads a configuration that tells nothing of the model."""
    return FileSettings()


def no_config(exported: Exported) -> dict[str, Config]:
    """Writes no configuration."""
    return {}


def no_limits(encoder: SwinEncoder) -> tuple[str, ...]:
    """Lists what keeps an encoder out of a format that takes every one."""
    return ()


@dataclass(frozen=True)
class Format:
    """How one implementation of Swin names and keeps its weights.

    Attributes:
        name: Name in `ssl-swin import --format`.
        title: Name for a reader.
        rules: The key map.
        recognised_by: Regular expressions; a file is of this format if each is found in the list of
            its names, one per line.
        kinds: Kinds of encoder that it holds (`Encoder.kind`).
        holds_simmim: Whether exports have the mask token and pixel head.
        prefixes: What may stand before the encoder's names; exports have the first.
        tables: Names, in our terms, of the tables that it stores and we rebuild.
        dropped: Regular expressions of names that are not taken, with the reason.
        missing: What its model has and an export does not, with the reason.
        landmark: Name, in our terms, of a tensor that every network of its kinds has.
        build: Builds the encoder of tensors by our names; None builds a Swin V1 or V2.
        limits: Lists what keeps an encoder out of it.
        notes: Lists what a user should know of an encoder in it.
        settings: Reads the configuration that lies in or beside the file.
        layout: What an export is: a pickle of the bare tensors, or of them under that key, a
            safetensors file, or a folder of one and `configs`.
        configs: Writes configurations, by file name; in a pickle, by key.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    recognised_by: tuple[str, ...]
    kinds: tuple[str, ...] = ("Swin V1", "Swin V2")
    prefixes: tuple[str, ...] = ("",)
    tables: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    landmark: str = "patch_embed.proj.weight"
    build: Builder | None = None
    limits: Callable[[SwinEncoder], tuple[str, ...]] = no_limits
    notes: Callable[[SwinEncoder], tuple[str, ...]] = no_limits
    settings: Callable[[Config], FileSettings] = says_nothing
    holds_simmim: bool = False
    layout: Layout = "bare"
    configs: Callable[[Exported], dict[str, Config]] = no_config


VIT, FINETUNED_VIT = "ViT", "fine-tuned ViT"

BLOCK = "layers.{s}.blocks.{b}"
INDEX, COORDINATES, MASK = "relative_position_index", "relative_coords_table", "attn_mask"

# The part of a Swin that nobody but Hugging Face and OpenMMLab names differently.
COMMON_BLOCK = same(
    f"{BLOCK}.norm1.{{p}}",
    f"{BLOCK}.norm2.{{p}}",
    f"{BLOCK}.attn.qkv.{{p}}",
    f"{BLOCK}.attn.q_bias",
    f"{BLOCK}.attn.v_bias",
    f"{BLOCK}.attn.proj.{{p}}",
    f"{BLOCK}.attn.relative_position_bias_table",
    f"{BLOCK}.attn.logit_scale",
    f"{BLOCK}.attn.cpb_mlp.{{n}}.{{p}}",
    f"{BLOCK}.mlp.fc1.{{p}}",
    f"{BLOCK}.mlp.fc2.{{p}}",
)
COMMON_STEM = same("patch_embed.proj.{p}", "patch_embed.norm.{p}")
COMMON_TABLES = same(f"{BLOCK}.attn.{INDEX}", f"{BLOCK}.attn.{COORDINATES}", f"{BLOCK}.{MASK}")
MERGING_AT_END = rename(
    {
        "layers.{s+1}.downsample.reduction.weight": "layers.{s}.downsample.reduction.weight",
        "layers.{s+1}.downsample.norm.{p}": "layers.{s}.downsample.norm.{p}",
    },
    reason="patch merging ends a stage there and begins the next one here",
)


def stage_windows(encoder: SwinEncoder) -> tuple[Window, ...]:
    """Returns the window of each stage, in tokens."""
    return stage_window_sizes(
        encoder.img_size_px,
        encoder.patch_size_px,
        encoder.model_args["window_size"],
        num_stages=len(encoder.depths),
    )


def needs_one_window(encoder: SwinEncoder) -> tuple[str, ...]:
    """Returns the stages with a smaller window than configured, which some cannot express."""
    window = encoder.model_args["window_size"]
    smaller = [
        f"stage {number} has {own}"
        for number, own in enumerate(stage_windows(encoder), start=1)
        if own != window
    ]
    if not smaller:
        return ()
    size = "x".join(map(str, encoder.img_size_px))
    return (
        f"it has windows of {window} tokens in every stage, and at {size} px {', '.join(smaller)}",
    )


def needs_square(encoder: SwinEncoder) -> tuple[str, ...]:
    """Returns a reason if the image is not square."""
    height_px, width_px = encoder.img_size_px
    return () if height_px == width_px else (f"{height_px}x{width_px} px is not square",)


def needs_four_stages(encoder: SwinEncoder) -> tuple[str, ...]:
    """Returns a reason if the model has not the four stages of the published ones."""
    return () if len(encoder.depths) == 4 else (f"{len(encoder.depths)} stages are not four",)


def needs_rgb(encoder: SwinEncoder) -> tuple[str, ...]:
    """Returns a reason if the images have other than three channels."""
    return () if encoder.in_chans == 3 else (f"{encoder.in_chans} channels are not three",)


def every(
    *checks: Callable[[SwinEncoder], tuple[str, ...]],
) -> Callable[[SwinEncoder], tuple[str, ...]]:
    """Makes one check out of several."""
    return lambda encoder: tuple(finding for check in checks for finding in check(encoder))


def shifts_whole_maps(encoder: SwinEncoder) -> tuple[str, ...]:
    """Returns a reason if code that shifts windows as large as the map would change a stage."""
    window = encoder.model_args["window_size"]
    grid = min(encoder.img_size_px) // encoder.patch_size_px
    whole = [str(s + 1) for s in range(len(encoder.depths)) if grid >> s <= window]
    if not whole:
        return ()
    return (
        "detectors and segmenters also shift a window that is as large as the map: at this image "
        f"size stage {', '.join(whole)} gives other values there; where all maps are larger, none",
    )
