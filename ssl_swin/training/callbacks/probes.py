"""Is pretraining working? The features of every stage are judged while the model learns."""

import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from ssl_swin.arguments import (
    Above0,
    Neighbours,
    PathName,
    Portion,
    Positive,
    Rate,
    RateBelow1,
    checked,
)
from ssl_swin.plurals import counted
from ssl_swin.probing.stage_scores import QuickProbe, label_free
from ssl_swin.runs.metrics import STAGES
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.dashboards import Dashboard
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.extras import Extra
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.probe_curves import ProbeCurves
from ssl_swin.training.probe_records import (
    read_initial,
    read_state,
    write_initial,
    write_state,
)
from ssl_swin.training.probed_features import ProbedImages, probed_images
from ssl_swin.training.sharding import gather_objects, gathered
from ssl_swin.training.time_budget import TimeBudget

FEATURES_SHARE = 0.4  # of the time of the first probe, for the images of each split
say = rank_zero_only(print)


class Probes(Extra):
    """Judges the features of every stage at step 0, every N steps, and at the end.

    Where training and validation images have labels, logs `probe/knn_top1/stage{k}` and
    `probe/linear_top1/stage{k}` in percent; the labels judge the features and never train them.
    With labels or without, logs `rep/rankme/stage{k}`, `rep/std_mean/stage{k}` and
    `rep/cka_to_init/stage{k}` of the held-out images (training images where none are held out).

    The devices share images and stages. What a training becomes does not depend on its probes.
    """

    title = "the probes"

    @checked
    def __init__(
        self,
        folder: PathName,
        *,
        every_n_steps: Positive,
        num_train_images: Positive,
        num_val_images: Positive | None = None,
        k: Neighbours,
        temperature: Above0,
        linear_epochs: Positive,
        linear_base_lr: Rate,
        max_s: Above0,
        max_time_ratio: Portion,
        min_rank_ratio: RateBelow1 = 0.0,
    ) -> None:
        """Sets the callback up.

        Numbers of images are rounded up to whole batches over all devices.

        Args:
            folder: Folder for what is remembered; the curves of all stages are drawn beside it, as
                `FOLDER.png`.
            every_n_steps: Optimiser steps between probes.
            num_train_images: Images that neighbours and classifier are taken from, where there are
                labels.
            num_val_images: Held-out images that are judged, the first ones; None takes all.
            k: Neighbours that vote.
            temperature: Temperature of the votes' weights.
            linear_epochs: Passes of the linear classifier over the features.
            linear_base_lr: Its learning rate per 256 images.
            max_s: Seconds that a probe may take: the first one stops taking images in time, and
                the later ones take as many.
            max_time_ratio: Largest share of the run's time for all probes. What would exceed it
                waits for a later multiple of `every_n_steps`; only the first one does not.
            min_rank_ratio: Share of the untrained network's RankMe below which the last stage's
                features are said to collapse; 0 never says so.
        """
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.num_images = {"train": num_train_images, "val": num_val_images}
        self.probe = QuickProbe(k, temperature, linear_epochs, linear_base_lr)
        self.max_s = max_s
        self.figure = self.folder.with_name(f"{self.folder.name}.png")
        self.curves = ProbeCurves()
        self.budget = TimeBudget(max_time_ratio)
        self._num_batches: dict[str, int] = {}  # of a device, as the first probe found it
        self._last_step = -1
        self._has_waited = False
        self.min_rank_ratio = min_rank_ratio
        self._is_low_rank = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the untrained model; a run that is continued goes on as it did before."""
        self._last_step = trainer.global_step
        self.budget.start()
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)
            return
        (known, *_) = done_by_all(lambda: read_state(self.folder) if trainer.is_global_zero else {})
        if known:
            self.budget.load_state_dict(known["budget"])
            self._num_batches = dict(known["num_batches"])
        if trainer.is_global_zero:
            self._take_up(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probes when it is time."""
        if trainer.global_step % self.every_n_steps == 0:
            self._probe_within_budget(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the final model."""
        self._probe_within_budget(trainer, pl_module)

    def _probe_within_budget(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        (allowed, *_) = gather_objects(self.budget.allows)  # the first process decides
        if allowed:
            self._probe(trainer, module)
        else:
            if not self._has_waited:
                say(
                    f"note: a probe takes {self.budget.last_s:.1f} s, so it is left out at some of "
                    f"every {counted(self.every_n_steps, 'step')}: all of them may take "
                    f"{self.budget.ratio:.0%} of the time (callbacks.probes.max_time_ratio)",
                    flush=True,
                )
            self._has_waited = True

    def _probe(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        with self.budget.spending(), isolate_rng():
            values = self._measured(module)
            if trainer.is_global_zero:
                self._log(trainer, values)
        if trainer.is_global_zero:
            write_state(self.folder, self.budget.state_dict(), self._num_batches)

    def _log(self, trainer: Trainer, values: dict[str, float]) -> None:
        step = trainer.global_step
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
        self.curves.add(step, values)
        picture = self.curves.write(self.figure)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(key=STAGES, images=[picture], step=step)
        self._look_at_rank(step)

    def _look_at_rank(self, step: int) -> None:
        if (ranks := self.curves.ranks()) is None:
            return
        first, newest = ranks
        before, self._is_low_rank = self._is_low_rank, newest < self.min_rank_ratio * first
        if self._is_low_rank and not before:
            say(
                f"warning: at step {step:,} the features of the last stage have a rank (RankMe) of "
                f"{newest:.3g}, the untrained network's {first:.3g}: they collapse to few "
                "dimensions. Lower optim.base_lr or lengthen the warm-up "
                f"(callbacks.probes.min_rank_ratio={self.min_rank_ratio:g})",
                flush=True,
            )

    def _take_up(self, trainer: Trainer) -> None:
        """Take the curves of a run that is continued, and give dashboards the picture they lack."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                self.curves.take_up(logger.file, trainer.global_step)
        step = self.curves.last_step
        for logger in trainer.loggers if step >= 0 else ():
            if isinstance(logger, Dashboard) and logger.lacks_pictures_from <= step:
                picture = self.curves.write(self.figure)
                logger.log_image(key=STAGES, images=[picture], step=step)

    def _measured(self, module: TrainingModule) -> dict[str, float]:
        """Return all metrics, on every process."""
        trainer = module.trainer
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        num_classes = len(data.readers["train"].classes)
        split = "val" if "val" in data.readers else "train"
        began, train = time.perf_counter(), None
        with gathered(trainer):
            held_out = self._images(module, split, began + FEATURES_SHARE * self.max_s)
            if split == "val" and num_classes >= 2 and (held_out.labels >= 0).any():
                until_s = began + 2 * FEATURES_SHARE * self.max_s
                train = self._images(module, "train", until_s)
        values = done_by_all(lambda: self._of_own_stages(module, held_out, train, num_classes))
        if trainer.global_step == 0 and trainer.is_global_zero:
            write_initial(self.folder, held_out)
        return dict(sorted(pair for share in values for pair in share.items()))

    def _images(self, module: TrainingModule, split: str, until_s: float) -> ProbedImages:
        """Return the features of a split; the first time of as many images as there is time for."""
        data: ImageDataModule = module.trainer.datamodule  # type: ignore[attr-defined]
        asked, known = self.num_images[split], self._num_batches.get(split)
        per_batch = data.batch_size * module.trainer.world_size
        wanted = None if asked is None else -(-asked // per_batch)
        found = probed_images(
            module,
            data,
            split,
            num_batches=known or wanted,
            until_s=math.inf if known else until_s,
        )
        self._num_batches[split] = found.num_batches
        if found.was_cut:
            say(
                f"note: the probes take {counted(len(found.images.names), 'image')} of {split}: "
                f"there is no time for more (callbacks.probes.max_s={self.max_s:g})",
                flush=True,
            )
        return found.images

    def _of_own_stages(
        self,
        module: TrainingModule,
        held_out: ProbedImages,
        train: ProbedImages | None,
        num_classes: int,
    ) -> dict[str, float]:
        """Return the metrics of this process's share of the stages."""
        trainer = module.trainer
        is_first = trainer.global_step == 0
        initial = held_out.by_stage if is_first else read_initial(self.folder, held_out.names)
        found: dict[str, float] = {}
        for stage in list(held_out.by_stage)[trainer.global_rank :: trainer.world_size]:
            scores = label_free(held_out.by_stage[stage], initial.get(stage))
            found |= {f"rep/{name}/stage{stage}": value for name, value in scores.items()}
            if train is not None and int((train.labels >= 0).sum()) >= 2:
                top1 = self.probe.top1(
                    train.labelled(stage),
                    held_out.labelled(stage),
                    num_classes=num_classes,
                    device=module.device,
                )
                found |= {f"probe/{name}/stage{stage}": value for name, value in top1.items()}
        return found
