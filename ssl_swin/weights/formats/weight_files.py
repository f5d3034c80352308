"""Files of weights, whoever wrote them: the tensors, and the configuration beside them."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ssl_swin.divided_checkpoint import is_divided, load_state
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.inert_pickle import Inert
from ssl_swin.weights.formats.run_checkpoints import RunFacts, newest_checkpoint, run_facts
from ssl_swin.weights.formats.simmim_head import FILE as SIMMIM_FILE
from ssl_swin.weights.formats.torch_files import read_torch_file

WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = tuple(f"{name}.index.json" for name in WHOLE)  # of weights in several files
ENDINGS = (".safetensors", ".bin")
_CONFIGS = ("preprocessor_config.json", "config.json")
NOTHING_YET = (
    "the run has written no backbone and no checkpoint yet; let it train until its first one"
)
_MAX_DEPTH = 4  # of dictionaries in which weights are looked for
_MAX_NAMES_SHOWN = 3


@dataclass(frozen=True)
class WeightFile:
    """A file that was read.

    Attributes:
        path: File with the weights, or index of several.
        sections: Tensors by name, with the key that they lie under in the file.
        config: What the file says beside them, or what lies beside it as JSON.
        meta: What OpenMMLab's programs say of a training.
        run: What a checkpoint of our own says of its run; None for any other file.
    """

    path: Path
    sections: tuple[tuple[str, dict[str, Tensor]], ...]
    config: dict[str, Any]
    run: RunFacts | None = None
    meta: Mapping[Any, Any] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Tensor]:
        """Returns every tensor by its name."""
        return {name: tensor for _, state in self.sections for name, tensor in state.items()}


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Reads a file of `torch.save` or safetensors, or a folder of timm's or Hugging Face's layout.

    Nothing that a file holds is executed.

    Raises:
        UserError: If there is none, it is damaged, it would call something, or it holds no tensors.
    """
    file = find_weights(Path(path))
    if file.name.endswith(".index.json"):
        state = {n: t for part in shards_of(file) for n, t in _read_shard(file, part).items()}
        return WeightFile(file, (("", state),), _read_configs(file))
    if file.suffix == ".safetensors":
        head = file.with_name(SIMMIM_FILE)  # a backbone of ours has it in a file of its own
        beside = _read_safetensors(head) if file.name == WHOLE[0] and head.is_file() else {}
        return WeightFile(file, (("", _read_safetensors(file) | beside),), _read_configs(file))
    content = load_state(file) if file.is_dir() else read_torch_file(file)
    sections = tuple(_sections(content))
    if not sections:
        raise UserError(f"{file} holds {_describe(content)}")
    top = content if isinstance(content, Mapping) else {}
    run = run_facts(file, top)
    if run is not None:
        return WeightFile(file, sections, run.config, run)
    config = top.get("config")
    told = dict(config) if isinstance(config, Mapping) else _read_configs(file)
    meta = top.get("meta")
    return WeightFile(file, sections, told, meta=meta if isinstance(meta, Mapping) else {})


def find_weights(path: Path) -> Path:
    """Returns the file of weights, or the index of several, that a path leads to.

    Raises:
        UserError: If there is none, or the file is one of several.
    """
    if is_divided(path):
        return path
    if path.is_dir():
        for folder in (path, path / "backbone"):  # of a run that came to its end
            for name in (*WHOLE, *INDEXES):
                if (folder / name).is_file():
                    return folder / name
        if single := _files_of_weights(path):
            return single[0]
        if checkpoint := newest_checkpoint(path):
            return checkpoint
        if (path / "config.yaml").is_file():
            raise UserError(f"{path}: {NOTHING_YET}")
        raise UserError(
            f"the folder {path} holds neither {' nor '.join(WHOLE)}, whole or with an index; "
            "name the file of weights in it"
        )
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    index = next((path.with_name(n) for n in INDEXES if path.with_name(n).is_file()), None)
    if index is not None and path.name in shards_of(index):
        return index
    return path


def has_weights(folder: Path) -> bool:
    """Returns whether `find_weights` finds something in a folder."""
    whole = any((folder / name).is_file() for name in (*WHOLE, *INDEXES))
    return whole or bool(_files_of_weights(folder))


def shards_of(index: Path) -> list[str]:
    """Returns the names of the files that hold the weights of an index.

    Raises:
        UserError: If it is no index, or names a file in another folder or one that is missing.
    """
    content = read_json(index)
    by_tensor = content.get("weight_map")
    if not isinstance(by_tensor, dict) or not by_tensor:
        raise UserError(f"{index} is no index of weights: it has no weight_map")
    names = sorted({str(name) for name in by_tensor.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(ENDINGS):
            raise UserError(f"{index} names {name!r}, which is no file of weights beside it")
    missing = [name for name in names if not index.with_name(name).is_file()]
    if missing:
        shown = ", ".join(missing[:_MAX_NAMES_SHOWN])
        raise UserError(
            f"{index} names {len(names)} files, of which {len(missing)} are missing: {shown}"
        )
    return names


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        UserError: If it is none.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON configuration: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON configuration: it holds no object")
    return content


def _read_shard(index: Path, name: str) -> dict[str, Tensor]:
    """Reads one file of several, of which the index must list every tensor."""
    file = index.with_name(name)
    if file.suffix == ".safetensors":
        state = _read_safetensors(file)
    else:
        ((_, state),) = tuple(_sections(read_torch_file(file))) or (("", {}),)
    listed = {each for each, of in read_json(index)["weight_map"].items() if of == name}
    if listed != state.keys():
        odd = sorted(listed ^ state.keys())
        raise UserError(f"{file} does not hold what {index.name} says: {', '.join(odd[:3])}")
    return state


def _sections(
    content: Any, key: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the tensors of a dictionary, and of those inside it that hold any."""
    if isinstance(content, Inert) and "_modules" in content:
        yield key, dict(_of_module(content))
        return
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield key, tensors
    for name, value in named.items():
        yield from _sections(value, f"{key}.{name}" if key else name, depth + 1)


def _of_module(module: Inert, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a whole module that was pickled, by the names of its state dict."""
    for kind in ("_parameters", "_buffers"):
        tensors = module.get(kind)
        for name, value in tensors.items() if isinstance(tensors, Mapping) else ():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    children = module.get("_modules")
    for name, child in children.items() if isinstance(children, Mapping) else ():
        if isinstance(child, Inert) and depth < 50:
            yield from _of_module(child, f"{prefix}{name}.", depth + 1)


def _describe(content: Any) -> str:
    if isinstance(content, Inert):
        return f"an object of the class {content.name}, which is not run, and no tensors"
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}, not a dictionary of weights"
    keys = ", ".join(str(key) for key in list(content)[:_MAX_NAMES_SHOWN])
    return (
        "no dictionary of tensors, neither itself nor under 'model', 'state_dict' or another key: "
        f"it holds {keys or 'nothing'}"
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is truncated, damaged, or no safetensors file: {error}") from error


def _read_configs(file: Path) -> dict[str, Any]:
    """Reads the configurations beside a file, if it is the one that they are for."""
    config: dict[str, Any] = {}
    if file.name in (*WHOLE, *INDEXES) or file in _files_of_weights(file.parent):
        for path in (file.with_name(name) for name in _CONFIGS):
            if path.is_file():
                config |= read_json(path)
    return config


def _files_of_weights(folder: Path) -> list[Path]:
    """Returns the file in a folder that can be its only weights; nothing if there are several."""
    files = [each for each in sorted(folder.iterdir()) if each.suffix in ENDINGS]
    return files if len(files) == 1 else []
