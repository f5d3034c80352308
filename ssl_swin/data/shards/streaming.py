"""The samples of shards one after another, as the `webdataset` package reads them."""

import random
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import webdataset as wds
from webdataset.tariterators import group_by_keys, url_opener

from ssl_swin.data.encoded import EncodedSample, Member, member_extension
from ssl_swin.data.images.pixel_format import MAX_IMAGE_BYTES
from ssl_swin.data.loading.protocol import MOST_TRIES, MakeSample
from ssl_swin.data.shards.labels import NO_VALUES, LabelValues, label_number, label_value
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout, image_and_members, label_file
from ssl_swin.data.shards.tar import TarMember, group_samples
from ssl_swin.data.shards.tar_stream import members_of, open_tar
from ssl_swin.errors import UserError

_METADATA = re.compile(r"__[^/]*__(/|$)")
SHUFFLE_BUFFER = 2000  # samples, still encoded, per worker


@dataclass(frozen=True)
class SampleReading:
    """How the files of a sample become one.

    Attributes:
        layout: Which files are the image and the label.
        label_values: What the values under the layout's label key mean.
        root: Folder of the shards, from which their paths are told; "" tells their file names.
        max_file_bytes: Largest file of a sample that is read, by what its header says: a small
            compressed tar may unpack to more than the memory.
    """

    layout: SampleLayout = CONVENTION
    label_values: LabelValues = NO_VALUES
    root: str = ""
    max_file_bytes: int = MAX_IMAGE_BYTES


class TooLarge(NamedTuple):
    """Stands for a file that was not read."""

    num_bytes: int


BY_CONVENTION = SampleReading()


def read_samples(
    shards: Sequence[str],
    shuffle: random.Random | None = None,
    reading: SampleReading = BY_CONVENTION,
) -> Iterator[EncodedSample | UserError]:
    """Read the samples of shards with the webdataset package.

    Args:
        shards: Paths or URLs of the tars, in the order to read.
        shuffle: Random generator of a buffered shuffle; None keeps the order.
        reading: How the files of a sample become one.

    Yields:
        A sample, or why it is not read: a file of it is too large.

    Raises:
        UserError: If a shard is compressed in a way that cannot be read here, or a sample has no
            image or no proper label.
    """
    stages = [
        wds.SimpleShardList(list(shards)),
        url_opener,
        partial(_files, max_file_bytes=reading.max_file_bytes),
        group_by_keys,
    ]
    if shuffle is not None:
        stages.append(wds.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=shuffle))
    try:
        for sample in wds.DataPipeline(*stages):
            yield _too_large(sample, reading) or _encoded_sample(sample, reading)
    except UserError:
        raise
    except (tarfile.TarError, ValueError) as error:
        raise _unreadable(error) from error


def _files(sources: Iterable[dict[str, Any]], *, max_file_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield the files of opened shards as webdataset does; of one that is too large, its size."""
    for source in sources:
        url = source["url"]
        try:
            with open_tar(source["stream"]) as archive:
                for member in members_of(archive):
                    if _METADATA.match(member.name):
                        continue
                    file = archive.extractfile(member)
                    assert file is not None
                    is_large = member.size > max_file_bytes
                    data = TooLarge(member.size) if is_large else file.read()
                    yield {"fname": member.name, "data": data, "__url__": url}
            yield {}  # so that samples of two shards are never joined
        except tarfile.TarError as error:
            error.args = (*error.args, url)
            raise


def _too_large(sample: dict[str, Any], reading: SampleReading) -> UserError | None:
    for extension, content in sample.items():
        if isinstance(content, TooLarge):
            name = f"{_shard_name(sample['__url__'], reading.root)}:{sample['__key__']}"
            return UserError(
                f"the file {name}.{extension} has {content.num_bytes} bytes; max_image_bytes is "
                f"{reading.max_file_bytes} (raise it by data.max_image_bytes=N, or leave it out)"
            )
    return None


def good_samples(
    encoded_samples: Iterable[EncodedSample | UserError], make_sample: MakeSample, epoch: int
) -> Iterator[Any]:
    """Make an example of each sample, and leave out those that cannot be decoded.

    Args:
        encoded_samples: The samples, or why one is not read.
        make_sample: Makes an example of an encoded sample and the epoch.
        epoch: Number of the epoch.

    Raises:
        UserError: If too many samples in a row cannot be decoded.
    """
    num_failed = 0
    for encoded in encoded_samples:
        try:
            if isinstance(encoded, UserError):
                raise encoded
            example = make_sample(encoded, epoch)
        except Exception as error:  # a damaged file may raise almost anything
            num_failed += 1
            if num_failed == MOST_TRIES:
                last = "" if isinstance(encoded, UserError) else f" is {encoded.name}"
                raise UserError(
                    f"{num_failed} images in a row cannot be read, the last{last}: {error}"
                ) from error
        else:
            num_failed = 0
            yield example


def count_samples(shard: str) -> int:
    """Count the samples of a shard by reading it through, compressed or not.

    Args:
        shard: Path of the tar.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with Path(shard).open("rb") as file, open_tar(file) as archive:
            members = (TarMember(member.name, 0, member.size) for member in members_of(archive))
            return len(group_samples(members))
    except (tarfile.TarError, OSError) as error:
        raise _unreadable(error, shard) from error


def _unreadable(error: Exception, shard: str = "") -> UserError:
    reason, *others = error.args or (type(error).__name__,)  # webdataset adds the path at the end
    path = shard or next((str(part) for part in reversed(others) if isinstance(part, str)), "")
    return UserError(
        f"shard {path} cannot be read as a stream ({reason!s:.200}). It is truncated or damaged, "
        "or no tar: copy it anew. Tars may be plain, or compressed by gzip, bzip2 or xz"
    )


def _encoded_sample(sample: dict[str, Any], reading: SampleReading) -> EncodedSample:
    key = sample["__key__"]
    name = f"{_shard_name(sample['__url__'], reading.root)}:{key}"
    files = {key.lower(): value for key, value in sample.items() if not key.startswith("__")}
    try:
        extensions = image_and_members(files, key, reading.layout)
        label = _label(files, reading)
    except ValueError as error:
        raise UserError(f"sample {name} {error}") from error
    members = {
        member: Member(files[extension], member_extension(extension))
        for member, extension in extensions.items()
    }
    return EncodedSample(name, label, members)


def _shard_name(url: str, root: str) -> str:
    path = PurePosixPath(url)
    is_below = root and path.is_relative_to(root)
    return str(path.relative_to(root)) if is_below else path.name


def _label(files: dict[str, bytes], reading: SampleReading) -> int | None:
    extension, _ = label_file(reading.layout)
    if extension not in files:
        return None
    if reading.layout.label_key is None:
        return label_number(files[extension])
    value = label_value(files[extension], reading.layout)
    return None if value is None else reading.label_values.number(value)
