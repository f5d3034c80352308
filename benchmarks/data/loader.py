"""How fast images reach training: ours, webdataset, and a folder of files, on the same JPEGs.

python -m benchmarks.data.loader --images FOLDER    # one sub-folder per class; default: drawn

The peers run the transforms of the original SimMIM: PIL crop and flip, float normalisation and the
mask in the worker. All use torch's DataLoader with the same workers and batch; variants take turns,
medians are reported.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from benchmarks.tables import write_json
from ssl_swin.data.loading.exact import Cursor, ExactLoader
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.samples import PixelFormat
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.index_file import EXTENT, ScannedShard, Shard, write_index
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.data.synthetic.dataset import SyntheticDataset
from ssl_swin.data.transforms import RandomCrop
from ssl_swin.errors import UserError
from ssl_swin.objectives.masked_images import MaskedTransform, collate_masked

SIZE_PX = 192
ORDER = OrderConstants(block=64, pool=262144, lanes=1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DRAWN_IMAGES, DRAWN_PX = 512, 448


class OriginalTransform:
    """What the original does to an image in its workers: a normalised float view, and a mask."""

    def __init__(self) -> None:
        self.view = T.Compose(
            [
                T.Lambda(lambda image: image.convert("RGB")),
                T.RandomResizedCrop(SIZE_PX, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3)),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, Any]:
        """Float (3, 192, 192), and a mask of 4 px patches (48, 48)."""
        mask = np.zeros(36, dtype=int)
        mask[np.random.permutation(36)[:22]] = 1
        return self.view(image), mask.reshape(6, 6).repeat(8, axis=0).repeat(8, axis=1)


def ours(shards: Path, batch_size: int, workers: int) -> ExactLoader:
    """Our loader over a folder of shards."""
    reader = IndexedSplit(ShardDataset(load_index(shards), "train"), ORDER)
    view = RandomCrop(
        (SIZE_PX, SIZE_PX), crop_scale=(0.67, 1), crop_aspect=(3 / 4, 4 / 3), flip_probability=0.5
    )
    samples = MaskedTransform(
        view, PixelFormat(3, "uint8"), mask_grid=(6, 6), mask_ratio=0.6, seed=0
    )
    return reader.train_loader(
        samples, collate_masked, LoaderConfig(batch_size, workers, 0, 1), seed=0
    )


def webdataset(shards: Path, batch_size: int, workers: int) -> Iterable[Any]:
    """The webdataset package over the same shards."""
    transform = OriginalTransform()
    urls = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    stream = wds.WebDataset(urls, resampled=True, shardshuffle=False).shuffle(1000).decode("pil")
    samples = stream.to_tuple("jpg;jpeg;png", "cls").map_tuple(transform)
    return DataLoader(samples, batch_size=batch_size, num_workers=workers)


def image_folder(folder: Path, batch_size: int, workers: int) -> Iterable[Any]:
    """Torchvision's ImageFolder, as the original reads."""
    files = ImageFolder(str(folder), OriginalTransform())
    return DataLoader(
        files, batch_size=batch_size, num_workers=workers, shuffle=True, drop_last=True
    )


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Goes through a loader again and again."""
    while True:
        yield from loader


def throughput(
    openers: dict[str, Callable[[], Iterable[Any]]], batches: int, rounds: int, batch_size: int
) -> dict[str, list[float]]:
    """Images per second of each variant in each round; starting up does not count."""
    rates: dict[str, list[float]] = {name: [] for name in openers}
    for _ in range(rounds):
        for name, opener in openers.items():
            stream = endless(opener())
            for _ in range(3):  # what was prepared while the workers started
                next(stream)
            start = time.perf_counter()
            for _ in range(batches):
                next(stream)
            rates[name].append(batches * batch_size / (time.perf_counter() - start))
            del stream
    return rates


def first_batch_s(shards: Path, batch_size: int, workers: int, share: float) -> float:
    """Seconds from nothing to the first batch, some way into an epoch."""
    start = time.perf_counter()
    loader = ours(shards, batch_size, workers)
    loader.go_to(Cursor(0, int(share * loader.num_samples) // batch_size * batch_size))
    next(iter(loader))
    return time.perf_counter() - start


def boundary_wait_s(shards: Path, workers: int, step_s: float) -> tuple[float, float]:
    """Waits for the first batch of an epoch, and the median wait inside it."""
    loader = ours(shards, 32, workers)
    stream, waits = endless(loader), []
    for _ in range(2 * len(loader)):
        start = time.perf_counter()
        next(stream)
        waits.append(time.perf_counter() - start)
        time.sleep(step_s)
    return waits[len(loader)], statistics.median(waits[1:])


def large_index_s(folder: Path, num_shards: int, shard_samples: int) -> dict[str, float]:
    """Seconds to open an index of millions of samples, and to ask it for a batch."""
    extents = np.zeros(shard_samples, dtype=EXTENT)
    extents["offset"] = 1024 * np.arange(shard_samples)
    scanned = [
        ScannedShard(Shard(f"train-{number:06d}.tar", 1, shard_samples), extents)
        for number in range(num_shards)
    ]
    write_index(folder, (), {"train": scanned})
    start = time.perf_counter()
    reader = IndexedSplit(ShardDataset(load_index(folder, check_shards=False), "train"), ORDER)
    loader = reader.train_loader(lambda *_: None, list, LoaderConfig(2048, 0, 0, 1), seed=0)
    opened = time.perf_counter()
    batches = loader.batches
    batches.indices(Cursor(0, reader.num_samples * 9 // 10))
    first = time.perf_counter()
    batches.indices(Cursor(0, reader.num_samples * 9 // 10 + 2048))
    return {"open": opened - start, "first": first - opened, "next": time.perf_counter() - first}


def draw_images(folder: Path) -> Path:
    """Draws JPEGs, in one sub-folder."""
    source = SyntheticDataset(DRAWN_IMAGES, DRAWN_PX, seed=0)
    (folder / "drawn").mkdir(parents=True)
    for number in range(len(source)):
        record = source[number]
        (folder / "drawn" / f"{number}.{record.extension}").write_bytes(record.data)
    return folder


def main() -> None:
    """Prints the table, and with `--json` writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder with one sub-folder per class")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batches", type=int, default=8, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            results = measure(args, Path(temporary))
    except UserError as error:
        parser.exit(2, f"{error}\n")
    write_json(args.json, results)


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs everything; prints as it goes."""
    images = args.images or draw_images(work / "images")
    shards = work / "shards"
    pack({"train": open_datasets(images)["train"]}, shards, progress=False)
    print(f"{platform.machine()}, torch {torch.__version__}, {date.today()}")
    print(f"{load_index(shards).num_samples('train')} images, {args.workers} worker(s)")
    openers: dict[str, Callable[[], Iterable[Any]]] = {
        "ours": partial(ours, shards, args.batch_size, args.workers),
        "webdataset": partial(webdataset, shards, args.batch_size, args.workers),
        "ImageFolder": partial(image_folder, images, args.batch_size, args.workers),
    }
    rates = throughput(openers, args.batches, args.rounds, args.batch_size)
    best = statistics.median(rates["ours"])
    for name, values in rates.items():
        median = statistics.median(values)
        print(
            f"{name:12} {median:7.0f} images/s ({min(values):.0f} to {max(values):.0f}), "
            f"ours is {best / median:.2f} times as fast"
        )
    firsts = {
        share: statistics.median(
            first_batch_s(shards, args.batch_size, args.workers, share) for _ in range(args.rounds)
        )
        for share in (0.0, 0.5, 0.9)
    }
    print("first batch: " + ", ".join(f"{s:.2f} s at {p:.0%}" for p, s in firsts.items()))
    edge, inside = boundary_wait_s(shards, args.workers, step_s=0.1)
    print(f"wait at an epoch's edge {1e3 * edge:.1f} ms, inside {1e3 * inside:.1f} ms")
    large = large_index_s(work / "large", num_shards=14198, shard_samples=1000)
    print(
        "14,198,000 samples: "
        + ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in large.items())
    )
    return {"rates": rates, "first_batch_s": firsts, "edge_s": [edge, inside], "large_s": large}


if __name__ == "__main__":
    main()
