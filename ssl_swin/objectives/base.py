"""The contract of an objective: everything about pretraining that is not the loop around it.

A new objective is one module with a subclass and one YAML file that names it. The loop owns
devices, precision, optimisers, checkpoints and logging, and knows of an objective only what stands
here. Everything that an objective must keep to continue exactly, such as queues and momentum
encoders, is a parameter or a buffer of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ssl_swin.data.geometry import Size
from ssl_swin.data.loading.paired import Companion
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.figure import Figure

Normalize = Callable[[Tensor], Tensor]  # raw pixels (B, C, H, W) to what the encoder takes
Transform = Callable[[Any, int], Any]  # of an encoded sample and the epoch: one training example
Collate = Callable[[Sequence[Any]], Any]  # of examples: a batch


class Batch(Protocol):
    """What every batch has, whatever else; in practice a NamedTuple of tensors and lists."""

    @property
    def pixels(self) -> Tensor:
        """Return the raw images (B, C, H, W), or the first of their views."""

    @property
    def names(self) -> list[str]:
        """Return the names of the images, one each."""


class Output(NamedTuple):
    """What one training step computes.

    An objective that distils its own features, and whose loss is small when they are all alike,
    logs `rep/std_mean`: the deviation over the batch of each channel of the features, these scaled
    to length 1, times the root of the number of channels, averaged over channels. It is about 1
    where images are told apart and 0 where they are not; the collapse alarm watches it.
    """

    loss: Tensor  # scalar with a gradient
    logs: Mapping[str, Tensor] = {}  # further scalars of this step, logged as train/NAME


class Progress(NamedTuple):
    """Where a run is, for what changes along it, as momentum and temperatures."""

    step: int  # optimiser steps made so far, those left out included
    num_steps: int  # of the whole run, as its schedules count them
    steps_per_epoch: int

    @property
    def share(self) -> float:
        """Share of the run that is done, from 0 to 1."""
        return min(1.0, self.step / self.num_steps)


class Objective(nn.Module, ABC):
    """An encoder under training, and what is minimised.

    Attributes:
        encoder: The encoder that is handed on when training ends.
        title: Name for a reader.
        tags: Words for the model card.
        members: Members of a sample that it needs besides the image, as ("mask",).
        places: Its settings that only say where something lies, which may have moved when a run is
            continued; that it is still the same, `outside` has to tell.
    """

    encoder: Encoder
    title: str
    tags: tuple[str, ...] = ()
    members: ClassVar[tuple[str, ...]] = ()
    places: ClassVar[tuple[str, ...]] = ()

    def __init__(self, encoder: Encoder) -> None:
        """Wrap an encoder.

        Args:
            encoder: The encoder to train.
        """
        super().__init__()
        self.encoder = encoder

    @property
    def view_size_px(self) -> Size:
        """Height and width of what training sees of an image: by default what the encoder takes."""
        return self.encoder.img_size_px

    def make_evaluation(self, crop_ratio: float) -> Augmentation:
        """Return how held-out images are seen: by default their centre.

        Args:
            crop_ratio: Side of the centre crop over the shorter side of an image.
        """
        return CentreCrop(self.view_size_px, crop_ratio=crop_ratio)

    @abstractmethod
    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> Transform:
        """Return what makes a training example of an encoded sample.

        It is sent to the processes that load data, so it must not hold the model. Whatever it draws
        comes from generators keyed by (seed, epoch, sample name, purpose).

        Args:
            augmentation: Crops, flips and colours; for evaluation the centre crop.
            pixels: Channels and dtype of a decoded image.
            seed: Seed of all draws.
        """

    @abstractmethod
    def make_collate(self) -> Collate:
        """Return what makes a batch of examples, in the processes that load data."""

    def make_companion(self, split: Split, pixels: PixelFormat, *, seed: int) -> Companion:
        """Return how images of a second source, without labels, join every batch.

        Args:
            split: The source.
            pixels: Channels and dtype of a decoded image.
            seed: Seed of all draws.

        Raises:
            UserError: If the objective has no use for them, or they cannot be changed as it wants.
        """
        raise UserError(f"{self.title} learns nothing from images without labels")

    @abstractmethod
    def forward(self, batch: Any, normalize: Normalize) -> Output:
        """Compute the loss of a batch.

        Args:
            batch: What the collate function made, on the device.
            normalize: Turns raw pixels into what the encoder takes.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return one phrase for the first line of a run and the model card."""

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None:
        """Refuse batches that the objective cannot take; by default it takes all.

        Args:
            batch_size: Images per device and step.
            global_batch_size: Images of all devices per step.

        Raises:
            UserError: If it cannot take them.
        """

    def notes(self) -> Sequence[str]:
        """Return what a reader should know before the first step, a line each; by default nothing.

        As of settings that can be trained with and seldom should be.
        """
        return ()

    def new_metrics(self) -> dict[str, Metric]:
        """Return fresh metrics of an evaluation by name, logged as val/NAME."""
        return {"loss": MeanMetric()}

    def evaluate(self, metrics: Mapping[str, Metric], batch: Any, normalize: Normalize) -> None:
        """Update metrics with a held-out batch; the model is in eval mode.

        Args:
            metrics: What `new_metrics` returned, on the device.
            batch: Batch, as in `forward`.
            normalize: Normalisation, as in `forward`.
        """
        output = self(batch, normalize)
        metrics["loss"].update(output.loss, weight=len(batch.names))

    def before_step(self, progress: Progress) -> None:
        """Take note of where the run is; called once per optimiser step, before its first batch.

        What changes along a run is a function of this, and so the same after a resume.

        Args:
            progress: The run's.
        """

    def after_backward(self) -> None:
        """Change the gradient of a step before it is clipped, as to freeze a layer (`grad = None`).

        Called once per optimiser step, when all batches and devices have added to it.
        """

    def after_step(self, step: int) -> None:
        """Do what follows an optimiser step, as the update of a momentum encoder.

        It is not called after a step that was left out, being not finite.

        Args:
            step: Number of optimiser steps made so far.
        """

    def outside(self) -> dict[str, str]:
        """Return digests of what it computes with and does not keep, as a frozen teacher's weights.

        They are written into checkpoints, and a run that goes on must find the same.

        Returns:
            By name of the setting, as {"teacher": "1f0c..."}; by default nothing.
        """
        return {}

    def undecayed(self) -> frozenset[str]:
        """Return the dotted names of its own parameters that weight decay spares.

        Biases and other one-dimensional ones are spared anyway, and the encoder names its own.
        """
        return frozenset()

    def preview(self, batch: Any, normalize: Normalize) -> Figure:
        """Return what to draw of a batch before any network has seen it; by default nothing."""
        return ()

    def figure(self, batch: Any, normalize: Normalize) -> Figure:
        """Return what to draw of a batch and the model's idea of it; by default the preview.

        Nothing, where the objective predicts nothing that can be drawn.
        """
        return self.preview(batch, normalize)

    def extra_weights(self) -> dict[str, dict[str, Tensor]]:
        """Return what to write beside the backbone: by file name, tensors by name."""
        return {}
