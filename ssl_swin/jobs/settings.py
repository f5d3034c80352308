"""The settings of each job, with their types; what its configuration is checked against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from ssl_swin.arguments import (
    EACH_ONCE,
    Above0,
    InnerFraction,
    Name,
    NonNegative,
    Positive,
    Several,
    SizePx,
)
from ssl_swin.data.loading.few_labels import FewImages, FewLabels
from ssl_swin.data.transforms import Augmentation, CropRatio
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.kernels import (
    Attention,
    CompileMode,
    DecoderAttention,
    Head,
    Mlp,
    Optimizer,
    PatchEmbedding,
)
from ssl_swin.errors import UserError
from ssl_swin.launch.settings import (
    MAY_CHANGE,
    ArgumentsOf,
    Built,
    CallbackSettings,
    FromBackbone,
    JobSettings,
    Makes,
    TrainerSettings,
)
from ssl_swin.objectives.base import Objective
from ssl_swin.optim.schedules import Schedule
from ssl_swin.probing.fitting import fit_linear_heads
from ssl_swin.probing.grids import knn_grid
from ssl_swin.reporting.figures import band_groups
from ssl_swin.tasks.base import Task
from ssl_swin.tasks.segmenting import Ratios
from ssl_swin.tasks.soft_teacher import SoftTeacher

OF_PROBING = frozenset(
    {"train", "val", "num_classes", "seed", "device", "on_epoch_end", "progress", "tolerance_se"}
)


BinMultiple = Annotated[int, Ge(1), Le(1024)]  # a larger one would fill memory with empty bins


@dataclass(frozen=True)
class KernelSettings:
    """The group `kernels`."""

    attention: Literal[Attention, "auto"] = "auto"
    mlp: Literal[Mlp, "auto"] = "auto"
    decoder_attention: Literal[DecoderAttention, "auto"] = "auto"
    patch_embedding: Literal[PatchEmbedding, "auto"] = "auto"
    head: Literal[Head, "auto"] = "auto"
    optimizer: Literal[Optimizer, "auto"] = "auto"
    compile_mode: Literal[CompileMode, "auto"] = "auto"
    bin_multiple: BinMultiple | Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(JobSettings):
    """What jobs that train an encoder have besides."""

    resume: Annotated[Name, MAY_CHANGE]
    optimized_metric: Annotated[Name | None, MAY_CHANGE] = None
    compile: Annotated[bool, MAY_CHANGE]
    kernels: Annotated[KernelSettings, MAY_CHANGE] = KernelSettings()
    plan: Annotated[bool, MAY_CHANGE] = False
    augment: Annotated[Built, Makes(Augmentation, partial=True, added=frozenset({"size_px"}))]
    optim: Annotated[
        Built,
        Makes(
            OptimizerLRScheduler,
            partial=True,
            added=frozenset({"model", "schedule", "length"}),
            words="return an optimiser with its schedule, as ssl_swin.pretrain_optimizer does",
        ),
    ]
    schedule: Annotated[Built, Makes(Schedule)]
    trainer: TrainerSettings
    callbacks: CallbackSettings

    @staticmethod
    def check_together(settings: Mapping[str, Any]) -> None:
        """Refuse pictures of bands that the data does not have."""
        JobSettings.check_together(settings)
        for callback in settings["callbacks"].values():
            band_groups((callback or {}).get("bands"), settings["data"]["channels"])


@dataclass(frozen=True, kw_only=True)
class OfAnyModel:
    """What jobs have whose model may be that of a backbone."""

    model: Annotated[FromBackbone, Makes(Encoder)]


@dataclass(frozen=True, kw_only=True)
class OfCentreCrops:
    """What jobs have that look at the centre of held-out images."""

    eval_crop_ratio: CropRatio


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(OfAnyModel, OfCentreCrops, TrainingSettings):
    """Settings of `pretrain`."""

    backbone: Name | None = None
    freeze_backbone_epochs: Above0 | None = None
    objective: Annotated[Built, Makes(Objective, partial=True, added=frozenset({"encoder"}))]


@dataclass(frozen=True, kw_only=True)
class OfBackbone(OfAnyModel):
    """What jobs have that start from a backbone."""

    backbone: Name


@dataclass(frozen=True, kw_only=True)
class TaskSettings(OfBackbone, TrainingSettings):
    """What jobs have that train a task on labels."""

    ema_decay: InnerFraction | None
    task: Annotated[Built, Makes(Task, partial=True, added=frozenset({"encoder", "classes"}))]

    @staticmethod
    def check_together(settings: Mapping[str, Any]) -> None:
        """Refuse a run that would choose its best epoch without measuring any."""
        TrainingSettings.check_together(settings)
        if settings["trainer"].get("limit_val_batches") == 0:
            raise UserError(
                "trainer.limit_val_batches=0 leaves no validation, which chooses the best epoch: "
                "give a number of batches, or a fraction as 0.1"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(OfCentreCrops, TaskSettings):
    """Settings of `finetune`."""

    head: Annotated[Literal["auto", "fresh"], MAY_CHANGE]  # only the first start reads it
    test_img_size_px: Annotated[SizePx | None, MAY_CHANGE]
    labels: FewLabels


@dataclass(frozen=True, kw_only=True)
class SegmentSettings(TaskSettings):
    """Settings of `segment`."""

    classes: Several | Annotated[list[Name], MinLen(2), EACH_ONCE] | None
    test_ratios: Annotated[Ratios | None, MAY_CHANGE]
    labels: FewImages


@dataclass(frozen=True, kw_only=True)
class DetectSettings(TaskSettings):
    """Settings of `detect`."""

    classes: Positive | Annotated[list[Name], MinLen(1), EACH_ONCE] | None
    labels: FewImages
    semi: Annotated[
        Built | None,
        Makes(SoftTeacher, partial=True, optional=True, added=frozenset({"detection"})),
    ] = None


@dataclass(frozen=True)
class FeatureSettings:
    """The group `features`."""

    folder: Annotated[Name, MAY_CHANGE]
    dtype: Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class LinearProbeSettings(OfBackbone, JobSettings):
    """Settings of `linear_probe`."""

    device: Name
    eval_crop_ratio: CropRatio
    labels: FewLabels
    stages: Annotated[list[Positive], MinLen(1), EACH_ONCE] | None
    poolings: Annotated[list[Literal["mean", "max"]], MinLen(1), EACH_ONCE]
    tolerance_se: NonNegative
    features: FeatureSettings
    linear: Annotated[Mapping[str, Any], ArgumentsOf(fit_linear_heads, OF_PROBING)]
    knn: Annotated[Mapping[str, Any], ArgumentsOf(knn_grid, OF_PROBING)]
