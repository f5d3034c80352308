from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.dataset import DatasetWrapper, ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.few_labels import (
    FewImages,
    FewLabels,
    LabelledSubset,
    keep_few_images,
    keep_few_labels,
    keep_labelled,
)
from ssl_swin.data.loading.holding_out import hold_out
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.loading.stream import stream_split
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.sources.labelled import RelabelledDataset
from ssl_swin.data.subset import Subset
from ssl_swin.errors import UserError

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0] * 40 + [1] * 25 + [2] * 3 + [-1] * 30)[
    np.random.default_rng(0).permutation(98)
]
ORDER = OrderConstants(4, 64, 1)


def counts(chosen: np.ndarray) -> list[int]:
    return np.bincount(LABELS[chosen], minlength=3).tolist()


class Numbers(ImageDataset):
    """Images that know their label, and nothing lists them."""

    fetches_ahead = True

    classes = CLASSES
    fingerprint = "numbers"

    def __init__(self) -> None:
        self.wanted: list[int] = []

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> EncodedSample:
        label = int(LABELS[index])
        return EncodedSample.of_image(b"", "png", None if label < 0 else label, str(index))

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
    source = {"train": FolderDataset(photos)}
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
        ({"ratio": 0.0}, r"ratio must be a number in \(0, 1\] or null, got 0.0"),
        ({"ratio": 1.5}, r"ratio must be a number in \(0, 1\] or null, got 1.5"),
        ({"per_class": 0}, "per_class must be a whole number of at least 1 or null, got 0"),
        ({"per_class": 2.5}, r"per_class must be a whole number of at least 1 or null, got 2\.5"),
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


def test_few_labels__of_data_without_classes():
    with pytest.raises(UserError, match="the data names no class: set both to null"):
        FewLabels(per_class=1).choose(np.full(3, -1), ())


# ImageDataset.labels


def test_labels__every_kind_of_dataset(photos, shards):
    folder, packed = FolderDataset(photos), ShardDataset(open_index(shards), "train")
    for source in (folder, packed, Numbers(), Subset(folder, [19, 0, 7])):
        labels = source.labels()
        records = [source[number] for number in range(len(source))]
        assert labels.tolist() == [-1 if r.label is None else r.label for r in records]
        assert labels.dtype == np.int64


def test_labels__a_folder_without_classes(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "loose.png")
    assert FolderDataset(tmp_path).labels().tolist() == [-1]


def test_labels__reads_no_image(photos, shards, monkeypatch):
    def refuse(self: object, index: int) -> None:
        raise AssertionError("read an image")

    for kind in (FolderDataset, ShardDataset):
        monkeypatch.setattr(kind, "__getitem__", refuse)
    assert len(FolderDataset(photos).labels()) == 20
    assert len(ShardDataset(open_index(shards), "train").labels()) == 20


# keep_few_labels


def test_keep_few_labels__the_reader_hands_out_the_chosen_images_only():
    few = FewLabels(ratio=0.1, seed=1)
    reader = keep_few_labels(IndexedSplit(Numbers(), ORDER, "caveat"), few)
    chosen = few.choose(LABELS, CLASSES).tolist()
    assert (reader.num_samples, reader.classes, reader.warning) == (7, CLASSES, "caveat")
    loader = reader.train_loader(
        lambda record, epoch: (int(record.name), record.label),
        list,
        LoaderConfig(7, 0, 0, 1),
        seed=0,
    )
    for _ in range(2):
        (batch,) = loader
        assert sorted(batch) == [(number, LABELS[number]) for number in chosen]


def test_keep_few_labels__nothing_asked_for():
    reader = IndexedSplit(Numbers(), ORDER)
    assert keep_few_labels(reader, FewLabels(seed=4)) is reader


def test_keep_few_labels__of_a_stream(shards):
    reader = stream_split(open_index(shards), "train")
    with pytest.raises(UserError, match=r"data\.reader=stream cannot read: use indexed or folder"):
        keep_few_labels(reader, FewLabels(per_class=1))


def test_labelled_part__fingerprint_is_of_the_choice():
    source = Numbers()
    parts = [LabelledSubset(source, np.array(numbers)) for numbers in ([1, 2], [1, 2], [1, 3])]
    prints = [part.fingerprint for part in parts]
    assert prints[0] == prints[1] != prints[2]
    assert source.fingerprint not in prints


def test_labelled_part__says_what_to_fetch_ahead():
    source = Numbers()
    LabelledSubset(source, np.array([5, 50, 60])).fetch_ahead(np.array([2, 0]))
    assert source.wanted == [60, 5]
    folderlike = Subset(source, [1])
    LabelledSubset(folderlike, np.array([0])).fetch_ahead(np.array([0]))  # it fetches nothing


# On shards


@pytest.fixture(scope="module")
def few(shards: Path) -> LabelledSubset:
    """Samples 1, 4, 7, 8 and 18 of shards of 6, 6, 6 and 2 images."""
    packed = ShardDataset(open_index(shards), "train")
    return LabelledSubset(packed, np.array([1, 4, 7, 8, 18]))


def test_labelled_subset__keeps_the_shards(few):
    assert few.dataset.shard_lengths.tolist() == [6, 6, 6, 2]
    assert few.shard_lengths.tolist() == [2, 2, 0, 1]
    split = IndexedSplit(few, OrderConstants(None, 1, 1))
    assert split.summary() == "5 images in 4 shards"
    loader = split.train_loader(
        lambda encoded, epoch: encoded.name, list, LoaderConfig(5, 0, 0, 1), seed=0
    )
    orders = set()
    for _ in range(20):  # windows of one sample: whole shards are shuffled, and nothing else
        ((*names,),) = loader
        assert [name for name in names if "00.tar" in name] == [few[0].name, few[1].name]
        assert [name for name in names if "01.tar" in name] == [few[2].name, few[3].name]
        orders.add(tuple(names))
    assert len(orders) == 6


def test_labelled_subset__advises_the_chosen_images(few, monkeypatch):
    advised: list[list[int]] = []
    monkeypatch.setattr(
        ShardDataset, "advise", lambda self, indices: advised.append(indices.tolist())
    )
    loader = IndexedSplit(few, OrderConstants(None, 8, 1)).train_loader(
        lambda encoded, epoch: encoded.name, list, LoaderConfig(5, 0, 0, 1), seed=0
    )
    next(iter(loader))
    assert [sorted(indices) for indices in advised] == [[1, 4, 7, 8, 18]]


def test_labelled_subset__names_files_in_messages(few):
    def refuse(encoded: EncodedSample, epoch: int) -> None:
        raise ValueError("broken")

    loader = IndexedSplit(few, ORDER).eval_loader(refuse, list, LoaderConfig(5, 0, 0, 1))
    assert list(loader) == []
    expected = {f"{few[i].name} ({few.dataset.file_name(int(few.indices[i]))})" for i in range(5)}
    assert {bad.name for bad in loader.bad_samples} == expected
    assert few.file_name(0) == "train-000000001.png"


def test_wrappers__forward_everything(few):
    wrapped = RelabelledDataset(few.dataset)
    assert wrapped.shard_lengths.tolist() == [6, 6, 6, 2]
    assert wrapped.file_name(3) == few.dataset.file_name(3)
    assert wrapped.labels().tolist() == [-1] * 20
    assert hold_out(wrapped, 0.1)["train"].shard_lengths.sum() == 18
    fetching = DatasetWrapper(Subset(Numbers(), [5, 50, 60]))
    assert fetching.fetches_ahead
    fetching.fetch_ahead(np.array([2, 0]))
    assert fetching.dataset.dataset.wanted == [60, 5]


def test_wrappers__override_every_ability():
    """A new ability of data sets must not be forgotten by a wrapper."""
    abilities = {name for name in vars(ImageDataset) if not name.startswith("_")}
    abilities -= {"classes", "fingerprint"}
    assert abilities - set(vars(DatasetWrapper)) == set()


def test_keep_labelled__leaves_out_images_without_a_label(shards: Path) -> None:
    packed = ShardDataset(open_index(shards), "train")
    labels = np.array([-1, 1, 0] * 6 + [2, -1], np.int32)
    partly = RelabelledDataset(packed, CLASSES, labels)
    kept = keep_labelled(IndexedSplit(partly, ORDER, "slow"))
    assert kept.num_samples == 13 and kept.warning == "slow"
    assert [kept.dataset[i].label for i in range(13)] == [1, 0] * 6 + [2]
    again = keep_labelled(IndexedSplit(partly, ORDER))
    assert again.fingerprint == kept.fingerprint != partly.fingerprint


def test_keep_labelled__where_nothing_is_left_out(shards: Path) -> None:
    packed = ShardDataset(open_index(shards), "train")
    for dataset in (packed, RelabelledDataset(packed), Subset(packed, [0, 2]), Numbers()):
        split = IndexedSplit(dataset, ORDER)
        assert keep_labelled(split) is split  # Numbers would have to be read
    stream = stream_split(open_index(shards), "train")
    assert keep_labelled(stream) is stream


def test_few_images__larger_parts_contain_the_smaller_ones():
    few, more = FewImages(number=5).choose(40), FewImages(ratio=0.5).choose(40)
    assert len(few) == 5 and len(more) == 20 and set(few) < set(more)
    assert (np.diff(few) > 0).all()
    assert FewImages(number=5, seed=1).choose(40).tolist() != few.tolist()
    assert FewImages(ratio=0.001).choose(40).size == 1
    assert FewImages().choose(7).tolist() == list(range(7))


def test_few_images__refuses_more_than_there_are_and_two_answers():
    with pytest.raises(UserError, match=r"there are 4 training images, fewer than the 5"):
        FewImages(number=5).choose(4)
    with pytest.raises(UserError, match="two answers to one question"):
        FewImages(number=5, ratio=0.5)


def test_keep_few_images__takes_those_and_changes_the_fingerprint():
    split = IndexedSplit(Numbers(), ORDER)
    kept = keep_few_images(split, FewImages(number=6))
    assert kept.num_samples == 6 and kept.fingerprint != split.fingerprint
    assert keep_few_images(split, FewImages()) is split
