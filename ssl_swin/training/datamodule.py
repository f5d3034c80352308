"""Loaders for a run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.loading.exact import Cursor, ExactLoader
from ssl_swin.data.loading.paired import Companion, PairedLoader, shared_out
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
COMPANION = "companion"  # in the state: the place in the second source


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
        companion: Companion | None = None,
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
            companion: A second source of training images, with the same order constants; an epoch
                is a pass over it then.
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
        self.companion = companion
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
            loader: Loader = self.new_train_loader(self._placement())
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

    def new_train_loader(self, placement: LoaderConfig) -> Loader:
        """Return a loader of training batches, at the beginning of the data.

        Args:
            placement: Size of the batches, and which part of each this rank loads.
        """
        companion = self.companion
        if companion is None:
            return self.readers["train"].train_loader(
                self.train_samples, self.collate, placement, seed=self.seed
            )
        here, beside = shared_out(placement, companion.batch_size)
        first = self.readers["train"].train_loader(
            self.train_samples, self.collate, here, seed=self.seed
        )
        second = companion.split.train_loader(
            companion.make_sample, companion.collate, beside, seed=self.seed
        )
        assert isinstance(first, ExactLoader) and isinstance(second, ExactLoader)
        return PairedLoader(first, second, companion.join)

    def num_train_batches(self) -> int:
        """Batches of one epoch on one device.

        Raises:
            UserError: If a set is smaller than one batch over all devices.
        """
        placement, companion = self._placement(), self.companion
        num_batches = self._num_labelled_batches(placement)
        if companion is None:
            return num_batches
        beside = replace(placement, batch_size=companion.batch_size)
        if not (number := companion.split.num_samples // beside.global_batch_size):
            raise UserError(
                f"{counted(companion.split.num_samples, 'image')} without labels cannot fill one "
                f"batch of {beside.batch_size} on {beside.world_size} device(s); lower "
                "semi.num_unlabelled"
            )
        return number

    def _num_labelled_batches(self, placement: LoaderConfig) -> int:
        num_samples = self.readers["train"].num_samples
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
    def places_of_batch(self) -> tuple[Cursor | None, Cursor | None]:
        """Where the last training batch began, and the images beside it of a second source.

        None where the order cannot be entered anywhere, or there is no second source.
        """
        loader = self._train_loader
        if isinstance(loader, PairedLoader):
            return loader.first.served, loader.second.served
        return (loader.served if isinstance(loader, ExactLoader) else None), None

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data, which is the same on all ranks."""
        loader, fingerprint = self._train_loader, self.readers["train"].fingerprint
        if isinstance(loader, PairedLoader):
            assert self.companion is not None
            beside = _place(loader.second, self.companion.split.fingerprint)
            return {**_place(loader.first, fingerprint), COMPANION: beside}
        return _place(loader, fingerprint) if isinstance(loader, ExactLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a place, with other ranks, workers or batch sizes if need be.

        Raises:
            UserError: If the place was in other data, or in another order of it.
        """
        loader, reader = self.train_dataloader(), self.readers["train"]
        if not state_dict:
            return
        if isinstance(loader, PairedLoader):
            assert self.companion is not None
            _go_on(loader.first, reader, state_dict)
            _go_on(loader.second, self.companion.split, state_dict[COMPANION])
        elif isinstance(loader, ExactLoader):
            _go_on(loader, reader, state_dict)

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


def _place(loader: ExactLoader, fingerprint: str) -> dict[str, Any]:
    """Return a place in the data, and what it can be continued in."""
    return {
        **loader.cursor._asdict(),
        "order": loader.order_key,
        "fingerprint": fingerprint,
        "num_samples": loader.num_samples,
        "global_batch_size": loader.config.global_batch_size,
    }


def _go_on(loader: ExactLoader, reader: Split, state: dict[str, Any]) -> None:
    """Continue at a place; see `ImageDataModule.load_state_dict`."""
    if state["fingerprint"] != reader.fingerprint:
        raise UserError(
            "the data has changed since the checkpoint, so its order cannot be continued: "
            f"then {state['num_samples']} images, fingerprint {state['fingerprint']}; now "
            f"{reader.num_samples}, {reader.fingerprint}. Restore the data, or start a new run "
            "with another name="
        )
    if state["order"] != loader.order_key:
        raise UserError(
            f"the checkpoint's images are ordered by {state['order']}, this run's by "
            f"{loader.order_key}: set seed and data.order back to continue it"
        )
    before, now = state["global_batch_size"], loader.config.global_batch_size
    if before != now:
        say(
            f"note: batches over all devices were of {before} images and are now of {now}: the "
            "same order of images, in other batches. Change batch_size or "
            "trainer.accumulate_grad_batches with the devices to keep the recipe's steps"
        )
    loader.go_to(Cursor(state["epoch"], state["position"]))
