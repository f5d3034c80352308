"""The recipes of Soft Teacher against the numbers of its code.

From `configs/soft_teacher` of microsoft/SoftTeacher 0423bb2 and mmdetection's `schedule_1x`, which
it builds on. Values that are no part of it are those of detection's recipes.
"""

from typing import NamedTuple

import pytest
from hydra.utils import instantiate
from test_recipes import OF_SOFT_TEACHER, composed, settings_of
from test_recipes_of_detection import COCO, OF_TASK, SETTINGS

from ssl_swin.commands.recipes import find_recipe, read_recipes
from ssl_swin.data.loading.few_labels import FewImages
from ssl_swin.encoders.resnet import resnet
from ssl_swin.optim.schedules import RunLength

NUM_IMAGES = 118_287  # of COCO's train2017
NUM_STEPS, DROPS = 180_000, (120_000, 160_000)
NUM_GPUS = 8


class Published(NamedTuple):
    """A run of the original."""

    ratio: float  # of images with boxes
    box_ap: float
    box_ap_of_labels: float  # learned from these alone
    epochs: int  # of ours, until there are as many steps


RECIPES = {
    "detect_soft_teacher_coco_1": Published(0.01, 21.62, 10.0, 50),
    "detect_soft_teacher_coco_5": Published(0.05, 30.42, 20.92, 52),
    "detect_soft_teacher_coco_10": Published(0.1, 33.78, 26.94, 55),
}
VIEW = {"short_px": [400, 1200], "long_px": 1333, "flip_probability": 0.5}
SEMI = {
    "semi._target_": "ssl_swin.SoftTeacher",
    "semi._partial_": True,
    "semi.num_unlabelled": 4,
    "semi.unlabelled_root": None,
    "semi.weight": 4.0,
    "semi.warmup_steps": 0,
    "semi.momentum": 0.999,
    "semi.least_score": 0.5,
    "semi.sure_score": 0.9,
    "semi.jitter_copies": 10,
    "semi.jitter_ratio": 0.06,
    "semi.most_deviation": 0.02,
    "semi.evaluated": "student",
    "semi.weak._target_": "ssl_swin.WeakView",
    **{f"semi.weak.{name}": value for name, value in VIEW.items()},
    "semi.strong._target_": "ssl_swin.StrongView",
    "semi.strong.weak._target_": "ssl_swin.WeakView",
    **{f"semi.strong.weak.{name}": value for name, value in VIEW.items()},
    "semi.strong.colours": True,
    "semi.strong.factor": [0.1, 1.9],
    "semi.strong.posterize_bits": 4,
    "semi.strong.translate_ratio": 0.1,
    "semi.strong.rotate_degrees": 30,
    "semi.strong.shear_degrees": 30,
    "semi.strong.num_erased": [1, 5],
    "semi.strong.erase_ratio": 0.2,
}
SGD = {
    "optim._target_": "ssl_swin.dense_sgd",
    "optim._partial_": True,
    "optim.lr": 0.01,
    "optim.momentum": 0.9,
    "optim.weight_decay": 1e-4,
}


def steps_per_epoch(published: Published) -> int:
    """An epoch is a pass over the images without boxes, 4 on each GPU."""
    with_boxes = len(FewImages(ratio=published.ratio).choose(NUM_IMAGES))
    return (NUM_IMAGES - with_boxes) // (4 * NUM_GPUS)


def test_recipes__are_all_here() -> None:
    assert RECIPES.keys() == OF_SOFT_TEACHER


@pytest.mark.parametrize("name", RECIPES)
def test_experiment__has_every_official_value(name: str) -> None:
    published = RECIPES[name]
    found = settings_of(composed(name, *COCO))
    drops = found.pop("schedule.milestone_epochs")
    expected = {
        key: value
        for key, value in (SETTINGS | OF_TASK["mask"]).items()
        if not key.startswith(("semi.", "optim."))
    }
    expected |= SEMI | SGD
    expected |= {
        "batch_size": 1,
        "labels.ratio": published.ratio,
        "task.with_masks": False,
        "model.drop_path_rate": 0.0,
        "augment.short_px": list(range(400, 1201, 50)),
        "augment.crop_probability": 0.0,
        "trainer.max_epochs": published.epochs,
        "trainer.max_steps": NUM_STEPS,
    }
    assert found == expected
    per_epoch = steps_per_epoch(published)
    assert (published.epochs - 1) * per_epoch < NUM_STEPS <= published.epochs * per_epoch
    assert [epoch * per_epoch for epoch in drops] == pytest.approx(DROPS, abs=0.005 * per_epoch)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe__says_what_to_expect_and_to_type(name: str) -> None:
    published = RECIPES[name]
    recipe = find_recipe(read_recipes(), name)
    assert recipe.facts["expected"].startswith(f"{published.box_ap} AP of boxes")
    assert f"({published.box_ap_of_labels} with the labels alone)" in recipe.facts["expected"]
    assert f"experiment={name} " in recipe.facts["command"]
    assert recipe.facts["reproduced"] == "not by us yet"


def test_optimizer__is_sgd_that_warms_up_in_500_steps() -> None:
    name = "detect_soft_teacher_coco_10"
    cfg = composed(name, *COCO, "task.channels=8", "task.head_channels=8")
    encoder = resnet(img_size_px=64, channels=(8, 16, 24, 32), depths=[1] * 4)
    task = instantiate(cfg.task)(encoder, ["a"])
    length = RunLength(steps_per_epoch(RECIPES[name]), cfg.trainer.max_epochs, NUM_GPUS)
    made = instantiate(cfg.optim)(task, schedule=instantiate(cfg.schedule), length=length)
    groups = made["optimizer"].param_groups
    assert {group["name"]: group["weight_decay"] for group in groups} == {
        "decay": 1e-4,
        "no_decay": 0.0,
    }
    assert {group["momentum"] for group in groups} == {0.9}
    scheduler = made["lr_scheduler"]["scheduler"]
    for step, expected in ((0, 1e-5), (250, 0.005005), (500, 0.01), (140_000, 1e-3), (17e4, 1e-4)):
        scheduler.last_epoch = int(step)
        assert scheduler.get_lr() == pytest.approx([expected] * 2, rel=1e-12)
