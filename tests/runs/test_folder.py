import json
import platform
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
import yaml

from ssl_swin.errors import UserError
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.provenance import RECORDED_PACKAGES
from ssl_swin.runs.resume import checkpoint_to_resume

CONFIG = {
    "name": "first",
    "seed": 0,
    "num_workers": 2,
    "data": {"root": "images", "split": "train", "mean": [0.5, 0.5, 0.5]},
    "optim": {"lr": 1e-4, "betas": [0.9, 0.999]},
    "logger": {"offline": True},
    "trainer": {"max_epochs": 3, "devices": 1, "accelerator": "cpu"},
}


MAY_CHANGE = (
    "resume",
    "num_workers",
    "data.root",
    "logger",
    "trainer.devices",
    "trainer.accelerator",
)


def start_of(run: RunFolder, resume: str, config: dict) -> Path | None:
    return checkpoint_to_resume(run, resume, config, MAY_CHANGE).checkpoint


def save(path: Path, step: int = 1, **others: object) -> None:
    path.parent.mkdir(exist_ok=True)
    content = {"state_dict": {"w": torch.ones(3)}, "loops": {}, "optimizer_states": []}
    torch.save({**content, "global_step": step, **others}, path)


def changed(dotted: str, value: object) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *path, last = dotted.split(".")
    node = config
    for key in path:
        node = node[key]
    node[last] = value
    return config


@pytest.fixture
def new_run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "pretrain" / "first")


@pytest.fixture
def run(new_run) -> RunFolder:
    """A run that was started with CONFIG and has left a checkpoint."""
    new_run.start(CONFIG, {})
    save(new_run.last_checkpoint)
    return new_run


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_checkpoint_to_resume__nothing_there_starts_afresh(new_run, resume):
    assert start_of(new_run, resume, CONFIG) is None
    assert not new_run.path.exists()  # the decision comes before anything is written


def test_checkpoint_to_resume__auto_continues_the_same_run(run):
    assert start_of(run, "auto", CONFIG) == run.path / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_checkpoint_to_resume__a_failed_start_may_be_repeated_and_changed(new_run, resume):
    new_run.start(CONFIG, {})
    assert start_of(new_run, resume, changed("seed", 1)) is None


@pytest.mark.parametrize("result", ["backbone", "results.json"])
def test_checkpoint_to_resume__any_result_is_protected(new_run, result):
    new_run.start(CONFIG, {})
    (new_run.path / result).mkdir(parents=True)
    assert start_of(new_run, "auto", CONFIG) is None  # the same run, from the start
    with pytest.raises(UserError, match="another configuration"):
        start_of(new_run, "auto", changed("seed", 1))
    with pytest.raises(UserError, match="resume=never"):
        start_of(new_run, "never", CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_workers", 8),
        ("data.root", "elsewhere"),
        ("logger", None),
        ("logger.offline", False),
        ("logger.project", "new key"),
        ("trainer.devices", 4),
        ("trainer.accelerator", "gpu"),
        ("resume", "auto"),
    ],
)
def test_checkpoint_to_resume__what_may_change(run, key, value):
    assert start_of(run, "auto", changed(key, value)) == run.last_checkpoint


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("seed", 1, "seed: was 0, now 1"),
        ("optim.lr", 2e-4, "optim.lr: was 0.0001, now 0.0002"),
        ("data.mean", [0.4, 0.5, 0.5], "data.mean: was [0.5, 0.5, 0.5], now [0.4, 0.5, 0.5]"),
        ("trainer.max_epochs", 30, "trainer.max_epochs: was 3, now 30"),
        ("optim.eps", 1e-8, "optim.eps: was None, now 1e-08"),
        ("data.root_folder", "x", "data.root_folder: was None, now 'x'"),
        ("num_workers_too", 1, "num_workers_too: was None, now 1"),
        ("optim", None, "optim.lr: was 0.0001, now None"),
    ],
)
def test_checkpoint_to_resume__another_configuration(run, key, value, told):
    with pytest.raises(UserError, match=re.escape(f"\n  {told}\n")) as refusal:
        start_of(run, "auto", changed(key, value))
    message = str(refusal.value)
    assert message.startswith(f"{run.path} already holds a run with another configuration")
    assert "choose another name=" in message
    assert "num_workers:" not in message


def test_checkpoint_to_resume__lists_every_difference(run):
    config = changed("seed", 1) | {"name": "second", "num_workers": 7}
    with pytest.raises(UserError) as refusal:
        start_of(run, "auto", config)
    lines = str(refusal.value).splitlines()
    assert lines[1:-1] == ["  name: was 'first', now 'second'", "  seed: was 0, now 1"]


def test_checkpoint_to_resume__of_many_differences_shows_some_and_names_all(run):
    with pytest.raises(UserError) as refusal:
        start_of(run, "auto", CONFIG | {f"new{number}": number for number in range(5)})
    assert str(refusal.value).splitlines()[1:] == [
        "  new0: was None, now 0",
        "  new1: was None, now 1",
        "  and 3 more: new2, new3, new4",
        "set these back to continue that run, or choose another name=",
    ]


def test_checkpoint_to_resume__names_the_way_to_train_longer(run):
    (run.path.parent / "first_2").mkdir()
    with pytest.raises(UserError) as refusal:
        start_of(run, "auto", changed("trainer.max_epochs", 30))
    assert str(refusal.value).splitlines()[2:] == [
        "set these back to continue that run, or choose another name=",
        "to go on from its last step with these settings, add: name=first_3 "
        f"resume={run.last_checkpoint} (the learning rate is then that of the new schedule at this "
        "step)",
    ]


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("first run", """'name="first run_2"' 'resume="{}"'"""),
        ("elsewhere", "run_dir={0.parents[1]}_2 resume={0}"),
    ],
)
def test_checkpoint_to_resume__the_way_can_be_pasted(tmp_path, folder, options):
    run = RunFolder(tmp_path / folder)
    config = CONFIG | {"name": "first run"}
    run.start(config, {})
    save(run.last_checkpoint)
    with pytest.raises(UserError) as refusal:
        start_of(run, "auto", config | {"optim": {"lr": 1.0}})
    assert f"add: {options.format(run.last_checkpoint)} (the" in str(refusal.value)


@pytest.mark.parametrize("key", ["seed", "model.depth"])
def test_checkpoint_to_resume__names_no_way_where_there_is_none(run, key):
    config = changed("seed", 1) if key == "seed" else CONFIG | {"model": {"depth": 2}}
    with pytest.raises(UserError) as refusal:
        start_of(run, "auto", config)
    assert "add:" not in str(refusal.value)


def test_checkpoint_to_resume__never_leaves_an_old_run_alone(run):
    with pytest.raises(UserError, match="already holds a run and resume=never: choose another"):
        start_of(run, "never", CONFIG)


def test_checkpoint_to_resume__an_explicit_checkpoint(new_run, tmp_path):
    checkpoint = tmp_path / "epoch_7.ckpt"
    with pytest.raises(UserError, match=r"epoch_7\.ckpt: no such checkpoint \(use auto, never"):
        start_of(new_run, str(checkpoint), CONFIG)
    save(checkpoint)
    assert start_of(new_run, str(checkpoint), CONFIG) == checkpoint


@pytest.mark.parametrize("content", [b"a: [1", b"- a list", b"", b"a: \xff", b"[" * 900])
def test_checkpoint_to_resume__damaged_configuration(run, content):
    run.config.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml is damaged") as error:
        start_of(run, "auto", CONFIG)
    assert "\n" not in str(error.value)


def test_checkpoint_to_resume__aliases_do_not_multiply(run):
    """Written out, this configuration would have 10^9 values."""
    levels = [
        f"l{i}: &l{i} {{{', '.join(f'k{j}: *l{i - 1}' for j in range(10))}}}" for i in range(1, 10)
    ]
    run.config.write_text("\n".join(["l0: &l0 {a: 1}", *levels]))
    with pytest.raises(UserError, match="damaged: it has YAML aliases, which no run writes"):
        start_of(run, "auto", CONFIG)


def test_start__removes_what_a_killed_run_was_writing(new_run):
    run = RunFolder(new_run.path)
    new_run.start(CONFIG, {})
    unfinished = new_run.checkpoints / ".last.ckpt.ab12cd34.tmp"
    unfinished.mkdir(parents=True)
    (unfinished / "part").write_text("half")
    run.start(CONFIG, {})  # made before: it may be of another process of this very run
    assert unfinished.is_dir()
    time.sleep(0.02)  # times of files are a clock tick behind
    RunFolder(new_run.path).start(CONFIG, {})
    assert not unfinished.exists()


def test_identity__stays_with_the_folder(new_run, tmp_path):
    identity = new_run.identity()
    assert re.fullmatch("[0-9a-f]{10}", identity)
    new_run.start(CONFIG, {})
    assert RunFolder(str(new_run.path)).identity() == identity
    assert RunFolder(tmp_path / "other").identity() != identity


def test_start__writes_the_configuration_in_its_order(new_run):
    new_run.start(CONFIG, {})
    stored = yaml.safe_load(new_run.config.read_text())
    assert stored == CONFIG
    assert list(stored) == list(CONFIG)


def test_start__writes_where_the_run_comes_from(new_run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/private/pretrain.py", "data=folder", "seed=1"])
    new_run.start(CONFIG, {"data": {"train": "f00d"}})
    provenance = json.loads(new_run.provenance.read_text())

    assert provenance["command"] == ["pretrain.py", "data=folder", "seed=1"]
    age = datetime.now(UTC) - datetime.fromisoformat(provenance["started"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert provenance["python"] == platform.python_version()
    assert provenance["packages"].keys() == set(RECORDED_PACKAGES)
    assert provenance["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert provenance["git"] is None or re.match("[0-9a-f]{40}(-dirty)?$", provenance["git"])
    assert len(provenance["gpus"]) == torch.cuda.device_count()
    assert provenance["cpu_threads"] == torch.get_num_threads()
    assert provenance["data"] == {"train": "f00d"}


def test_finish__adds_up_the_time_of_a_continued_run(new_run):
    new_run.start(CONFIG, {})
    assert new_run.finish(10.0) == 10.0
    new_run.start(CONFIG, {}, resumed=True)
    assert new_run.finish(2.5) == 12.5
    record = json.loads(new_run.provenance.read_text())
    assert (record["status"], record["duration_s"]) == ("finished", 12.5)
    new_run.start(CONFIG, {})
    assert new_run.finish(1.0) == 1.0


def test_start__keeps_when_a_run_was_started_and_finish_what_to_do_next(new_run):
    new_run.start(CONFIG, {})
    first = json.loads(new_run.provenance.read_text())
    new_run.start(CONFIG, {}, resumed=True)
    second = json.loads(new_run.provenance.read_text())
    assert second["starts"] == [first["started"], second["started"]]
    new_run.finish(1.0, next_steps=["ssl-swin finetune"])
    assert json.loads(new_run.provenance.read_text())["next"] == ["ssl-swin finetune"]
    new_run.start(CONFIG, {}, resumed=False)
    afresh = json.loads(new_run.provenance.read_text())
    assert afresh["starts"] == [afresh["started"]]


def test_measured__outlasts_a_start_that_measures_nothing(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.start(CONFIG, {})
    assert run.measured() == ""
    run.finish(1.0, measured="train/loss 0.5")
    for told in ("", "train/loss 0.4"):
        run.start(CONFIG, {}, resumed=True)
        assert run.measured() == "train/loss 0.5"
        run.finish(1.0, measured=told)
    assert run.measured() == "train/loss 0.4"
    run.start(CONFIG, {})
    assert run.measured() == ""


@pytest.mark.parametrize("text", ["[]", "{", '{"measured": 3}'])
def test_measured__of_a_damaged_record_is_nothing(tmp_path, text):
    run = RunFolder(tmp_path)
    run.provenance.write_text(text)
    assert run.measured() == ""
