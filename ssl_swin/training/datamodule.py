"""Loaders for a run."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.loading.exact import Cursor, ExactLoader
from ssl_swin.data.loading.protocol import (
    BadSample,
    Collate,
    Loader,
    LoaderConfig,
    MakeSample,
    Split,
)
from ssl_swin.data.loading.repeating import RepeatingLoader
from ssl_swin.data.loading.stream import EpochLoader
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted
from ssl_swin.training.optim import num_limited

say = rank_zero_only(print)


class ImageDataModule(LightningDataModule):
    """Training and evaluation loaders over the splits of one data set.

    The place in the training data is state of this module and not of its loader: Lightning drops
    a loader's state if anything asks for the loader before it is restored.
    """

    def __init__(
        self,
        readers: Mapping[str, Split],
        *,
        train_samples: MakeSample,
        eval_samples: MakeSample,
        labelled_samples: MakeSample | None = None,
        collate: Collate,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        """Sets the loaders up; nothing is read yet.

        Args:
            readers: Sources by split; "train" is required.
            train_samples: Makes a training sample of an image.
            eval_samples: Makes an evaluation sample of an image.
            labelled_samples: Makes an image with its label, for probes; None where none are made.
            collate: Makes a batch of samples.
            batch_size: Images per device.
            num_workers: Loading processes per device; 0 loads in the training process.
            seed: Seed of the order.
        """
        super().__init__()
        self.readers = readers
        self.train_samples = train_samples
        self.eval_samples = eval_samples
        self.labelled_samples = labelled_samples
        self.collate = collate
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._train_loader: Loader | None = None
        self._loaders: list[Loader] = []

    def train_dataloader(self) -> Loader:
        """Shuffled batches, as many on every device; the same loader for the whole run.

        Under `overfit_batches` they are the first few, over and over.

        Raises:
            UserError: If the set is smaller than one batch.
        """
        if self._train_loader is None:
            num_batches = self.num_train_batches()
            loader: Loader = self.readers["train"].train_loader(
                self.train_samples, self.collate, self._placement(), seed=self.seed
            )
            if isinstance(loader, EpochLoader):
                loader.current_epoch = self._current_epoch
            if self._overfit_batches:
                loader = RepeatingLoader(loader, num_limited(num_batches, self._overfit_batches))
            self._train_loader = loader
            self._loaders.append(loader)
        return self._train_loader

    def val_dataloader(self) -> Loader | list[Any]:
        """Every validation image once over all devices; under `overfit_batches`, what is learnt."""
        if self._overfit_batches:
            return self.train_dataloader()
        return self._eval_loader("val") if "val" in self.readers else []

    def test_dataloader(self) -> Loader | list[Any]:
        """Every test image once over all devices."""
        return self._eval_loader("test") if "test" in self.readers else []

    def num_train_batches(self) -> int:
        """Batches of one epoch on one device.

        Raises:
            UserError: If the set is smaller than one batch over all devices.
        """
        num_samples, placement = self.readers["train"].num_samples, self._placement()
        num_batches = num_samples // placement.global_batch_size
        if not num_samples:
            raise UserError(
                "there are no training images: all of them are in other splits; hold out fewer"
            )
        if not num_batches:
            raise UserError(
                f"{counted(num_samples, 'training image')} cannot fill one batch of "
                f"{self.batch_size} on {placement.world_size} device(s); lower batch_size"
            )
        return num_batches

    def held_out_batch(self, num_images: int) -> Any:
        """The first images of the validation split (of the training split where there is none).

        Raises:
            UserError: If none of them can be read.
        """
        reader = self.readers.get("val", self.readers["train"])
        placement = LoaderConfig(
            batch_size=min(num_images, reader.num_samples), num_workers=0, rank=0, world_size=1
        )
        loader = reader.eval_loader(self.eval_samples, self.collate, placement)
        batch = next(iter(loader), None)
        if batch is None:
            name, reason = loader.bad_samples[0]
            raise UserError(f"no held-out image can be read, the first is {name}: {reason}")
        return batch

    def labelled_loader(self, split: str) -> Loader:
        """Every image of a split once over all devices, with its label, in evaluation's view."""
        assert self.labelled_samples is not None
        return self.readers[split].eval_loader(
            self.labelled_samples, collate_labeled, self._placement()
        )

    def take_bad_samples(self) -> list[BadSample]:
        """Hands over the images of this rank that could not be read since the last call."""
        taken = [sample for loader in self._loaders for sample in loader.bad_samples]
        for loader in self._loaders:
            loader.bad_samples.clear()
        return taken

    @property
    def place_of_batch(self) -> Cursor | None:
        """Where the last training batch began; None where the order cannot be entered anywhere."""
        loader = self._train_loader
        return loader.served if isinstance(loader, ExactLoader) else None

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data, which is the same on all ranks."""
        loader = self._train_loader
        if not isinstance(loader, ExactLoader):
            return {}
        return {
            **loader.cursor._asdict(),
            "order": loader.order_key,
            "fingerprint": self.readers["train"].fingerprint,
            "num_samples": loader.num_samples,
            "global_batch_size": loader.config.global_batch_size,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a place, with other ranks, workers or batch sizes if need be.

        Raises:
            UserError: If the place was in other data, or in another order of it.
        """
        loader = self.train_dataloader()
        if not state_dict or not isinstance(loader, ExactLoader):
            return
        reader = self.readers["train"]
        if state_dict["fingerprint"] != reader.fingerprint:
            raise UserError(
                "the data has changed since the checkpoint, so its order cannot be continued: "
                f"then {state_dict['num_samples']} images, fingerprint "
                f"{state_dict['fingerprint']}; now {reader.num_samples}, {reader.fingerprint}. "
                "Restore the data, or start a new run with another name="
            )
        if state_dict["order"] != loader.order_key:
            raise UserError(
                f"the checkpoint's images are ordered by {state_dict['order']}, this run's by "
                f"{loader.order_key}: set seed and data.order back to continue it"
            )
        before, now = state_dict["global_batch_size"], loader.config.global_batch_size
        if before != now:
            say(
                f"note: batches over all devices were of {before} images and are now of {now}: the "
                "same order of images, in other batches. Change batch_size or "
                "trainer.accumulate_grad_batches with the devices to keep the recipe's steps"
            )
        loader.go_to(Cursor(state_dict["epoch"], state_dict["position"]))

    def _eval_loader(self, split: str) -> Loader:
        reader, placement = self.readers[split], self._placement()
        if reader.num_samples < placement.world_size:
            raise UserError(
                f"{split} has {counted(reader.num_samples, 'image')}, fewer than the "
                f"{placement.world_size} devices that share them out: hold out more, or use fewer "
                "devices"
            )
        loader = reader.eval_loader(self.eval_samples, self.collate, placement)
        self._loaders.append(loader)
        return loader

    def _placement(self) -> LoaderConfig:
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return LoaderConfig(self.batch_size, self.num_workers, rank, world_size)

    @property
    def _overfit_batches(self) -> int | float:
        return getattr(self.trainer, "overfit_batches", 0)

    def _current_epoch(self) -> int:
        return 0 if self.trainer is None else self.trainer.current_epoch
