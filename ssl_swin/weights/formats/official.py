"""Checkpoints of the original SimMIM and Swin Transformer code.

timm's modules compute the same as the original's, so a checkpoint is a matter of names. The
original keeps patch merging at the end of a stage, timm at the start of the next one; tables that
follow from the window size are stored there and rebuilt here.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_swin.encoders.sizes import Window, stage_window_sizes
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.safe_pickle import load_checkpoint
from ssl_swin.weights.formats.architecture import Architecture, infer_architecture, stored_windows
from ssl_swin.weights.formats.key_maps import flip, rename_one
from ssl_swin.weights.formats.official_format import RULES, settings
from ssl_swin.weights.formats.tables import is_table

_MAX_NAMES_SHOWN = 8

# What a state dict is that is not ours to load, told by a part of its names; first match counts.
_OTHER_KINDS = {
    "encoder.blocks.": "SimMIM with a ViT, which ssl-swin import reads",
    "encoder.model.": "a model of this project, which loads without conversion",
    "layers.0.blocks.": "a Swin without SimMIM's mask token, which ssl-swin import reads",
    "blocks.0.": "a ViT",
}


def load_simmim(
    path: str | os.PathLike[str],
    *,
    img_size_px: int,
    window_size: int | None = None,
    normalize_target_window_px: int | None = None,
) -> SimMIM:
    """Loads a pretraining checkpoint of the original code, Swin V1 or V2.

    Nothing that the file holds is executed. See `simmim_from_state_dict` for the arguments.

    Raises:
        UserError: Naming the file, if it cannot be read safely, is no SimMIM Swin checkpoint, or
            does not fit the arguments.
    """
    checkpoint = load_checkpoint(path)
    try:
        return simmim_from_state_dict(
            checkpoint.get("model", checkpoint),
            config=checkpoint.get("config"),
            img_size_px=img_size_px,
            window_size=window_size,
            normalize_target_window_px=normalize_target_window_px,
        )
    except UserError as error:
        raise UserError(f"{os.fspath(path)}: {error}") from error


def simmim_from_state_dict(
    state: Mapping[str, Tensor],
    *,
    img_size_px: int,
    window_size: int | None = None,
    normalize_target_window_px: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> SimMIM:
    """Builds the model that a state dict of the original SimMIM describes, with its weights.

    Every tensor is accounted for: it is loaded, or it is a table that the model rebuilds.

    Args:
        state: Tensors under the original's names, `encoder.*` and `decoder.*`.
        img_size_px: Side of the square image in the pretraining.
        window_size: Attention window in tokens. Only needed for a Swin V2 that kept neither the
            tables nor the configuration that tell it.
        normalize_target_window_px: That of the pretraining, which no tensor tells; see `SimMIM`.
        config: The original's configuration, where the file has one.

    Raises:
        UserError: If it is not the state dict of a SimMIM Swin, tensors are missing, unexpected or
            of the wrong shape, or the sizes given lead to other windows than it was trained with.
    """
    _check_kind(state)
    encoder_state = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    architecture = infer_architecture(encoder_state)
    windows = stored_windows(encoder_state, len(architecture.depths))
    if windows is None:
        windows = _windows_of_config(config, architecture)
    encoder = swin(
        **architecture._asdict(),
        img_size_px=img_size_px,
        window_size=_settle_window(architecture, windows, img_size_px, window_size),
    )
    model = SimMIM(encoder, normalize_target_window_px=normalize_target_window_px)
    _load(model, state)
    return model


def to_timm_name(official: str) -> str | None:
    """Translates the name of a Swin tensor from the original code's to timm's.

    Returns:
        timm's name; None for a table that timm rebuilds.
    """
    if is_table(official):
        return None
    return rename_one(flip(RULES), official) or official


def to_official_name(timm_name: str) -> str:
    """Translates the name of a Swin tensor from timm's to the original code's."""
    return rename_one(RULES, timm_name) or timm_name


def to_simmim_name(official: str) -> str | None:
    """Translates a name in the original's SimMIM model to that in `SimMIM`.

    Returns:
        Our name; None for a table that the model rebuilds.
    """
    if official == "encoder.mask_token":
        return "mask_token"
    if not official.startswith("encoder."):
        return official
    timm_name = to_timm_name(official.removeprefix("encoder."))
    return timm_name and f"encoder.model.{timm_name}"


def to_official_simmim_name(name: str) -> str:
    """Translates a name in `SimMIM` to that in the original's SimMIM model."""
    if name == "mask_token":
        return "encoder.mask_token"
    if not name.startswith("encoder.model."):
        return name
    return f"encoder.{to_official_name(name.removeprefix('encoder.model.'))}"


def _check_kind(state: Mapping[str, Tensor]) -> None:
    refusal = "not a checkpoint of the original SimMIM with a Swin"
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(f"{refusal}: it has no dictionary of tensors called 'model'")
    if "encoder.mask_token" in state and any(name.startswith("encoder.layers.") for name in state):
        return
    for part, kind in _OTHER_KINDS.items():
        if any(part in name for name in state):
            raise UserError(f"{refusal}: it looks like {kind}")
    raise UserError(f"{refusal}: its tensors are {_enumerate(list(state))}")


def _windows_of_config(
    config: Mapping[str, Any] | None, architecture: Architecture
) -> tuple[Window, ...] | None:
    told = settings(config or {})
    if told.window_size is None or not isinstance(told.img_size_px, int):
        return None
    return stage_window_sizes(
        (told.img_size_px, told.img_size_px),
        architecture.patch_size_px,
        told.window_size,
        num_stages=len(architecture.depths),
    )


def _settle_window(
    architecture: Architecture,
    trained: tuple[Window, ...] | None,
    img_size_px: int,
    window_size: int | None,
) -> int:
    if window_size is None and trained is None:
        raise UserError(
            "nothing in this Swin V2 checkpoint tells its attention window: "
            "give the window_size that it was pretrained with"
        )
    window = _largest(trained or ()) if window_size is None else window_size
    sides_px = (img_size_px, img_size_px)
    num_stages = len(architecture.depths)
    leads_to = stage_window_sizes(
        sides_px, architecture.patch_size_px, window, num_stages=num_stages
    )
    if trained is not None and leads_to != trained:
        raise UserError(
            f"the stages were pretrained with windows of {_join(trained)} tokens, but "
            f"{img_size_px} px with a window of {window} leads to {_join(leads_to)}; "
            "give the image size of the pretraining, and leave the window out"
        )
    return window


def _load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    given = {ours: tensor for name, tensor in state.items() if (ours := to_simmim_name(name))}
    expected = model.state_dict()
    problems = {
        "missing": [to_official_simmim_name(name) for name in expected if name not in given],
        "unexpected": [to_official_simmim_name(name) for name in given if name not in expected],
        "of the wrong shape": [
            f"{to_official_simmim_name(name)} {tuple(given[name].shape)} "
            f"instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        listed = (
            f"{len(names)} {problem}: {_enumerate(names)}"
            for problem, names in problems.items()
            if names
        )
        raise UserError(f"the tensors do not add up to a SimMIM model; {'; '.join(listed)}")
    model.load_state_dict(given)


def _enumerate(names: Sequence[str]) -> str:
    shown, rest = names[:_MAX_NAMES_SHOWN], len(names) - _MAX_NAMES_SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def _largest(windows: Sequence[Window]) -> int:
    return max(window if isinstance(window, int) else max(window) for window in windows)


def _join(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers))
