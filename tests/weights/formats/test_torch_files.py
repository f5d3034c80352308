"""Files of torch.save with anything beside the weights: what is read, and that nothing runs."""

import argparse
import collections
import datetime
import decimal
import functools
import io
import operator
import os
import pathlib
import pickle
import re
import subprocess
import sys
import types
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.inert_pickle import Inert
from ssl_swin.weights.formats.torch_files import read_torch_file

WEIGHT = torch.arange(6.0).view(2, 3)
WAY_OUT = 'save the weights alone: torch.save({"model": model.state_dict()}, FILE)'


def save(content: Any, folder: Path, **options: Any) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(content, path, **options)
    return path


@contextmanager
def foreign(full: str, *bases: type, **body: Any) -> Iterator[type]:
    """A class of a package that exists only while the file is written."""
    module, _, name = full.rpartition(".")
    cls = type(name, bases or (object,), body)
    cls.__module__, cls.__qualname__ = module, name
    parts = module.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    before = {each: sys.modules.get(each) for each in names}
    for each in names:
        if each not in sys.modules:
            sys.modules[each] = types.ModuleType(each)
    setattr(sys.modules[module], name, cls)
    try:
        yield cls
    finally:
        for each, old in before.items():
            if old is None:
                del sys.modules[each]


class Called:
    """Unpickles into a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read__gives_back_tensors_and_plain_values(
    tmp_path: Path, zip_format: bool, protocol: int
) -> None:
    shared = torch.arange(24, dtype=torch.int64)
    content = {
        "model": {
            "weight": WEIGHT,
            "half": WEIGHT.half(),
            "brain": WEIGHT.bfloat16(),
            "flags": torch.tensor([True, False]),
            "view": shared[4:16].view(3, 4).t(),
            "empty": torch.empty(0, 3),
            "scalar": torch.tensor(2.5),
            "parameter": torch.nn.Parameter(WEIGHT),
        },
        "epoch": 7,
        "big": 2**70,
        "betas": [(0.9, 0.999)],
        "shape": torch.Size([2, 3]),
        "words": {"a", "b"},
        "bytes": b"\x00\xff",
        "order": collections.OrderedDict([("x", None), ("y", True)]),
        "none": (),
    }
    options = {"_use_new_zipfile_serialization": zip_format, "pickle_protocol": protocol}
    loaded = read_torch_file(save(content, tmp_path, **options))
    assert loaded.keys() == content.keys()
    for name, tensor in content["model"].items():
        assert loaded["model"][name].dtype == tensor.dtype
        assert loaded["model"][name].equal(tensor), name
    for name in content.keys() - {"model"}:
        assert loaded[name] == content[name], name


def data_of_frameworks() -> dict[str, Any]:
    """Objects that stand beside weights, of installed packages."""
    return {
        "namespace": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=[1])),
        "simple_namespace": types.SimpleNamespace(lr=0.1),
        "path": pathlib.PurePosixPath("/data/x"),
        "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("aab"),
        "deque": collections.deque([1, 2], maxlen=5),
        "scalar": np.float64(0.75),
        "array": np.arange(3),
        "objects": np.array([None, "x"], dtype=object),
        "random": np.random.default_rng(0).bit_generator.state,
        "dtype": torch.float16,
        "numpy_dtype": np.dtype("float32"),
        "device": torch.device("cuda", 1),
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "decimal": decimal.Decimal("0.1"),
        "uuid": uuid.UUID(int=3),
        "pattern": re.compile("x+"),
        "range": range(3),
        "slice": slice(1, 2),
        "complex": 1 + 2j,
        "frozen": frozenset({1}),
        "config": OmegaConf.create({"model": {"depths": [2, 2]}, "lr": 0.1}),
        "class": argparse.Namespace,
        "optimizer_class": torch.optim.AdamW,
        "module": torch.nn.CrossEntropyLoss(),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", data_of_frameworks())
def test_read__takes_the_weights_beside_data(tmp_path: Path, name: str, protocol: int) -> None:
    content = {"state_dict": {"weight": WEIGHT}, "beside": data_of_frameworks()[name]}
    loaded = read_torch_file(save(content, tmp_path, pickle_protocol=protocol))
    assert loaded["state_dict"]["weight"].equal(WEIGHT)


@pytest.mark.parametrize(
    ("full", "bases"),
    [
        ("yacs.config.CfgNode", (dict,)),
        ("fvcore.common.config.CfgNode", (dict,)),
        ("mmengine.config.config.ConfigDict", (dict,)),
        ("addict.addict.Dict", (dict,)),
        ("lightning_fabric.utilities.data.AttributeDict", (dict,)),
        ("pytorch_lightning.utilities.parsing.AttributeDict", (dict,)),
        ("mmengine.logging.message_hub.MessageHub", ()),
        ("easydict.EasyDict", (dict,)),
        ("detectron2.structures.Boxes", ()),
        ("__main__.TrainConfig", ()),
        ("their.lists.Steps", (list,)),
        ("their.words.Word", (str,)),
    ],
)
def test_read__restores_objects_of_others_as_what_they_hold(
    tmp_path: Path, full: str, bases: tuple[type, ...]
) -> None:
    with foreign(full, *bases) as cls:
        node = cls()
        node.__dict__["MODEL"] = {"TYPE": "swin"}
        if issubclass(cls, dict):
            node["MODEL"] = {"TYPE": "swin"}
        if issubclass(cls, list):
            node.append(1)
        path = save({"model": {"weight": WEIGHT}, "config": node}, tmp_path)
    loaded = read_torch_file(path)
    assert loaded["model"]["weight"].equal(WEIGHT)
    assert isinstance(loaded["config"], Inert) and loaded["config"].name == full
    assert loaded["config"]["MODEL"] == {"TYPE": "swin"}


def test_read__of_mmengine_with_its_methods(tmp_path: Path) -> None:
    """Its history of losses holds its own methods, which protocol 2 writes as a call of getattr."""
    with foreign("mmengine.logging.history_buffer.HistoryBuffer", mean=lambda self: 0) as cls:
        cls.mean.__module__, cls.mean.__qualname__ = cls.__module__, "HistoryBuffer.mean"
        buffer = cls()
        buffer.__dict__ = {"_log_history": np.arange(2), "_statistics_methods": {"m": cls.mean}}
        path = save({"state_dict": {"weight": WEIGHT}, "message_hub": {"loss": buffer}}, tmp_path)
    loaded = read_torch_file(path)
    method = loaded["message_hub"]["loss"]["_statistics_methods"]["m"]
    assert method.name == "mmengine.logging.history_buffer.HistoryBuffer.mean"


def hostile(marker: Path) -> dict[str, tuple[Any, str]]:
    """Content that would leave a marker, and the name by which it is refused."""
    touch = f"touch {marker}"
    system = f"{os.system.__module__}.system"
    return {
        "system": (Called(os.system, touch), system),
        "nested": (Called(dict, [("a", Called(os.system, touch))]), system),
        "in_a_key": ({Called(os.system, touch): 1}, system),
        "in_a_state": (Called(argparse.Namespace, state={"a": Called(os.system, touch)}), system),
        "popen": (Called(subprocess.Popen, ["touch", str(marker)]), "subprocess.Popen"),
        "eval": (Called(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"),
        "exec": (Called(exec, f"open({str(marker)!r}, 'w')"), "builtins.exec"),
        "open": (Called(open, str(marker), "w"), "(_io|io|builtins)\\.open"),
        "import": (Called(__import__, "antigravity"), "builtins.__import__"),
        "getattr": (Called(getattr, "text", "upper"), "builtins.getattr"),
        "partial": (functools.partial(os.system, touch), "functools.partial"),
        "caller": (Called(operator.methodcaller, "mkdir"), "operator.methodcaller"),
        "mkdir": (Called(os.mkdir, str(marker)), f"{os.mkdir.__module__}.mkdir"),
        "path_mkdir": (Called(pathlib.Path.mkdir, pathlib.Path(marker)), "builtins.getattr|mkdir"),
        "load": (Called(torch.load, str(marker)), "torch.serialization.load"),
        "loads": (Called(pickle.loads, b"cos\nsystem\n."), "pickle.loads"),
        "reference": (os.system, system),
    }


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", hostile(Path()))
def test_read__runs_nothing(tmp_path: Path, name: str, protocol: int, zip_format: bool) -> None:
    marker = tmp_path / "executed"
    planted, refused = hostile(marker)[name]
    content = {"model": {"weight": WEIGHT}, "beside": planted}
    options = {"_use_new_zipfile_serialization": zip_format, "pickle_protocol": protocol}
    path = save(content, tmp_path, **options)
    with pytest.raises(UserError, match=refused) as caught:
        read_torch_file(path)
    assert not marker.exists()
    message = str(caught.value)
    assert message.startswith(f"{path} contains Python objects that are not data (")
    assert "refused, nothing was executed" in message and WAY_OUT in message


def test_read__runs_no_method_of_a_class_that_is_installed(tmp_path: Path) -> None:
    """`__setstate__`, `__new__`, `__setitem__` and `append` of a real class stay untouched."""
    calls: list[str] = []

    def noted(name: str) -> Any:
        return lambda self, *args, **options: calls.append(name)

    def new(cls: type, *args: Any) -> Any:
        calls.append("__new__")
        return dict.__new__(cls)

    with foreign("installed.Node", dict, __setstate__=noted("__setstate__")) as cls:
        node = cls(a=1)
        node.x = 1
        path = save({"model": {"weight": WEIGHT}, "node": node}, tmp_path)
        cls.__setitem__ = noted("__setitem__")  # type: ignore[assignment]
        cls.__new__ = new  # type: ignore[assignment]
        assert read_torch_file(path)["node"]["a"] == 1
        assert calls == []
        torch.load(path, weights_only=False)
        assert calls == ["__new__", "__setitem__", "__setstate__"]  # it would have run them


def test_read__lists_four_names(tmp_path: Path) -> None:
    functions = [os.getcwd, os.getpid, os.getppid, os.cpu_count, os.urandom, os.listdir]
    path = save({"a": [Called(function) for function in functions]}, tmp_path)
    with pytest.raises(UserError, match=r"getcwd', 'posix.getpid', .* and 2 more\): refused"):
        read_torch_file(path)


def raw_pickle_in_archive(path: Path, pickled: bytes, storage: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        if storage is not None:
            archive.writestr("x/data/0", storage)
    return path


GLOBAL_TENSOR = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = (
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
)


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",  # a plain call
        b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02cbuiltins\nexec\n(X\x01\x00\x00\x001tR.",
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x0cpkg.harmless\x94\x8c\x06Config\x94\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x0cpkg.harmless\x94\x8c\x09os.system\x94\x93\x8c\x04true\x85R.",
        GLOBAL_TENSOR + b"X\x01\x00\x00\x00a\x85b.",  # BUILD of a function
    ],
)
def test_read__of_opcodes_by_hand(tmp_path: Path, opcodes: bytes) -> None:
    path = raw_pickle_in_archive(tmp_path / "x.pth", opcodes)
    if opcodes.startswith(GLOBAL_TENSOR):
        assert isinstance(read_torch_file(path), Inert)
        return
    with pytest.raises(UserError, match=r"not data .*nothing was executed"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("opcodes", "reason"),
    [
        (GLOBAL_TENSOR + STORAGE + b"K\x00K\x09\x85K\x01\x85\x89NtR.", "beyond the storage"),
        (GLOBAL_TENSOR + STORAGE + b"J\xff\xff\xff\xffK\x02\x85K\x01\x85\x89NtR.", "before it"),
        (
            GLOBAL_TENSOR + STORAGE + b"K\x00\x8a\x05\x00\x00\x00\x00\x40\x85K\x00\x85\x89NtR.",
            "bomb",
        ),
        (b"\x80\x02(K\x01K\x02tQ.", "no storage"),
        (b"\x80\x02K\x01K\x02s.", "items of a number"),
        (b"\x80\x02h\x07.", "no such memo"),
        (b"\x80\x02\x82\x01.", "extension registry"),
        (b"", "nothing"),
        (b"\x80\x02]", "no end"),
    ],
)
def test_read__of_damaged_opcodes(tmp_path: Path, opcodes: bytes, reason: str) -> None:
    path = raw_pickle_in_archive(tmp_path / "x.pth", opcodes, bytes(8))
    with pytest.raises(UserError, match=r"x\.pth is truncated, damaged, or not a checkpoint"):
        read_torch_file(path)


def test_read__the_tensor_of_the_opcodes_above_is_read(tmp_path: Path) -> None:
    opcodes = GLOBAL_TENSOR + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89NtR."
    content = torch.tensor([1.5, 2.5]).numpy().tobytes()
    path = raw_pickle_in_archive(tmp_path / "x.pth", opcodes, content)
    assert read_torch_file(path).tolist() == [1.5, 2.5]


def test_read__refuses_archives_that_swell(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model": {"weight": torch.zeros(1_000_000)}}, buffer)
    path = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(buffer) as given,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in given.namelist():
            packed.writestr(name, given.read(name))
    assert path.stat().st_size < 20_000
    with pytest.raises(UserError, match=r"bomb\.pth is compressed: it would unpack to 4,0\d\d,\d+"):
        read_torch_file(path)


def test_read__names_programs_and_other_archives(tmp_path: Path) -> None:
    scripted = tmp_path / "scripted.pt"
    with zipfile.ZipFile(scripted, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/constants.pkl", b"\x80\x02).")
    with pytest.raises(UserError, match=r"scripted\.pt is a TorchScript program, which is not run"):
        read_torch_file(scripted)
    other = tmp_path / "other.pth"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"a zip archive of readme\.txt, not one that torch\.save"):
        read_torch_file(other)


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("kept_ratio", [0.0, 0.01, 0.5, 0.999])
def test_read__names_a_truncated_file(tmp_path: Path, zip_format: bool, kept_ratio: float) -> None:
    content = {"model": {"weight": torch.ones(1000)}}
    path = save(content, tmp_path, _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept_ratio)])
    with pytest.raises(UserError, match=r"checkpoint\.pth is truncated, damaged"):
        read_torch_file(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", bytes(range(256)) * 20, b"\x80\x02}."])
def test_read__names_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"page\.pth is truncated, damaged, or not a checkpoint"):
        read_torch_file(path)


def test_read__is_not_stopped_by_depth(tmp_path: Path) -> None:
    opcodes = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert isinstance(read_torch_file(raw_pickle_in_archive(tmp_path / "x.pth", opcodes)), list)
