"""Features on disk."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.probing.feature_store import store_folder, stored_features, weights_fingerprint
from ssl_swin.probing.features import Features, PooledBatch, Tap

TAPS = [Tap(1, "mean"), Tap(1, "max"), Tap(2, "mean")]
WIDTHS = {1: 3, 2: 5}


class Extraction:
    """Gives the same three batches of random features each time, and remembers what it was asked.

    `fails_at` raises before that batch; `labels_from` numbers the labels.
    """

    def __init__(self, fails_at: int | None = None, labels_from: int = 0, scale: float = 1) -> None:
        self.asked: list[list[Tap]] = []
        self.fails_at = fails_at
        self.labels_from = labels_from
        self.scale = scale

    def __call__(self, taps: Sequence[Tap]) -> Iterator[PooledBatch]:
        self.asked.append(list(taps))
        return self.batches(taps)

    def batches(self, taps: Sequence[Tap]) -> Iterator[PooledBatch]:
        first = self.labels_from
        for number, size in enumerate((4, 4, 2)):
            if number == self.fails_at:
                raise RuntimeError("the power went out")
            features = {tap: self.scale * rows(tap, number, size) for tap in taps}
            yield PooledBatch(features, torch.arange(first, first + size))
            first += size


def rows(tap: Tap, batch: int, size: int) -> torch.Tensor:
    seed = 100 * tap.stage + 10 * len(tap.pooling) + batch
    return torch.randn(size, WIDTHS[tap.stage], generator=torch.Generator().manual_seed(seed))


def expected(tap: Tap) -> torch.Tensor:
    return torch.cat([rows(tap, batch, size) for batch, size in enumerate((4, 4, 2))])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_stored_features__are_what_was_extracted(tmp_path: Path) -> None:
    extraction = Extraction()
    stored = stored_features(tmp_path, TAPS, extraction, dtype="float32")
    assert extraction.asked == [TAPS]
    assert list(stored) == TAPS
    for tap in TAPS:
        assert torch.equal(stored[tap].features, expected(tap))
        assert stored[tap].labels.tolist() == list(range(10))
    # ordinary .npy files, for anyone
    assert np.array_equal(np.load(tmp_path / "stage1_max.npy"), expected(Tap(1, "max")).numpy())
    files = ["labels.npy", "stage1_max.npy", "stage1_mean.npy", "stage2_mean.npy"]
    assert names(tmp_path) == files


def test_stored_features__are_reused_and_completed(tmp_path: Path) -> None:
    extraction = Extraction()
    stored_features(tmp_path, TAPS[:2], extraction, dtype="float32")
    stored_features(tmp_path, TAPS[1:2], extraction, dtype="float32")
    assert extraction.asked == [TAPS[:2]]
    stored = stored_features(tmp_path, TAPS, extraction, dtype="float32")
    assert extraction.asked == [TAPS[:2], TAPS[2:]]
    assert torch.equal(stored[TAPS[2]].features, expected(TAPS[2]))


def test_stored_features__may_be_trained_on_and_the_files_stay(tmp_path: Path) -> None:
    features, _ = stored_features(tmp_path, TAPS[:1], Extraction(), dtype="float32")[TAPS[0]]
    features.mul_(0)
    again: Features = stored_features(tmp_path, TAPS[:1], Extraction(), dtype="float32")[TAPS[0]]
    assert torch.equal(again.features, expected(TAPS[0]))


@pytest.mark.parametrize("fails_at", [0, 2])
def test_stored_features__a_stopped_extraction_leaves_nothing(
    tmp_path: Path, fails_at: int
) -> None:
    with pytest.raises(RuntimeError, match="power"):
        stored_features(tmp_path, TAPS, Extraction(fails_at), dtype="float32")
    assert names(tmp_path) == []
    extraction = Extraction()
    stored_features(tmp_path, TAPS, extraction, dtype="float32")
    assert extraction.asked == [TAPS]


def test_stored_features__without_labels_nothing_counts(tmp_path: Path) -> None:
    stored_features(tmp_path, TAPS, Extraction(), dtype="float32")
    (tmp_path / "labels.npy").unlink()  # as if killed just before their turn
    extraction = Extraction()
    stored_features(tmp_path, TAPS, extraction, dtype="float32")
    assert extraction.asked == [TAPS]


def test_stored_features__float16(tmp_path: Path) -> None:
    stored = stored_features(tmp_path, TAPS[:1], Extraction(), dtype="float16")[TAPS[0]]
    assert torch.equal(stored.features, expected(TAPS[0]).half())
    size = (tmp_path / "stage1_mean.npy").stat().st_size
    assert size == 128 + 10 * 3 * 2


def test_stored_features__of_other_images(tmp_path: Path) -> None:
    stored_features(tmp_path, TAPS[:1], Extraction(), dtype="float32")
    with pytest.raises(UserError, match="features of other images than can be read now"):
        stored_features(tmp_path, TAPS, Extraction(labels_from=1), dtype="float32")
    assert names(tmp_path) == ["labels.npy", "stage1_mean.npy"]


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (1e6, "float16", "does not fit float16: set features.dtype=float32"),
        (float("nan"), "float32", "a feature of nan does not fit float32: check the weights"),
    ],
)
def test_stored_features__too_large(tmp_path: Path, scale: float, dtype: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stored_features(tmp_path, TAPS, Extraction(scale=scale), dtype=dtype)
    assert names(tmp_path) == []


def test_store_folder__depends_on_every_fact_and_says_them(tmp_path: Path) -> None:
    facts = {"weights": "abc", "size_px": [64, 64]}
    folder = store_folder(tmp_path, facts)
    assert folder == store_folder(tmp_path, dict(reversed(facts.items())))
    assert folder != store_folder(tmp_path, facts | {"size_px": [96, 96]})
    assert json.loads((folder / "facts.json").read_text()) == facts


def test_weights_fingerprint__changes_with_any_value_name_or_shape() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    seen = [weights_fingerprint(module)]
    assert weights_fingerprint(module) == seen[0]
    module[1].running_mean[0] = 1
    seen.append(weights_fingerprint(module))
    with torch.no_grad():
        module[0].weight[1, 2] += 1e-3
    seen.append(weights_fingerprint(module))
    seen.append(weights_fingerprint(nn.Sequential(module[0], nn.Identity(), module[1])))
    module[0].weight = nn.Parameter(module[0].weight.view(3, 2))
    seen.append(weights_fingerprint(module))
    assert len(set(seen)) == 5
