"""Overrides as people type them."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_swin.errors import UserError
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.overrides import readable
from ssl_swin.launch.resolvers import register_resolvers


def value_of(option: str) -> object:
    (read,) = readable("pretrain", [option])
    return OverridesParser.create().parse_override(read).value()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed=3", 3),
        ("data.mean=[0.5,0.5]", [0.5, 0.5]),
        ("resume=runs/x/epoch=3-step=10.ckpt", "runs/x/epoch=3-step=10.ckpt"),
        ("data.root=a (copy)/photos", "a (copy)/photos"),
        ("data.root=it's", "it's"),
        ('data.root=say "a=b"', 'say "a=b"'),
        ("data.root=a=b\\", "a=b\\"),
        ("+trainer.max_time=00:00:00:05", "00:00:00:05"),
        ("batch_size=4)", "4)"),
    ],
)
def test_readable__keeps_the_value(option: str, value: object) -> None:
    assert value_of(option) == value


def test_readable__home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert value_of("data.root=~/photos") == "/somewhere/photos"
    assert value_of("data.root=~/a=b") == "/somewhere/a=b"


def test_readable__flags_come_first_wherever_they_stand() -> None:
    options = ['hydra.run.dir="."', "-m", "seed=0,1", "-cd", "my=folder=x", "experiment=null"]
    assert readable("pretrain", options) == [
        "--multirun",
        "--config-dir=my=folder=x",
        'hydra.run.dir="."',
        "seed=0,1",
    ]


def test_readable__an_interpolation_stays_one() -> None:
    register_resolvers()
    options = ["data=shards", "data.root=${name}/a=b", "name=x"]
    assert compose_job("pretrain", readable("pretrain", options)).data.root == "x/a=b"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("logger=null", "logger=null: logger is a group, choose one of: csv, tensorboard, wandb"),
        ("~logger", "~logger: logger is a group, choose one of: csv, tensorboard, wandb"),
        ("objective=[1]", "objective is a group, choose one of: distillation, ibot, ibot_sparse, "),
        ("objective={a: 1}", "objective is a group"),
        ("model=3", "model is a group, choose one of: convnext_b, "),
        ("schedule=true", "schedule is a group, choose one of: cosine"),
        ("data=''", "data is a group"),
        ("hydra.run.dir=x", "has no effect here: give the folder of a run as run_dir=FOLDER"),
        ("~hydra", "~hydra: hydra is a group"),
        ("seed", "seed has no value: give it as seed=VALUE"),
        ("seed[0]=3", "cannot read 'seed[0]=3': give settings as key=value"),
        ("seed=0,1", "seed=0,1 gives several values: add --multirun"),
        ("model=[swin_t]", "model=[swin_t]: model takes one of: convnext_b, "),
        ("+model=swin_t", "give a group without +, as model=swin_t"),
        ("model@x=swin_t", "model has one place"),
        ("hydra/launcher=submitit_slurm", "has an effect with --multirun alone"),
        ("hydra.sweeper=3", "hydra.sweeper=3: choose one by hydra/sweeper=NAME"),
        ("hydra.launcher=basic", "hydra.launcher=basic: choose one by hydra/launcher=NAME"),
        ("hydra.searchpath=[file:///nowhere]", "'file:///nowhere' is no folder"),
        ("--mutlirun", "there is no option --mutlirun, did you mean --multirun"),
        ("--cfg=x", "--cfg must be job or hydra or all, got 'x'"),
        ("--config-dir", "--config-dir needs a value"),
        ("--config-name=x", "--config-name is not for a job"),
        ("data_overrides=foo", "there is no data_overrides=foo; data_overrides can be: demo"),
        ("data_overrides=dem", "there is no data_overrides=dem, did you mean demo?"),
        (
            "experiment=finetune_small",
            "experiment=finetune_small is a recipe of another job: ssl-swin finetune",
        ),
    ],
)
def test_readable__refuses(option: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        readable("pretrain", [option])
    assert message in str(refusal.value)


def test_compose_job__a_folder_of_configurations_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        compose_job("pretrain", [], config_dir=tmp_path / "nowhere")
