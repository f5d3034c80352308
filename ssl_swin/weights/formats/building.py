"""The encoder that the tensors of a file are for."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Size, Window, as_size, stage_window_sizes
from ssl_swin.encoders.swin import SwinEncoder, swin
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.architecture import (
    Architecture,
    infer_architecture,
    stored_pretrained_windows,
    stored_side_px,
    stored_windows,
)
from ssl_swin.weights.formats.format import FileSettings
from ssl_swin.weights.formats.names import enumerate_names
from ssl_swin.weights.formats.report import Entry, LoadReport

_OPTIONAL = {
    "fc_norm.": "a norm of pooled features, which pretraining has not",
    ".num_batches_tracked": "a number of batches, which nothing needs",
}


def build_swin(
    state: Mapping[str, Tensor],
    settings: FileSettings,
    img_size_px: int | None,
    window_size: int | None,
) -> SwinEncoder:
    """Builds the encoder that a state dict, by our names, was trained as.

    Args:
        state: Tensors, with the tables that the file stored.
        settings: What the file says.
        img_size_px: Side of the square image, in case neither tells it.
        window_size: Window in tokens, in case neither tells it.

    Raises:
        UserError: If a size is not told, or what is told does not agree.
    """
    architecture = infer_architecture(state)
    _check_claims(architecture, settings)
    windows = stored_windows(state, len(architecture.depths))
    window = window_size or _largest(windows) or settings.window_size
    if window is None:
        raise UserError(
            "nothing in it tells the attention window: give the window_size of its training"
        )
    size = _size(state, architecture, settings, img_size_px, window)
    led_to = stage_window_sizes(
        size, architecture.patch_size_px, window, num_stages=len(architecture.depths)
    )
    if windows is not None and windows != led_to:
        raise UserError(
            f"its stages have windows of {_join(windows)} tokens, but {size[0]}x{size[1]} px "
            f"with a window of {window} leads to {_join(led_to)}: give the image size of its "
            "training"
        )
    trained = None
    if architecture.version == 2:
        stored = stored_pretrained_windows(state, len(architecture.depths))
        trained = _trained_windows(settings.pretrained_window_sizes, led_to) or stored
    return swin(
        **architecture._asdict(),
        img_size_px=size,
        window_size=window,
        pretrained_window_sizes=trained,
    )


def usual_side_px(state: Mapping[str, Tensor]) -> int | None:
    """Return the smallest side of an image whose last map holds a window, of a Swin V1.

    Args:
        state: Tensors of the encoder by our names.

    Returns:
        None where nothing tells the window.
    """
    architecture = infer_architecture(state)
    window = _largest(stored_windows(state, len(architecture.depths)))
    if window is None:
        return None
    return window * architecture.patch_size_px << (len(architecture.depths) - 1)


def load_encoder(encoder: Encoder, state: Mapping[str, Tensor], report: LoadReport) -> LoadReport:
    """Loads an encoder's tensors, which must be all of them.

    A ViT pretrained without a final norm has one here for its pooled features, which stays fresh,
    and old files of networks with batch norm do not count the batches.

    Raises:
        UserError: As `load_into`.
    """
    own = encoder.model.state_dict()
    absent = [name for name in own if name not in state]
    reasons = {name: why for name in absent for part, why in _OPTIONAL.items() if part in name}
    load_into(encoder.model, {**{name: own[name] for name in reasons}, **state}, report)
    return report + LoadReport(missing=tuple(Entry(n, "", why) for n, why in reasons.items()))


def load_into(module: nn.Module, state: Mapping[str, Tensor], report: LoadReport) -> None:
    """Loads tensors that must be exactly those of a module.

    Raises:
        UserError: Listing by the file's names what is missing, too much, or of another shape.
    """
    given_as = {entry.became: entry.name for entry in (*report.matched, *report.renamed)}
    expected = module.state_dict()
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [given_as.get(name, name) for name in state if name not in expected],
        "of the wrong shape": [
            f"{given_as.get(name, name)} {tuple(state[name].shape)} "
            f"instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        listed = (f"{len(n)} {kind}: {enumerate_names(n)}" for kind, n in problems.items() if n)
        raise UserError(f"the tensors do not add up to the model; {'; '.join(listed)}")
    odd = [given_as.get(name, name) for name, tensor in state.items() if not _is_finite(tensor)]
    if odd:
        raise UserError(
            f"{len(odd)} of its tensors hold values that are not finite, as after a training that "
            f"diverged: {enumerate_names(odd)}; take an earlier checkpoint"
        )
    module.load_state_dict(dict(state))


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _check_claims(architecture: Architecture, settings: FileSettings) -> None:
    found = architecture._asdict()
    claimed = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in settings.claims.items()
    }
    if any(found[key] != value for key, value in claimed.items()):
        described = {key: found[key] for key in claimed}
        raise UserError(
            f"its configuration describes a Swin of {_describe(claimed)}, its tensors are those "
            f"of one of {_describe(described)}"
        )


def _describe(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _size(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    settings: FileSettings,
    img_size_px: int | None,
    window: int,
) -> Size:
    patch_size_px = architecture.patch_size_px
    told = settings.img_size_px or stored_side_px(state, patch_size_px) or img_size_px
    if told is None:
        usual_px = window * patch_size_px * 2 ** (len(architecture.depths) - 1)
        raise UserError(
            "nothing in it tells the image size of its training: give img_size_px "
            f"(--img-size-px; {usual_px} is usual for a window of {window})"
        )
    return as_size(told)


def _trained_windows(
    stored: Sequence[int] | None, own: Sequence[Window]
) -> tuple[Window, ...] | None:
    """Fills in the stages' own windows where a configuration has 0."""
    if stored is None:
        return None
    if not any(stored):  # transformers writes four zeros, however many stages there are
        return tuple(own)
    if len(stored) != len(own):
        raise UserError(f"pretrained_window_sizes {tuple(stored)} are not one for each stage")
    return tuple(trained or window for trained, window in zip(stored, own, strict=True))


def _largest(windows: Sequence[Window] | None) -> int | None:
    if windows is None:
        return None
    return max(window if isinstance(window, int) else max(window) for window in windows)


def _join(windows: Sequence[Window]) -> str:
    return ", ".join(map(str, windows))
