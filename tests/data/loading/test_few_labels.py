from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.loading.few_labels import FewLabels, LabelledPart, keep_few_labels, labels_of
from ssl_swin.data.loading.indexed import IndexedReader, SourcePart
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import Placement
from ssl_swin.data.loading.stream import stream_split
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.records import ImageRecord
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.shards.source import ShardSource
from ssl_swin.data.sources.image_folder import FolderSource
from ssl_swin.errors import UserError

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0] * 40 + [1] * 25 + [2] * 3 + [-1] * 30)[
    np.random.default_rng(0).permutation(98)
]
ORDER = OrderConstants(4, 64, 1)


def counts(chosen: np.ndarray) -> list[int]:
    return np.bincount(LABELS[chosen], minlength=3).tolist()


class Numbers:
    """Images that know their label, and nothing lists them."""

    classes = CLASSES
    fingerprint = "numbers"

    def __init__(self) -> None:
        self.wanted: list[int] = []

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> ImageRecord:
        label = int(LABELS[index])
        return ImageRecord(b"", "png", None if label < 0 else label, str(index))

    def fetch_ahead(self, indices: np.ndarray) -> None:
        self.wanted += indices.tolist()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(20):
        path = root / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    return root


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shards"
    source = {"train": FolderSource(photos)}
    pack(source, root, shard_samples=6, num_workers=0, progress=False)
    return root


# FewLabels


@pytest.mark.parametrize(
    ("few", "expected"),
    [
        (FewLabels(ratio=0.1), [4, 2, 1]),  # 2.5 rounds to even; one of three is the least
        (FewLabels(ratio=0.01), [1, 1, 1]),
        (FewLabels(ratio=1.0), [40, 25, 3]),
        (FewLabels(per_class=3), [3, 3, 3]),
        (FewLabels(per_class=1), [1, 1, 1]),
        (FewLabels(), [40, 25, 3]),
    ],
)
def test_few_labels__as_many_of_each_class(few, expected):
    chosen = few.choose(LABELS, CLASSES)
    assert counts(chosen) == expected
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_few_labels__a_larger_part_contains_the_smaller():
    parts = [set(FewLabels(ratio=r, seed=3).choose(LABELS, CLASSES)) for r in (0.1, 0.3, 0.7)]
    assert parts[0] < parts[1] < parts[2]
    assert set(FewLabels(per_class=2, seed=3).choose(LABELS, CLASSES)) < parts[2]


def test_few_labels__are_a_function_of_the_seed():
    parts = [FewLabels(ratio=0.3, seed=seed).choose(LABELS, CLASSES).tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.1, "per_class": 5}, r"labels.ratio=0.1 and labels.per_class=5 are two"),
        ({"ratio": 0.0}, r"labels.ratio must lie in \(0, 1\], got 0.0"),
        ({"ratio": 1.5}, r"labels.ratio must lie in \(0, 1\], got 1.5"),
        ({"per_class": 0}, "labels.per_class must be a whole number from 1, got 0"),
        ({"per_class": 2.5}, r"labels.per_class must be a whole number from 1, got 2\.5"),
    ],
)
def test_few_labels__refuses(options, message):
    with pytest.raises(UserError, match=message):
        FewLabels(**options)


def test_few_labels__a_class_with_too_few_images():
    expected = "class 'owl' has 3 training images, fewer than the 4 of labels.per_class"
    with pytest.raises(UserError, match=expected):
        FewLabels(per_class=4).choose(LABELS, CLASSES)
    with pytest.raises(UserError, match=r"class 'bee' has 0 .* the 1 of labels.ratio"):
        FewLabels(ratio=0.1).choose(LABELS, (*CLASSES, "bee"))


# labels_of


def test_labels_of__every_kind_of_source(photos, shards):
    folder, packed = FolderSource(photos), ShardSource(open_index(shards), "train")
    for source in (folder, packed, Numbers(), SourcePart(folder, [19, 0, 7])):
        labels = labels_of(source)
        records = [source[number] for number in range(len(source))]
        assert labels.tolist() == [-1 if r.label is None else r.label for r in records]
        assert labels.dtype == np.int64


def test_labels_of__a_folder_without_classes(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "loose.png")
    assert labels_of(FolderSource(tmp_path)).tolist() == [-1]


def test_labels_of__reads_no_image(photos, shards, monkeypatch):
    def refuse(self: object, index: int) -> None:
        raise AssertionError("read an image")

    for kind in (FolderSource, ShardSource):
        monkeypatch.setattr(kind, "__getitem__", refuse)
    assert len(labels_of(FolderSource(photos))) == 20
    assert len(labels_of(ShardSource(open_index(shards), "train"))) == 20


# keep_few_labels


def test_keep_few_labels__the_reader_hands_out_the_chosen_images_only():
    few = FewLabels(ratio=0.1, seed=1)
    reader = keep_few_labels(IndexedReader(Numbers(), ORDER, "caveat"), few)
    chosen = few.choose(LABELS, CLASSES).tolist()
    assert (reader.num_samples, reader.classes, reader.caveat) == (7, CLASSES, "caveat")
    loader = reader.train_loader(
        lambda record, epoch: (int(record.name), record.label), list, Placement(7, 0, 0, 1), seed=0
    )
    for _ in range(2):
        (batch,) = loader
        assert sorted(batch) == [(number, LABELS[number]) for number in chosen]


def test_keep_few_labels__nothing_asked_for():
    reader = IndexedReader(Numbers(), ORDER)
    assert keep_few_labels(reader, FewLabels(seed=4)) is reader


def test_keep_few_labels__of_a_stream(shards):
    reader = stream_split(open_index(shards), "train")
    with pytest.raises(UserError, match=r"data\.reader=stream cannot read: use indexed or folder"):
        keep_few_labels(reader, FewLabels(per_class=1))


def test_labelled_part__fingerprint_is_of_the_choice():
    source = Numbers()
    parts = [LabelledPart(source, np.array(numbers)) for numbers in ([1, 2], [1, 2], [1, 3])]
    prints = [part.fingerprint for part in parts]
    assert prints[0] == prints[1] != prints[2]
    assert source.fingerprint not in prints


def test_labelled_part__says_what_to_fetch_ahead():
    source = Numbers()
    LabelledPart(source, np.array([5, 50, 60])).fetch_ahead(np.array([2, 0]))
    assert source.wanted == [60, 5]
    folderlike = SourcePart(source, [1])
    LabelledPart(folderlike, np.array([0])).fetch_ahead(np.array([0]))  # it fetches nothing
