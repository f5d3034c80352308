"""The recipes of segmentation against the numbers of Swin's segmentation code.

From `configs/_base_` and `configs/swin` of SwinTransformer/Swin-Transformer-Semantic-Segmentation
87e6f90. Which parameter is decayed is read from `../shared/golden/dense`, or from `dense` in the
folder that SSL_SWIN_GOLDEN names.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hydra.utils import instantiate
from test_recipes import EXPERIMENTS, composed, settings_of

from ssl_swin.encoders.swin import swin
from ssl_swin.optim.schedules import RunLength

SHARED = Path(__file__).parents[3] / "shared" / "golden"
RECIPES = {  # embed_dim, depths, heads of the first stage, channels that the auxiliary head sees
    "segment_swin_t_ade20k": (96, (2, 2, 6, 2), 3, 384),
    "segment_swin_s_ade20k": (96, (2, 2, 18, 2), 3, 384),
    "segment_swin_b_ade20k": (128, (2, 2, 18, 2), 4, 512),
    "segment_swin_l_ade20k": (192, (2, 2, 18, 2), 6, 768),
}
MILLION_PARAMETERS = {  # with the auxiliary head, published, rounded
    "segment_swin_t_ade20k": 60,
    "segment_swin_s_ade20k": 81,
    "segment_swin_b_ade20k": 121,
    "segment_swin_l_ade20k": 234,
}
SETTINGS = {
    "classes": 150,
    "test_ratios": None,
    "labels.ratio": None,
    "labels.number": None,
    "labels.seed": 0,
    "ema_decay": None,
    "compile": False,
    "batch_size": 2,
    "data.channels": 3,
    "data.dtype": "uint8",
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
    "model.img_size_px": None,
    "model.window_size": None,
    "model.drop_path_rate": 0.3,
    "model.grad_checkpointing": False,
    "trainer.max_epochs": 127,
    "trainer.max_steps": 160_000,
    "trainer.accumulate_grad_batches": 1,
    "trainer.gradient_clip_val": None,
    "trainer.limit_train_batches": 1.0,
    "trainer.limit_val_batches": 1.0,
    "augment._target_": "ssl_swin.SegmentAugmentation",
    "augment._partial_": True,
    "augment.short_px": 512,
    "augment.long_px": 2048,
    "augment.ratio": [0.5, 2.0],
    "augment.max_class_share": 0.75,
    "augment.flip_probability": 0.5,
    "augment.brightness": 32,
    "augment.contrast": [0.5, 1.5],
    "augment.saturation": [0.5, 1.5],
    "augment.hue_degrees": 36,
    "task._target_": "ssl_swin.Segmentation",
    "task._partial_": True,
    "task.crop_px": 512,
    "task.head_channels": 512,
    "task.auxiliary_channels": 256,
    "task.auxiliary_weight": 0.4,
    "task.dropout": 0.1,
    "task.loss_mean": "all",
    "task.masks._target_": "ssl_swin.MaskClasses",
    "task.masks.ignore_value": 255,
    "task.masks.reduce_zero_label": True,
    "task.masks.class_of": None,
    "task.masks.class_of_colour": None,
    "task.inference._target_": "ssl_swin.Inference",
    "task.inference.mode": "whole",
    "task.inference.short_px": 512,
    "task.inference.long_px": 2048,
    "task.inference.window_px": 512,
    "task.inference.step_px": 341,
    "task.inference.ratios": [1.0],
    "task.inference.flip": False,
    "optim._target_": "ssl_swin.dense_optimizer",
    "optim._partial_": True,
    "optim.lr": 6e-5,
    "optim.weight_decay": 0.01,
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "schedule._target_": "ssl_swin.PolySchedule",
    "schedule.power": 1.0,
    "schedule.min_lr": 0.0,
    "schedule.warmup_steps": 1500,
    "schedule.warmup_ratio": 1e-6,
    "schedule.total_steps": 160_000,
}


@cache
def task_of(name: str) -> Any:
    """The whole model of a recipe, without values for its weights, nor time to draw any."""
    width, depths, heads, _ = RECIPES[name]
    with (
        torch.device("meta"),
        mock.patch("timm.layers.weight_init._trunc_normal_", lambda tensor, *_: tensor),
    ):
        encoder = swin(
            version=1,
            img_size_px=224,
            window_size=7,
            embed_dim=width,
            depths=depths,
            num_heads=[heads * 2**stage for stage in range(4)],
        )
        return instantiate(composed(name, "data=ade20k").task)(encoder, list(map(str, range(150))))


def test_recipes__are_all_here() -> None:
    found = {name for name in EXPERIMENTS if name.startswith("segment_swin")}
    assert found == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_experiment__has_every_official_value(name: str) -> None:
    assert settings_of(composed(name, "data=ade20k")) == SETTINGS
    assert composed(name, "data=ade20k").trainer.sync_batchnorm


@pytest.mark.parametrize("name", RECIPES)
def test_size__is_the_published_one(name: str) -> None:
    task = task_of(name)
    million = sum(p.numel() for p in task.parameters() if p.requires_grad) / 1e6
    assert million == pytest.approx(MILLION_PARAMETERS[name], abs=0.6)
    assert task.auxiliary_head.convs[0].conv.in_channels == RECIPES[name][3]


def original_name(name: str) -> str:
    name = name.removeprefix("encoder.model.")
    if re.match(r"(patch_embed|layers)\.", name):
        name = re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
        )
        return f"backbone.{name}"
    return re.sub(r"^norms\.(\d)", r"backbone.norm\1", name)


def test_weight_decay__of_every_parameter_is_the_originals() -> None:
    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", SHARED)) / "dense"
    if not folder.is_dir():
        pytest.skip("../shared/golden/dense is not here")
    expected = json.loads((folder / "weight_decay_upernet_swin_t.json").read_text())
    name = "segment_swin_t_ade20k"
    task, cfg = task_of(name), composed(name, "data=ade20k")
    made = instantiate(cfg.optim)(
        task, schedule=instantiate(cfg.schedule), length=RunLength(1263, 127, 16)
    )
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    actual = {
        original_name(names[id(parameter)]): group["weight_decay"]
        for group in made["optimizer"].param_groups
        for parameter in group["params"]
    }
    assert actual == expected["weight_decay"] and len(actual) == 220
    assert {group["initial_lr"] for group in made["optimizer"].param_groups} == {6e-5}
    assert sum(p.numel() for p in task.parameters() if p.requires_grad) == expected["parameters"]


def test_rates__are_those_of_mmcvs_poly_with_warmup() -> None:
    name = "segment_swin_t_ade20k"
    cfg = composed(name, "data=ade20k")
    made = instantiate(cfg.optim)(
        task_of(name), schedule=instantiate(cfg.schedule), length=RunLength(1263, 127, 16)
    )
    scheduler = made["lr_scheduler"]["scheduler"]
    for iteration in (0, 1, 2, 750, 1499, 1500, 1501, 80_000, 159_999):
        regular = 6e-5 * (1 - iteration / 160_000)
        k = (1 - iteration / 1500) * (1 - 1e-6)
        expected = regular * (1 - k) if iteration < 1500 else regular
        scheduler.last_epoch = iteration
        assert scheduler.get_lr() == pytest.approx([expected] * 2, rel=1e-12)
