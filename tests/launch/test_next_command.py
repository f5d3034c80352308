"""Commands to paste, and the names of a sweep's folders."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ssl_swin.errors import UserError
from ssl_swin.jobs.next_steps import after_finetuning, missing_for_labels
from ssl_swin.launch.build import _check_channels
from ssl_swin.launch.command_line import (
    MODULE,
    SCRIPTS,
    options_of_user_files,
    words_to_start,
)
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.next_command import data_overrides, job_line
from ssl_swin.launch.resolvers import job_folder, one_folder, register_resolvers
from ssl_swin.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-swin"])
    monkeypatch.setenv("PATH", "")
    register_resolvers()
    yield tmp_path
    GlobalHydra.instance().clear()


def started(job: str, *overrides: str) -> dict[str, Any]:
    """The group `data` of a job that was started so; Hydra then knows its command line."""
    cfg = compose_job(job, overrides)
    return OmegaConf.to_container(cfg.data, resolve=True)  # type: ignore[return-value]


def taken(path: str) -> None:
    run = RunFolder(path)
    run.start({}, {})
    run.results.touch()


def test_job_line__takes_a_free_folder() -> None:
    words = ["data=shards", "data.root=x"]
    line = "ssl-swin pretrain data=shards data.root=x"
    assert job_line("pretrain", words) == line
    taken("runs/pretrain/swin_nano_shards")
    assert job_line("pretrain", words) == f"{line} name=swin_nano_shards_2"
    Path("runs/pretrain/swin_nano_shards_2").mkdir()
    assert job_line("pretrain", words) == f"{line} name=swin_nano_shards_3"


def test_job_line__takes_a_batch_that_the_images_fill() -> None:
    assert job_line("pretrain", ["data=cifar10"], num_train=128).endswith("data=cifar10")
    assert job_line("pretrain", ["data=cifar10"], num_train=127).endswith(" batch_size=126")
    assert job_line("pretrain", ["data=cifar10"], num_train=1).endswith(" batch_size=1")


def test_job_line__names_a_run_whose_backbone_has_a_name_too_long() -> None:
    line = job_line("finetune", [f"backbone=runs/pretrain/{'x' * 198}"])
    (name,) = [word for word in shlex.split(line) if word.startswith("name=")]
    assert name.startswith("name=xxx")
    assert len(name) < 170


def test_job_line__leaves_hydra_as_it_was() -> None:
    started("pretrain", "seed=5")
    before = HydraConfig.instance().cfg
    job_line("finetune", ["backbone=x"])
    job_line("finetune", ["no.such.setting=1"])
    assert HydraConfig.instance().cfg is before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], ["data=demo"]),
        (["data.prepare.num_train=40", "seed=1"], ["data=demo", "data.prepare.num_train=40"]),
        (
            ["data=folder", 'data.root="a b"', "data.mean=[0,0,0]"],
            ["data=folder", 'data.root="a b"', "data.mean=[0,0,0]"],
        ),
    ],
)
def test_data_overrides__are_those_of_the_command_line(
    told: list[str], expected: list[str]
) -> None:
    assert data_overrides("linear_probe", started("pretrain", *told)) == expected


def test_data_overrides__have_what_an_experiment_sets(folder: Path) -> None:
    experiment = folder / "conf/experiment/mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(
        "# @package _global_\ndefaults:\n  - override /data: shards\n"
        "data:\n  root: its $(x)\n  mean: [0, 0, 0.5]\n"
    )
    data = started("pretrain", "experiment=mine")
    found = data_overrides("finetune", data)
    assert found == ["data=shards", '++data.root="its $(x)"', "++data.mean=[0,0,0.5]"]
    assert started("finetune", *found, "backbone=x") == data


def test_job_line__composes_with_files_of_any_folder(folder: Path) -> None:
    file = folder / "it's [x]" / "data/my=1.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("defaults: [shards, _self_]\nroot: x\n")
    options = ["--config-dir", "it's [x]"]
    line = job_line("pretrain", ['data="my=1"'], options, num_train=10)
    assert shlex.split(line)[2:] == [*options, 'data="my=1"', "batch_size=10"]


def test_options_of_user_files__are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    search = "hydra.searchpath=[file://x]"
    for told in (["--config-dir", "a b"], ["--config-dir=a b"], ["-cd", "a b"]):
        monkeypatch.setattr(sys, "argv", ["ssl-swin", "pretrain", *told, "seed=1"])
        assert options_of_user_files([search]) == ["--config-dir", "a b", search]


def test_words_to_start__name_the_script_and_interpreter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("else where", "."):
        Path(place).mkdir(exist_ok=True)
        for name in SCRIPTS:
            Path(place, name).touch()
    monkeypatch.setattr(sys, "argv", [f"{folder}/else where/pretrain.py"])
    assert words_to_start("finetune") == [sys.executable, f"{folder}/else where/finetune.py"]
    monkeypatch.setattr(sys, "argv", ["pretrain.py"])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert words_to_start("linear_probe") == ["python", "linear_probe.py"]
    monkeypatch.setattr(sys, "argv", [MODULE.as_posix()])
    assert words_to_start("linear_probe") == ["python", "-m", "ssl_swin", "linear-probe"]


@pytest.mark.parametrize("started", ["-c", "pretrain.py", "/lib/pytest/__main__.py", ""])
def test_words_to_start__of_programs_that_are_not_ours(
    started: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script of a user may be called like ours, and any module has a __main__.py."""
    Path("pretrain.py").touch()
    monkeypatch.setattr(sys, "argv", [started])
    assert words_to_start("linear_probe") == ["ssl-swin", "linear-probe"]


def test_after_finetuning__repeats_the_whole_command() -> None:
    started("finetune", "backbone=x", 'data.root="a b"', "seed=3", "name=mine", "resume=never")
    folder = SimpleNamespace(address="runs/a b", path=Path("runs/a b"))
    run: Any = SimpleNamespace(folder=folder, config={"data": {"root": "my photos", "bands": None}})
    predict, repeat = after_finetuning(run)
    assert predict == (
        "ssl-swin predict 'runs/a b' 'my photos' 'runs/a b/predictions.csv'  # or of other images"
    )
    run.config["data"]["bands"] = [0, 1, 2]
    assert after_finetuning(run) == [repeat]
    run.config["data"]["bands"] = None
    folder.path.mkdir(parents=True)
    (folder.path / "predictions.csv").touch()
    assert after_finetuning(run) == [
        "ssl-swin finetune --multirun backbone=x 'data.root=\"a b\"' seed=0,1,2"
        "  # how much is chance",
    ]


def split(classes: tuple[str, ...]) -> Any:
    return SimpleNamespace(classes=classes)


@pytest.mark.parametrize(
    ("readers", "missing"),
    [
        ({"train": split(()), "val": split(())}, "labels, which these images do not have: "),
        ({"train": split(("a",)), "val": split(("a",))}, "labels, which these images do not have"),
        ({"train": split(("a", "b"))}, "a val split, which this data does not have: pack the"),
        ({"train": split(("a", "b")), "val": split(("a", "b"))}, ""),
    ],
)
def test_missing_for_labels(readers: dict[str, Any], missing: str) -> None:
    found = missing_for_labels(readers)
    assert found.startswith(missing)
    assert bool(found) == bool(missing)


@pytest.mark.parametrize(
    ("wanted", "channels", "message"),
    [
        (
            3,
            1,
            "the backbone takes images of 3 channels, and data.channels is 1: leave data.channels, "
            "data.mean and data.std alone: gray is repeated",
        ),
        (
            1,
            3,
            "the backbone takes images of 1 channel, and data.channels is 3: set data.channels=1 "
            "data.mean=[0.5] data.std=[0.25]: of colours the luma is taken",
        ),
        (
            4,
            3,
            "the backbone takes images of 4 channels, and data.channels is 3: set data.channels=4 "
            "data.mean=[0.5,0.5,0.5,0.5] data.std=[0.25,0.25,0.25,0.25]",
        ),
    ],
)
def test_check_channels__sends_nobody_in_a_circle(wanted: int, channels: int, message: str) -> None:
    encoder = SimpleNamespace(in_chans=wanted)
    backbone: Any = SimpleNamespace(encoder=encoder, mean=(0.5,) * wanted, std=(0.25,) * wanted)
    with pytest.raises(UserError) as error:
        _check_channels(OmegaConf.create({"channels": channels}), backbone)
    assert str(error.value) == message
    _check_channels(OmegaConf.create({"channels": wanted}), backbone)


def test_job_folder__finds_the_folders_of_earlier_versions(folder: Path) -> None:
    new = job_folder("objective.mask_ratio=0.5", "x", str(folder))
    assert new == "objective.mask_ratio-0.5"
    (folder / "objective.mask_ratio=0.5").mkdir()
    assert job_folder("objective.mask_ratio=0.5", "x", str(folder)) == "objective.mask_ratio=0.5"
    (folder / "backbone=runs_x").mkdir()
    assert job_folder("backbone=runs/x", "x", str(folder)) == "backbone=runs_x"


def test_job_folder__of_a_sweep_over_names_is_the_name(folder: Path) -> None:
    assert [job_folder("", name, str(folder)) for name in ("a", "b")] == ["a", "b"]


def test_job_folder__of_fifty_overrides_is_short(folder: Path) -> None:
    overrides = ",".join(f"some.long.key_{i}={np.pi * i}" for i in range(50))
    assert len(job_folder(overrides, "x", str(folder))) == 150


def test_one_folder__refuses_what_is_none() -> None:
    assert one_folder("a b") == "a b"
    with pytest.raises(UserError, match="is a path"):
        one_folder("..")
