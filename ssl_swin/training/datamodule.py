"""Loaders for a run (L2)."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningDataModule

from ssl_swin.data.loading import Collate, EpochLoader, MakeSample, Placement, Reader
from ssl_swin.errors import UserError


class ImageDataModule(LightningDataModule):
    """Training and evaluation loaders over the splits of one data set."""

    def __init__(
        self,
        readers: Mapping[str, Reader],
        *,
        train_samples: MakeSample,
        eval_samples: MakeSample,
        collate: Collate,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        """Sets the loaders up; nothing is read yet.

        Args:
            readers: By split; "train" is required.
            train_samples: Makes a training sample of an image.
            eval_samples: Makes an evaluation sample of an image.
            collate: Makes a batch of samples.
            batch_size: Images per device.
            num_workers: Loading processes per device; 0 loads in the training process.
            seed: Of the order.
        """
        super().__init__()
        self.readers = readers
        self.train_samples = train_samples
        self.eval_samples = eval_samples
        self.collate = collate
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def train_dataloader(self) -> EpochLoader:
        """Shuffled batches, as many on every device.

        Raises:
            UserError: If the set is smaller than one batch.
        """
        reader = self.readers["train"]
        loader = reader.train_loader(
            self.train_samples, self.collate, self._placement(), seed=self.seed
        )
        if not len(loader):
            raise UserError(
                f"{reader.num_samples} training images do not fill one batch of {self.batch_size} "
                f"on {self._placement().world_size} device(s); lower batch_size"
            )
        loader.current_epoch = self._current_epoch
        return loader

    def val_dataloader(self) -> EpochLoader | list[Any]:
        """Every validation image once over all devices."""
        return self._eval_loader("val") if "val" in self.readers else []

    def test_dataloader(self) -> EpochLoader | list[Any]:
        """Every test image once over all devices."""
        return self._eval_loader("test") if "test" in self.readers else []

    def num_train_batches(self) -> int:
        """Batches of one epoch on one device."""
        return len(self.train_dataloader())

    def held_out_batch(self, num_images: int) -> Any:
        """The first images of the validation split (of the training split where there is none)."""
        reader = self.readers.get("val", self.readers["train"])
        placement = Placement(
            batch_size=min(num_images, reader.num_samples), num_workers=0, rank=0, world_size=1
        )
        return next(iter(reader.eval_loader(self.eval_samples, self.collate, placement)))

    def plain_loader(self, split: str) -> EpochLoader:
        """Every image of a split once, seen as in evaluation, on one device."""
        placement = Placement(self.batch_size, self.num_workers, rank=0, world_size=1)
        return self.readers[split].eval_loader(self.eval_samples, self.collate, placement)

    def _eval_loader(self, split: str) -> EpochLoader:
        return self.readers[split].eval_loader(self.eval_samples, self.collate, self._placement())

    def _placement(self) -> Placement:
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return Placement(self.batch_size, self.num_workers, rank, world_size)

    @property
    def _current_epoch(self) -> Callable[[], int]:
        return lambda: 0 if self.trainer is None else self.trainer.current_epoch
