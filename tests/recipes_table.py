"""What the official recipes are, as numbers, to hold conf/experiment/ against.

From the YAML files and the code of microsoft/SimMIM d3e29bc and microsoft/Swin-Transformer f82860b;
for Swin V2-S, L, H and g, of which no YAML was published, with Swin V2-B's values. Learning rates
are absolute, at the official global batch of 2048 images.
"""

from dataclasses import dataclass, field
from typing import Any

GLOBAL_BATCH_SIZE = 2048
BATCH_SIZE = 128  # per GPU, of 16
STEPS_PER_EPOCH = 625  # 1,281,167 images in batches of 2048, the last incomplete one dropped

DEPTHS = [2, 2, 18, 2]
SHARED = {
    "data.channels": 3,
    "data.dtype": "uint8",
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
    "batch_size": BATCH_SIZE,
    "compile": False,
    "eval_crop_ratio": 224 / 256,
    "optim._partial_": True,
    "optim.weight_decay": 0.05,
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "trainer.gradient_clip_val": 5.0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.max_steps": -1,
    "trainer.limit_train_batches": 1.0,
    "trainer.limit_val_batches": 1.0,
    "augment._partial_": True,
    "augment.crop_aspect": [3 / 4, 4 / 3],
    "augment.flip_probability": 0.5,
}
PRETRAIN = SHARED | {
    "optim._target_": "ssl_swin.pretrain_optimizer",
    "optim.weight_decay_policy": "official",
    "optim.layer_decay": None,
    "optim.weight_decay_end": None,
    "freeze_backbone_epochs": None,
    "augment._target_": "ssl_swin.RandomCrop",
    "augment.crop_scale": [0.67, 1.0],
    "objective.mask_ratio": 0.6,
    "objective.mask_patch_size_px": None,
    "objective.shared_mask": False,
    "objective.blank_pixels": None,
    "objective._target_": "ssl_swin.SimMIM",
    "objective._partial_": True,
    "objective.normalize_target_window_px": None,
    "objective.normalize_target_patch_px": None,
}
FINETUNE = SHARED | {
    "model.grad_checkpointing": False,
    "test_img_size_px": None,
    "labels.ratio": None,  # all of them
    "labels.per_class": None,
    "labels.seed": 0,
    "ema_decay": None,
    "optim._target_": "ssl_swin.finetune_optimizer",
    "optim.base_lr": 1.25e-3,
    "schedule._target_": "ssl_swin.CosineSchedule",
    "schedule.warmup_epochs": 20,
    "schedule.warmup_lr": 2.5e-7,
    "schedule.min_lr": 2.5e-7,
    "schedule.warmup_prefix": False,
    "trainer.max_epochs": 100,
    "augment._target_": "ssl_swin.FinetuneAugmentation",
    "augment.mean": [0.485, 0.456, 0.406],
    "augment.crop_scale": [0.08, 1.0],
    "augment.auto_augment": "rand-m9-mstd0.5-inc1",
    "task._target_": "ssl_swin.Classification",
    "task._partial_": True,
    "task.mixup_alpha": 0.8,
    "task.cutmix_alpha": 1.0,
    "task.label_smoothing": 0.1,
    "task.erasing_probability": 0.25,
}
COSINE_100 = {
    "optim.base_lr": 2e-4,
    "schedule._target_": "ssl_swin.CosineSchedule",
    "schedule.warmup_epochs": 10,
    "schedule.warmup_lr": 1e-6,
    "schedule.min_lr": 1e-5,
    "schedule.warmup_prefix": False,
    "trainer.max_epochs": 100,
}
MULTISTEP_800 = {
    "optim.base_lr": 1e-4,
    "schedule._target_": "ssl_swin.MultistepSchedule",
    "schedule.warmup_epochs": 10,
    "schedule.warmup_lr": 5e-7,
    "schedule.milestone_epochs": [700],
    "schedule.gamma": 0.1,
    "trainer.max_epochs": 800,
}


def swin(version: int, embed_dim: int, window_size: int, drop_path_rate: float) -> dict[str, Any]:
    first_heads = embed_dim // 32
    return {
        "model._target_": "ssl_swin.swin",
        "model.version": version,
        "model.img_size_px": 192,
        "model.patch_size_px": 4,
        "model.window_size": window_size,
        "model.embed_dim": embed_dim,
        "model.depths": DEPTHS,
        "model.num_heads": [first_heads, 2 * first_heads, 4 * first_heads, 8 * first_heads],
        "model.drop_path_rate": drop_path_rate,
        "model.grad_checkpointing": False,
        "model.in_chans": 3,
    }


def swin_v2(embed_dim: int) -> dict[str, Any]:
    target = {"objective.normalize_target_window_px": 47}
    return PRETRAIN | swin(2, embed_dim, 12, 0.1) | MULTISTEP_800 | target


VIT = {
    "model._target_": "ssl_swin.beit",
    "model.img_size_px": 224,
    "model.patch_size_px": 16,
    "model.embed_dim": 768,
    "model.depth": 12,
    "model.num_heads": 12,
    "model.final_norm": True,
    "model.fixed_positions": False,
    "model.layer_scale": 0.1,
    "model.initial_weights": "simmim",
    "model.drop_path_rate": 0.1,
    "model.grad_checkpointing": False,
    "model.in_chans": 3,
}


def downstream(
    img_size_px: int, window_size: int | None, drop_path_rate: float, layer_decay: float
) -> dict[str, Any]:
    return FINETUNE | {
        "model.img_size_px": img_size_px,
        "model.window_size": window_size,
        "model.drop_path_rate": drop_path_rate,
        "optim.layer_decay": layer_decay,
    }


@dataclass(frozen=True)
class Schedule:
    """Rates at batch 2048, and epochs."""

    kind: str  # cosine (SimMIM), cosine_prefix (Swin-Transformer) or multistep
    num_epochs: int
    warmup_epochs: int
    base_lr: float
    warmup_lr: float
    min_lr: float = 0.0
    milestone_epoch: int = 0


COSINE = Schedule("cosine", 100, 10, 8e-4, 4e-6, 4e-5)
MULTISTEP = Schedule("multistep", 800, 10, 4e-4, 2e-6, milestone_epoch=700)
FINETUNING = Schedule("cosine", 100, 20, 5e-3, 1e-6, 1e-6)
FINETUNING_V2 = Schedule("cosine_prefix", 100, 20, 5e-3, 1e-6, 1e-6)


@dataclass(frozen=True)
class Official:
    """One official run."""

    model: str
    settings: dict[str, Any]  # every one that bears on the result
    schedule: Schedule
    family: str  # swin_v1, swin_v2 or vit: whose rules of weight decay and layers apply
    windows: tuple[int, ...] = ()  # tokens, of each stage
    million_parameters: float | None = None  # of the encoder, where published or counted
    num_masked: tuple[int, int] = (22, 36)  # units
    eval_resize_px: int = 0  # shorter side, before the crop
    expected: list[str] = field(default_factory=list)  # numbers that the header must name


OFFICIAL = {
    "pretrain_swin_b_100ep": Official(
        "swin_b",
        PRETRAIN | swin(1, 128, 6, 0.0) | COSINE_100,
        COSINE,
        "swin_v1",
        (6, 6, 6, 6),
        86.725,
        expected=["82.8", "83.5"],
    ),
    "pretrain_swin_b_800ep": Official(
        "swin_b",
        PRETRAIN | swin(1, 128, 6, 0.0) | MULTISTEP_800,
        MULTISTEP,
        "swin_v1",
        (6, 6, 6, 6),
        86.725,
        expected=["84.0"],
    ),
    "pretrain_swin_l_800ep": Official(
        "swin_l",
        PRETRAIN | swin(1, 192, 12, 0.0) | MULTISTEP_800,
        MULTISTEP,
        "swin_v1",
        (12, 12, 12, 6),
        195.159,
        expected=["85.4"],
    ),
    "pretrain_swinv2_s_800ep": Official(
        "swinv2_s",
        swin_v2(96),
        MULTISTEP,
        "swin_v2",
        (12, 12, 12, 6),
        48.96,
        expected=["84.08", "0.4641"],
    ),
    "pretrain_swinv2_b_800ep": Official(
        "swinv2_b",
        swin_v2(128),
        MULTISTEP,
        "swin_v2",
        (12, 12, 12, 6),
        86.89,
        expected=["85.04", "0.4588"],
    ),
    "pretrain_swinv2_l_800ep": Official(
        "swinv2_l",
        swin_v2(192),
        MULTISTEP,
        "swin_v2",
        (12, 12, 12, 6),
        195.20,
        expected=["85.91", "0.4507"],
    ),
    "pretrain_swinv2_h_800ep": Official(
        "swinv2_h",
        swin_v2(352),
        MULTISTEP,
        "swin_v2",
        (12, 12, 12, 6),
        655.21,
        expected=["86.34", "0.4416"],
    ),
    "pretrain_swinv2_g_800ep": Official(
        "swinv2_g",
        swin_v2(448),
        MULTISTEP,
        "swin_v2",
        (12, 12, 12, 6),
        1060.98,
        expected=["86.46", "0.4395"],
    ),
    "pretrain_vit_b_800ep": Official(
        "vit_b",
        PRETRAIN | VIT | MULTISTEP_800,
        MULTISTEP,
        "vit",
        num_masked=(30, 49),
        expected=["83.8"],
    ),
    "finetune_swin_b_100ep_192": Official(
        "swin_b",
        downstream(192, 6, 0.1, 0.9),
        FINETUNING,
        "swin_v1",
        (6, 6, 6, 6),
        eval_resize_px=219,
        expected=["82.8"],
    ),
    "finetune_swin_b_100ep_224": Official(
        "swin_b",
        downstream(224, 7, 0.1, 0.9),
        FINETUNING,
        "swin_v1",
        (7, 7, 7, 7),
        eval_resize_px=256,
        expected=["83.5"],
    ),
    "finetune_swin_b_800ep_224": Official(
        "swin_b",
        downstream(224, 7, 0.1, 0.8),
        FINETUNING,
        "swin_v1",
        (7, 7, 7, 7),
        eval_resize_px=256,
        expected=["84.0"],
    ),
    "finetune_swin_l_800ep_224": Official(
        "swin_l",
        downstream(224, 14, 0.2, 0.7),
        FINETUNING,
        "swin_v1",
        (14, 14, 14, 7),
        eval_resize_px=256,
        expected=["85.4"],
    ),
    "finetune_swinv2_b_800ep_224": Official(
        "swinv2_b",
        downstream(224, 14, 0.1, 0.75) | {"schedule.warmup_prefix": True},
        FINETUNING_V2,
        "swin_v2",
        (14, 14, 14, 7),
        eval_resize_px=256,
        expected=["85.04"],
    ),
    "finetune_vit_b_800ep_224": Official(
        "vit_b",
        downstream(224, None, 0.1, 0.65),
        FINETUNING,
        "vit",
        eval_resize_px=256,
        expected=["83.8"],
    ),
}

# Weight decay by kind of parameter (timm's names), while pretraining and while fine-tuning. What
# the original decays by accident, as its exceptions do not match the names, is marked.
WEIGHT_DECAY = {
    "swin_v1": {
        r"patch_embed\.proj\.weight$": (0.05, 0.05),
        r"(qkv|attn\.proj|fc1|fc2|reduction)\.weight$": (0.05, 0.05),
        r"decoder\.0\.weight$": (0.05, None),
        r"head\.weight$": (None, 0.05),
        r"norm\d?\.weight$": (0.0, 0.0),
        r"\.bias$": (0.0, 0.0),
        r"mask_token$": (0.0, None),
        r"relative_position_bias_table$": (0.05, 0.0),  # by accident
    },
    "swin_v2": {
        r"patch_embed\.proj\.weight$": (0.05, 0.05),
        r"(qkv|attn\.proj|fc1|fc2|reduction)\.weight$": (0.05, 0.05),
        r"decoder\.0\.weight$": (0.05, None),
        r"head\.weight$": (None, 0.05),
        r"norm\d?\.weight$": (0.0, 0.0),
        r"(\.bias|q_bias|v_bias)$": (0.0, 0.0),
        r"mask_token$": (0.0, None),
        r"cpb_mlp\.(0|2)\.weight$": (0.05, 0.0),  # by accident
        r"logit_scale$": (0.05, 0.0),  # by accident
    },
    "vit": {
        r"patch_embed\.proj\.weight$": (0.05, 0.05),
        r"(qkv|attn\.proj|fc1|fc2)\.weight$": (0.05, 0.05),
        r"decoder\.0\.weight$": (0.05, None),
        r"head\.weight$": (None, 0.05),
        r"norm\d?\.weight$": (0.0, 0.0),
        r"(\.bias|q_bias|v_bias|gamma_1|gamma_2)$": (0.0, 0.0),
        r"mask_token$": (0.05, None),  # by accident
        r"cls_token$": (0.0, 0.0),
        r"relative_position_bias_table$": (0.05, 0.05),  # by accident, and when fine-tuning too
    },
}

# Layers for the decay of learning rates, counted from the input, by the start of a name; the blocks
# in between count on from 1. What no start fits belongs to the head's layer.
LAYER_OF = {
    "swin": {
        "patch_embed.": 0,
        "layers.1.downsample.": 2,
        "layers.2.downsample.": 4,
        "layers.3.downsample.": 22,
    },
    "vit": {"patch_embed.": 0, "cls_token": 0},
}
NUM_BLOCKS = {"swin": 24, "vit": 12}
