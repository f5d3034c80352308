"""The settings of each job, with their types; what its configuration is checked against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ssl_swin.data.loading.few_labels import FewLabels
from ssl_swin.data.transforms import CropRatio
from ssl_swin.launch.settings import (
    MAY_CHANGE,
    ArgumentsOf,
    Built,
    FromBackbone,
    JobSettings,
    Size,
    TrainerSettings,
)
from ssl_swin.probing.fitting import fit_linear_heads
from ssl_swin.probing.grids import knn_grid


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(JobSettings):
    """What jobs that train an encoder have besides."""

    resume: Annotated[str, MAY_CHANGE]
    compile: Annotated[bool, MAY_CHANGE]
    eval_crop_ratio: CropRatio
    augment: Built
    optim: Built
    schedule: Built
    trainer: TrainerSettings
    callbacks: Annotated[dict[str, Any], MAY_CHANGE]


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(TrainingSettings):
    """Settings of `pretrain`."""

    objective: Built


@dataclass(frozen=True, kw_only=True)
class OfBackbone:
    """What jobs have that start from a backbone."""

    backbone: str
    model: FromBackbone
    img_size_px: Size | None
    window_size: int | None


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(OfBackbone, TrainingSettings):
    """Settings of `finetune`."""

    test_img_size_px: Annotated[Size | None, MAY_CHANGE]
    labels: FewLabels
    ema_decay: float | None
    task: Built


@dataclass(frozen=True)
class FeatureSettings:
    """The group `features`."""

    folder: Annotated[str, MAY_CHANGE]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class LinearProbeSettings(OfBackbone, JobSettings):
    """Settings of `linear_probe`."""

    device: str
    eval_crop_ratio: CropRatio
    labels: FewLabels
    stages: list[int] | None
    poolings: list[Literal["mean", "max"]]
    features: FeatureSettings
    linear: Annotated[Mapping[str, Any], ArgumentsOf(fit_linear_heads)]
    knn: Annotated[Mapping[str, Any], ArgumentsOf(knn_grid)]
