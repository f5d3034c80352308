"""Writing WebDataset shards, several at a time."""

import io
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE, LABEL_EXTENSION, EncodedSample, file_extension
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of_content
from ssl_swin.data.images.decode import decode_marked, probe_image
from ssl_swin.data.images.pixel_values import Unsuitable
from ssl_swin.data.packing.plan import PackOptions, ShardJob
from ssl_swin.data.packing.shrink import shrink_image
from ssl_swin.data.parallel import ordered_map
from ssl_swin.data.shards.index_file import ScannedShard, Shard
from ssl_swin.data.shards.scanning import scan_shard
from ssl_swin.data.shards.tar import group_samples, scan_tar
from ssl_swin.data.sources.boxes.dataset import UnfitImage
from ssl_swin.display.work import Work
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path

_ARRAYS = ("npy", "npz")
_WITHOUT_FLOATS = ("jpg", "png", "webp", "gif", "bmp")
SIGNATURE_BYTES = 16


class SkippedImage(NamedTuple):
    """A sample that was left out because its image cannot be read."""

    name: str
    reason: str


class WrittenShard(NamedTuple):
    """The result of a job; a shard without a readable image is not kept."""

    scanned: ScannedShard
    skipped: list[SkippedImage]
    num_not_finite: int = 0  # images that hold values that are not finite

    @property
    def shard(self) -> Shard:
        """The shard itself."""
        return self.scanned.shard


class _ReadImage(NamedTuple):
    """A sample to be written."""

    encoded: EncodedSample
    holds_not_finite: bool


class ShardWriter:
    """Writes the shards of a plan.

    Files are `SPLIT-NUMBER.EXTENSION` for the image, `SPLIT-NUMBER.cls` for the label of a labelled
    one, and `SPLIT-NUMBER.MEMBER.EXTENSION` for further members. They carry no times or owners: the
    same samples give the same bytes.

    Args:
        sources: The data sets, by the names that jobs use.
        folder: Folder to write to.
        options: Options of the packing.
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
        """Write each shard completely or not at all; those that exist are kept.

        Args:
            jobs: The shards to write.
            num_workers: Number of processes; 0 is this one.
            progress: Whether to show how far it is.

        Returns:
            The results, in the order of `jobs`.

        Raises:
            UserError: If a shard cannot be written, such as on a full disk.
        """
        kept = {job.name for job in jobs if (self.folder / job.name).exists()}
        done = []
        with _Progress(jobs, kept, show=progress) as shown:
            for job, written in zip(
                jobs, ordered_map(self, jobs, num_workers=num_workers), strict=True
            ):
                done.append(written)
                shown.count(job, written)
        return done

    def __call__(self, job: ShardJob) -> WrittenShard:
        """Write one shard, unless it exists."""
        path = self.folder / job.name
        written = (self._keep(job, path) if path.exists() else None) or self._write(job, path)
        if written.shard.num_samples == 0:
            path.unlink(missing_ok=True)
        return written

    def _write(self, job: ShardJob, path: Path) -> WrittenShard:
        skipped: list[SkippedImage] = []
        num_not_finite = 0
        try:
            with (
                atomic_path(path) as temporary,
                tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
            ):
                for place in range(job.first, job.first + len(job.images)):
                    read = self._read(job, place)
                    if isinstance(read, SkippedImage):
                        skipped.append(read)
                    else:
                        _add_sample(archive, job.key(place), read.encoded)
                        num_not_finite += read.holds_not_finite
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        scanned = scan_shard(path)
        if scanned.shard.num_samples != len(job.images) - len(skipped):
            raise UserError(f"{path} does not hold what was written to it: check the disk")
        return WrittenShard(scanned, skipped, num_not_finite)

    def _keep(self, job: ShardJob, path: Path) -> WrittenShard | None:
        """Return what an earlier process wrote; None if that is to be written anew."""
        try:
            scanned = scan_shard(path)
        except UserError:
            return None
        shard = scanned.shard
        skipped = []
        if shard.num_samples < len(job.images):
            for place in _missing_places(job, path):
                read = self._read(job, place)
                if not isinstance(read, SkippedImage):
                    return None
                skipped.append(read)
        if shard.num_samples + len(skipped) != len(job.images):
            return None
        return WrittenShard(scanned, skipped, self._count_not_finite(path, scanned))

    def _count_not_finite(self, path: Path, scanned: ScannedShard) -> int:
        """Count the images of a finished shard that hold values that are not finite."""
        number = 0
        with path.open("rb") as file:
            for offset, size in scanned.extents[["offset", "size"]].tolist():
                file.seek(offset)
                if extension_of_content(file.read(SIGNATURE_BYTES)) not in _WITHOUT_FLOATS:
                    file.seek(offset)
                    number += self._holds_not_finite(file.read(size), path.name)
        return number

    def _read(self, job: ShardJob, place: int) -> "_ReadImage | SkippedImage":
        """Read a sample, and make sure that training can read its image."""
        index = int(job.images[place - job.first])
        try:
            encoded = self.sources[job.source][index]
        except OSError as error:
            return SkippedImage(str(error.filename or f"image {index}"), str(error.strerror))
        except UnfitImage as error:
            return SkippedImage(self.sources[job.source].file_name(index), str(error))
        if encoded.extension not in IMAGE_EXTENSIONS:
            return SkippedImage(encoded.name, "its content is of no known kind of image")
        try:
            not_finite = self._holds_not_finite(encoded.data, encoded.name)
            if self.options.max_short_side_px is None:
                return _ReadImage(encoded, not_finite)
            small = self._shrunk(encoded, self.options.max_short_side_px)
            return _ReadImage(small, not_finite and small is encoded)
        except ValueError as error:
            return SkippedImage(encoded.name, _describe(error))

    def _holds_not_finite(self, data: bytes, name: str) -> bool:
        """Look at an image's header; at its values, too, if they are an array's or floats.

        Raises:
            ValueError: If it cannot be read.
        """
        pixels = self.options.pixels
        if pixels.channel_axis is None:  # which one it is has no bearing on the values
            pixels = replace(pixels, channel_axis="first")
        info = probe_image(data, pixels)
        is_read = extension_of_content(data) in _ARRAYS or info.dtype.startswith("float")
        if not (is_read or self.options.verify):
            return False
        marked = decode_marked(data, replace(pixels, nodata=(), fill=None), name=name)
        return marked.missing is not None

    def _shrunk(self, encoded: EncodedSample, max_short_side_px: int) -> EncodedSample:
        pixels = self.options.pixels
        return shrink_image(
            encoded,
            probe_image(encoded.data, pixels),
            max_short_side_px,
            pixels=pixels,
            jpeg_quality=self.options.jpeg_quality,
        )


class _Progress:
    """Tells of images/s, the time left, MB/s and the number of images left out."""

    def __init__(self, jobs: Sequence[ShardJob], kept: set[str], *, show: bool) -> None:
        self._kept = kept
        self._num_skipped = self._num_bytes = 0
        self._start_s = time.monotonic()
        self._work = Work(
            "packing",
            sum(len(job.images) for job in jobs),
            done=sum(len(job.images) for job in jobs if job.name in kept),
            show=show,
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._work.__exit__(*error)

    def count(self, job: ShardJob, written: WrittenShard) -> None:
        self._num_skipped += len(written.skipped)
        is_new = job.name not in self._kept
        self._num_bytes += is_new * written.shard.num_bytes
        rate = self._num_bytes / 1e6 / (time.monotonic() - self._start_s)
        note = f"{rate:.1f} MB/s, {self._num_skipped} bad"
        self._work.advance(is_new * len(job.images), note)


def _missing_places(job: ShardJob, path: Path) -> list[int]:
    keys = {key for key, _ in group_samples(scan_tar(path).members)}
    places = range(job.first, job.first + len(job.images))
    return [place for place in places if job.key(place) not in keys]


def _describe(error: BaseException) -> str:
    """Return why an image is left out, without its name, which is told beside it."""
    error = error.__cause__ or error
    if isinstance(error, Unsuitable | UserError):
        return " ".join(str(error).split())
    text = re.sub(r" object at 0x[0-9a-fA-F]+", "", str(error))  # differs from run to run
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _add_sample(archive: tarfile.TarFile, key: str, encoded: EncodedSample) -> None:
    """Write the image, its label, and then the other members by name."""
    _add_file(archive, f"{key}.{encoded.extension}", encoded.data)
    if encoded.label is not None:
        _add_file(archive, f"{key}.{LABEL_EXTENSION}", str(encoded.label).encode())
    for name in sorted(encoded.members.keys() - {IMAGE}):
        member = encoded.members[name]
        _add_file(archive, f"{key}.{file_extension(name, member)}", member.data)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))
