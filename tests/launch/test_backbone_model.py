"""Which model a pretraining has that starts from weights."""

from pathlib import Path

import pytest

import ssl_swin
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.overrides import readable
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.weights.backbone import load_backbone, save_backbone

OWN = "model=from_backbone"


@pytest.mark.parametrize(
    ("options", "is_own"),
    [
        (["backbone=runs/x"], True),
        (["data=shards", "backbone=it's = x"], True),
        (["backbone=a", "model.drop_path_rate=0.2", "model.img_size_px=96"], True),
        (["-m", "backbone=a,b"], True),
        (["backbone=a", "model=swin_t"], False),
        (["backbone=a", "model.embed_dim=8"], False),
        (["backbone=a", "+model.depths=[1]"], False),
        (["backbone=a", "experiment=pretrain_small"], False),
        (["backbone=none"], False),
        (["backbone=null"], False),
        (["-m", "backbone=a,null"], False),
        (["model.drop_path_rate=0.2"], False),
    ],
)
def test_readable__pretraining_takes_the_architecture_of_weights(
    options: list[str], is_own: bool
) -> None:
    assert (readable("pretrain", options)[-1] == OWN) is is_own


def test_readable__leaves_other_jobs_alone() -> None:
    assert readable("finetune", ["backbone=runs/x"]) == ["backbone=runs/x"]


def test_pretrain__is_named_after_the_weights_whose_architecture_it_takes() -> None:
    register_resolvers()
    for options, name in (
        (["backbone=runs/pretrain/mine"], "mine_demo"),
        (["backbone=runs/pretrain/mine", "model=swin_t"], "swin_t_demo"),
        (["model=swin_t"], "swin_t_demo"),
    ):
        assert compose_job("pretrain", readable("pretrain", options)).name == name


def test_how_to_make__can_be_pasted_whatever_the_name() -> None:
    register_resolvers()
    cfg = compose_job("pretrain", ["data=shards", 'data.root="$(touch x) it\'s"'])
    made = "Make it with: ssl-swin pack FOLDER_OF_IMAGES '$(touch x) it'\"'\"'s'"
    assert cfg.data.how_to_make == made
    cfg = compose_job("pretrain", ["data=remote", "data.root=-shards"])
    assert "ssl-swin index ./-shards --out DIR" in cfg.data.how_to_make


@pytest.mark.slow
def test_pretrain__of_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder
) -> None:
    """No model is named, and the default one is another than that of the weights."""
    monkeypatch.chdir(tmp_path)
    save_backbone(Path("mine"), tiny_encoder(), mean=[0.485] * 3, std=[0.229] * 3, card="")
    run = ssl_swin.pretrain(
        [
            *("backbone=mine", "data.prepare.num_train=16", "data.prepare.num_val=8"),
            *("batch_size=8", "num_workers=0", "logger=csv", "trainer.accelerator=cpu"),
            *("trainer.max_epochs=1", "trainer.enable_progress_bar=false"),
            *("callbacks.probes=null", "callbacks.reconstructions=null"),
            "eval_crop_ratio=1",
        ]
    )
    assert run == Path("runs/pretrain/mine_demo")
    trained = load_backbone(run).encoder
    assert trained.model_args == load_backbone("mine").encoder.model_args
    assert '"crop_pct": 1' in (run / "backbone" / "config.json").read_text()
