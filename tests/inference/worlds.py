"""Images and a small backbone for commands that put one through the other."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.inference.predictors import whole_images
from ssl_swin.weights.backbone import save_backbone

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
OPTIONS = ("--workers", "0", "--device", "cpu")


def draw(folder: Path, number: int, *, seed: int = 0) -> list[Path]:
    """Draws images of odd sizes into two class folders; returns their paths in order."""
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(number):
        path = folder / ("cat", "dog")[2 * index // number] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (70 + index % 5, 80, 3)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def hand_on(folder: Path, build: Callable[..., SwinEncoder], **changes: int) -> SwinEncoder:
    """Writes a backbone of random weights, and returns its encoder."""
    encoder = build(**changes)
    save_backbone(folder, encoder, mean=MEAN, std=STD, card="")
    return encoder


def predict(out: str, *options: str, images: str = "photos", model: str = "run") -> int:
    """The exit code of `ssl-swin predict` in this process, on the CPU."""
    return main(["predict", model, images, out, *OPTIONS, *options])


def rows_in(path: str) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: str) -> dict[str, bytes]:
    """The files of a folder by their paths in it."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def interrupt_after(number: int, patch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when so many whole images have been read."""
    real = whole_images.InOrderLoader

    class Cut(real):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Iterator[object]:
            for at, each in enumerate(super().__iter__()):
                if at == number:
                    raise KeyboardInterrupt
                yield each

    patch.setattr(whole_images, "InOrderLoader", Cut)
