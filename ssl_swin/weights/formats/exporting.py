"""A backbone becomes a file of another format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from ssl_swin.arguments import PathLike, PathName, checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path, make_folder, write_atomically
from ssl_swin.weights.backbone import WEIGHTS, Backbone, load_backbone
from ssl_swin.weights.formats.format import Exported, Format
from ssl_swin.weights.formats.key_maps import to_theirs
from ssl_swin.weights.formats.known_formats import format_for
from ssl_swin.weights.formats.report import Entry, LoadReport
from ssl_swin.weights.formats.simmim_head import PARTS, load_simmim_head
from ssl_swin.weights.formats.tables import tables_of
from ssl_swin.weights.sources import default_cache, resolve_backbone

_HEAD = "head.fc."
_OUTSIDE = ("decoder.", _HEAD)  # not part of the encoder, so without its prefix


@checked
def export_weights(backbone: PathLike, out: PathName, *, to: str) -> LoadReport:
    """Writes a backbone, and the SimMIM or classification head beside it, in another format.

    Args:
        backbone: Folder of a backbone or a run, or what else `resolve_backbone` takes.
        out: File, or for `huggingface` folder, to write.
        to: A name in `formats.NAMES`.

    Returns:
        What became of every tensor, by our names.

    Raises:
        UserError: Before anything is written, if there is no backbone, or the format cannot
            represent it, with the reason.
    """
    folder = resolve_backbone(str(backbone), default_cache())
    loaded = load_backbone(folder)
    encoder = loaded.encoder
    target = format_for(to, encoder)
    check_representable(encoder, target)
    heads = load_simmim_head(folder) | _classification_head(folder, encoder.head_prefix)
    if target.name == "simmim" and target.holds_simmim and "mask_token" not in heads:
        without = "swin" if isinstance(encoder, SwinEncoder) else "timm"
        raise UserError(
            f"{folder} has no mask token and pixel head, without which it is no SimMIM model: "
            f"export it as {without!r}"
        )
    tensors, report = export_state(encoder, heads, target)
    _write(Path(out), tensors, target, _describe(encoder, loaded, heads))
    return report


def check_representable(encoder: Encoder, target: Format) -> None:
    """Refuses what a format has no way to express.

    Raises:
        UserError: With every reason.
    """
    limits = target.limits(encoder) if isinstance(encoder, SwinEncoder) else ()
    if limits:
        raise UserError(f"the model cannot be written for {target.title}: {'; '.join(limits)}")


def export_state(
    encoder: Encoder, heads: Mapping[str, Tensor], target: Format
) -> tuple[dict[str, Tensor], LoadReport]:
    """Translates an encoder to the names of a format.

    Args:
        encoder: One that the format can represent.
        heads: `mask_token`, `decoder.*` and `head.fc.*`, as far as there are any.
        target: The format.
    """
    tables = tables_of(encoder, target.tables)
    held = {n: t for n, t in heads.items() if target.holds_simmim or n not in PARTS}
    ours = {**encoder.model.state_dict(), **tables, **held}
    inside = {name: tensor for name, tensor in ours.items() if not name.startswith(_OUTSIDE)}
    outside = {name: tensor for name, tensor in ours.items() if name.startswith(_OUTSIDE)}
    translated, outer = to_theirs(target.rules, inside), to_theirs(target.rules, outside)
    prefix = target.prefixes[0]
    renamed = [_with_prefix(entry, prefix) for entry in _taken(translated.report)]
    renamed += _taken(outer.report)
    report = LoadReport(
        matched=tuple(entry for entry in renamed if entry.name == entry.became),
        renamed=tuple(entry for entry in renamed if entry.name != entry.became),
        dropped=tuple(
            Entry(name, "", f"{target.title} has no place for it")
            for name in (*translated.unknown, *outer.unknown, *(heads.keys() - held.keys()))
        ),
        missing=tuple(
            Entry(name, "", reason)
            for name, reason in target.missing.items()
            if not (name.startswith("head") and f"{_HEAD}weight" in heads)
        ),
        notes=target.notes(encoder) if isinstance(encoder, SwinEncoder) else (),
    )
    state = {f"{prefix}{name}": tensor for name, tensor in translated.state.items()} | outer.state
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, report


def _taken(report: LoadReport) -> list[Entry]:
    return [*report.matched, *report.renamed]


def _with_prefix(entry: Entry, prefix: str) -> Entry:
    became = ", ".join(f"{prefix}{name}" for name in entry.became.split(", "))
    return entry._replace(became=became, reason=entry.reason or "another name")


def _classification_head(folder: Path, prefix: str) -> dict[str, Tensor]:
    """Reads the last layer, which timm names `head.fc` in a Swin and `head` in a ViT."""
    state = safetensors.torch.load_file(folder / WEIGHTS)
    head = {name: tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")}
    return {f"{_HEAD}{name.rpartition('.')[2]}": tensor for name, tensor in head.items()}


def _describe(encoder: Encoder, loaded: Backbone, heads: Mapping[str, Tensor]) -> Exported:
    head: Literal["simmim", "classifier", "none"] = "none"
    if "mask_token" in heads:
        head = "simmim"
    elif f"{_HEAD}weight" in heads:
        head = "classifier"
    num_classes = len(heads[f"{_HEAD}bias"]) if head == "classifier" else 0
    return Exported(encoder, loaded.mean, loaded.std, head, num_classes)


def _write(out: Path, tensors: dict[str, Tensor], target: Format, exported: Exported) -> None:
    configs = target.configs(exported)
    if target.layout == "folder":
        write_folder(out, tensors, configs)
    elif target.layout == "safetensors":
        _write_safetensors(out, tensors)
    else:
        content: dict[str, Any] = tensors if target.layout == "bare" else {target.layout: tensors}
        with atomic_path(out) as temporary:
            torch.save(content | configs, temporary)


def write_folder(out: Path, tensors: dict[str, Tensor], configs: Mapping[str, Any]) -> None:
    """Write a folder of transformers' layout.

    Args:
        out: The folder.
        tensors: By the names there.
        configs: Contents of its JSON files, by their names.
    """
    make_folder(out)
    for name, config in configs.items():
        write_atomically(out / name, json.dumps(config, indent=2) + "\n")
    _write_safetensors(out / WEIGHTS, tensors)


def _write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    write_atomically(path, safetensors.torch.save(tensors, metadata={"format": "pt"}))
