"""Writing WebDataset shards, several at a time (L1)."""

import io
import multiprocessing
import os
import re
import signal
import tarfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ssl_swin.data.index import Shard
from ssl_swin.data.records import ImageRecord, Source
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path


class ShardJob(NamedTuple):
    """One shard to be written."""

    split: str
    source: str  # of which split; for held-out images it is "train"
    number: int  # of the shard in its split
    first: int  # place of its first image in the split
    images: NDArray[np.int64]  # which images of the source, in order

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.split}-{self.number:06d}.tar"


class SkippedImage(NamedTuple):
    """An image that was left out."""

    name: str
    reason: str


class WrittenShard(NamedTuple):
    """What came of a job; a shard without a readable image is not kept."""

    shard: Shard
    skipped: list[SkippedImage]


def write_shards(
    jobs: Sequence[ShardJob],
    sources: Mapping[str, Source],
    folder: Path,
    *,
    num_workers: int,
    progress: bool,
) -> list[WrittenShard]:
    """Writes each shard whole or not at all.

    Members are `SPLIT-PLACE.EXTENSION` and, for a labelled image, `SPLIT-PLACE.cls`. They carry no
    times or owners: the same images give the same bytes.

    Args:
        jobs: What to write.
        sources: By the name that jobs use.
        folder: Where to write.
        num_workers: Processes; 0 is this one.
        progress: Whether to show a progress bar.

    Returns:
        In the order of `jobs`.

    Raises:
        UserError: If a shard cannot be written, such as on a full disk.
    """
    if num_workers > 0:
        return _write_in_pool(jobs, sources, folder, num_workers, progress)
    written = []
    with _progress_bar(jobs, progress) as bar:
        for job in jobs:
            written.append(_write_shard(job, sources[job.source], folder))
            bar.update(len(job.images))
    return written


def _progress_bar(jobs: Sequence[ShardJob], show: bool) -> "tqdm[None]":
    num_images = sum(len(job.images) for job in jobs)
    return tqdm(total=num_images, desc="packing", unit="image", disable=not show)


def _write_in_pool(
    jobs: Sequence[ShardJob],
    sources: Mapping[str, Source],
    folder: Path,
    num_workers: int,
    progress: bool,
) -> list[WrittenShard]:
    pool = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(sources,))
    try:
        futures = {pool.submit(_write_in_worker, job, folder): job for job in jobs}
        with _progress_bar(jobs, progress) as bar:  # it starts a thread: only after the processes
            for done in as_completed(futures):
                done.result()
                bar.update(len(futures[done].images))
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the shards that are being written


_worker_sources: dict[str, Source] = {}  # sent once, as they may list millions of images


def _start_worker(sources: Mapping[str, Source]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker_sources.update(sources)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_in_worker(job: ShardJob, folder: Path) -> WrittenShard:
    return _write_shard(job, _worker_sources[job.source], folder)


def _write_shard(job: ShardJob, source: Source, folder: Path) -> WrittenShard:
    path = folder / job.name
    skipped = []
    try:
        with (
            atomic_path(path) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for place, index in enumerate(job.images, job.first):
                record = _read_image(source, int(index))
                if isinstance(record, SkippedImage):
                    skipped.append(record)
                else:
                    _add_sample(archive, f"{job.split}-{place:09d}", record)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    shard = Shard(job.name, path.stat().st_size, len(job.images) - len(skipped))
    if shard.num_samples == 0:
        path.unlink()
    return WrittenShard(shard, skipped)


def _read_image(source: Source, index: int) -> ImageRecord | SkippedImage:
    try:
        record = source[index]
    except OSError as error:
        return SkippedImage(str(error.filename or f"image {index}"), str(error.strerror))
    try:
        Image.open(io.BytesIO(record.data)).close()
    except Exception as error:  # PIL's plugins raise almost anything on a file that is damaged
        return SkippedImage(record.name, _describe(error))
    return record


def _describe(error: Exception) -> str:
    text = re.sub(r" object at 0x[0-9a-fA-F]+", "", str(error))  # differs from run to run
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _add_sample(archive: tarfile.TarFile, key: str, record: ImageRecord) -> None:
    _add_member(archive, f"{key}.{record.extension}", record.data)
    if record.label is not None:
        _add_member(archive, f"{key}.cls", str(record.label).encode())


def _add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))
