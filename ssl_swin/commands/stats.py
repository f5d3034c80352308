"""`ssl-swin stats`: what images a set holds, and the configuration that suits them."""

import argparse
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_swin.data.dataset import ImageDataset
    from ssl_swin.data.inspection.statistics import ImageKind, SetStatistics
    from ssl_swin.data.shards.index_file import ShardIndex


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "stats",
        help="measure the images of a set: sizes, channels, mean and std",
        description="Opens a random part of the train split of shards, or of images that are not "
        "packed yet, and prints what data.channels, dtype, mean and std should be.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="shards, or whatever `ssl-swin pack` takes")
    parser.add_argument("--index-dir", type=Path, help="folder of the index, if another")
    parser.add_argument("--images", type=int, default=2000, help="how many to open; 0 is all")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="new data config, as conf/data/NAME.yaml"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes; 0 is this one")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measures, prints, and writes a configuration where one is asked for."""
    from ssl_swin.data.inspection.statistics import measure_set
    from ssl_swin.data.shards.unread import unread_at_start
    from ssl_swin.errors import UserError
    from ssl_swin.files import write_atomically

    if args.images < 0:
        raise UserError(f"--images must not be negative, got {args.images}; 0 opens all")
    if args.write is not None and args.write.exists():
        raise UserError(f"{args.write} exists already. Choose another name, or delete it")
    index, sources = _open(args.folder, args.index_dir)
    statistics = measure_set(
        sources["train"], num_images=args.images, seed=args.seed, num_workers=args.workers
    )
    for line in (*_of_set(index, sources, statistics), *_of_images(statistics)):
        print(line)
    for line in () if index is None else unread_at_start(index):
        print(f"note: {line}")
    values = _values(statistics)
    print(f"\n{_yaml(values)}", end="")
    if args.write is not None:
        base = "folder" if index is None else "shards"
        config = {"defaults": [base, "_self_"], "root": str(args.folder), **values}
        write_atomically(args.write, f"{_header(args)}{_yaml(config)}")
        print(f"\nwrote {args.write}; next: ssl-swin pretrain data={args.write.stem}")


def _open(
    folder: Path, index_dir: Path | None
) -> "tuple[ShardIndex | None, dict[str, ImageDataset]]":
    from ssl_swin.data.shards.dataset import ShardDataset
    from ssl_swin.data.shards.index import load_index
    from ssl_swin.data.shards.index_file import INDEX_NAME
    from ssl_swin.data.sources.opening import open_datasets

    if index_dir is None and not (folder / INDEX_NAME).exists():
        return None, open_datasets(folder)
    index = load_index(folder, index_dir)
    return index, {split: ShardDataset(index, split) for split in index.splits}


def _of_set(
    index: "ShardIndex | None", sources: "dict[str, ImageDataset]", statistics: "SetStatistics"
) -> list[str]:
    lines = [f"{split}: {len(source)} images" for split, source in sources.items()]
    labels, of_what = statistics.labels, "images opened"
    if index is not None:
        labels, of_what = index.extents("train")["label"], "training images"
    classes = sources["train"].classes
    if classes:
        lines.append(f"classes: {len(classes)}, {_balance(labels, classes)} ({of_what})")
    number = f"{statistics.num_images} images of train"
    if statistics.unreadable:
        number += f"; {len(statistics.unreadable)} cannot be read: {statistics.unreadable[0]}"
    return [*lines, f"opened: {number}"]


def _balance(labels: "NDArray[np.integer[Any]]", classes: Sequence[str]) -> str:
    import numpy as np

    counts = np.bincount(labels[labels >= 0], minlength=len(classes))[: len(classes)]
    fewest, most = int(counts.argmin()), int(counts.argmax())
    if counts[fewest] == counts[most]:
        return f"{counts[most]} images each"
    return (
        f"from {counts[fewest]} ({classes[fewest]}) to {counts[most]} ({classes[most]}) images "
        f"each, median {np.median(counts):g}"
    )


def _of_images(statistics: "SetStatistics") -> list[str]:
    import numpy as np

    kind, moments = statistics.kind, statistics.running
    heights_px, widths_px = statistics.heights_px, statistics.widths_px
    limits = zip(moments.lowest, moments.highest, strict=True)
    ranges = (f"{lowest:g} to {highest:g}" for lowest, highest in limits)
    fewer_ratio = statistics.num_with_fewer_channels / statistics.num_images
    lines = [
        _stored_as(statistics),
        f"fewer channels than {kind.channels}: {100 * fewer_ratio:.1f} % of the images",
        f"height: {_spread(heights_px)}",
        f"width: {_spread(widths_px)}",
        f"shorter side: {_spread(np.minimum(heights_px, widths_px))}",
        f"values per channel: {', '.join(ranges)}",
    ]
    constant = np.flatnonzero(statistics.std == 0).tolist()
    if constant:
        lines.append(f"note: channel {constant} never varies; std 1 stands in for its 0")
    if kind.channels in (2, 4):
        colours = kind.channels - 1
        lines.append(f"note: if the last channel is opacity, choose channels: {colours}")
    return lines


def _stored_as(statistics: "SetStatistics") -> str:
    stored = statistics.kinds.most_common()
    if len(stored) == 1:
        return f"stored as: {_name(stored[0][0])}"
    kinds = ", ".join(f"{number} of {_name(kind)}" for kind, number in stored)
    return f"mixed: {kinds}; choose {_name(statistics.kind)}, as which they were read here"


def _name(kind: "ImageKind") -> str:
    return f"{kind.channels} channel{'s' * (kind.channels > 1)} {kind.dtype}"


def _spread(sizes_px: "NDArray[np.int64]") -> str:
    import numpy as np

    return f"{sizes_px.min()} to {sizes_px.max()} px, median {np.median(sizes_px):g}"


def _values(statistics: "SetStatistics") -> dict[str, Any]:
    return {
        "channels": statistics.kind.channels,
        "dtype": statistics.kind.dtype,
        "mean": _rounded(statistics.mean),
        "std": [value or 1.0 for value in _rounded(statistics.std)],
    }


def _rounded(values: "NDArray[np.float64]") -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(values, default_flow_style=None, sort_keys=False, width=1000)
    return text


def _header(args: argparse.Namespace) -> str:
    options = ["--images", str(args.images), "--seed", str(args.seed)]
    command = shlex.join(["ssl-swin", "stats", str(args.folder), *options])
    return f"# Measured on {date.today().isoformat()} with: {command}\n"
