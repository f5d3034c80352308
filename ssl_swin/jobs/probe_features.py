"""The features that a probing job works on: where they are kept, and how they are made."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ssl_swin import __version__
from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.loading.protocol import LoaderConfig, Split
from ssl_swin.data.samples import LabeledTransform, PixelFormat
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.display.work import Work
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.launch.keeping import NO_FINGERPRINT
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run
from ssl_swin.pixels import normalize
from ssl_swin.probing.feature_store import store_folder, stored_features, weights_fingerprint
from ssl_swin.probing.features import Features, PooledBatch, Tap, pooled_batches


class SplitFeatures:
    """Frozen features of the splits, computed when they are first asked for.

    They are kept under `features.folder`, apart for every combination of weights, images and view.
    Images that cannot be recognised later have their features in the run's folder, made anew.
    """

    def __init__(self, run: Run, encoder: Encoder, readers: Mapping[str, Split]) -> None:
        """Sets the features up; nothing is computed yet.

        Args:
            run: Run whose configuration says how images are read.
            encoder: Already on the run's device.
            readers: Sources by split.

        Raises:
            UserError: If `features.dtype` is unknown, or a setting of the pixels is not allowed.
        """
        self.cfg = run.cfg
        self.encoder = encoder
        self.readers = readers
        self.view = CentreCrop(encoder.img_size_px, crop_ratio=run.cfg.eval_crop_ratio)
        self.pixels = PixelFormat.from_settings(self.cfg.data)
        self._weights = weights_fingerprint(encoder.model)
        self._unrecognisable = run.folder.path / "features"
        shutil.rmtree(self._unrecognisable, ignore_errors=True)

    def of(self, split: str, taps: Sequence[Tap]) -> dict[Tap, Features]:
        """Returns a split's features at some taps, mapped from files."""
        known = self.readers[split].fingerprint != NO_FINGERPRINT
        root = Path(self.cfg.features.folder) if known else self._unrecognisable
        return stored_features(
            store_folder(root, self._facts(split)),
            taps,
            lambda missing: self._compute(split, missing),
            dtype=self.cfg.features.dtype,
        )

    def _facts(self, split: str) -> dict[str, Any]:
        """Everything that the features depend on."""
        data: DictConfig = self.cfg.data
        return {
            "ssl_swin": __version__,
            "architecture": self.encoder.architecture,
            "model_args": self.encoder.model_args,
            "weights": self._weights,
            "data": self.readers[split].fingerprint,
            "split": split,
            "num_samples": self.readers[split].num_samples,
            "view": f"centre crop, {self.view.crop_ratio!r} of the shorter side",
            "size_px": list(self.view.size_px),
            "pixels": asdict(self.pixels),
            "normalisation": OmegaConf.to_container(OmegaConf.create([data.mean, data.std])),
            "dtype": self.cfg.features.dtype,
        }

    def _compute(self, split: str, taps: Sequence[Tap]) -> Iterator[PooledBatch]:
        batches = self._counted(split)
        return pooled_batches(self.encoder, batches, taps=taps, device=self.cfg.device)

    def _counted(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        with Work(f"{split} features", self.readers[split].num_samples) as work:
            for images, labels in self._batches(split):
                yield images, labels
                work.advance(len(images))

    def _batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        cfg = self.cfg
        samples = LabeledTransform(self.view, self.pixels, seed=cfg.seed)
        placement = LoaderConfig(cfg.batch_size, cfg.num_workers, rank=0, world_size=1)
        loader = self.readers[split].eval_loader(samples, collate_labeled, placement)
        for batch in loader:
            pixels = batch.pixels.to(cfg.device, non_blocking=True)
            yield normalize(pixels, cfg.data.mean, cfg.data.std), batch.labels.to(cfg.device)
        if loader.bad_samples:
            name, reason = loader.bad_samples[0]
            say(
                f"left out: {len(loader.bad_samples)} images of {split} cannot be read, the first "
                f"is {name}: {reason}"
            )
