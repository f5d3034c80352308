"""The recipes of feature distillation, MoBY, iBOT and refinement have their published values.

From configs/pretrain of SwinTransformer/Feature-Distillation 2115145, from the configuration of
SwinTransformer/Transformer-SSL 4510de1, and from bytedance/ibot da316d8: its README's arguments for
Swin-T and the defaults of main_ibot.py. Of refinement, what ml-jku/MIM-Refiner 58497d1 has of its
two stages for MAE's ViT-L, and MoBY's contrast. Rates are per 512 images.
"""

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from ssl_swin.launch.resolvers import register_resolvers

REFINED = {
    "freeze_backbone_epochs": 20,
    "batch_size": 1024 // 8,
    "model.img_size_px": None,
    "optim.layer_decay": 0.65,
    "optim.weight_decay": 0.05,
    "schedule._target_": "ssl_swin.CosineSchedule",
    "schedule.warmup_epochs": 4,
    "trainer.max_epochs": 20 + 30,
    "augment.crop_scale": [0.08, 1.0],
    "objective.stages": [3, 4],
    "objective.temperature": 0.2,
    "objective.queue_length": 4096,
}
SHARED = {
    "batch_size": 128,
    "optim.weight_decay": 0.05,
    "optim.betas": [0.9, 0.999],
    "schedule._target_": "ssl_swin.CosineSchedule",
    "schedule.warmup_epochs": 10,
    "schedule.warmup_prefix": True,
    "trainer.max_epochs": 300,
    "trainer.gradient_clip_val": 3.0,
    "augment.crop_scale": [0.08, 1.0],
    "augment.flip_probability": 0.5,
    "augment._target_": "ssl_swin.RandomCrop",
    "objective.beta": 2.0,
    "model.img_size_px": 224,
}
VIT = SHARED | {
    "optim.base_lr": 3e-4,
    "optim.weight_decay_policy": "official",
    "schedule.warmup_lr": 5e-7,
    "schedule.min_lr": 5e-6,
    "model._target_": "ssl_swin.beit",
    "model.patch_size_px": 16,
}
PUBLISHED = {
    "pretrain_fd_swinv2_b_300ep": SHARED
    | {
        "optim.base_lr": 2e-4,
        "optim.weight_decay_policy": "intended",
        "schedule.warmup_lr": 1e-6,
        "schedule.min_lr": 1e-5,
        "model.version": 2,
        "model.embed_dim": 128,
        "model.window_size": 14,
        "model.drop_path_rate": 0.3,
    },
    "pretrain_fd_vit_b_clip_300ep": VIT | {"model.drop_path_rate": 0.2},
    "pretrain_fd_vit_b_dino_300ep": VIT | {"model.drop_path_rate": 0.3},
    "pretrain_fd_vit_b_deit_300ep": VIT | {"model.drop_path_rate": 0.3},
    "pretrain_moby_swin_t_300ep": {
        "batch_size": 64,
        "model.embed_dim": 96,
        "model.depths": [2, 2, 6, 2],
        "model.img_size_px": 224,
        "model.window_size": 7,
        "model.drop_path_rate": 0.2,
        "optim.base_lr": 1e-3,
        "optim.weight_decay": 0.05,
        "optim.weight_decay_policy": "official",
        "schedule._target_": "ssl_swin.CosineSchedule",
        "schedule.warmup_epochs": 5,
        "schedule.warmup_lr": 5e-7,
        "schedule.min_lr": 5e-6,
        "schedule.warmup_prefix": False,
        "trainer.max_epochs": 300,
        "trainer.gradient_clip_val": 5.0,
        "augment.crop_scale": [0.08, 1.0],
        "objective.temperature": 0.2,
        "objective.queue_length": 4096,
        "objective.momentum": 0.99,
        "objective.hidden_dim": 4096,
        "objective.out_dim": 256,
        "objective.colors.color_jitter": [0.4, 0.4, 0.2, 0.1],
        "objective.colors.color_jitter_probability": 0.8,
        "objective.colors.grayscale_probability": 0.2,
        "objective.colors.blur_radius_px": [0.1, 2.0],
        "objective.colors.blur_probability": [1.0, 0.1],
        "objective.colors.solarize_probability": [0.0, 0.2],
    },
    "pretrain_refine_moby_50ep": REFINED,
    "pretrain_ibot_swin_t_300ep": {
        "batch_size": 64,
        "model.embed_dim": 96,
        "model.depths": [2, 2, 6, 2],
        "model.img_size_px": 224,
        "model.window_size": 7,
        "model.drop_path_rate": 0.1,
        "optim.base_lr": 5e-4 * 512 / 256,
        "optim.weight_decay": 0.04,
        "optim.weight_decay_end": 0.4,
        "optim.weight_decay_policy": "official",
        "schedule._target_": "ssl_swin.CosineSchedule",
        "schedule.warmup_epochs": 10,
        "schedule.warmup_lr": 0,
        "schedule.min_lr": 1e-6 * 512 / 1024,
        "schedule.warmup_prefix": True,
        "trainer.max_epochs": 300,
        "trainer.gradient_clip_val": 3.0,
        "augment.crop_scale": [0.25, 1.0],
        "objective.sparse": False,
        "objective.local_views": 10,
        "objective.local_size_px": 96,
        "objective.local_crop_scale": [0.05, 0.25],
        "objective.mask_ratio": [0.1, 0.5],  # 0.3 +- 0.2
        "objective.mask_probability": 0.5,
        "objective.mask_from_epoch": 50,
        "objective.mask_shape": "blocks",
        "objective.separate_cell_head": False,
        "objective.mask_patch_size_px": None,  # 8 patches of 4 px
        "objective.image_weight": 1.0,
        "objective.cell_weight": 1.0,
        "objective.region_weight": 0.0,
        "objective.pixel_weight": 0.0,
        "objective.teacher_momentum": 0.996,
        "objective.teacher_temperature": 0.07,
        "objective.teacher_temperature_start": 0.04,
        "objective.temperature_warmup_epochs": 30,
        "objective.student_temperature": 0.1,
        "objective.centre_momentum": 0.9,
        "objective.num_prototypes": 8192,
        "objective.unit_prototypes": False,
        "objective.freeze_prototypes_epochs": 1,
        "objective.hidden_dim": 2048,
        "objective.bottleneck_dim": 256,
        "objective.colors.color_jitter": [0.4, 0.4, 0.2, 0.1],
        "objective.colors.color_jitter_probability": 0.8,
        "objective.colors.grayscale_probability": 0.2,
        "objective.colors.blur_radius_px": [0.1, 2.0],
        "objective.colors.blur_probability": [1.0, 0.1, 0.5],
        "objective.colors.solarize_probability": [0.0, 0.2, 0.0],
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe__has_the_published_values(name: str) -> None:
    register_resolvers()
    with initialize_config_module("ssl_swin.conf", version_base="1.3"):
        cfg = compose("pretrain", overrides=[f"experiment={name}"])
    found = {key: OmegaConf.select(cfg, key) for key in PUBLISHED[name]}
    assert found == PUBLISHED[name]
