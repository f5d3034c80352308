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
from ssl_swin.commands import recipes
from ssl_swin.commands.recipes import FACTS, Recipe, find_recipe, read_header, read_recipes
from ssl_swin.data import geometry, transforms
from ssl_swin.errors import UserError
from ssl_swin.launch.build import build_encoder
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.masking import mask_grid, num_masked_units
from ssl_swin.optim.schedules import RunLength
from ssl_swin.tasks.classification import Classifier
from ssl_swin.training.finetune import FinetuneModule

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
OUR_OWN = {
    "pretrain_small",
    "finetune_small",
    "pretrain_swin_t_1gpu",
    "finetune_swin_t_1gpu",
}
PRETRAINING = sorted(name for name in OFFICIAL if name.startswith("pretrain"))
FINETUNING = sorted(name for name in OFFICIAL if name.startswith("finetune"))

# Settings that say where and how to run, not what. Everything else is held against the table.
NOT_OF_THE_RECIPE = re.compile(
    r"(backbone|name|run_dir|resume|seed|num_workers|logger|callbacks)(\.|$)"
    r"|data\.(?!channels|dtype|mean|std)|trainer\.(?!max|accumulate|gradient|limit)"
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
            return instantiate(cfg.objective.model)(instantiate(cfg.model))
        pretraining = next(p for p in PRETRAINING if OFFICIAL[p].model == OFFICIAL[name].model)
        cfg = OmegaConf.merge(composed(name), {"backbone": "none"})
        cfg.model = composed(pretraining).model
        encoder = build_encoder(
            cfg, drop_path_rate=cfg.drop_path_rate, grad_checkpointing=cfg.grad_checkpointing
        )
        return Classifier(encoder, num_classes=1000)


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
    assert set(EXPERIMENTS) == set(OFFICIAL) | OUR_OWN


@pytest.mark.parametrize("name", OFFICIAL)
def test_experiment__has_every_official_value(name: str) -> None:
    assert settings_of(composed(name)) == OFFICIAL[name].settings


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment__is_a_delta_of_known_settings(name: str) -> None:
    """A misspelt key of an experiment would be added, where one of the command line is refused."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 25
    changes = yaml.safe_load(text)
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
    encoder = cfg.model if name.startswith("pretrain") else cfg
    assert encoder.grad_checkpointing


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
    settings = OFFICIAL[name].settings
    official = settings.get("model.drop_path_rate", settings.get("drop_path_rate"))
    assert rates == pytest.approx(np.linspace(0.0, official, len(blocks)), abs=1e-6)


@pytest.mark.parametrize("name", PRETRAINING)
def test_mask__hides_the_official_number_of_units(name: str) -> None:
    cfg = composed(name)
    encoder: Any = official_model(name).encoder
    rows, columns = mask_grid(
        encoder.img_size_px, cfg.objective.mask_unit_px, patch_size_px=encoder.patch_size_px
    )
    masked = num_masked_units(rows * columns, cfg.objective.mask_ratio)
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
    cfg = composed(name)
    model: Any = official_model(name)
    module = FinetuneModule(
        model, optimizer=None, schedule=None, mean=[0.0], std=[1.0], seed=0, **cfg.mixing
    )
    mixup, erasing = module.mixup, module.erasing
    assert (mixup.mixup_alpha, mixup.cutmix_alpha, mixup.label_smoothing) == (0.8, 1.0, 0.1)
    assert (mixup.mix_prob, mixup.switch_prob, mixup.mode) == (1.0, 0.5, "batch")
    assert (erasing.probability, erasing.per_pixel, erasing.max_count) == (0.25, True, 1)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_header__states_what_a_reader_needs(name: str) -> None:
    recipe = find_recipe(name)
    assert set(FACTS) - {"note"} <= set(recipe.facts)
    assert recipe.facts["command"].startswith(f"python {recipe.job}.py experiment={name} ")
    assert ("docs/RESULTS.md" in recipe.facts["reproduced"]) == name.endswith("small")
    if name in OFFICIAL:
        assert recipe.facts["reproduced"] == "not by us yet"
        assert all(number in recipe.facts["expected"] for number in OFFICIAL[name].expected)


@pytest.mark.parametrize("name", FINETUNING)
def test_header__fine_tunes_what_its_pretraining_leaves(name: str) -> None:
    command = find_recipe(name).facts["command"]
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


def test_read_header__joins_indented_lines_and_ends_with_the_comment() -> None:
    text = (
        "# @package _global_\n# What it is,\n# in two lines.\n# expected: 1 %\n"
        "# command: python pretrain.py a \\\n#     b\n# note: inferred: all\n"
        "key: 1\n# note: other\n"
    )
    facts = {"expected": "1 %", "command": "python pretrain.py a \\\nb", "note": "inferred: all"}
    assert read_header("pretrain_x", text) == Recipe(
        "pretrain_x", "What it is, in two lines.", facts
    )


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
        "python finetune.py experiment=finetune_swin_b_800ep_224 trainer.devices=16 \\\n"
        "    backbone=runs/pretrain/swin_b_800ep_imagenet1k\n"
    )


def test_recipes__without_a_header_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pretrain_mine.yaml").write_text("# @package _global_\nbatch_size: 4\n")
    monkeypatch.setattr(recipes, "EXPERIMENTS", tmp_path)
    assert main(["recipes"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line == "pretrain  pretrain_mine  not stated  not stated"


def test_recipes__unknown_name() -> None:
    with pytest.raises(UserError, match="no recipe pretrain_swin_b, did you mean pretrain_swin_b_"):
        find_recipe("pretrain_swin_b")


def test_recipes__without_the_yaml_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "EXPERIMENTS", tmp_path)
    with pytest.raises(UserError, match=r"needs the folder conf/ beside the package"):
        read_recipes()
