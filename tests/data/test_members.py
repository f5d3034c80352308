"""Samples of several members: from tar to batch, and back by a cursor."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from servers import serve

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE, EncodedSample, Member
from ssl_swin.data.inspection.check import check_shards
from ssl_swin.data.loading.exact import Cursor
from ssl_swin.data.loading.few_labels import FewLabels, keep_few_labels
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.remote.dataset import open_remote
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index, open_index
from ssl_swin.data.shards.index_file import INDEX_NAME, MEMBERS_NAME
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.data.shards.scanning import scan_shard
from ssl_swin.errors import UserError

NUM_SAMPLES = 40
ORDER = OrderConstants(block=3, pool=8, lanes=2)
LEGACY = Path(__file__).parents[1] / "legacy" / "version_0_1_0.tar.xz"


class Annotated(ImageDataset):
    """Sample i: a gray image of level i, a mask unless i % 5 == 4, and JSON if i is even."""

    def __init__(self) -> None:
        self.classes = ("a", "b")
        self.fingerprint = "annotated"

    def __len__(self) -> int:
        return NUM_SAMPLES

    @property
    def members(self) -> tuple[str, ...]:
        return (IMAGE, "json", "mask")

    def __getitem__(self, index: int) -> EncodedSample:
        if not 0 <= index < NUM_SAMPLES:
            raise IndexError(index)
        sample = EncodedSample.of_image(png(np.full((6, 9), index)), "png", index % 2, str(index))
        if index % 5 != 4:
            content = (
                png(np.full((6, 9), index % 3)) if index % 3 else npy(np.zeros((6, 9), np.uint8))
            )
            sample = sample.with_member("mask", Member(content, "png" if index % 3 else "npy"))
        if index % 2 == 0:
            content = json.dumps({"level": index}).encode()
            sample = sample.with_member("json", Member(content, "json"))
        return sample


def png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def level_of(encoded: EncodedSample) -> int:
    return int(np.asarray(Image.open(io.BytesIO(encoded.data)))[0, 0])


def contents(encoded: EncodedSample, epoch: int = 0) -> tuple[int, int | None, dict[str, Member]]:
    return level_of(encoded), encoded.label, dict(encoded.members)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shards"
    pack(
        {"train": Annotated()}, root, shard_samples=7, val_ratio=0.1, num_workers=0, progress=False
    )
    return root


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copied"))


# Packing, index, reading


def test_members__are_read_back_to_the_byte(shards: Path) -> None:
    index = load_index(shards)
    assert index.members == ("json", "mask.npy", "mask.png")
    assert (shards / MEMBERS_NAME).stat().st_size == NUM_SAMPLES * 3 * 12
    originals, seen = Annotated(), []
    for split in ("train", "val"):
        dataset = ShardDataset(index, split)
        assert dataset.members == ("image", "json", "mask")
        for encoded in dataset:
            original = originals[level_of(encoded)]
            assert dict(encoded.members) == dict(original.members)
            assert encoded.label == original.label
            seen.append(level_of(encoded))
    assert sorted(seen) == list(range(NUM_SAMPLES))


def test_members__only_those_asked_for(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = load_index(shards)
    dataset = pickle.loads(pickle.dumps(ShardDataset(index, "train", members=("image", "mask"))))
    assert dataset.members == ("image", "mask")
    assert {name for encoded in dataset for name in encoded.members} == {"image", "mask"}
    alone = ShardDataset(index, "train", members=("image",))
    reads: list[int] = []
    read = alone._read
    monkeypatch.setattr(alone, "_read", lambda *range_: reads.append(range_[2]) or read(*range_))
    first = alone[0]
    assert list(first.members) == ["image"]
    assert reads == [len(first.data)]


def test_members__far_apart_are_read_apart(tmp_path: Path) -> None:
    files = {"a.png": png(np.ones((2, 2))), "a.video.mp4": bytes(200_000), "a.json": b"{}"}
    write_tar(tmp_path / "train.tar", files)
    index = build_index(tmp_path, progress=False)
    dataset = ShardDataset(index, "train", members=("json",))
    sizes: list[int] = []
    read = dataset._read
    dataset._read = lambda *range_: sizes.append(range_[2]) or read(*range_)  # type: ignore[method-assign,func-returns-value]
    assert dataset[0].members["json"] == Member(b"{}", "json")
    assert sorted(sizes) == sorted([2, len(files["a.png"])])
    whole = ShardDataset(index, "train")[0]
    assert [member.data for member in whole.members.values()] == [
        files["a.png"], files["a.json"], files["a.video.mp4"]
    ]  # fmt: skip


def test_members__unknown_one(shards: Path) -> None:
    message = r"have no member 'depth', only: json, mask$"
    with pytest.raises(UserError, match=message):
        ShardDataset(load_index(shards), "train", members=("image", "depth"))


def test_build_index__equals_that_of_packing(shards: Path, tmp_path: Path) -> None:
    index = build_index(shards, tmp_path / "index", progress=False)
    assert index.fingerprint == load_index(shards).fingerprint
    for name in (INDEX_NAME, MEMBERS_NAME):
        assert (tmp_path / "index" / name).read_bytes() == (shards / name).read_bytes()


def test_scan_shard__extents_by_hand(tmp_path: Path) -> None:
    """Each file takes a header of 512 bytes and 512 bytes of data."""
    files = {"a.jpg": b"i", "a.cls": b"3", "a.seg.png": b"mm", "b.json": b"{}", "b.jpg": b"jjj"}
    scanned = scan_shard(write_tar(tmp_path / "a.tar", files))
    assert scanned.extents.tolist() == [(512, 1, 3), (4608, 3, -1)]
    assert {name: ranges.tolist() for name, ranges in scanned.members.items()} == {
        "seg.png": [(2560, 2), (0, 0)],
        "json": [(0, 0), (3584, 2)],
    }


def test_scan_shard__two_files_for_one_member(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"", "a.mask.png": b"", "a.seg.png": b""})
    with pytest.raises(UserError, match=r"sample 'a' has two files for its member 'mask'"):
        scan_shard(path)


def test_pack__shards_packed_anew_keep_their_members(shards: Path, tmp_path: Path) -> None:
    index = load_index(shards)
    datasets = {split: ShardDataset(index, split) for split in index.splits}
    pack(datasets, tmp_path / "again", seed=5, num_workers=0, progress=False)
    again = load_index(tmp_path / "again")
    for split in index.splits:
        before, after = (list(map(contents, ShardDataset(i, split))) for i in (index, again))
        assert sorted(before, key=str) == sorted(after, key=str)


def test_pack__scaling_down_would_leave_other_members_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"samples with json; .*--max-short-side-px"):
        pack({"train": Annotated()}, tmp_path / "x", max_short_side_px=4, progress=False)
    assert not (tmp_path / "x").exists()


def test_check__a_mask_that_lies_elsewhere(copied: Path) -> None:
    assert check_shards(load_index(copied), num_workers=0, progress=False).is_sound
    rows = bytearray((copied / MEMBERS_NAME).read_bytes())
    first = next(i for i in range(0, len(rows), 36) if any(rows[i + 24 : i + 32]))
    rows[first + 24] ^= 1
    (copied / MEMBERS_NAME).write_bytes(rows)
    findings = check_shards(load_index(copied), num_workers=0, progress=False).findings
    findings = [each for each in findings if each.kind != "missing"]  # samples without a mask
    assert [(f.kind, f.split) for f in findings] == [("index", ""), ("shard", "train")]
    assert findings[0].shard == MEMBERS_NAME
    assert "other places of 1 of its .mask.png files" in findings[1].problem


def test_load_index__members_of_another_length(copied: Path) -> None:
    (copied / MEMBERS_NAME).write_bytes(b"")
    with pytest.raises(UserError, match=r"members\.bin has 0 bytes, index\.json .* needs 1440"):
        load_index(copied)


# Fingerprints and earlier versions


def as_version_2(root: Path) -> None:
    content = json.loads((root / INDEX_NAME).read_text())
    content.pop("members", None)
    (root / INDEX_NAME).write_text(json.dumps({**content, "version": 2}))
    (root / MEMBERS_NAME).unlink(missing_ok=True)


def test_fingerprint__covers_the_members(copied: Path) -> None:
    index = load_index(copied)
    as_version_2(copied)
    without = load_index(copied)
    assert index.fingerprint != without.fingerprint
    (path, *_) = sorted(copied.glob("train-*.tar"))
    write_tar(path, {"a.png": png(np.ones((2, 2))), "a.seg.png": png(np.ones((2, 2)))})
    seg = build_index(copied, progress=False)
    write_tar(path, {"a.png": png(np.ones((2, 2))), "a.gap.png": png(np.ones((2, 2)))})
    gap = build_index(copied, progress=False)
    assert seg.extents_sha256 == gap.extents_sha256
    assert len({index.fingerprint, seg.fingerprint, gap.fingerprint}) == 3


def test_version_2__reads_images_and_says_how_to_get_more(copied: Path) -> None:
    as_version_2(copied)
    index = load_index(copied)
    assert (index.version, index.members) == (2, ())
    assert list(ShardDataset(index, "train")[0].members) == ["image"]
    message = rf"of version 2, which does not list members such as 'mask'.*ssl-swin index {copied}$"
    with pytest.raises(UserError, match=message):
        ShardDataset(index, "train", members=("mask",))


def test_version_2__of_a_released_version_keeps_its_fingerprint(tmp_path: Path) -> None:
    """Checkpoints of version 0.1.0 hold the fingerprint of this set, indexed by it."""
    with tarfile.open(LEGACY) as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("data/")]
        archive.extractall(tmp_path, members, filter="data")
    root = tmp_path / "data" / "demo_48px"
    old = load_index(root)
    assert old.version == 2
    old_bytes = (root / "index.bin").read_bytes()
    new = build_index(root, progress=False)
    assert (new.version, new.members) == (3, ())
    assert new.fingerprint == old.fingerprint == "c9d9f54022ec9706"
    assert (root / "index.bin").read_bytes() == old_bytes
    assert not (root / MEMBERS_NAME).exists()


def test_version_1__is_indexed_anew_on_first_use(copied: Path) -> None:
    """Version 1 listed the shards, and no byte range."""
    index = load_index(copied)
    content = json.loads((copied / INDEX_NAME).read_text())
    del content["extents"], content["members"]
    (copied / INDEX_NAME).write_text(json.dumps({**content, "version": 1}))
    for name in ("index.bin", MEMBERS_NAME):
        (copied / name).unlink()
    again = open_index(copied)
    assert again == index
    assert again.classes == ("a", "b")


# From shards to batches


def train_levels(root: Path, world_size: int, num_batches: int, start: Cursor) -> list[object]:
    """What all ranks see of most of the labels, in the order of the global batches."""
    loaders = []
    for rank in range(world_size):
        splits = open_splits(
            root, "indexed", how_to_make="", order=ORDER, members=("image", "mask")
        )
        split = keep_few_labels(splits["train"], FewLabels(ratio=0.9, seed=1))
        config = LoaderConfig(4 // world_size, 0, rank, world_size)
        loader = split.train_loader(contents, list, config, seed=3)
        loader.go_to(start)
        loaders.append(loader)
    seen = []
    for _ in range(num_batches):
        parts = [loader.advance() for loader in loaders]
        seen += [sample for group in zip(*parts, strict=True) for sample in group]
    return seen


def test_loader__few_labels_two_ranks_and_a_cursor(shards: Path) -> None:
    whole = train_levels(shards, 1, 9, Cursor(0, 0))
    originals = Annotated()
    for level, label, members in whole:
        original = originals[level]
        asked = {name: original.members[name] for name in ("image", "mask")}
        assert (label, members) == (original.label, asked)
    epoch = [level for level, *_ in whole[:24]]
    assert len(set(epoch)) == 24 and epoch != sorted(epoch)
    assert train_levels(shards, 2, 9, Cursor(0, 0)) == whole
    assert train_levels(shards, 2, 5, Cursor(0, 16)) == whole[16:]
    assert train_levels(shards, 1, 2, Cursor(1, 4)) == whole[28:]


def test_open_splits__reads_the_image_alone_by_default(shards: Path) -> None:
    split = open_splits(shards, "indexed", how_to_make="", order=ORDER)["train"]
    assert split.dataset.members == ("image",)
    assert split.fingerprint == load_index(shards).fingerprint


def test_remote__members_come_along(shards: Path, tmp_path: Path) -> None:
    local = ShardDataset(load_index(shards), "train")
    with serve(shards) as server:
        remote = open_remote(
            server.root,
            index_dir=None,
            dir=str(tmp_path / "cache"),
            limit_gb=1,
            num_tries=3,
            first_wait_s=0.01,
        )["train"]
        assert server.requests_of[MEMBERS_NAME] == 1
        assert list(remote) == list(local)
        assert remote.fingerprint == local.fingerprint


def test_remote__damaged_members(copied: Path, tmp_path: Path) -> None:
    rows = bytearray((copied / MEMBERS_NAME).read_bytes())
    rows[0] ^= 255
    (copied / MEMBERS_NAME).write_bytes(rows)
    options = {"limit_gb": 1, "num_tries": 1, "first_wait_s": 0.01, "index_dir": None}
    with serve(copied) as server, pytest.raises(UserError, match=r"members\.bin of .* is not the"):
        open_remote(server.root, dir=str(tmp_path / "cache"), **options)


def test_stream__has_the_members(shards: Path) -> None:
    split = open_splits(shards, "stream", how_to_make="", order=ORDER)["val"]
    loader = split.eval_loader(contents, list, LoaderConfig(4, 0, 0, 1))
    found = {level: members for batch in loader for level, _, members in batch}
    assert found == {level: dict(Annotated()[level].members) for level in found} and len(found) == 4


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path
