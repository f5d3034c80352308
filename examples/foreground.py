"""A task of one's own on masks: which pixels belong to an object.

python examples/foreground.py discs    # draws images and masks into the shards of `discs`
PYTHONPATH=examples python finetune.py --config-dir examples/conf task=foreground data=shards \
    data.root=discs backbone=none model=swin_nano augment.auto_augment=null
"""

import io
import sys
import tarfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchmetrics import MeanMetric

import ssl_swin
from ssl_swin.data.samples import augmented
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.figure import ImageColumn, LabelColumn
from ssl_swin.tasks.base import Export


class Batch(NamedTuple):
    """Images with a class per pixel."""

    pixels: Tensor  # (B, C, H, W)
    masks: Tensor  # int64 (B, H, W)
    names: list[str]  # B


def example(encoded, epoch, **options):
    sample = augmented(encoded, epoch=epoch, members=("mask",), **options)
    return sample.pixels, sample.mask.long(), sample.name


def collate(examples):
    pixels, masks, names = zip(*examples, strict=True)
    return Batch(torch.stack(pixels), torch.stack(masks), list(names))


class Foreground(ssl_swin.Task):
    """Two scores per pixel, from one layer on the last map."""

    title, result_title, monitor = "foreground", "pixels right", "accuracy"
    members, needs_labels, folder = ("mask",), False, "segmenter"

    def __init__(self, encoder, classes):
        super().__init__(encoder, ("background", "foreground"))
        self.head = torch.nn.Conv2d(encoder.num_features, 2, kernel_size=1)

    def make_transform(self, augmentation, pixels, *, seed):
        return partial(example, augmentation=augmentation, pixels=pixels, seed=seed)

    def make_collate(self):
        return collate

    def predict(self, images):
        return F.interpolate(self.head(self.encoder(images)), images.shape[-2:], mode="bilinear")

    def forward(self, batch, normalize):
        return ssl_swin.Output(F.cross_entropy(self.predict(normalize(batch.pixels)), batch.masks))

    def new_metrics(self):
        return {"loss": MeanMetric(), "accuracy": MeanMetric()}

    def evaluate(self, metrics, batch, normalize):
        scores = self.predict(normalize(batch.pixels))
        right = (scores.argmax(1) == batch.masks).float().mean()
        metrics["loss"].update(F.cross_entropy(scores, batch.masks), weight=len(scores))
        metrics["accuracy"].update(right, weight=len(scores))

    def preview(self, batch, normalize):
        return ImageColumn("input", normalize(batch.pixels)), LabelColumn("truth", batch.masks)

    def figure(self, batch, normalize):
        found = self.predict(normalize(batch.pixels)).argmax(1)
        return *self.preview(batch, normalize), LabelColumn("found", found)

    def resized(self, img_size_px):
        other = type(self)(resize_encoder(self.encoder, img_size_px=img_size_px), ())
        other.head.load_state_dict(self.head.state_dict())
        return other

    def export(self):
        return Export(self.encoder.model.state_dict(), {}, num_classes=0)

    def extra_weights(self):
        return {"head.safetensors": self.head.state_dict()}

    def describe(self):
        return "two classes of pixels"


def draw(folder: Path) -> None:
    """Draw discs on noise with their masks into tars, as anyone's shards hold them."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 64), ("val", 16)):
        with tarfile.open(folder / f"{split}-000000.tar", "w") as tar:
            for number in range(count):
                (y, x), radius = generator.integers(20, 76, 2), generator.integers(10, 30)
                disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
                noise = generator.integers(0, 100, (96, 96, 3)) + 120 * disc[..., None]
                for ending, pixels in (("png", noise), ("mask.png", disc)):
                    file = io.BytesIO()
                    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
                    member = tarfile.TarInfo(f"{split}{number:04d}.{ending}")
                    member.size = file.tell()
                    file.seek(0)
                    tar.addfile(member, file)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
