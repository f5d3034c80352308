"""A configuration is held against the signatures of what it configures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt
from omegaconf import OmegaConf

from ssl_swin.arguments import accepts, in_words
from ssl_swin.errors import UserError
from ssl_swin.jobs.settings import (
    DetectSettings,
    FinetuneSettings,
    LinearProbeSettings,
    PretrainSettings,
    SegmentSettings,
)
from ssl_swin.launch.check import check_settings
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.settings import MAY_CHANGE, ArgumentsOf, Built, MayChange, changeable
from ssl_swin.launch.signatures import signature_of

CONF = Path(__file__).parents[2] / "ssl_swin" / "conf"
JOBS = {
    "pretrain": PretrainSettings,
    "finetune": FinetuneSettings,
    "linear_probe": LinearProbeSettings,
    "segment": SegmentSettings,
    "detect": DetectSettings,
}


def passed_on(*, rate: float, **rest: Any) -> None: ...


class Base:
    def __init__(self, folder: str | Path, *, every_n_steps: int | None = None) -> None: ...


class Derived(Base):
    def __init__(self, *, bands: Sequence[int], **base: Any) -> None: ...


def optimizer(model: object, *, lr: float, betas: tuple[float, float], policy: str) -> None: ...


@dataclass(frozen=True)
class Labels:
    ratio: float | None = None
    seed: Annotated[int, MAY_CHANGE] = 0


@dataclass(frozen=True)
class Settings:
    seed: Annotated[int, Ge(0)]
    size_px: int | tuple[int, int] | None
    optim: Built
    labels: Labels
    mixing: Annotated[
        dict[str, Any], ArgumentsOf(optimizer, frozenset({"model", "betas", "policy"}))
    ]
    callbacks: Annotated[dict[str, Any], MAY_CHANGE]
    trainer: Annotated[Built, MayChange(("devices", "strategy"))]
    recipe: dict[str, Any] | None = None


GOOD: dict[str, Any] = {
    "seed": 0,
    "size_px": [64, 32],
    "optim": {
        "_target_": f"{__name__}.optimizer",
        "_partial_": True,
        "lr": 1,
        "betas": [0.9, 0.999],
        "policy": "x",
    },
    "labels": {"ratio": None, "seed": 3},
    "mixing": {"lr": 0.5},
    "callbacks": {
        "none": None,
        "saved": {"_target_": f"{__name__}.Derived", "bands": [0, 1], "folder": "x"},
    },
    "trainer": {"_target_": f"{__name__}.passed_on", "rate": 0.1, "unknown": "text"},
}


def changed(dotted: str, value: Any) -> dict[str, Any]:
    config: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(GOOD))
    node = config
    *path, last = dotted.split(".")
    for key in path:
        node = node[key]
    node[last] = value
    return config


def test_check_settings__accepts_what_fits() -> None:
    check_settings(GOOD, Settings)
    check_settings(changed("size_px", None), Settings)
    check_settings(changed("recipe", {"title": "any"}), Settings)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "many", "seed must be a whole number of at least 0, got 'many'"),
        ("seed", -1, "seed must be a whole number of at least 0, got -1"),
        ("seed", True, "seed must be a whole number of at least 0, got true"),
        ("seed", 1.5, "seed must be a whole number of at least 0, got 1.5"),
        (
            "size_px",
            [1, 2, 3],
            "size_px must be a whole number or a list of 2 whole numbers or null, got [1, 2, 3]",
        ),
        ("optim.lr", "1", "optim.lr must be a number, got '1'"),
        ("optim.lr", None, "optim.lr must be a number, got null"),
        ("optim.betas", [0.9], "optim.betas must be a list of 2 numbers, got [0.9]"),
        ("optim.policy", 3, "optim.policy must be text, got 3"),
        ("optim.bettas", 3, "there is no setting optim.bettas, did you mean betas?"),
        ("optim", 3, "optim must be a group of settings, got 3"),
        ("labels", None, "labels must be a group of settings, got null"),
        ("labels.ratio", "few", "labels.ratio must be a number or null, got 'few'"),
        ("labels.seeds", 1, "there is no setting labels.seeds, did you mean seed?"),
        ("mixing.lr", "x", "mixing.lr must be a number, got 'x'"),
        ("mixing.zzz", 1, "there is no setting mixing.zzz; known are lr"),
        ("callbacks.saved.bands", [0.5], "callbacks.saved.bands must be a list of whole numbers"),
        ("callbacks.saved.folder", 7, "callbacks.saved.folder must be text or a path, got 7"),
        ("callbacks.saved.every_n_step", 7, "did you mean every_n_steps?"),
        ("callbacks.saved._target_", "ssl_swin.SimNIM", "there is no ssl_swin.SimNIM"),
        ("callbacks.saved._target_", "ssl_swin.__version__", "nothing that can be called"),
        ("trainer.rate", "x", "trainer.rate must be a number, got 'x'"),
        ("sead", 1, "there is no setting sead, did you mean seed?"),
    ],
)
def test_check_settings__refuses(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        check_settings(changed(key, value), Settings)
    assert message in str(refusal.value)


def test_check_settings__of_a_group_inside_one_that_is_built() -> None:
    inner = {"_target_": f"{__name__}.Derived", "bands": ["red"], "folder": "x"}
    with pytest.raises(UserError, match=r"trainer\.unknown\.bands must be a list of whole"):
        check_settings(changed("trainer.unknown", inner), Settings)


def test_check_settings__names_what_is_not_set() -> None:
    config = {key: value for key, value in GOOD.items() if key != "seed"}
    with pytest.raises(UserError, match="seed is not set: give it as seed=VALUE"):
        check_settings(config, Settings)


def test_changeable__reads_the_marks() -> None:
    assert set(changeable(Settings)) == {
        "labels.seed",
        "callbacks",
        "trainer.devices",
        "trainer.strategy",
    }


def test_changeable__of_the_jobs_is_what_it_was_in_0_1_0() -> None:
    everywhere = {"batch_size", "num_workers", "logger", "recipe"} | {
        f"data.{key}"
        for key in (
            "root",
            "index_dir",
            "cache",
            "max_bad_samples",
            "max_bad_ratio",
            "prepare",
            "how_to_make",
            "max_image_pixels",  # came later; runs of 0.1.0 have neither limit
            "max_image_bytes",
            *("labels", "splits", "masks", "leave_out"),  # of data=folder, since 0.2.0
            *("annotations", "first_pixel"),  # of data=coco and its like, likewise
        )
    }
    trained = {"resume", "compile", "callbacks", "plan", "optimized_metric", "kernels"} | {
        f"trainer.{key}"
        for key in (
            "accelerator",
            "devices",
            "num_nodes",
            "accumulate_grad_batches",
            "strategy",
            "timeout_s",
            "enable_progress_bar",
            "log_every_n_steps",
            "num_sanity_val_steps",
            "max_time",  # came later
            "sharded_checkpoints",  # came later
            "progress_every_s",  # came later
            "sync_batchnorm",  # came later
        )
    }
    assert set(changeable(PretrainSettings)) == everywhere | trained
    assert set(changeable(FinetuneSettings)) == everywhere | trained | {
        "test_img_size_px",
        "head",  # came later; only the first start reads it
    }
    assert set(changeable(LinearProbeSettings)) == everywhere | {"features.folder"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


OF_TASKS = (
    *("from_backbone", "adamw_layer_decay", "adamw_dense", "adamw_detection"),
    "sgd_detection",
    *("poly", "dense_multistep"),
)
GROUPS = ("model", "objective", "data", "optim", "schedule", "logger")
IN_PRETRAINING = [
    (group, option) for group in GROUPS for option in options(group) if option not in OF_TASKS
]
SHIPPED = [
    *(("pretrain", f"{group}={option}") for group, option in IN_PRETRAINING),
    *((name.partition("_")[0], f"experiment={name}") for name in options("experiment")),
    *((job, f"data={name}") for name in options("data") for job in ("finetune", "linear_probe")),
    ("finetune", "model=swin_t"),
    ("finetune", "optim=adamw_layer_decay"),
    *(("segment", f"data={name}") for name in ("masks", "ade20k", "shards")),
    ("segment", "model=swin_t"),
    *(("detect", f"data={name}") for name in ("coco", "voc", "yolo", "shards")),
    *(("detect", f"task={name}") for name in ("mask_rcnn", "cascade_mask_rcnn")),
    *(("detect", f"semi={name}") for name in options("semi")),
    ("detect", "model=swin_t"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("job", "override"), SHIPPED)
def test_check_settings__accepts_every_configuration_of_the_package(
    job: str, override: str
) -> None:
    register_resolvers()
    needed = ["data.root=somewhere"] + ([] if job == "pretrain" else ["backbone=some"])
    if job == "segment":
        needed.append("classes=[background,nucleus]")
    if "distillation" in override or "_fd_" in override:
        needed.append("objective.teacher=some")
    cfg = compose_job(job, [override, *needed])
    check_settings(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), JOBS[job])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "override", "message"),
    [
        ("pretrain", "+optim.bas_lr=1", "there is no setting optim.bas_lr, did you mean base_lr?"),
        ("pretrain", "+trainer.max_epoch=1", "trainer.max_epoch, did you mean max_epochs"),
        ("pretrain", "trainer.devices=1.5", "trainer.devices must be"),
        ("pretrain", "trainer.precision=17", "trainer.precision must be"),
        ("pretrain", "callbacks.last.every_n_epochs=often", "callbacks.last.every_n_epochs must"),
        ("pretrain", "model.depths=[a]", "whole numbers of at least 1, not empty, got ['a']"),
        ("pretrain", "model.num_heads=[1,a,2]", "model.num_heads must be a list of whole numbers"),
        ("pretrain", "augment.crop_scale=[0.5]", "augment.crop_scale must be a list of 2 numbers"),
        ("pretrain", "data.order.lanes=x", "lanes must be a whole number of at least 1, got 'x'"),
        ("pretrain", "data.mean=0.5", "data.mean must be a list of numbers, got 0.5"),
        ("pretrain", "+sede=1", "there is no setting sede, did you mean seed or schedule?"),
        ("pretrain", "compile=1", "compile must be true or false, got 1"),
        ("finetune", "task.mixup_alpha=x", "mixup_alpha must be a number of at least 0, got 'x'"),
        ("finetune", "+model.depths=[2]", "there is no setting model.depths"),
        ("linear_probe", "linear.optimizer=adam", "linear.optimizer must be sgd or lars"),
        ("linear_probe", "knn.ks=5", "knn.ks must be a list of whole numbers in [1, 10000]"),
        ("linear_probe", "stages=[x]", "at least 1, not empty, each once or null, got ['x']"),
    ],
)
def test_check_settings__of_the_jobs(job: str, override: str, message: str) -> None:
    register_resolvers()
    needed = [] if job == "pretrain" else ["backbone=some"]
    cfg = compose_job(job, [override, *needed])
    with pytest.raises(UserError) as refusal:
        check_settings(OmegaConf.to_container(cfg, resolve=True), JOBS[job])
    assert message in str(refusal.value)


def test_signature_of__follows_keywords_to_the_base_class() -> None:
    signature = signature_of(Derived)
    assert list(signature.types) == ["bands", "folder", "every_n_steps"]
    assert signature.required == {"bands"}
    assert not signature.takes_others
    assert signature_of(passed_on).takes_others


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "a whole number or null"),
        (Literal["sgd", "lars"], "sgd or lars"),
        (tuple[float, float], "a list of 2 numbers"),
        (tuple[str, ...], "a list of words"),
        (list[bool], "a list of flags"),
        (Annotated[float, Gt(0)], "a number above 0"),
        (str | Path, "text or a path"),
        (dict[str, int], "a group of settings"),
        (Base, "a Base"),
    ],
)
def test_in_words(annotation: Any, words: str) -> None:
    assert in_words(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (float, [1, 0.5], ["1", True, None, [1], float("inf"), float("nan")]),
        (int, [1, -3], [1.0, "1", False]),
        (bool, [True], [1, "true", None]),
        (str | Path, ["x"], [1]),
        (Sequence[int], [[1], []], [["a"], 1, "12"]),
        (Any, [1, "x", None], []),
        (Callable[[int], int] | None, [None], []),
        ("Nowhere", [1], []),
    ],
)
def test_accepts(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(accepts(annotation, value) for value in good)
    assert not any(accepts(annotation, value) for value in bad)
