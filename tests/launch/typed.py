"""Runs command lines and Python calls in this process, whole or up to where a run would write."""

import contextlib
import copy
import io
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from command_lines import JOBS, PYTHON, Line
from drawn_objects import write_shards
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from odd_annotations import write_odd_annotations
from omegaconf import DictConfig, base
from PIL import Image

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.jobs import linear_probe
from ssl_swin.launch import composing, fitting, suggestions
from ssl_swin.launch.config_files import compose_job, group_options
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.weights.backbone import save_classifier, save_task

DATA = ["data=shards", "data.root=shards", "logger=csv", "batch_size=4", "num_workers=0"]
TRAINING = ["trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
NANO = [
    *("model.img_size_px=32", "model.window_size=2", "model.embed_dim=8", "model.depths=[1,1,1]"),
    *("model.num_heads=[1,1,2]", "objective.mask_patch_size_px=16", "schedule.warmup_epochs=0"),
]
VALID = {  # a small run that is right, to which each line adds something
    "pretrain": [*DATA, *TRAINING, *NANO],
    "finetune": [*DATA, *TRAINING, "backbone=backbone", "schedule.warmup_epochs=0"],
    "segment": [
        *("data=masks", "data.root=masked", "logger=csv", "batch_size=4", "num_workers=0"),
        *(*TRAINING, "backbone=backbone", "classes=2", "schedule.warmup_steps=0"),
        *("task.crop_px=32", "task.head_channels=8", "task.auxiliary_channels=8"),
        *("task.inference.short_px=32", "augment.short_px=32", "trainer.sync_batchnorm=false"),
    ],
    "detect": [
        *("data=shards", "data.root=boxed", "logger=csv", "batch_size=4", "num_workers=0"),
        *(*TRAINING, "backbone=backbone", "classes=2", "schedule.warmup_steps=0"),
        *("task.channels=8", "task.head_channels=8", "task.num_proposals=20"),
        *("task.inference.short_px=64", "augment.short_px=[64]", "trainer.sync_batchnorm=false"),
    ],
    "linear_probe": [*DATA, "backbone=backbone", "device=cpu"],
}
ENCODER = {"version": 1, "img_size_px": 32, "window_size": 2, "embed_dim": 8, "depths": [1, 1, 1]}
SEGMENTATION: dict[str, Any] = {
    **{"crop_px": 32, "head_channels": 8, "auxiliary_channels": 8, "auxiliary_weight": 0.4},
    **{"dropout": 0.1, "loss_mean": "all", "masks": MaskClasses()},
    "inference": ssl_swin.Inference(short_px=32),
}
DETECTION: dict[str, Any] = {
    **{"cascade": False, "with_masks": False, "channels": 8, "head_channels": 8},
    **{"anchor_scale": 2, "anchor_ratios": [1.0], "anchors_inside": False, "num_proposals": 8},
    **{"proposal_loss": "l1", "box_loss": "l1", "inference": DetectInference(short_px=32)},
}
ARGUMENTS: dict[str, dict[str, Any]] = {  # valid ones of a call, which a line changes or adds to
    "swin": {**ENCODER, "num_heads": [1, 1, 2]},
    "RandomCrop": {"crop_scale": [0.5, 1], "crop_aspect": [0.75, 1.33], "flip_probability": 0.5},
    "CosineSchedule": {"warmup_epochs": 0, "warmup_lr": 0, "min_lr": 0, "warmup_prefix": False},
    "MultistepSchedule": {
        "warmup_epochs": 0,
        "warmup_lr": 0,
        "milestone_epochs": [1],
        "gamma": 0.1,
    },
    "Probes": {
        **{"folder": "x", "every_n_steps": 1, "num_train_images": 9, "k": 3, "temperature": 0.1},
        **{"linear_epochs": 1, "linear_base_lr": 0.1, "max_s": 1, "max_time_ratio": 0.5},
    },
    "Reconstructions": {"folder": "x", "every_n_steps": 1, "num_images": 1},
    "FeaturePictures": {"folder": "x", "every_n_steps": 1, "num_images": 1},
    "BadSamples": {"path": "x", "max_count": 1, "max_ratio": 0.1},
    "StepCheckpoint": {"dirpath": "x", "filename": "y"},
    "open_splits": {"how_to_make": "", "order": OrderConstants(block=1, pool=9, lanes=1)},
    "Trainer": {"accelerator": "cpu", "devices": 1},
}
MOST_LINES = 6
NUM_IMAGES = 24
JUNK = (
    *(
        "junk.bin",
        "junk.tar",
        "junk.pth",
        "junk.safetensors",
        "junk.parquet",
        "junk.onnx",
        "junk.pt2",
    ),
    "broken/a.jpg",
)


class FolderWouldBeMade(BaseException):
    """The job has checked all it checks before it writes."""


@dataclass(frozen=True)
class Outcome:
    """What came of a line."""

    status: str  # refused, accepted, traceback or something else, as "exit 1"
    said: str  # on standard error, or the message of the exception
    written: frozenset[str]  # paths that were not there before

    def fault(self, line: Line) -> str:
        """Return what is not as it should be; nothing if all is."""
        expected = "refused" if line.is_refused else "accepted"
        if self.status != expected:
            return f"{self.status} instead of {expected}"
        if not line.is_refused:
            return ""
        if self.written:
            return f"refused, and wrote {', '.join(sorted(self.written)[:3])}"
        if len(self.said.splitlines()) > MOST_LINES:
            return f"a message of {len(self.said.splitlines())} lines"
        return "" if line.word in self.said else f"the message does not say {line.word!r}"


def write_coco(folder: Path, rng: np.random.Generator) -> None:
    """Put eight images with a box each, as COCO has them, into a folder."""
    names = [f"{number}.png" for number in range(8)]
    (folder / "images").mkdir(parents=True)
    for name in names:
        pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    boxes = [{"image_id": number, "category_id": 1, "bbox": [4, 4, 20, 20]} for number in range(8)]
    content = {
        "images": [
            {"id": number, "file_name": name, "height": 40, "width": 48}
            for number, name in enumerate(names)
        ],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))


def make_world() -> None:
    """Put images, shards, a backbone and what is none into the working directory."""
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        file = Path("photos") / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(file)
    for split, count in (("train", 8), ("val", 2)):
        for number in range(count):
            for name, values in (
                ("images", rng.integers(0, 255, (40, 48, 3))),
                ("masks", rng.integers(0, 2, (40, 48))),
            ):
                file = Path("masked") / name / split / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(file)
    write_coco(Path("coco"), rng)
    write_shards(Path("boxed"))
    write_odd_annotations(Path("odd/dense"))
    with contextlib.redirect_stdout(io.StringIO()):
        for shards in ("boxed", *map(str, Path("odd/dense").glob("*_shards"))):
            assert main(["index", shards]) == 0
        assert main(["pack", "photos", "shards", "--val-ratio", "0.3", "--workers", "0"]) == 0
    encoder = ssl_swin.swin(**ARGUMENTS["swin"])
    ssl_swin.save_backbone(
        Path("backbone"), encoder, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], card=""
    )
    save_classifier(
        *(Path("classifier"), ssl_swin.Classifier(encoder, num_classes=2)),
        classes=["cat", "dog"],
        **{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "card": ""},
    )
    save_task(
        *(Path("segmenter"), ssl_swin.Segmentation(encoder, ["a", "b"], **SEGMENTATION)),
        **{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "card": ""},
    )
    save_task(
        *(Path("detector"), ssl_swin.Detection(encoder, ["a"], **DETECTION)),
        **{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "card": ""},
    )
    odd = Path("odd")
    for folder in ("empty", "broken", "mine/experiment", "noyaml/experiment", "binary/experiment"):
        (odd / folder).mkdir(parents=True)
    for name, content in {
        "file.txt": b"hi",
        "empty.csv": b"",
        "empty.tar": b"",
        **dict.fromkeys(JUNK, rng.bytes(900)),
        "mine/experiment/pretrain_mine.yaml": b"# @package _global_\nbatch_size: 3\n",
        "mine/experiment/finetune_mine.yaml": b"# @package _global_\nhead: fresh\n",
        "mine/experiment/pretrain_objective.yaml": (
            b"# @package _global_\nobjective:\n  mask_ratio: 0.5\n"
        ),
        "noyaml/experiment/pretrain_mine.yaml": b"a: [1\n b: }",
        "binary/experiment/pretrain_mine.yaml": b"\xff\x00" + rng.bytes(99),
    }.items():
        (odd / name).write_bytes(content)
    (odd / "dangling").symlink_to("absent")
    (odd / "loop").symlink_to("loop")


@contextlib.contextmanager
def typed_here(
    patch: pytest.MonkeyPatch, *, whole: bool = False
) -> Iterator[Callable[[Line], Outcome]]:
    """Yield what runs lines in the working directory: jobs stop before they write, if not whole."""
    compose = FastComposition()
    patch.setattr(hydra, "main", compose.as_hydra_main(hydra.main))
    patch.setattr(suggestions, "compose_job", compose.for_a_hint)
    patch.setattr(composing, "compose_job", compose)
    patch.setattr(base, "parse", cache(base.parse))  # interpolations are the same in every line
    patch.setattr(OverridesParser, "parse_override", _parse_override)
    if not whole:
        patch.setattr(fitting, "start_folder", _stop)
        patch.setattr(linear_probe, "start_folder", _stop)
    yield _outcome


_PARSE_OVERRIDE = OverridesParser.parse_override


@cache
def _parsed(text: str) -> Override:
    return _PARSE_OVERRIDE(OverridesParser.create(), text)


def _parse_override(_: OverridesParser, text: str) -> Override:
    return _parsed(text)


def _stop(*_: object) -> None:
    raise FolderWouldBeMade


def _outcome(line: Line) -> Outcome:
    before = _paths()
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            status = _call(line)
        except BaseException as error:
            status = "traceback"
            said.write("".join(traceback.format_exception(error)))
    written = _paths() - before
    _remove(written)
    return Outcome(status, said.getvalue().strip(), frozenset(written))


def _valid_beside(line: Line) -> list[str]:
    """Return the small valid run, without masks where the line's objective has none."""
    has_masks = not {"objective=moby", "objective=distillation"} & set(line.words)
    return [word for word in VALID[line.program] if has_masks or not word.startswith("objective.")]


def _call(line: Line) -> str:
    """Return how a line ended."""
    argv = sys.argv
    sys.argv = ["ssl-swin"]
    try:
        if line.program == PYTHON:
            eval(line.text, _names())
            return "accepted"
        words = line.words
        if line.program in JOBS:
            words = [line.program.replace("_", "-"), *_valid_beside(line), *words]
        code: Any = main(words)
    except FolderWouldBeMade:
        return "accepted"
    except ssl_swin.UserError as error:
        if line.program != PYTHON:
            raise
        print(error, file=sys.stderr)
        return "refused"
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    return {0: "accepted", 2: "refused"}.get(code or 0, f"exit {code}")


def _names() -> dict[str, Any]:
    face = {name: getattr(ssl_swin, name) for name in ssl_swin.__all__}
    for name, arguments in ARGUMENTS.items():
        face[name] = partial(face[name], **arguments)
    own = {"Path": Path, "encoder": face["swin"](), "valid": VALID}
    return {**face, "CentreCrop": CentreCrop, **own}


def _paths() -> set[str]:
    return {str(path) for path in Path(".").rglob("*")}


def _remove(paths: set[str]) -> None:
    for path in map(Path, sorted(paths)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class FastComposition:
    """Composes as Hydra does, but each choice of groups once; plain overrides go to a copy."""

    def __init__(self) -> None:
        self._composed: dict[tuple[Any, ...], tuple[DictConfig, Any]] = {}

    def __call__(
        self, job: str, overrides: Sequence[str], *, config_dir: Path | None = None
    ) -> DictConfig:
        """As `compose_job`."""
        read = [(each, OverridesParser.create().parse_override(each)) for each in overrides]
        groups = [text for text, each in read if self._is_choice(each.key_or_group)]
        plain = [each for _, each in read if not self._is_choice(each.key_or_group)]
        key = (job, config_dir, *groups)
        if key not in self._composed:
            cfg = compose_job(job, groups, config_dir=config_dir)
            self._composed[key] = cfg, HydraConfig.instance().cfg
        cfg, chosen = self._composed[key]
        HydraConfig.instance().cfg = chosen
        cfg = copy.deepcopy(cfg)
        ConfigLoaderImpl._apply_overrides_to_config(plain, cfg)
        return cfg

    def for_a_hint(
        self, job: str, overrides: Sequence[str], *, config_dir: Path | None = None
    ) -> DictConfig:
        """As `compose_job`."""
        return self(job, overrides, config_dir=config_dir)

    def as_hydra_main(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a stand-in of `hydra.main`; what has flags goes to the real one."""

        def decorator(*, config_name: str, **options: Any) -> Callable[..., Any]:
            def decorated(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
                def run() -> Any:
                    if any(word.startswith("-") or "hydra" in word for word in sys.argv[1:]):
                        return real(config_name=config_name, **options)(task)()
                    return task(self(config_name, sys.argv[1:]))

                return run

            return decorated

        return decorator

    @staticmethod
    def _is_choice(key: str) -> bool:
        group = key.partition("@")[0]
        return bool(group_options(group)) or "@" in key or group.startswith("hydra")
