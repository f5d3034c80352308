"""What the probing job makes of its configuration, and where it keeps features."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ssl_swin.data.batch import LabeledBatch
from ssl_swin.data.loading.protocol import BadSample
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.jobs.in_process import linear_probe
from ssl_swin.jobs.probe_features import SplitFeatures
from ssl_swin.probing.features import Tap

TAPS = [Tap(2, "mean"), Tap(4, "max")]
SETTINGS: dict[str, Any] = {
    "batch_size": 3,
    "num_workers": 0,
    "seed": 0,
    "device": "cpu",
    "eval_crop_ratio": 0.875,
    "data": {"channels": 3, "dtype": "uint8", "mean": [0.5] * 3, "std": [0.25] * 3},
    "features": {"folder": "features", "dtype": "float32"},
    "poolings": ["mean", "max"],
    "linear": {"base_lrs": [0.1]},
    "knn": {"ks": [5]},
}


class Batches(list[LabeledBatch]):
    """A loader of these batches."""

    def __init__(self, batches: list[LabeledBatch], bad_samples: list[BadSample]) -> None:
        super().__init__(batches)
        self.bad_samples = bad_samples


class FiveImages:
    """A reader of five images, that counts how often it is read."""

    num_samples = 5

    def __init__(self, fingerprint: str = "abc", *bad_samples: BadSample) -> None:
        self.fingerprint = fingerprint
        self.bad_samples = list(bad_samples)
        self.times_read = 0

    def eval_loader(self, *_: Any) -> Batches:
        self.times_read += 1
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (5, 3, 64, 64), generator=generator, dtype=torch.uint8)
        labels = torch.arange(5)
        first = LabeledBatch(pixels[:3], labels[:3], ["a", "b", "c"])
        return Batches([first, LabeledBatch(pixels[3:], labels[3:], ["d", "e"])], self.bad_samples)


@pytest.fixture
def features_of(
    tmp_path: Path, tiny_encoder: Callable[..., SwinEncoder]
) -> Callable[..., SplitFeatures]:
    def build(reader: FiveImages, *changes: str, seed: int = 0) -> SplitFeatures:
        settings = OmegaConf.create(SETTINGS | {"features": {"folder": str(tmp_path / "kept")}})
        cfg = OmegaConf.merge(OmegaConf.create(SETTINGS), settings, OmegaConf.from_dotlist(changes))
        run = SimpleNamespace(cfg=cfg, folder=SimpleNamespace(path=tmp_path / "run"))
        return SplitFeatures(run, tiny_encoder(seed=seed), {"train": reader, "val": reader})

    return build


def test_split_features__are_those_of_the_encoder_and_read_once(
    features_of: Callable[..., SplitFeatures], tiny_encoder: Callable[..., SwinEncoder]
) -> None:
    reader = FiveImages()
    first = features_of(reader).of("train", TAPS)
    again = features_of(reader).of("train", TAPS)
    assert reader.times_read == 1
    batches = list(FiveImages().eval_loader())
    images = (torch.cat([batch.pixels for batch in batches]) / 255 - 0.5) / 0.25
    with torch.no_grad():
        maps = tiny_encoder().stages(images)
    torch.testing.assert_close(first[TAPS[0]].features, maps[1].mean(dim=(2, 3)))
    torch.testing.assert_close(first[TAPS[1]].features, maps[3].amax(dim=(2, 3)))
    for tap in TAPS:
        assert torch.equal(first[tap].features, again[tap].features)
        assert first[tap].labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "changes", "seed", "split"),
    [
        (FiveImages("abd"), [], 0, "train"),
        (FiveImages(), ["data.mean=[0,0,0]"], 0, "train"),
        (FiveImages(), ["features.dtype=float16"], 0, "train"),
        (FiveImages(), ["eval_crop_ratio=1.0"], 0, "train"),
        (FiveImages(), ["eval_crop_ratio=0.87500001"], 0, "train"),
        (FiveImages(), ["data.bands=[2,1,0]"], 0, "train"),
        (FiveImages(), ["data.fill=7"], 0, "train"),
        (FiveImages(), ["data.fill=7", "data.nodata=[0,1]"], 0, "train"),
        (FiveImages(), ["data.exif_rotation=true"], 0, "train"),
        (FiveImages(), ["data.channel_axis=last"], 0, "train"),
        (FiveImages(), ["data.max_image_pixels=5000"], 0, "train"),  # others would be left out
        (FiveImages(), [], 1, "train"),
        (FiveImages(), [], 0, "val"),
    ],
)
def test_split_features__anything_that_matters_makes_new_ones(
    features_of: Callable[..., SplitFeatures],
    reader: FiveImages,
    changes: list[str],
    seed: int,
    split: str,
) -> None:
    features_of(FiveImages()).of("train", TAPS)
    reader.times_read = 0
    features_of(reader, *changes, seed=seed).of(split, TAPS)
    assert reader.times_read == 1


def test_split_features__images_that_cannot_be_recognised_are_read_by_every_run(
    features_of: Callable[..., SplitFeatures], tmp_path: Path
) -> None:
    reader = FiveImages("unknown")
    for _ in range(2):
        features = features_of(reader)
        features.of("train", TAPS)
        features.of("train", TAPS)
    assert reader.times_read == 2
    assert not (tmp_path / "kept").exists()
    assert len(list((tmp_path / "run/features").iterdir())) == 1


def test_split_features__says_what_cannot_be_read(
    features_of: Callable[..., SplitFeatures], capsys: pytest.CaptureFixture[str]
) -> None:
    features_of(FiveImages("abc", BadSample("f.jpg", "cut short"))).of("train", TAPS)
    message = "left out: 1 images of train cannot be read, the first is f.jpg: cut short"
    assert message in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("linear.base_lrs=0.1", "linear.base_lrs must be a list of numbers in (0, 1e+06]"),
        (
            "knn.ks=[]",
            "knn.ks must be a list of whole numbers in [1, 10000], not empty, each once, got []",
        ),
        (
            "poolings=mean",
            "poolings must be a list of mean or max, not empty, each once, got 'mean'",
        ),
        ("features.dtype=int8", "features.dtype must be float32 or float16, got 'int8'"),
        ("stages=[4]", "stages must be of 1 to 3, got [4]"),
        ("device=nowhere", "device=nowhere cannot be used here: "),
        ("device=meta", "device=meta cannot be used here: "),
        ("linear.warmup_epochs=90", "warmup_epochs must lie in [0, 90), the epochs; got 90"),
    ],
)
def test_linear_probe__refuses_before_it_starts(
    change: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_class_folders(Path("photos"))
    options = ["backbone=none", "model=swin_nano", "data=folder", "data.root=photos"]
    with pytest.raises(UserError, match=re.escape(message)):
        linear_probe([*options, "data.val_ratio=0.25", "device=cpu", "name=x", change])
    assert not Path("runs").exists()


def write_class_folders(root: Path) -> None:
    for number in range(8):
        folder = root / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (30 * number, 0, 0)).save(folder / f"{number}.png")
