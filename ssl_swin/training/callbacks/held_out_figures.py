"""A figure of the same held-out images again and again while the model learns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import MinLen
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from ssl_swin.arguments import Count, PathName, Positive, checked
from ssl_swin.figure import Figure
from ssl_swin.files import atomic_path
from ssl_swin.reporting.animation import write_animation
from ssl_swin.reporting.figures import band_groups, draw_figure
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.dashboards import Dashboard
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.sharding import gathered

Precision = Callable[[], AbstractContextManager[Any]]


ShownBands = (
    Annotated[Sequence[Count], MinLen(1)] | Annotated[Sequence[Sequence[Count]], MinLen(1)] | None
)


class HeldOutFigures(Extra, ABC):
    """Draws a figure at step 0, every N steps, and at the end.

    All devices compute it, so that none is left waiting in a pass of its own; the first one draws.

    Attributes:
        key: Name of the pictures on dashboards.
    """

    title = "a picture"
    key: ClassVar[str]

    @checked
    def __init__(
        self,
        folder: PathName,
        *,
        every_n_steps: Positive,
        num_images: Positive,
        bands: ShownBands = None,
        animate: bool = False,
    ) -> None:
        """Sets the callback up.

        Args:
            folder: Folder for `step_*.png`.
            every_n_steps: Optimiser steps between pictures.
            num_images: Rows of a picture.
            bands: Channels drawn as red, green and blue, or one drawn grey, or a list of such
                groups, each of which is drawn. Other than 8-bit pixels are stretched to be seen.
            animate: Whether the pictures of the whole run become a film at its end, beside the
                folder as `FOLDER.webp`.
        """
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.num_images = num_images
        self.bands = bands
        self.animation = self.folder.with_name(f"{self.folder.name}.webp") if animate else None
        self._batch: Any = None
        self._last_step = -1

    @abstractmethod
    def figure_of(self, module: TrainingModule, batch: Any) -> Figure:
        """Return what is drawn of a batch, nothing where there is nothing to draw.

        Args:
            module: In eval mode, inside the forward pass's precision, without gradients.
            batch: Held-out images, on the device.
        """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses bands that are not there, on every process."""
        assert isinstance(pl_module, TrainingModule)
        band_groups(self.bands, pl_module.model.encoder.in_chans)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the images; draws the untrained model's idea of them.

        A run that is continued has drawn it, and gives dashboards the pictures that they lack.
        """
        self._take_images(trainer)
        if trainer.global_step == 0:
            self._draw(trainer, pl_module)
            return
        dashboards = [each for each in trainer.loggers if isinstance(each, Dashboard)]
        for logger in dashboards if trainer.is_global_zero else ():
            self._send_again(logger, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draws when it is time."""
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the final model's idea, and makes the film."""
        self._draw(trainer, pl_module)
        if self.animation is not None and trainer.is_global_zero:
            write_animation(self.animation, self._pictures_to(trainer.global_step))

    def _take_images(self, trainer: Trainer) -> None:
        def take() -> None:
            self._batch = trainer.datamodule.held_out_batch(self.num_images)  # type: ignore[attr-defined]

        try:
            done_by_all(take)
        except Exception:
            self._batch = None  # on all ranks: nothing is drawn
            raise

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._last_step or self._batch is None:
            return
        self._last_step = step
        assert isinstance(module, TrainingModule)
        drawn: list[Figure] = []
        done_by_all(lambda: drawn.append(self._figure(module)))  # columns stay where they are
        (figure,) = drawn
        if not figure or not trainer.is_global_zero:
            return
        picture = self._picture(module, figure)
        path = self.folder / f"step_{step:07d}.png"
        with atomic_path(path) as temporary:
            picture.save(temporary, format="png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(key=self.key, images=[picture], step=step)

    def num_pictures(self, num_steps: int) -> int:
        """Return how many pictures a run of so many steps leaves."""
        return 2 + (num_steps - 1) // self.every_n_steps

    def sample(
        self, module: TrainingModule, batch: Any, precision: Precision
    ) -> Image.Image | None:
        """Return a picture of the model as it is; None if it draws none.

        Args:
            module: On the device, outside of a trainer.
            batch: Held-out images, on the device.
            precision: Makes the context of the forward pass.
        """
        self._batch = batch
        with torch.no_grad(), precision():
            figure = self.figure_of(module, batch)
        return self._picture(module, figure) if figure else None

    def _send_again(self, dashboard: Dashboard, last_step: int) -> None:
        damaged: list[Exception] = []
        for step, path in self._pictures_to(last_step).items():
            if step >= dashboard.lacks_pictures_from:
                try:
                    with Image.open(path) as file:
                        picture = file.copy()
                except Exception as error:  # the others are sent
                    damaged.append(error)
                    continue
                dashboard.log_image(key=self.key, images=[picture], step=step)
        if damaged:
            raise damaged[0]

    def _pictures_to(self, last_step: int) -> dict[int, Path]:
        """Return the run's pictures by step, also those of earlier starts."""
        numbers = {path.stem.removeprefix("step_"): path for path in self.folder.glob("step_*.png")}
        found = {int(number): path for number, path in numbers.items() if number.isdecimal()}
        return {step: found[step] for step in sorted(found) if step <= last_step}

    def _figure(self, module: TrainingModule) -> Figure:
        trainer, training = module.trainer, module.training
        batch = trainer.strategy.batch_to_device(self._batch, module.device)
        module.eval()
        try:
            with gathered(trainer), torch.no_grad(), trainer.precision_plugin.forward_context():
                return self.figure_of(module, batch)
        finally:
            module.train(training)

    def _picture(self, module: TrainingModule, figure: Figure) -> Image.Image:
        return draw_figure(
            figure,
            module.mean,
            module.std,
            bands=self.bands,
            stretch=self._batch.pixels.dtype != torch.uint8,
        )
