"""Where a backbone may come from; each place ends in a local folder of ours."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ssl_swin import __version__
from ssl_swin.divided_checkpoint import is_divided
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, write_atomically
from ssl_swin.weights.backbone import CONFIG, WEIGHTS, describes_encoder, find_backbone
from ssl_swin.weights.cards import import_card
from ssl_swin.weights.formats.importing import import_weights, save_import
from ssl_swin.weights.formats.run_checkpoints import newest_checkpoint, run_of
from ssl_swin.weights.formats.weight_files import (
    NOTHING_YET,
    find_weights,
    has_weights,
    shards_of,
)
from ssl_swin.weights.from_timm import (
    convert_timm,
    is_timm_name,
    supported_names,
    timm_repository,
)
from ssl_swin.weights.hub import download_backbone

FORMS = (
    "the folder of a run or a backbone, a checkpoint, a file of weights that `ssl-swin import` "
    "knows, a name of timm (timm:NAME), hf-hub:USER/NAME, wandb:ENTITY/PROJECT/NAME:VERSION, or "
    "none"
)
_MAX_RUNS_SHOWN = 4
_NOTES = "notes.json"  # in a conversion: what was printed when it was made


def default_cache() -> Path:
    """Returns the user's folder for converted backbones; XDG_CACHE_HOME moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ssl_swin"


@dataclass(frozen=True)
class Located:
    """A backbone on this machine, in our layout.

    Attributes:
        folder: Its folder.
        notes: What the user should know of where it comes from, one line each.
    """

    folder: Path
    notes: tuple[str, ...] = ()


def resolve_backbone(reference: str, cache: Path) -> Path:
    """Returns the folder of `locate_backbone`."""
    return locate_backbone(reference, cache).folder


def locate_backbone(reference: str, cache: Path) -> Located:
    """Returns a backbone as a local folder, fetched and converted if need be.

    What is local goes before a name of timm; `timm:` in front decides it.

    Args:
        reference: Folder of a run or a backbone, in the layout of ours, timm or transformers; of a
            stopped run, its newest checkpoint is taken; checkpoint; file of weights in a format of
            `formats/`; NAME or timm:NAME of pretrained weights; or hf-hub:USER/NAME[@REVISION].
        cache: Folder for conversions, which are kept under a hash of what they are made of.

    Raises:
        UserError: If it is none of these, or cannot be fetched or converted.
    """
    if not reference.strip():
        raise UserError(f"backbone is empty; it can be {FORMS}")
    scheme, _, name = reference.partition(":")
    local = Path(reference).expanduser()
    if scheme == "hf-hub":
        return _in_our_layout(download_backbone(name), cache)
    if scheme == "timm":
        return _in_our_layout(download_backbone(timm_repository(name)), cache)
    if local.is_file() or is_divided(local):
        return _imported(local, cache)
    if local.is_dir():
        return _of_folder(local, cache)
    if is_timm_name(reference):
        return _in_our_layout(download_backbone(timm_repository(reference)), cache)
    raise UserError(_explain_unknown(reference))


def _of_folder(folder: Path, cache: Path) -> Located:
    """Returns what a folder holds: a backbone, a fine-tuned model, a checkpoint, or weights."""
    inside = (
        folder,
        folder / "backbone",
        *sorted(path.parent for path in folder.glob("*/config.json")),
    )
    for each in inside:
        if (each / CONFIG).is_file() and (each / WEIGHTS).is_file():
            return _in_our_layout(each, cache)
    run = folder.absolute().parent if folder.name == "checkpoints" else folder
    checkpoint = newest_checkpoint(run)
    if checkpoint is not None:
        return _imported(checkpoint, cache)
    if (run / "config.yaml").is_file():
        raise UserError(f"backbone={folder}: {NOTHING_YET}")
    runs = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
    if runs:
        more = f" and {len(runs) - _MAX_RUNS_SHOWN} more" if runs[_MAX_RUNS_SHOWN:] else ""
        raise UserError(
            f"backbone={folder} is a folder of runs: name one of them, as "
            f"{', '.join(str(folder / run) for run in runs[:_MAX_RUNS_SHOWN])}{more}"
        )
    if has_weights(folder):
        return _imported(folder, cache)
    return _in_our_layout(find_backbone(folder), cache)


def _imported(path: Path, cache: Path) -> Located:
    """Returns the conversion of a checkpoint or of weights in another format."""
    weights = find_weights(path)
    index = weights.name.endswith(".index.json")
    parts = [weights.with_name(name) for name in shards_of(weights)] if index else []
    run = run_of(weights)
    beside = [run / "config.yaml"] if run is not None else [weights.with_name(CONFIG)]
    whole = sorted(weights.iterdir()) if weights.is_dir() else [weights]
    files = [*whole, *parts, *(each for each in beside if each.is_file())]
    name = path.name if path.is_dir() and not is_divided(path) else path.stem
    name = name if run is None else f"{run.name}-{name}"
    return _converted(files, name, cache, lambda target: _import(path, target))


def _in_our_layout(folder: Path, cache: Path) -> Located:
    config = _read_config(folder)
    if describes_encoder(config):
        return Located(folder)
    architecture = config.get("architecture")
    files = [folder / CONFIG, folder / WEIGHTS]
    if architecture is not None:
        name = str(architecture)
        return _converted(files, name, cache, lambda target: convert_timm(folder, target))
    name = str(config.get("model_type", "imported"))
    return _converted(files, name, cache, lambda target: _import(folder, target))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} is not JSON: {error}") from error
    kinds = {"architecture": str, "model_args": dict, "pretrained_cfg": dict}
    if not isinstance(config, dict) or not all(
        isinstance(config[name], kind) for name, kind in kinds.items() if name in config
    ):
        raise UserError(f"{folder / CONFIG} is not the configuration of a model: {config!r:.300}")
    return config


def _converted(
    files: list[Path], name: str, cache: Path, convert: Callable[[Path], None]
) -> Located:
    """Returns the conversion of some files, made by the first process that asks for it."""
    name = re.sub(r"[^\w.-]", "_", name)  # it may be a stranger's
    target = cache / f"{name}-{_digest(files)}"
    if target.is_dir():
        return Located(target, _notes_of(target))
    with FileLock(make_folder(cache) / f".{target.name}.lock"):
        if not target.is_dir():
            with TemporaryDirectory(dir=cache, prefix=".") as draft:
                convert(Path(draft) / "backbone")
                os.replace(Path(draft) / "backbone", target)
    return Located(target, _notes_of(target))


def _notes_of(folder: Path) -> tuple[str, ...]:
    path = folder / _NOTES
    return tuple(json.loads(path.read_text())) if path.is_file() else ()


def _import(path: Path, target: Path) -> None:
    """Writes weights of another implementation as a backbone."""
    try:
        imported, report = import_weights(path, num_classes="any")
    except UserError as error:
        raise UserError(f"{error} (`ssl-swin import` can be told what a file does not)") from error
    save_import(target, imported, card=import_card(imported.encoder, path.name, report.summary()))
    write_atomically(target / _NOTES, json.dumps(report.notes))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(f"{__version__} with heads".encode())  # others may convert otherwise
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _explain_unknown(reference: str) -> str:
    nearest = get_close_matches(reference, _candidates(reference), n=3)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    return (
        f"backbone={reference}: no such folder, file, or model of timm{hint} "
        f"(backbone can be {FORMS})"
    )


def _candidates(reference: str) -> list[str]:
    """What the reference may be a misspelling of: a neighbour, a run, a name elsewhere."""
    beside = Path(reference).expanduser().parent
    folders = {beside, Path("runs/pretrain")}
    on_disk = [str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()]
    on_hub = [] if beside.is_dir() else [f"hf-hub:{reference}"]
    return sorted({*on_disk, *on_hub, *supported_names()} - {reference})
