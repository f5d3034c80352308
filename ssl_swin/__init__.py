"""SimMIM masked image modeling on Swin Transformers: pretrain, probe, fine-tune, hand off.

What is listed here is the public face: its names stay when modules move, and configurations name
nothing else. A name is imported when it is first used, so that `import ssl_swin` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_swin.data.detect_views import DetectAugmentation as DetectAugmentation
    from ssl_swin.data.loading.opening import open_splits as open_splits
    from ssl_swin.data.mask_classes import MaskClasses as MaskClasses
    from ssl_swin.data.segment_views import SegmentAugmentation as SegmentAugmentation
    from ssl_swin.data.semi_views import StrongView as StrongView
    from ssl_swin.data.semi_views import WeakView as WeakView
    from ssl_swin.data.synthetic.prepare import prepare_demo as prepare_demo
    from ssl_swin.data.transforms import Augmentation as Augmentation
    from ssl_swin.data.transforms import FinetuneAugmentation as FinetuneAugmentation
    from ssl_swin.data.transforms import RandomCrop as RandomCrop
    from ssl_swin.data.views import ColorViews as ColorViews
    from ssl_swin.encoders.beit import beit as beit
    from ssl_swin.encoders.convnext import convnext as convnext
    from ssl_swin.encoders.dense_encoder import DenseEncoder as DenseEncoder
    from ssl_swin.encoders.encoder import Encoder as Encoder
    from ssl_swin.encoders.resnet import resnet as resnet
    from ssl_swin.encoders.swin import swin as swin
    from ssl_swin.encoders.swin_ape import swin_ape as swin_ape
    from ssl_swin.encoders.swin_mlp import swin_mlp as swin_mlp
    from ssl_swin.errors import TrainingGaveUp as TrainingGaveUp
    from ssl_swin.errors import UserError as UserError
    from ssl_swin.jobs.embedding import embed as embed
    from ssl_swin.jobs.in_process import detect as detect
    from ssl_swin.jobs.in_process import finetune as finetune
    from ssl_swin.jobs.in_process import linear_probe as linear_probe
    from ssl_swin.jobs.in_process import pretrain as pretrain
    from ssl_swin.jobs.in_process import segment as segment
    from ssl_swin.jobs.predicting import predict as predict
    from ssl_swin.launch.loading import load_backbone as load_backbone
    from ssl_swin.launch.sweep import SweepFolder as SweepFolder
    from ssl_swin.objectives.base import Objective as Objective
    from ssl_swin.objectives.base import Output as Output
    from ssl_swin.objectives.ibot import IBOT as IBOT
    from ssl_swin.objectives.moby import MoBY as MoBY
    from ssl_swin.objectives.simmim import SimMIM as SimMIM
    from ssl_swin.objectives.simmim_sparse import SparseSimMIM as SparseSimMIM
    from ssl_swin.optim.schedules import CosineSchedule as CosineSchedule
    from ssl_swin.optim.schedules import DenseMultistepSchedule as DenseMultistepSchedule
    from ssl_swin.optim.schedules import MultistepSchedule as MultistepSchedule
    from ssl_swin.optim.schedules import PolySchedule as PolySchedule
    from ssl_swin.optim.schedules import Schedule as Schedule
    from ssl_swin.tasks.base import Task as Task
    from ssl_swin.tasks.classification import Classification as Classification
    from ssl_swin.tasks.classification import Classifier as Classifier
    from ssl_swin.tasks.detecting import DetectInference as DetectInference
    from ssl_swin.tasks.detection import Detection as Detection
    from ssl_swin.tasks.segmentation import Segmentation as Segmentation
    from ssl_swin.tasks.segmenting import Inference as Inference
    from ssl_swin.tasks.soft_teacher import SoftTeacher as SoftTeacher
    from ssl_swin.training.callbacks.bad_samples import BadSamples as BadSamples
    from ssl_swin.training.callbacks.batch_digest import BatchDigest as BatchDigest
    from ssl_swin.training.callbacks.collapse_alarm import CollapseAlarm as CollapseAlarm
    from ssl_swin.training.callbacks.feature_pictures import FeaturePictures as FeaturePictures
    from ssl_swin.training.callbacks.predictions import Predictions as Predictions
    from ssl_swin.training.callbacks.probes import Probes as Probes
    from ssl_swin.training.callbacks.reconstructions import Reconstructions as Reconstructions
    from ssl_swin.training.callbacks.skipped_steps import SkippedSteps as SkippedSteps
    from ssl_swin.training.callbacks.throughput import Throughput as Throughput
    from ssl_swin.training.checkpointing.schedule import StepCheckpoint as StepCheckpoint
    from ssl_swin.training.optim import dense_optimizer as dense_optimizer
    from ssl_swin.training.optim import dense_sgd as dense_sgd
    from ssl_swin.training.optim import finetune_optimizer as finetune_optimizer
    from ssl_swin.training.optim import pretrain_optimizer as pretrain_optimizer
    from ssl_swin.training.trainer import Trainer as Trainer
    from ssl_swin.training.wandb_logger import WandbLogger as WandbLogger
    from ssl_swin.weights.backbone import Backbone as Backbone
    from ssl_swin.weights.backbone import save_backbone as save_backbone
    from ssl_swin.weights.detector import load_detector as load_detector
    from ssl_swin.weights.formats.detectors import export_detector as export_detector
    from ssl_swin.weights.formats.detectors import import_detector as import_detector
    from ssl_swin.weights.formats.exporting import export_weights as export_weights
    from ssl_swin.weights.formats.importing import import_weights as import_weights
    from ssl_swin.weights.formats.segmenters import export_segmenter as export_segmenter
    from ssl_swin.weights.formats.segmenters import import_segmenter as import_segmenter
    from ssl_swin.weights.segmenter import load_segmenter as load_segmenter
    from ssl_swin.weights.teachers import distillation as distillation

__version__ = "0.1.0"

_HOMES = {
    "Augmentation": "ssl_swin.data.transforms",
    "Backbone": "ssl_swin.weights.backbone",
    "BadSamples": "ssl_swin.training.callbacks.bad_samples",
    "BatchDigest": "ssl_swin.training.callbacks.batch_digest",
    "Classification": "ssl_swin.tasks.classification",
    "Classifier": "ssl_swin.tasks.classification",
    "CollapseAlarm": "ssl_swin.training.callbacks.collapse_alarm",
    "ColorViews": "ssl_swin.data.views",
    "CosineSchedule": "ssl_swin.optim.schedules",
    "DetectInference": "ssl_swin.tasks.detecting",
    "Detection": "ssl_swin.tasks.detection",
    "DenseEncoder": "ssl_swin.encoders.dense_encoder",
    "DenseMultistepSchedule": "ssl_swin.optim.schedules",
    "DetectAugmentation": "ssl_swin.data.detect_views",
    "Encoder": "ssl_swin.encoders.encoder",
    "FeaturePictures": "ssl_swin.training.callbacks.feature_pictures",
    "FinetuneAugmentation": "ssl_swin.data.transforms",
    "IBOT": "ssl_swin.objectives.ibot",
    "Inference": "ssl_swin.tasks.segmenting",
    "MaskClasses": "ssl_swin.data.mask_classes",
    "MoBY": "ssl_swin.objectives.moby",
    "MultistepSchedule": "ssl_swin.optim.schedules",
    "Objective": "ssl_swin.objectives.base",
    "Output": "ssl_swin.objectives.base",
    "PolySchedule": "ssl_swin.optim.schedules",
    "Predictions": "ssl_swin.training.callbacks.predictions",
    "Probes": "ssl_swin.training.callbacks.probes",
    "RandomCrop": "ssl_swin.data.transforms",
    "Reconstructions": "ssl_swin.training.callbacks.reconstructions",
    "Schedule": "ssl_swin.optim.schedules",
    "SegmentAugmentation": "ssl_swin.data.segment_views",
    "Segmentation": "ssl_swin.tasks.segmentation",
    "SimMIM": "ssl_swin.objectives.simmim",
    "SkippedSteps": "ssl_swin.training.callbacks.skipped_steps",
    "SoftTeacher": "ssl_swin.tasks.soft_teacher",
    "SparseSimMIM": "ssl_swin.objectives.simmim_sparse",
    "StepCheckpoint": "ssl_swin.training.checkpointing.schedule",
    "StrongView": "ssl_swin.data.semi_views",
    "SweepFolder": "ssl_swin.launch.sweep",
    "Task": "ssl_swin.tasks.base",
    "Throughput": "ssl_swin.training.callbacks.throughput",
    "Trainer": "ssl_swin.training.trainer",
    "TrainingGaveUp": "ssl_swin.errors",
    "UserError": "ssl_swin.errors",
    "WandbLogger": "ssl_swin.training.wandb_logger",
    "WeakView": "ssl_swin.data.semi_views",
    "beit": "ssl_swin.encoders.beit",
    "convnext": "ssl_swin.encoders.convnext",
    "dense_optimizer": "ssl_swin.training.optim",
    "dense_sgd": "ssl_swin.training.optim",
    "detect": "ssl_swin.jobs.in_process",
    "distillation": "ssl_swin.weights.teachers",
    "embed": "ssl_swin.jobs.embedding",
    "export_detector": "ssl_swin.weights.formats.detectors",
    "export_segmenter": "ssl_swin.weights.formats.segmenters",
    "export_weights": "ssl_swin.weights.formats.exporting",
    "finetune": "ssl_swin.jobs.in_process",
    "finetune_optimizer": "ssl_swin.training.optim",
    "import_detector": "ssl_swin.weights.formats.detectors",
    "import_segmenter": "ssl_swin.weights.formats.segmenters",
    "import_weights": "ssl_swin.weights.formats.importing",
    "linear_probe": "ssl_swin.jobs.in_process",
    "load_backbone": "ssl_swin.launch.loading",
    "load_detector": "ssl_swin.weights.detector",
    "load_segmenter": "ssl_swin.weights.segmenter",
    "open_splits": "ssl_swin.data.loading.opening",
    "predict": "ssl_swin.jobs.predicting",
    "prepare_demo": "ssl_swin.data.synthetic.prepare",
    "pretrain": "ssl_swin.jobs.in_process",
    "pretrain_optimizer": "ssl_swin.training.optim",
    "resnet": "ssl_swin.encoders.resnet",
    "save_backbone": "ssl_swin.weights.backbone",
    "segment": "ssl_swin.jobs.in_process",
    "swin": "ssl_swin.encoders.swin",
    "swin_ape": "ssl_swin.encoders.swin_ape",
    "swin_mlp": "ssl_swin.encoders.swin_mlp",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
