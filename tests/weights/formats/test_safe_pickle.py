import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.safe_pickle import load_checkpoint


class Planted:
    """Unpickles into a shell command that leaves a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def save(content, folder: Path, **options) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(content, path, **options)
    return path


def save_with_yacs_config(folder: Path, monkeypatch, config: dict) -> Path:
    """Pickles a `yacs.config.CfgNode` through a throw-away module of that name."""

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", types.ModuleType("yacs.config"))
        sys.modules["yacs.config"].CfgNode = CfgNode
        node = CfgNode({key: CfgNode(value) for key, value in config.items()})
        node.__dict__.update({"__immutable__": True, "__deprecated_keys__": {"OLD"}})
        return save({"model": {"weight": torch.ones(2)}, "config": node}, folder)


@pytest.mark.parametrize("zip_format", [True, False])
def test_load_checkpoint__gives_back_tensors_and_plain_values(tmp_path, zip_format):
    content = {
        "model": {"weight": torch.arange(6.0).view(2, 3), "index": torch.tensor([1, 2])},
        "epoch": 7,
        "betas": [(0.9, 0.999)],
        "shape": torch.Size([2, 3]),
    }
    path = save(content, tmp_path, _use_new_zipfile_serialization=zip_format)

    loaded = load_checkpoint(path)

    assert {key: loaded[key] for key in ("epoch", "betas", "shape")} == {
        key: content[key] for key in ("epoch", "betas", "shape")
    }
    assert loaded["model"].keys() == content["model"].keys()
    for name, tensor in content["model"].items():
        torch.testing.assert_close(loaded["model"][name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("zip_format", [True, False])
def test_load_checkpoint__refuses_planted_code_by_name(tmp_path, zip_format):
    marker = tmp_path / "executed"
    content = {"model": {"weight": torch.ones(2)}, "extra": Planted(marker)}
    path = save(content, tmp_path, _use_new_zipfile_serialization=zip_format)

    with pytest.raises(UserError, match=rf"'{os.system.__module__}\.system'.*nothing was executed"):
        load_checkpoint(path)
    assert not marker.exists()


def test_load_checkpoint__the_planted_code_would_have_run(tmp_path):
    marker = tmp_path / "executed"
    torch.load(save({"extra": Planted(marker)}, tmp_path), weights_only=False)
    assert marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_load_checkpoint__executes_nothing_of_a_bare_pickle(tmp_path, protocol):
    marker, path = tmp_path / "executed", tmp_path / "checkpoint.pth"
    path.write_bytes(pickle.dumps({"extra": Planted(marker)}, protocol=protocol))

    with pytest.raises(UserError, match=r"checkpoint\.pth"):
        load_checkpoint(path)
    assert not marker.exists()


def test_load_checkpoint__refuses_whole_modules(tmp_path):
    path = save({"model": torch.nn.Linear(2, 2)}, tmp_path)
    with pytest.raises(UserError, match=r"'torch\.nn\.modules\.linear\.Linear'"):
        load_checkpoint(path)


def test_load_checkpoint__restores_a_yacs_config_without_yacs(tmp_path, monkeypatch):
    config = {"MODEL": {"TYPE": "swin"}, "DATA": {"IMG_SIZE": 192}}
    path = save_with_yacs_config(tmp_path, monkeypatch, config)
    assert "yacs.config" not in sys.modules
    allowed_before = set(torch.serialization.get_safe_globals())

    loaded = load_checkpoint(path)["config"]

    assert isinstance(loaded, dict) and loaded == config
    assert set(torch.serialization.get_safe_globals()) == allowed_before


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("kept_ratio", [0.0, 0.01, 0.5, 0.999])
def test_load_checkpoint__names_a_truncated_file(tmp_path, zip_format, kept_ratio):
    content = {"model": {"weight": torch.ones(1000)}}
    path = save(content, tmp_path, _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept_ratio)])

    with pytest.raises(UserError, match=r"checkpoint\.pth is truncated, damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", bytes(range(256)) * 20])
def test_load_checkpoint__names_a_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"page\.pth is truncated, damaged, or not a checkpoint"):
        load_checkpoint(path)


def test_load_checkpoint__names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")


def test_load_checkpoint__refuses_what_is_not_a_dictionary(tmp_path):
    with pytest.raises(UserError, match="holds a list, not a dictionary"):
        load_checkpoint(save([torch.ones(2)], tmp_path))
