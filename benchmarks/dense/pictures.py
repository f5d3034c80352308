"""What detectors or segmenters of a study see on the same held-out images, one column a backbone.

python -m benchmarks.dense.pictures study nuclei.png --backbones random simmim --images 2

The runs are those of `benchmarks.dense`; their own configurations say what is held out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from benchmarks.dense.__main__ import run_folder
from ssl_swin import load_detector, load_segmenter
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError
from ssl_swin.figure import ClassColumn, Figure, ImageColumn, ObjectColumn, Objects
from ssl_swin.files import atomic_path
from ssl_swin.launch.build import open_data
from ssl_swin.reporting.comparison import check_run
from ssl_swin.reporting.figures import draw_figure

LEAST_SCORE = 0.3  # of an object that is drawn
PLAIN = [0.0] * 3, [1.0] * 3  # what is drawn is not normalised


def held_out(cfg: DictConfig, member: str, number: int) -> list[Sample]:
    """Returns the first held-out images of a run, with their truth.

    Args:
        cfg: Configuration of the run.
        member: "mask" or "boxes".
        number: Of images.
    """
    split: Any = open_data(cfg, (member,))["val"]
    pixels = PixelFormat.from_settings(cfg.data)
    wanted = range(min(number, split.num_samples))
    return [decode_sample(split.dataset[at], pixels, members=("image", member)) for at in wanted]


def segmented(runs: dict[str, Path], samples: Sequence[Sample], images: Tensor) -> Figure:
    """Returns images, their classes, and those that each run's segmenter tells."""
    found = {name: load_segmenter(run) for name, run in runs.items()}
    first = next(iter(found.values()))
    labels = {
        "truth": [first.masks.read(_mask(each), len(first.classes), each.name) for each in samples]
    }
    labels |= {name: [each.segment(s.pixels) for s in samples] for name, each in found.items()}
    columns = (
        ClassColumn(name, images, labels=torch.stack(maps), classes=first.classes)
        for name, maps in labels.items()
    )
    return (ImageColumn("input", images), *columns)


def detected(runs: dict[str, Path], samples: Sequence[Sample], images: Tensor) -> Figure:
    """Returns images with the truth, and with what each run's detector finds."""
    found = {name: load_detector(run) for name, run in runs.items()}
    objects = {"truth": tuple(Objects(_boxes(s), s.box_labels) for s in samples)}  # type: ignore[arg-type]
    for name, detector in found.items():
        told = [detector.detect(sample.pixels) for sample in samples]
        kept = [each.scores >= LEAST_SCORE for each in told]
        objects[name] = tuple(
            Objects(each.boxes[sure], each.labels[sure], each.scores[sure])
            for each, sure in zip(told, kept, strict=True)
        )
    classes = next(iter(found.values())).classes
    return tuple(
        ObjectColumn(name, images, objects=each, classes=classes) for name, each in objects.items()
    )


def as_images(samples: Sequence[Sample]) -> Tensor:
    """Returns the pixels of 8-bit images of one size, float (B, C, H, W) in [0, 1].

    Raises:
        UserError: If they are others.
    """
    kinds = {(tuple(sample.pixels.shape), str(sample.pixels.dtype)) for sample in samples}
    if len(kinds) != 1 or "torch.uint8" not in next(iter(kinds)):
        raise UserError(
            f"the figure takes 8-bit images of one size, got {sorted(kinds)}: give --images 1"
        )
    return torch.stack([sample.pixels for sample in samples]).float() / 255


def _mask(sample: Sample) -> Tensor:
    assert sample.mask is not None
    return sample.mask


def _boxes(sample: Sample) -> Tensor:
    assert sample.boxes is not None
    return sample.boxes


def main(words: Sequence[str] | None = None) -> None:
    """Draws the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder that benchmarks.dense wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--job", choices=("segment", "detect"), default="segment")
    parser.add_argument("--backbones", nargs="+", required=True)
    parser.add_argument("--labels", default="all", help="number of images with labels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2)
    args = parser.parse_args(words)
    runs = {
        name: run_folder(args.study, args.job, name, args.seed, args.labels)
        for name in args.backbones
    }
    member, columns = ("mask", segmented) if args.job == "segment" else ("boxes", detected)
    try:
        check_run(next(iter(runs.values())))
        cfg = OmegaConf.load(next(iter(runs.values())) / "config.yaml")
        assert isinstance(cfg, DictConfig)
        samples = held_out(cfg, member, args.images)
        figure = columns(runs, samples, as_images(samples))
    except UserError as error:
        parser.exit(2, f"{error}\n")
    with atomic_path(args.picture) as temporary:
        draw_figure(figure, *PLAIN).save(temporary, format="png")


if __name__ == "__main__":
    main()
