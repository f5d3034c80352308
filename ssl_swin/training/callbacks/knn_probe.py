"""Is pretraining working? Nearest neighbours on frozen features, while the model learns."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_swin.arguments import Above0, Neighbours, Positive, checked
from ssl_swin.probing.features import Features, NoLabelsError, extract_features
from ssl_swin.probing.knn import knn_predict
from ssl_swin.probing.scoring import accuracy
from ssl_swin.stopping.watch import stop_if_asked
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.sharding import gathered


class KnnProbe(Extra):
    """Logs `probe/knn_top1/stage{k}` in percent, where training and validation images have labels.

    The labels judge the features and never train them.
    """

    title = "the kNN probe"

    @checked
    def __init__(
        self,
        *,
        every_n_epochs: Positive,
        num_train_images: Positive,
        k: Neighbours,
        temperature: Above0,
        num_val_images: Positive | None = None,
    ) -> None:
        """Sets the callback up.

        A probed image costs about half of what it costs to train on one; the devices share them.
        Numbers of images bound what the probe takes of a run.

        Args:
            every_n_epochs: Epochs between probes; the untrained model is probed first.
            num_train_images: Size of the bank of neighbours, rounded up to whole batches
                over all devices.
            k: Neighbours that vote.
            temperature: Temperature of the votes' weights.
            num_val_images: Validation images that are classified, the first ones, rounded up to
                whole batches over all devices; None takes all.
        """
        self.every_n_epochs = every_n_epochs
        self.num_train_images = num_train_images
        self.k = k
        self.temperature = temperature
        self.num_val_images = num_val_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the untrained model."""
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes when it is time."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._probe(trainer, pl_module)

    def _probe(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        num_classes = len(data.readers["train"].classes)
        if num_classes < 2 or "val" not in data.readers:
            return
        with gathered(trainer):
            bank = self._features(module, data, "train", self.num_train_images)
            queries = self._features(module, data, "val", self.num_val_images)
        if not bank or not queries or not trainer.is_global_zero:
            return
        for stage, train in bank.items():
            scores = knn_predict(
                train,
                queries[stage].features,
                k=self.k,
                temperature=self.temperature,
                num_classes=num_classes,
            )
            top1 = accuracy(scores, queries[stage].labels)
            for logger in trainer.loggers:
                logger.log_metrics({f"probe/knn_top1/stage{stage}": top1}, trainer.global_step)

    def _features(
        self, module: TrainingModule, data: ImageDataModule, split: str, num_images: int | None
    ) -> dict[int, Features]:
        """Return the features of all devices by stage; nothing where no image has a label."""
        encoder, trainer = module.model.encoder, module.trainer
        per_batch = data.batch_size * trainer.world_size
        num_batches = None if num_images is None else -(-num_images // per_batch)

        def own() -> dict[int, Features]:
            with suppress(NoLabelsError), trainer.precision_plugin.forward_context():
                return extract_features(
                    encoder,
                    _batches(module, data, split, num_batches),
                    stages=range(1, len(encoder.stage_dims) + 1),
                    pooling="mean",
                    device=module.device,
                )
            return {}

        shares = [share for share in done_by_all(own) if share]
        stages = shares[0] if shares else {}
        return {stage: _joined([share[stage] for share in shares]) for stage in stages}


def _joined(shares: Sequence[Features]) -> Features:
    """Return the images of all devices, which were dealt out in turn, in their own order."""
    positions = [
        torch.arange(len(share.labels)) * len(shares) + rank for rank, share in enumerate(shares)
    ]
    order = torch.cat(positions).argsort()
    features, labels = (torch.cat(parts)[order] for parts in zip(*shares, strict=True))
    return Features(features, labels)


def _batches(
    module: TrainingModule, data: ImageDataModule, split: str, num_batches: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in islice(data.labelled_loader(split), num_batches):
        stop_if_asked()
        yield module.normalized(batch.pixels.to(module.device)), batch.labels.to(module.device)
