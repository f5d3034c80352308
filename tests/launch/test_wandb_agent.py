"""`examples/wandb_sweep.yaml`, by the code of W&B's own agent, without a server."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.wandb_agent import Agent
from wandb_files import wandb_records

from ssl_swin.launch.composing import composed_for_user

ROOT = Path(__file__).parents[2]
SWEEP = yaml.safe_load((ROOT / "examples/wandb_sweep.yaml").read_text())
VALUES = {"optim.base_lr": 0.00037512345, "optim.weight_decay": 1.0e-2}
TINY = (
    "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2] data.prepare.num_train=16 "
    "data.prepare.num_val=8 batch_size=4 num_workers=0 trainer.max_epochs=2 "
    "trainer.check_val_every_n_epoch=1 trainer.accelerator=cpu trainer.enable_progress_bar=false"
).split()


def command(values: dict[str, Any]) -> dict[str, Any]:
    """What a server sends to an agent."""
    args = {key: {"value": value} for key, value in values.items()}
    return {"type": "run", "run_id": "t1a2b3c4", "program": "", "args": args}


def test_sweep__is_the_search_of_the_same_name() -> None:
    search = yaml.safe_load((ROOT / "conf/search/pretrain_lr.yaml").read_text())
    assert SWEEP["metric"]["name"] == search["optimized_metric"]
    assert SWEEP["run_cap"] == search["hydra"]["sweeper"]["n_trials"]
    for key, words in search["hydra"]["sweeper"]["params"].items():
        own = SWEEP["parameters"].pop(key)
        assert own["distribution"] == "log_uniform_values"
        low, high = words.removeprefix("tag(log, interval(").rstrip(")").split(", ")
        assert (own["min"], own["max"]) == (float(low), float(high))
    assert not SWEEP["parameters"]


def test_sweep__its_commands_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "t1a2b3c4")
    words = create_sweep_command(list(SWEEP["command"]))
    assert words[:2] == ["ssl-swin", "pretrain"]
    assert words.count("${args_no_hyphens}") == 1
    variables = create_sweep_command_args(command(VALUES))
    rest = [word for word in words[2:] if not word.startswith("${")]
    cfg = composed_for_user("pretrain", [*rest, *variables["args_no_hyphens"]])
    assert cfg.run_dir == "runs/pretrain/lr_t1a2b3c4"
    assert (cfg.optim.base_lr, cfg.optim.weight_decay) == tuple(VALUES.values())


def run_by_agent(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Have the code of the agent start a trial with its environment, and wait for its end."""
    agent = SimpleNamespace(
        _sweep_command=words,
        _in_jupyter=False,
        _function=None,
        _forward_signals=False,
        _run_processes={},
    )
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # which the agent sets
        monkeypatch.setenv(name, "")
    Agent._command_run(agent, command(VALUES))
    status = agent._run_processes["t1a2b3c4"].wait()
    return 0 if status is None else int(status)


@pytest.mark.slow
def test_sweep__a_trial_runs_and_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s5")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", programs)
    words = [*SWEEP["command"], *TINY]
    assert run_by_agent([*words, "trainer.max_time=00:00:00:01"], monkeypatch) == 75
    assert run_by_agent(words, monkeypatch) == 0
    folder = tmp_path / "runs/pretrain/lr_t1a2b3c4"
    (path,) = folder.glob("wandb/offline-run-*/run-t1a2b3c4.wandb")
    records = list(wandb_records(path))
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.sweep_id) for run in runs} == {("t1a2b3c4", "s5")}
    config = {item.key: item.value_json for run in runs for item in run.config.update}
    assert "0.00037512345" in config["optim.base_lr"]
    summary = {
        item.key or "/".join(item.nested_key)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert "val/loss" in summary
