"""Work over images to a file: all that the results depend on, and how far it is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ssl_swin import __version__
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.samples import LabeledTransform
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.display.work import Work
from ssl_swin.inference.parts import BatchesFrom, Parts, check_bad
from ssl_swin.inference.vector_files import Vectors, in_utf8, labels_of
from ssl_swin.inference.vectors import Compute, Precision, Rows, View, rows_of
from ssl_swin.probing.feature_store import weights_fingerprint

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Computing:
    """How images go through a network.

    Attributes:
        view: What the network sees of an image.
        size_px: Height and width that the network takes.
        batch_size: Images at a time.
        num_workers: Loading processes.
        max_bad: Most images that may be unreadable.
        device: Where the network computes.
        precision: Of its matrix products.
    """

    view: View
    size_px: tuple[int, int]
    batch_size: int
    num_workers: int
    max_bad: int
    device: torch.device
    precision: Precision


def facts_of(
    model: nn.Module, dataset: ImageDataset, computing: Computing, **options: Any
) -> dict[str, Any]:
    """Return all that results depend on, by words for the user.

    Args:
        model: Its weights count.
        dataset: The images; of files, their sizes count too.
        computing: How they go through the network.
        options: What else was chosen.
    """
    sizes = dataset.image_sizes()
    return {
        "versions": [__version__, torch.__version__],
        "weights": weights_fingerprint(model),
        "images": fingerprint([dataset.fingerprint], b"" if sizes is None else sizes.tobytes()),
        "number of images": len(dataset),
        "view": {**asdict(computing.view), "size_px": [*computing.size_px]},
        "batch size": computing.batch_size,
        "device": computing.device.type,
        "precision": computing.precision,
        **{name.replace("_", " "): value for name, value in options.items()},
    }


def vectors_in_memory(dataset: ImageDataset, compute: Compute, computing: Computing) -> Vectors:
    """Compute vectors of all images that can be read, without a file.

    Args:
        dataset: The images.
        compute: Maps pixels to {"vectors": (B, D)}.
        computing: How images go through the network.

    Raises:
        UserError: If too many images cannot be read.
    """
    rows = values_in_memory(dataset, compute, computing, "embedding")
    names = [in_utf8(name) for each in rows for name in each.names]
    labels = [label or "" for each in rows for label in labels_of(each, dataset.classes)]
    return Vectors(names, labels, np.concatenate([each.values["vectors"] for each in rows]))


def values_in_memory(
    dataset: ImageDataset, compute: Compute, computing: Computing, name: str
) -> list[Rows]:
    """Compute something of all images that can be read, without a file; see `vectors_in_memory`."""
    found = []
    num_bad = 0
    with Work(name, len(dataset)) as work:
        for rows in batches(dataset, compute, computing):
            num_bad += len(rows.bad_samples)
            check_bad(rows.bad_samples, num_bad, computing.max_bad, len(dataset))
            found += [rows] if rows.names else []
            work.advance(rows.num_images)
    return found


def vectors_of_samples(
    samples: Sequence[EncodedSample], compute: Compute, computing: Computing
) -> NDArray[np.float32]:
    """Compute vectors (N, D) of a few samples.

    Raises:
        UserError: If one cannot be decoded.
    """
    crop = CentreCrop(computing.size_px, crop_ratio=computing.view.crop_ratio)
    transform = LabeledTransform(crop, computing.view.pixels, seed=0)
    pixels = torch.stack([transform(sample, 0).pixels for sample in samples])
    vectors: NDArray[np.float32] = compute(pixels)["vectors"].numpy()
    return vectors


def compute_file(
    parts: Parts,
    batches_from: BatchesFrom,
    facts: dict[str, Any],
    write: Callable[[Parts], int],
    *,
    max_bad: int,
    name: str,
    tell: Tell,
) -> tuple[int, int]:
    """Compute something of all images, and write it to a file or a folder.

    Args:
        parts: Of the file or folder, which is not there.
        batches_from: Yields the results of each batch from one on, by its number.
        facts: What `facts_of` returned.
        write: Writes the result from whole parts, and returns its number of images.
        max_bad: Most images that may be unreadable.
        name: What is done, for the progress.
        tell: Prints a line.

    Returns:
        Numbers of images in the result and of those that could not be read.

    Raises:
        UserError: If too many images cannot be read, a file cannot be written, or another process
            writes it.
        KeyboardInterrupt: With a note on what is kept.
    """
    with parts.held(facts) as line:
        if line:
            tell(line)
        try:
            parts.compute(batches_from, name, max_bad=max_bad)
            num_rows = write(parts)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(parts.kept())
            raise
        parts.remove()
    return num_rows, parts.num_images - num_rows


def batches(
    dataset: ImageDataset, compute: Compute, computing: Computing, first_batch: int = 0
) -> Iterator[Rows]:
    """Compute something of every image in the view of evaluation, batch by batch, in order.

    Args:
        dataset: The images.
        compute: Maps pixels to values.
        computing: How images go through the network.
        first_batch: Number of the batch to begin with.
    """
    return rows_of(
        dataset,
        compute,
        computing.view,
        size_px=computing.size_px,
        batch_size=computing.batch_size,
        num_workers=computing.num_workers,
        first_batch=first_batch,
    )
