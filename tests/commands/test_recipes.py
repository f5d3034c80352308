"""Every experiment composes to the numbers of its official run, and says what to expect of it."""

import itertools
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from recipes_table import (
    BATCH_SIZE,
    GLOBAL_BATCH_SIZE,
    LAYER_OF,
    NUM_BLOCKS,
    OFFICIAL,
    STEPS_PER_EPOCH,
    WEIGHT_DECAY,
    Schedule,
)
from torch import nn

from ssl_swin.cli import main
from ssl_swin.commands.recipes import FACTS, Recipe, find_recipe, read_recipe, read_recipes
from ssl_swin.data import geometry, transforms
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.masking import num_masked_patches
from ssl_swin.optim.schedules import RunLength

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
OUR_OWN = {
    "pretrain_small",
    "finetune_small",
    "pretrain_swin_t_1gpu",
    "finetune_swin_t_1gpu",
    "segment_small",
    "detect_small",
}
OF_OTHER_OBJECTIVES = {
    name for name in EXPERIMENTS if re.match("pretrain_(fd|moby|ibot|refine)_", name)
}
OF_SEGMENTATION = {name for name in EXPERIMENTS if re.fullmatch("segment_.*_ade20k", name)}
OF_DETECTION = {name for name in EXPERIMENTS if re.fullmatch("detect_.*_[13]x", name)}
OF_SOFT_TEACHER = {name for name in EXPERIMENTS if name.startswith("detect_soft_teacher_")}
PRETRAINING = sorted(name for name in OFFICIAL if name.startswith("pretrain"))
FINETUNING = sorted(name for name in OFFICIAL if name.startswith("finetune"))

# Settings that say where and how to run, not what. Everything else is held against the table.
NOT_OF_THE_RECIPE = re.compile(
    r"(recipe|backbone|head|name|run_dir|resume|plan|optimized_metric|seed|num_workers|logger"
    r"|callbacks|kernels)(\.|$)|data\.(?!channels|dtype|mean|std)"
    r"|trainer\.(?!max_[es]|accumulate|gradient|limit)"
)


@cache
def composed(name: str, *overrides: str) -> DictConfig:
    job = name.partition("_")[0]
    needed = [] if job == "pretrain" else ["backbone=runs/pretrain/some"]
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = [f"experiment={name}", *needed, *overrides]
        cfg = compose(job, overrides=settings, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        OmegaConf.resolve(cfg)
    return cfg


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(cfg, throw_on_missing=True)
    return {key: v for key, v in flat(container) if not NOT_OF_THE_RECIPE.match(key)}


@cache
def official_model(name: str) -> nn.Module:
    """The whole model of a recipe, without values for its weights, nor time to draw any."""
    with (
        torch.device("meta"),
        mock.patch("timm.layers.weight_init._trunc_normal_", lambda tensor, *_: tensor),
        mock.patch("ssl_swin.encoders.resize.resize_bias_table", table_of_window),
    ):
        if name.startswith("pretrain"):
            cfg = composed(name)
            return instantiate(cfg.objective)(instantiate(cfg.model))
        pretraining = next(p for p in PRETRAINING if OFFICIAL[p].model == OFFICIAL[name].model)
        cfg = composed(name)
        encoder = resize_encoder(instantiate(composed(pretraining).model), **cfg.model)
        return instantiate(cfg.task)(encoder, [str(label) for label in range(1000)])


def table_of_window(table: torch.Tensor, source: int, target: int) -> torch.Tensor:
    return torch.empty((2 * target - 1) ** 2, table.shape[1])


@cache
def optimizer_of(name: str) -> tuple[dict[int, dict[str, Any]], Any]:
    """The real optimiser: the group of each parameter by its id, and the schedule."""
    cfg = composed(name)
    length = RunLength(STEPS_PER_EPOCH, cfg.trainer.max_epochs, GLOBAL_BATCH_SIZE)
    made = instantiate(cfg.optim)(
        official_model(name), schedule=instantiate(cfg.schedule), length=length
    )
    groups = made["optimizer"].param_groups
    by_parameter = {id(parameter): group for group in groups for parameter in group["params"]}
    return by_parameter, made["lr_scheduler"]["scheduler"]


def test_table__has_every_experiment() -> None:
    of_dense_tasks = OF_SEGMENTATION | OF_DETECTION | OF_SOFT_TEACHER
    assert set(EXPERIMENTS) == set(OFFICIAL) | OUR_OWN | OF_OTHER_OBJECTIVES | of_dense_tasks


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_experiment__has_every_official_value(name: str) -> None:
    assert settings_of(composed(name)) == OFFICIAL[name].settings


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment__is_a_delta_of_known_settings(name: str) -> None:
    """A misspelt key of an experiment would be added, where one of the command line is refused."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 30
    changes = yaml.safe_load(text)
    changes.pop("recipe")
    groups = [item for default in changes.pop("defaults", []) for item in default.items()]
    chosen = {group.removeprefix("override /"): option for group, option in groups}
    choices = [f"{group}={option}" for group, option in chosen.items() if group in changes]
    assert {key for key, _ in flat(changes)} <= known_keys(name.partition("_")[0], *choices)


@cache
def known_keys(job: str, *choices: str) -> set[str]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return {key for key, _ in flat(OmegaConf.to_container(compose(job, list(choices))))}


@pytest.mark.parametrize("name", ["pretrain_swin_b_800ep", "finetune_swin_l_800ep_224"])
def test_global_batch__is_the_official_one_on_16_gpus(name: str) -> None:
    assert composed(name).batch_size * 16 == GLOBAL_BATCH_SIZE == BATCH_SIZE * 16


@pytest.mark.parametrize("name", ["pretrain_swin_t_1gpu", "finetune_swin_t_1gpu"])
def test_one_gpu__accumulates_the_official_batch(name: str) -> None:
    cfg = composed(name, "data=shards", "data.root=somewhere")
    assert cfg.batch_size * cfg.trainer.accumulate_grad_batches == GLOBAL_BATCH_SIZE
    assert cfg.model.grad_checkpointing


def official_rate(schedule: Schedule, update: int, base_lr: float) -> float:
    """The official schedulers' rate after `update` updates, in closed form."""
    warmup = schedule.warmup_epochs * STEPS_PER_EPOCH
    total = schedule.num_epochs * STEPS_PER_EPOCH
    if update < warmup:
        return schedule.warmup_lr + update * (base_lr - schedule.warmup_lr) / warmup
    if schedule.kind == "multistep":
        return base_lr * (0.1 if update >= schedule.milestone_epoch * STEPS_PER_EPOCH else 1)
    start = warmup if schedule.kind == "cosine_prefix" else 0
    angle = math.pi * (update - start) / (total - start)
    return schedule.min_lr + (base_lr - schedule.min_lr) * (1 + math.cos(angle)) / 2


def steps_that_matter(schedule: Schedule) -> list[int]:
    """The first and last, and those around the end of the warm-up and the milestone."""
    last = schedule.num_epochs * STEPS_PER_EPOCH - 1
    turns = [schedule.warmup_epochs * STEPS_PER_EPOCH, last // 2]
    if schedule.milestone_epoch:
        turns.append(schedule.milestone_epoch * STEPS_PER_EPOCH)
    around = [turn + offset for turn in turns for offset in (-1, 0, 1, 2)]
    return [0, 1, 2, *around, last - 1, last]


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_rates__are_the_official_ones_at_every_turn(name: str) -> None:
    """Iteration i runs at the rate of i - 1 updates, and the first two share theirs."""
    schedule = OFFICIAL[name].schedule
    _, scheduler = optimizer_of(name)
    assert max(scheduler.base_lrs) == pytest.approx(schedule.base_lr, rel=1e-12)
    for step in steps_that_matter(schedule):
        scheduler.last_epoch = step
        official = [official_rate(schedule, max(0, step - 1), base) for base in scheduler.base_lrs]
        assert scheduler.get_lr() == pytest.approx(official, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "update", "rate"),
    [
        ("finetune_swin_b_100ep_224", 20 * 50 - 1, 4.995e-3),
        ("finetune_swin_b_100ep_224", 20 * 50, 4.523e-3),  # falls where the warm-up ends
        ("finetune_swin_b_100ep_224", 60 * 50, 1.73e-3),
        ("finetune_swinv2_b_800ep_224", 20 * 50, 5e-3),  # does not
        ("finetune_swinv2_b_800ep_224", 60 * 50, 2.50e-3),
        ("pretrain_swin_b_100ep", 10 * 50 - 1, 7.98e-4),
        ("pretrain_swin_b_100ep", 10 * 50, 7.81e-4),
    ],
)
def test_rates__at_50_steps_an_epoch_as_measured_on_the_original(
    name: str, update: int, rate: float
) -> None:
    cfg = composed(name)
    schedule = instantiate(cfg.schedule).bind(RunLength(50, 100, GLOBAL_BATCH_SIZE))
    assert schedule(update, OFFICIAL[name].schedule.base_lr) == pytest.approx(rate, rel=2e-3)


def test_rates__lowest_layers_of_swin_l_lie_below_the_minimum() -> None:
    """6.7e-7 and 9.6e-7 below 1e-6: they fall while the others warm up, as in the original."""
    _, scheduler = optimizer_of("finetune_swin_l_800ep_224")
    assert sorted(set(scheduler.base_lrs))[:2] == pytest.approx([6.7e-7, 9.6e-7], rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_weight_decay__of_every_kind_of_parameter(name: str) -> None:
    kinds = WEIGHT_DECAY[OFFICIAL[name].family]
    stage = 0 if name.startswith("pretrain") else 1
    group_of, _ = optimizer_of(name)
    seen = set()
    for path, parameter in official_model(name).named_parameters():
        if not parameter.requires_grad:
            continue
        kind = next((kind for kind in kinds if re.search(kind, path)), None)
        assert kind is not None, path
        assert group_of[id(parameter)]["weight_decay"] == kinds[kind][stage], path
        seen.add(kind)
    assert seen == {kind for kind, values in kinds.items() if values[stage] is not None}


@pytest.mark.slow
@pytest.mark.parametrize("name", FINETUNING)
def test_layer_decay__of_every_parameter(name: str) -> None:
    official = OFFICIAL[name]
    family = official.family.partition("_")[0]
    last = NUM_BLOCKS[family] + 1
    group_of, _ = optimizer_of(name)
    layers = set()
    for path, parameter in official_model(name).named_parameters():
        layer = official_layer(path.removeprefix("encoder.model."), family)
        share = official.settings["optim.layer_decay"] ** (last - layer)
        assert group_of[id(parameter)]["initial_lr"] == pytest.approx(5e-3 * share), path
        layers.add(layer)
    assert layers == set(range(last + 1))


def official_layer(path: str, family: str) -> int:
    if match := re.match(r"(?:layers\.(\d)\.)?blocks\.(\d+)\.", path):
        stage, block = int(match[1] or 0), int(match[2])
        return (0, 2, 4, 22)[stage] + block + 1
    fitting = [layer for start, layer in LAYER_OF[family].items() if path.startswith(start)]
    return fitting[0] if fitting else NUM_BLOCKS[family] + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OFFICIAL if OFFICIAL[name].windows])
def test_windows__of_every_stage(name: str) -> None:
    official = OFFICIAL[name]
    encoder: Any = official_model(name).encoder
    for stage, window in zip(encoder.model.layers, official.windows, strict=True):
        assert {tuple(block.window_size) for block in stage.blocks} == {(window, window)}
    grid = encoder.img_size_px[0] // 4
    shifted = [max(stage.blocks[1].shift_size) > 0 for stage in encoder.model.layers]
    assert shifted == [grid >> i > window for i, window in enumerate(official.windows)]


@pytest.mark.parametrize("name", [name for name in OFFICIAL if "v2" in name])
def test_windows__of_pretraining_are_kept_in_fine_tuning(name: str) -> None:
    encoder: Any = official_model(name).encoder
    assert encoder.model_args["pretrained_window_sizes"] == (12, 12, 12, 6)


@pytest.mark.parametrize("name", [n for n in OFFICIAL if OFFICIAL[n].million_parameters])
def test_size__is_the_published_one(name: str) -> None:
    encoder: Any = official_model(name).encoder
    million = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    assert million == pytest.approx(OFFICIAL[name].million_parameters, abs=0.006)


@pytest.mark.parametrize("name", OFFICIAL)
def test_drop_path__rises_to_the_official_rate(name: str) -> None:
    blocks: list[Any] = [m for m in official_model(name).modules() if hasattr(m, "drop_path1")]
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    official = OFFICIAL[name].settings["model.drop_path_rate"]
    assert rates == pytest.approx(np.linspace(0.0, official, len(blocks)), abs=1e-6)


@pytest.mark.parametrize("name", PRETRAINING)
def test_mask__hides_the_official_number_of_units(name: str) -> None:
    model: Any = official_model(name)
    rows, columns = model.mask_grid
    masked = num_masked_patches(rows * columns, model.mask_ratio)
    assert model.mask_patch_size_px == 32
    assert (masked, rows * columns) == OFFICIAL[name].num_masked


@pytest.mark.parametrize("name", OFFICIAL)
def test_view__interpolates_as_the_original(name: str) -> None:
    """Pretraining crops bilinearly, as the original does not pass its setting on; else bicubic."""
    view = instantiate(composed(name).augment)((32, 32))
    plain = view if name.startswith("pretrain") else view.plain
    assert plain.interpolation.value == ("bilinear" if view is plain else "bicubic")


@pytest.mark.parametrize("name", FINETUNING)
def test_evaluation__resizes_as_the_original(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = official_model(name).encoder
    sizes = []

    def resize(pixels: torch.Tensor, size: tuple[int, int], mode: Any) -> torch.Tensor:
        sizes.append((*size, mode.value))
        return torch.zeros(3, *size)

    monkeypatch.setattr(geometry, "_resize_pixels", resize)
    view = transforms.CentreCrop(encoder.img_size_px)
    pixels = torch.zeros(3, 300, 600, dtype=torch.uint8)
    assert view.on_pixels(pixels, np.random.default_rng(0)).shape[1:] == encoder.img_size_px
    short = OFFICIAL[name].eval_resize_px
    assert sizes == [(short, 2 * short, "bicubic")]


@pytest.mark.parametrize("name", FINETUNING)
def test_mixing__is_the_official_one(name: str) -> None:
    model: Any = official_model(name)
    mixup, erasing = model.mixup, model.erasing
    assert (mixup.mixup_alpha, mixup.cutmix_alpha, mixup.label_smoothing) == (0.8, 1.0, 0.1)
    assert (mixup.mix_prob, mixup.switch_prob, mixup.mode) == (1.0, 0.5, "batch")
    assert (erasing.probability, erasing.per_pixel, erasing.max_count) == (0.25, True, 1)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_recipe__states_what_a_reader_needs(name: str) -> None:
    recipe = find_recipe(read_recipes(), name)
    assert set(FACTS) - {"note"} <= set(recipe.facts)
    assert recipe.facts["command"].startswith(f"ssl-swin {recipe.job} experiment={name} ")
    assert ("docs/RESULTS.md" in recipe.facts["reproduced"]) == name.endswith("small")
    if name in OFFICIAL:
        assert recipe.facts["reproduced"] == "not by us yet"
        assert all(number in recipe.facts["expected"] for number in OFFICIAL[name].expected)


@pytest.mark.parametrize("name", FINETUNING)
def test_recipe__fine_tunes_what_its_pretraining_leaves(name: str) -> None:
    command = find_recipe(read_recipes(), name).facts["command"]
    start = re.search(r"backbone=(\S+)", command)
    left = {
        composed(pretraining).run_dir: OFFICIAL[pretraining].model for pretraining in PRETRAINING
    }
    assert start is not None
    assert left[start[1]] == OFFICIAL[name].model


def test_runs__of_different_recipes_have_different_folders() -> None:
    backbone = "backbone=runs/pretrain/same"
    folders = [composed(name).run_dir for name in PRETRAINING] + [
        composed(name, backbone).run_dir for name in ("finetune_swin_b_100ep_192", FINETUNING[-1])
    ]
    assert all(a != b for a, b in itertools.combinations(folders, 2))


def test_read_recipe__keeps_lines_and_leaves_the_settings(tmp_path: Path) -> None:
    (tmp_path / "pretrain_x.yaml").write_text(
        "# @package _global_\nrecipe:\n  title: What it is.\n  expected: 1 %\n  batch: 64\n"
        "  command: |\n    ssl-swin pretrain a \\\n    b\nbatch_size: 4\n"
    )
    facts = {"expected": "1 %", "batch": "64", "command": "ssl-swin pretrain a \\\nb"}
    assert read_recipe(tmp_path / "pretrain_x.yaml") == Recipe("pretrain_x", "What it is.", facts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: {expects: 1}", r"a recipe states title, source, .*, not expects"),
        ("recipe: [", r"pretrain_x.yaml is no YAML"),
        ("recipe: a title", r"recipe must be a mapping .* got 'a title'"),
    ],
)
def test_read_recipe__mistakes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pretrain_x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe(tmp_path / "pretrain_x.yaml")


def test_recipes__lists_each_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["job", "recipe", "expected", "reproduced"]
    assert sorted(line.split()[1] for line in lines) == EXPERIMENTS
    assert [line.split()[0] for line in lines] == sorted(
        (r.job for r in read_recipes()), reverse=True
    )
    (line,) = [line for line in lines if " pretrain_swin_l_800ep " in line]
    assert re.split(r"  +", line) == [
        "pretrain",
        "pretrain_swin_l_800ep",
        "85.4 % fine-tuned at 224 px",
        "not by us yet",
    ]


def test_recipes__tells_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "finetune_swin_b_800ep_224"]) == 0
    assert capsys.readouterr().out == (
        "finetune_swin_b_800ep_224: Swin-B, fine-tuned at 224 px after 800 epochs of pretraining.\n"
        "source:     microsoft/SimMIM, simmim_finetune__swin_base__img224_window7__800ep.yaml\n"
        "expected:   84.0 %\n"
        "hardware:   16 GPUs x 128 images (one DGX-2), fp16; hours not published\n"
        "batch:      2048 = 128 x 16 GPUs; with N GPUs add trainer.accumulate_grad_batches=16/N\n"
        "reproduced: not by us yet\n"
        "\n"
        "ssl-swin finetune experiment=finetune_swin_b_800ep_224 trainer.devices=16 \\\n"
        "    backbone=runs/pretrain/swin_b_800ep_imagenet1k\n"
    )


@pytest.fixture
def own_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one experiment that states nothing about itself."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "pretrain_mine.yaml").write_text("# @package _global_\nbatch_size: 4\n")
    return folder


@pytest.mark.usefixtures("own_experiments")
def test_recipes__of_the_user_that_state_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "pretrain_mine" in line]
    assert re.split(r"  +", line) == ["pretrain", "pretrain_mine", "not stated", "not stated"]


def test_recipes__of_another_folder(
    own_experiments: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_experiments)
    assert main(["recipes", "pretrain_mine"]) == 2
    assert main(["recipes", "pretrain_mine", "--config-dir", str(own_experiments.parent)]) == 0
    assert capsys.readouterr().out == "pretrain_mine: not stated\n"


def test_recipes__unknown_name() -> None:
    with pytest.raises(UserError, match="no recipe pretrain_swin_b, did you mean pretrain_swin_b_"):
        find_recipe(read_recipes(), "pretrain_swin_b")
