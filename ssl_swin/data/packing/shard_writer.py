"""Writing WebDataset shards, several at a time."""

import io
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_types import IMAGE_EXTENSIONS
from ssl_swin.data.images.decode import probe_image
from ssl_swin.data.packing.plan import PackOptions, ShardJob
from ssl_swin.data.packing.shrink import decode_stored, shrink_image
from ssl_swin.data.parallel import ordered_map
from ssl_swin.data.shards.index import Extents, Shard
from ssl_swin.data.shards.indexing import scan_shard
from ssl_swin.data.shards.tar import group_samples, scan_tar
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path


class SkippedImage(NamedTuple):
    """An image that was left out."""

    name: str
    reason: str


class WrittenShard(NamedTuple):
    """What came of a job; a shard without a readable image is not kept."""

    shard: Shard
    extents: Extents
    skipped: list[SkippedImage]


class ShardWriter:
    """Does the jobs of a plan.

    Members are `SPLIT-PLACE.EXTENSION` and, for a labelled image, `SPLIT-PLACE.cls`. They carry no
    times or owners: the same images give the same bytes.

    Args:
        sources: By the name that jobs use.
        folder: Where to write.
        options: Of the packing.
    """

    def __init__(
        self, sources: Mapping[str, ImageDataset], folder: Path, options: PackOptions
    ) -> None:
        self.sources = sources
        self.folder = folder
        self.options = options

    def write_all(
        self, jobs: Sequence[ShardJob], *, num_workers: int, progress: bool
    ) -> list[WrittenShard]:
        """Writes each shard whole or not at all; those that are there are kept.

        Args:
            jobs: What to write.
            num_workers: Processes; 0 is this one.
            progress: Whether to show a progress bar.

        Returns:
            In the order of `jobs`.

        Raises:
            UserError: If a shard cannot be written, such as on a full disk.
        """
        kept = {job.name for job in jobs if (self.folder / job.name).exists()}
        done = []
        with _Progress(jobs, kept, show=progress) as bar:
            for job, written in zip(
                jobs, ordered_map(self, jobs, num_workers=num_workers), strict=True
            ):
                done.append(written)
                bar.count(job, written)
        return done

    def __call__(self, job: ShardJob) -> WrittenShard:
        """Writes one shard, unless it is there."""
        path = self.folder / job.name
        written = (self._keep(job, path) if path.exists() else None) or self._write(job, path)
        if written.shard.num_samples == 0:
            path.unlink(missing_ok=True)
        return written

    def _write(self, job: ShardJob, path: Path) -> WrittenShard:
        skipped = []
        try:
            with (
                atomic_path(path) as temporary,
                tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
            ):
                for place in range(job.first, job.first + len(job.images)):
                    record = self._read(job, place)
                    if isinstance(record, SkippedImage):
                        skipped.append(record)
                    else:
                        _add_sample(archive, job.key(place), record)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        shard, extents = scan_shard(path)
        if shard.num_samples != len(job.images) - len(skipped):
            raise UserError(f"{path} does not hold what was written to it: check the disk")
        return WrittenShard(shard, extents, skipped)

    def _keep(self, job: ShardJob, path: Path) -> WrittenShard | None:
        """Finds out what an earlier process wrote; None if that is to be written anew."""
        try:
            shard, extents = scan_shard(path)
        except UserError:
            return None
        skipped = []
        if shard.num_samples < len(job.images):
            for place in _missing_places(job, path):
                record = self._read(job, place)
                if not isinstance(record, SkippedImage):
                    return None
                skipped.append(record)
        if shard.num_samples + len(skipped) != len(job.images):
            return None
        return WrittenShard(shard, extents, skipped)

    def _read(self, job: ShardJob, place: int) -> EncodedSample | SkippedImage:
        """Reads an image, and makes sure that training will be able to."""
        index = int(job.images[place - job.first])
        try:
            record = self.sources[job.source][index]
        except OSError as error:
            return SkippedImage(str(error.filename or f"image {index}"), str(error.strerror))
        if record.extension not in IMAGE_EXTENSIONS:
            return SkippedImage(record.name, "its content is of no known kind of image")
        try:
            info = probe_image(record.data)
            if self.options.verify:
                decode_stored(record, info)
            if self.options.max_short_side_px is not None:
                record = shrink_image(record, info, self.options.max_short_side_px)
        except ValueError as error:
            return SkippedImage(record.name, _describe(error.__cause__ or error))
        return record


class _Progress:
    """A bar with images/s, MB/s, the time left and the number of images left out."""

    def __init__(self, jobs: Sequence[ShardJob], kept: set[str], *, show: bool) -> None:
        self._kept = kept
        self._num_skipped = self._num_bytes = 0
        self._start_s = time.monotonic()
        self._bar = tqdm(
            desc="packing",
            total=sum(len(job.images) for job in jobs),
            initial=sum(len(job.images) for job in jobs if job.name in kept),
            unit=" images",
            disable=not show,
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def count(self, job: ShardJob, written: WrittenShard) -> None:
        self._num_skipped += len(written.skipped)
        if job.name not in self._kept:
            self._num_bytes += written.shard.num_bytes
            self._bar.update(len(job.images))
        rate = self._num_bytes / 1e6 / (time.monotonic() - self._start_s)
        self._bar.set_postfix_str(f"{rate:.1f} MB/s, {self._num_skipped} bad", refresh=False)


def _missing_places(job: ShardJob, path: Path) -> list[int]:
    keys = {key for key, _ in group_samples(scan_tar(path).members)}
    places = range(job.first, job.first + len(job.images))
    return [place for place in places if job.key(place) not in keys]


def _describe(error: BaseException) -> str:
    text = re.sub(r" object at 0x[0-9a-fA-F]+", "", str(error))  # differs from run to run
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _add_sample(archive: tarfile.TarFile, key: str, record: EncodedSample) -> None:
    _add_member(archive, f"{key}.{record.extension}", record.data)
    if record.label is not None:
        _add_member(archive, f"{key}.cls", str(record.label).encode())


def _add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))
