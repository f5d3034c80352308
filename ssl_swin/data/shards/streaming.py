"""The samples of shards one after another, as the `webdataset` package reads them."""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import webdataset as wds

from ssl_swin.data.encoded import (
    IMAGE,
    LABEL_EXTENSION,
    EncodedSample,
    Member,
    member_extension,
    member_names,
)
from ssl_swin.data.loading.protocol import MOST_TRIES, MakeSample
from ssl_swin.errors import UserError

SHUFFLE_BUFFER = 2000  # samples, still encoded, per worker


def read_samples(
    shards: Sequence[str], shuffle: random.Random | None = None
) -> Iterator[EncodedSample]:
    """Read the samples of shards with the webdataset package.

    Args:
        shards: Paths or URLs of the tars, in the order to read.
        shuffle: Random generator of a buffered shuffle; None keeps the order.
    """
    stages = [wds.SimpleShardList(list(shards)), wds.tarfile_to_samples()]
    if shuffle is not None:
        stages.append(wds.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=shuffle))
    for sample in wds.DataPipeline(*stages):
        yield _encoded_sample(sample)


def good_samples(
    encoded_samples: Iterable[EncodedSample], make_sample: MakeSample, epoch: int
) -> Iterator[Any]:
    """Make an example of each sample, and leave out those that cannot be decoded.

    Args:
        encoded_samples: The samples.
        make_sample: Makes an example of an encoded sample and the epoch.
        epoch: Number of the epoch.

    Raises:
        UserError: If too many samples in a row cannot be decoded.
    """
    num_failed = 0
    for encoded in encoded_samples:
        try:
            example = make_sample(encoded, epoch)
        except Exception as error:  # a damaged file may raise almost anything
            num_failed += 1
            if num_failed == MOST_TRIES:
                raise UserError(
                    f"{num_failed} images in a row cannot be read, the last is {encoded.name}: "
                    f"{error}"
                ) from error
        else:
            num_failed = 0
            yield example


def _encoded_sample(sample: dict[str, Any]) -> EncodedSample:
    name = f"{PurePosixPath(sample['__url__']).name}:{sample['__key__']}"
    files = {key.lower(): value for key, value in sample.items() if not key.startswith("__")}
    try:
        extensions = member_names(files)
    except ValueError as error:
        raise UserError(f"sample {name} {error}") from error
    if IMAGE not in extensions:
        raise UserError(f"sample {name} holds no image, only: {', '.join(files)}")
    label = int(files[LABEL_EXTENSION]) if LABEL_EXTENSION in files else None
    members = {
        member: Member(files[extension], member_extension(extension))
        for member, extension in extensions.items()
    }
    return EncodedSample(name, label, members)
