"""The images of shards one after another, as the `webdataset` package reads them."""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import webdataset as wds

from ssl_swin.data.loading.protocol import MOST_TRIES, MakeSample
from ssl_swin.data.records import IMAGE_EXTENSIONS, ImageRecord
from ssl_swin.errors import UserError

SHUFFLE_BUFFER = 2000  # samples, still encoded, per worker


def read_records(
    shards: Sequence[str], shuffle: random.Random | None = None
) -> Iterator[ImageRecord]:
    """Reads the samples of shards with the webdataset package.

    Args:
        shards: Tars, in the order to read.
        shuffle: Source of a buffered shuffle; None keeps the order.
    """
    stages = [wds.SimpleShardList(list(shards)), wds.tarfile_to_samples()]
    if shuffle is not None:
        stages.append(wds.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=shuffle))
    for sample in wds.DataPipeline(*stages):
        yield _to_record(sample)


def good_samples(
    records: Iterable[ImageRecord], make_sample: MakeSample, epoch: int
) -> Iterator[Any]:
    """Leaves out what cannot be decoded, unless nothing can."""
    num_failed = 0
    for record in records:
        try:
            sample = make_sample(record, epoch)
        except Exception as error:  # a damaged file may raise almost anything
            num_failed += 1
            if num_failed == MOST_TRIES:
                raise UserError(
                    f"{num_failed} images in a row cannot be read, the last is {record.name}: "
                    f"{error}"
                ) from error
        else:
            num_failed = 0
            yield sample


def _to_record(sample: dict[str, Any]) -> ImageRecord:
    name = f"{PurePosixPath(sample['__url__']).name}:{sample['__key__']}"
    for extension in sample:
        if extension.lower() in IMAGE_EXTENSIONS:
            label = int(sample["cls"]) if "cls" in sample else None
            return ImageRecord(sample[extension], extension.lower(), label, name)
    members = ", ".join(key for key in sample if not key.startswith("__"))
    raise UserError(f"sample {name} holds no image, only: {members}")
