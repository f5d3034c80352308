"""The recipes of detection against the numbers of Swin's detection code.

From `configs/_base_` and `configs/swin` of SwinTransformer/Swin-Transformer-Object-Detection
c7b2011.
"""

import itertools
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from hydra.utils import instantiate
from test_recipes import OF_DETECTION, composed, settings_of

from ssl_swin.commands.recipes import find_recipe, read_recipes
from ssl_swin.encoders.swin import swin
from ssl_swin.optim.schedules import RunLength

COCO = ("data=coco", "data.root=somewhere")
STEPS_PER_EPOCH = 7330  # 117,266 images with boxes, 16 at a time


class Published(NamedTuple):
    """A run of the original."""

    task: str
    size: str
    drop_path_rate: float
    epochs: int
    drops: tuple[int, int]  # epochs after which the rate falls
    box_ap: float
    mask_ap: float
    million_parameters: int


RECIPES = {
    "detect_mask_swin_t_1x": Published("mask", "t", 0.1, 12, (8, 11), 43.7, 39.8, 48),
    "detect_mask_swin_t_3x": Published("mask", "t", 0.2, 36, (27, 33), 46.0, 41.6, 48),
    "detect_mask_swin_s_3x": Published("mask", "s", 0.2, 36, (27, 33), 48.5, 43.3, 69),
    "detect_cascade_swin_t_1x": Published("cascade", "t", 0.0, 12, (8, 11), 48.1, 41.7, 86),
    "detect_cascade_swin_t_3x": Published("cascade", "t", 0.2, 36, (27, 33), 50.4, 43.7, 86),
    "detect_cascade_swin_s_3x": Published("cascade", "s", 0.2, 36, (27, 33), 51.9, 45.0, 107),
    "detect_cascade_swin_b_3x": Published("cascade", "b", 0.3, 36, (27, 33), 51.9, 45.0, 145),
}
SIZES = {"t": (96, 6, 3), "s": (96, 18, 3), "b": (128, 18, 4)}  # width, third depth, first heads
TIMM = {"t": "tiny", "s": "small", "b": "base"}
OF_TASK = {
    "mask": {
        "task.cascade": False,
        "task.anchors_inside": False,
        "task.num_proposals": 1000,
        "task.proposal_loss": "l1",
        "task.box_loss": "l1",
    },
    "cascade": {
        "task.cascade": True,
        "task.anchors_inside": True,
        "task.num_proposals": 2000,
        "task.proposal_loss": "smooth_l1",
        "task.box_loss": "giou",
    },
}
SETTINGS = {
    "classes": None,
    "labels.ratio": None,
    "labels.number": None,
    "labels.seed": 0,
    "semi._target_": None,
    "ema_decay": None,
    "compile": False,
    "batch_size": 2,
    "data.channels": 3,
    "data.dtype": "uint8",
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
    "model.img_size_px": None,
    "model.window_size": None,
    "model.grad_checkpointing": False,
    "trainer.max_steps": -1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.gradient_clip_val": None,
    "trainer.limit_train_batches": 1.0,
    "trainer.limit_val_batches": 1.0,
    "augment._target_": "ssl_swin.DetectAugmentation",
    "augment._partial_": True,
    "augment.flip_probability": 0.5,
    "augment.short_px": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    "augment.long_px": 1333,
    "augment.crop_probability": 0.5,
    "augment.crop_short_px": [400, 500, 600],
    "augment.crop_px": [384, 600],
    "task._target_": "ssl_swin.Detection",
    "task._partial_": True,
    "task.with_masks": None,
    "task.channels": 256,
    "task.head_channels": 1024,
    "task.anchor_scale": 8,
    "task.anchor_ratios": [0.5, 1.0, 2.0],
    "task.inference._target_": "ssl_swin.DetectInference",
    "task.inference.short_px": 800,
    "task.inference.long_px": 1333,
    "task.inference.divisor_px": 32,
    "task.inference.least_score": 0.05,
    "task.inference.nms_iou": 0.5,
    "task.inference.most_objects": 100,
    "task.inference.mask_threshold": 0.5,
    "optim._target_": "ssl_swin.dense_optimizer",
    "optim._partial_": True,
    "optim.lr": 1e-4,
    "optim.weight_decay": 0.05,
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "schedule._target_": "ssl_swin.DenseMultistepSchedule",
    "schedule.gamma": 0.1,
    "schedule.warmup_steps": 500,
    "schedule.warmup_ratio": 0.001,
}


@cache
def task_of(name: str) -> Any:
    """The whole model of a recipe, without values for its weights, nor time to draw any."""
    width, depth, heads = SIZES[RECIPES[name].size]
    with (
        torch.device("meta"),
        mock.patch("timm.layers.weight_init._trunc_normal_", lambda tensor, *_: tensor),
    ):
        encoder = swin(
            version=1,
            img_size_px=224,
            window_size=7,
            embed_dim=width,
            depths=(2, 2, depth, 2),
            num_heads=[heads * 2**stage for stage in range(4)],
        )
        classes = list(map(str, range(80)))
        return instantiate(composed(name, *COCO).task)(encoder, classes, with_masks=True)


def test_recipes__are_all_here() -> None:
    assert RECIPES.keys() == OF_DETECTION


@pytest.mark.parametrize("name", RECIPES)
def test_experiment__has_every_official_value(name: str) -> None:
    published = RECIPES[name]
    expected = SETTINGS | OF_TASK[published.task]
    expected["model.drop_path_rate"] = published.drop_path_rate
    expected["trainer.max_epochs"] = published.epochs
    expected["schedule.milestone_epochs"] = list(published.drops)
    assert settings_of(composed(name, *COCO)) == expected
    assert composed(name, *COCO).trainer.sync_batchnorm


@pytest.mark.parametrize("name", RECIPES)
def test_recipe__says_what_to_expect_and_to_type(name: str) -> None:
    published = RECIPES[name]
    recipe = find_recipe(read_recipes(), name)
    expected = f"{published.box_ap} AP of boxes, {published.mask_ap} of masks"
    assert recipe.facts["expected"] == expected
    assert f"swin_{TIMM[published.size]}_patch4_window7_224.ms_in1k" in recipe.facts["command"]
    assert f"experiment={name} " in recipe.facts["command"]


@pytest.mark.parametrize("name", RECIPES)
def test_size__is_the_published_one(name: str) -> None:
    million = sum(p.numel() for p in task_of(name).parameters() if p.requires_grad) / 1e6
    assert million == pytest.approx(RECIPES[name].million_parameters, abs=0.6)


@pytest.mark.parametrize("name", ["detect_mask_swin_t_1x", "detect_cascade_swin_t_3x"])
def test_rates__are_those_of_mmcvs_steps_with_warmup(name: str) -> None:
    published, cfg = RECIPES[name], composed(name, *COCO)
    made = instantiate(cfg.optim)(
        task_of(name),
        schedule=instantiate(cfg.schedule),
        length=RunLength(STEPS_PER_EPOCH, published.epochs, 16),
    )
    scheduler = made["lr_scheduler"]["scheduler"]
    drops = [epoch * STEPS_PER_EPOCH for epoch in published.drops]
    turns = [0, 1, 250, 499, 500, 501, *itertools.chain(*((at - 1, at) for at in drops))]
    for iteration in turns:
        regular = 1e-4 * 0.1 ** sum(iteration >= at for at in drops)
        k = (1 - iteration / 500) * (1 - 0.001)
        scheduler.last_epoch = iteration
        expected = regular * (1 - k) if iteration < 500 else regular
        assert scheduler.get_lr() == pytest.approx([expected] * 2, rel=1e-12)


def test_weight_decay__spares_norms_and_position_biases_of_the_backbone_alone() -> None:
    name = "detect_cascade_swin_t_1x"
    task, cfg = task_of(name), composed(name, *COCO)
    made = instantiate(cfg.optim)(
        task, schedule=instantiate(cfg.schedule), length=RunLength(STEPS_PER_EPOCH, 12, 16)
    )
    decay = {
        id(parameter): group["weight_decay"]
        for group in made["optimizer"].param_groups
        for parameter in group["params"]
    }
    for path, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = "relative_position_bias_table" in path or "norm" in path
        assert decay[id(parameter)] == (0.0 if spared else 0.05), path
        assert not spared or path.startswith("encoder.") or "norms" in path, path
