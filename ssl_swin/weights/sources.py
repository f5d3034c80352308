"""Where a backbone may come from; each place ends in a local folder of ours."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ssl_swin import __version__
from ssl_swin.encoders.build import known_architectures
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.weights.backbone import CONFIG, WEIGHTS, find_backbone
from ssl_swin.weights.formats.importing import import_weights, save_import
from ssl_swin.weights.from_timm import (
    convert_timm,
    is_timm_name,
    supported_names,
    timm_repository,
)
from ssl_swin.weights.hub import download_backbone

FORMS = (
    "the folder of a run or a backbone, a file of weights that `ssl-swin import` knows, a name "
    "of timm (timm:NAME), hf-hub:USER/NAME, wandb:ENTITY/PROJECT/NAME:VERSION, or none"
)

_SIZES = {"img_size", "patch_size", "in_chans", "embed_dim", "num_heads"}  # timm's own omit them


def default_cache() -> Path:
    """Returns the user's folder for converted backbones; XDG_CACHE_HOME moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ssl_swin"


def resolve_backbone(reference: str, cache: Path) -> Path:
    """Returns the local folder of a backbone, fetched and converted if need be.

    What is local goes before a name of timm; `timm:` in front decides it.

    Args:
        reference: Folder of a run or a backbone, in the layout of ours, timm or transformers; file
            of weights in a format of `formats/`; NAME or timm:NAME of pretrained weights; or
            hf-hub:USER/NAME[@REVISION].
        cache: Folder for conversions, which are kept under a hash of what they are made of.

    Raises:
        UserError: If it is none of these, or cannot be fetched or converted.
    """
    scheme, _, name = reference.partition(":")
    local = Path(reference).expanduser()
    if scheme == "hf-hub":
        return _in_our_layout(download_backbone(name), cache)
    if scheme == "timm":
        return _in_our_layout(download_backbone(timm_repository(name)), cache)
    if local.is_file():
        return _converted([local], local.stem, cache, lambda target: _import(local, target))
    if local.is_dir():
        return _in_our_layout(find_backbone(local), cache)
    if is_timm_name(reference):
        return _in_our_layout(download_backbone(timm_repository(reference)), cache)
    raise UserError(_explain_unknown(reference))


def _in_our_layout(folder: Path, cache: Path) -> Path:
    config = _read_config(folder)
    architecture = config.get("architecture")
    if architecture in known_architectures() and _SIZES <= config.get("model_args", {}).keys():
        return folder
    files = [folder / CONFIG, folder / WEIGHTS]
    if architecture is not None:
        name = str(architecture)
        return _converted(files, name, cache, lambda target: convert_timm(folder, target))
    name = str(config.get("model_type", "imported"))
    return _converted(files, name, cache, lambda target: _import(folder, target))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_args", {}), dict):
        raise UserError(f"{folder / CONFIG} is not the configuration of a model: {config!r}")
    return config


def _converted(files: list[Path], name: str, cache: Path, convert: Callable[[Path], None]) -> Path:
    """Returns the conversion of some files, made by the first process that asks for it."""
    name = re.sub(r"[^\w.-]", "_", name)  # it may be a stranger's
    target = cache / f"{name}-{_digest(files)}"
    if target.is_dir():
        return target
    with FileLock(make_folder(cache) / f".{target.name}.lock"):
        if not target.is_dir():
            with TemporaryDirectory(dir=cache, prefix=".") as draft:
                convert(Path(draft) / "backbone")
                os.replace(Path(draft) / "backbone", target)
    return target


def _import(path: Path, target: Path) -> None:
    """Writes weights of another implementation as a backbone."""
    try:
        imported, report = import_weights(path)
    except UserError as error:
        raise UserError(f"{error} (`ssl-swin import` can be told what a file does not)") from error
    card = (
        f"# {path.stem}\n\nA {imported.encoder.title} from {path.name}. "
        f"Of its tensors: {report.summary()}.\n"
    )
    save_import(target, imported, card=card)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(__version__.encode())  # another version may convert otherwise
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
    return sorted([*on_disk, *on_hub, *supported_names()])
