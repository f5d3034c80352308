"""Which file of a sample is its image and which its label, however it is read."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.inspection.check import check_shards
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index, open_index
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.data.shards.labels import LabelValues, understand_values, values_of_classes
from ssl_swin.data.shards.layout import SampleLayout, image_and_members
from ssl_swin.errors import UserError

ORDER = OrderConstants(block=4, pool=64, lanes=1)


def picture(level: int, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("L", (4, 4), level).save(content, kind)
    return content.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def level_of(data: bytes) -> int:
    return int(Image.open(io.BytesIO(data)).getpixel((0, 0)))


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """Four samples: left is of level i, right of level 100 + i; the label is i % 2."""
    files = {}
    for i in range(4):
        files |= {f"s{i}.left.png": picture(i), f"s{i}.right.png": picture(100 + i)}
        files[f"s{i}.cls"] = str(i % 2).encode()
    write_tar(tmp_path / "stereo" / "train-0.tar", files)
    return tmp_path / "stereo"


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """Four samples whose JSON holds a number, a name in a group, and a label with holes."""
    files = {}
    for i in range(4):
        content = {"label": i % 2, "about": {"class": "ba"[i % 2]}, "id": 30 - i, "bad": [i]}
        content |= {"some": i} if i else {}
        files |= {f"s{i}.png": picture(i), f"s{i}.json": json.dumps(content).encode()}
    write_tar(tmp_path / "described" / "train-0.tar", files)
    return tmp_path / "described"


def level_and_label(encoded: EncodedSample, epoch: int) -> tuple[int, int | None]:
    return level_of(encoded.data), encoded.label


def read(root: Path | str, reader: str, **options: object) -> list[tuple[int, int | None]]:
    """Level and label of the training images, in order."""
    splits = open_splits(root, reader, how_to_make="", order=ORDER, **options)
    loader = splits["train"].eval_loader(level_and_label, list, LoaderConfig(2, 0, 0, 1))
    return sorted(example for batch in loader for example in batch)


def test_image__none_chosen_names_the_candidates(stereo: Path) -> None:
    with pytest.raises(UserError) as error:
        build_index(stereo, progress=False)
    assert str(error.value).splitlines() == [
        f"shard {stereo}/train-0.tar: sample 's0' holds no image by its plain extension, only: "
        "left.png, right.png, cls",
        "A key ends at the first dot, by WebDataset's rule: s0.left.png is the file left.png of "
        "the sample s0.",
        "If left.png or right.png is the image, say so: ssl-swin index FOLDER --image left.png, or "
        "data.image=left.png",
        "If the dot belongs to the name, rename the files in the tar (as s0_left.png), or unpack "
        "it and pack the folder: ssl-swin pack FOLDER OUT",
    ]


def test_image__dots_in_names(tmp_path: Path) -> None:
    files = {f"x/frame_0.{i}.{kind}": b"1" for i in (5, 25) for kind in ("jpg", "cls")}
    write_tar(tmp_path / "train-0.tar", files)
    with pytest.raises(UserError) as error:
        build_index(tmp_path, progress=False)
    message = str(error.value)
    assert "sample 'x/frame_0' holds no image by its plain extension, only: 5.jpg, 5.cls" in message
    assert "frame_0.5.jpg is the file 5.jpg of the sample frame_0." in message
    assert "rename the files in the tar (as frame_0_5.jpg)" in message
    assert len(message.splitlines()) == 4


def test_image__no_candidate(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"s0.bin": picture(7), "s0.cls": b"1"})
    message = r"sample 's0' holds no image, only: bin, cls\. If one of these is the image, say"
    with pytest.raises(UserError, match=message):
        build_index(tmp_path, progress=False)
    index = build_index(tmp_path, layout=SampleLayout("bin"), progress=False)
    assert level_of(ShardDataset(index, "train")[0].data) == 7


@pytest.mark.parametrize(
    ("image", "first"), [("left.png", 0), ("left", 0), (".RIGHT.png", 100), ("right", 100)]
)
@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_image__is_read_everywhere(stereo: Path, image: str, first: int, reader: str) -> None:
    expected = [(first + i, i % 2) for i in range(4)]
    assert read(stereo, reader, image=image) == expected
    assert read(stereo, reader) == expected  # the index remembers
    assert json.loads((stereo / "index.json").read_text())["version"] == 3


def test_image__remote(stereo: Path, tmp_path: Path) -> None:
    build_index(stereo, layout=SampleLayout("right"), progress=False)
    cache = {"dir": str(tmp_path / "c"), "limit_gb": 1, "num_tries": 1, "first_wait_s": 0.01}
    root = f"pipe:cat {stereo}/{{name}}"
    assert read(root, "indexed", cache=cache) == [(100 + i, i % 2) for i in range(4)]
    with pytest.raises(UserError, match=r"data\.image is left, but the index in .* with right"):
        read(root, "indexed", cache=cache, image="left")
    assert main(["index", root, "--out", str(tmp_path / "i"), "--shards", "train-0.tar",
                 "--image", "left"]) == 0  # fmt: skip
    options = {"cache": cache, "index_dir": str(tmp_path / "i")}
    assert read(root, "indexed", **options) == [(i, i % 2) for i in range(4)]
    stream = f"pipe:cat {stereo}/train-0.tar"
    with pytest.raises(UserError, match=r"sample train-0\.tar:s0 holds no image by its plain"):
        read(stream, "stream", num_samples=4)
    assert read(stream, "stream", num_samples=4, image="left")[3] == (3, 1)


def test_image__another_is_another_set(stereo: Path) -> None:
    left = build_index(stereo, layout=SampleLayout("left"), progress=False)
    assert load_index(stereo) == left
    again = build_index(stereo, progress=False)  # keeps what the index before took
    assert (again.layout, again.fingerprint) == (left.layout, left.fingerprint)
    with pytest.raises(UserError) as error:
        open_index(stereo, layout=SampleLayout("right"))
    assert str(error.value).splitlines() == [
        f"data.image is right, but the index in {stereo} was made with left.",
        f"Index the shards anew: ssl-swin index {stereo} --image right",
        "or leave data.image=null, which takes what the index has",
    ]
    right = build_index(stereo, layout=SampleLayout("right"), progress=False)
    assert right.fingerprint != left.fingerprint
    assert check_shards(right, num_workers=0, progress=False).is_sound


def test_image__the_first_plain_one_chosen_by_name_changes_nothing(tmp_path: Path) -> None:
    files = {f"s{i}.{kind}": picture(i) for i in range(3) for kind in ("png", "bmp")}
    write_tar(tmp_path / "train-0.tar", files)
    plain = build_index(tmp_path, progress=False)
    chosen = build_index(tmp_path, layout=SampleLayout("png"), progress=False)
    assert plain.fingerprint == chosen.fingerprint
    assert ShardDataset(chosen, "train").members == ("image", "bmp")


def test_image__a_file_called_image_is_another(tmp_path: Path) -> None:
    files = {"s.image.png": picture(1), "s.depth.png": picture(2), "s.jpg": picture(3, "JPEG")}
    write_tar(tmp_path / "train-0.tar", files)
    index = build_index(tmp_path, layout=SampleLayout("depth.png"), progress=False)
    sample = ShardDataset(index, "train")[0]
    assert {name: level_of(member.data) for name, member in sample.members.items()} == {
        "image": 2,
        "other_image": 1,
        "jpg": 3,
    }


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "mid.png",
            "has no file mid.png, which data.image .or --image. says is the image, only: l",
        ),
        ("cls", "data.image is cls, which is the file of the label"),
        ("", "data.image must be a text such as left.jpg, or null .*, got ''"),
        (5, "image must be text or null, got 5"),
        (["left"], r"image must be text or null, got \['left'\]"),
    ],
)
def test_image__mistakes(stereo: Path, image: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(stereo, "indexed", image=image)


@pytest.mark.parametrize("reader", ["indexed", "stream"])
@pytest.mark.parametrize(
    ("key", "classes", "labels"),
    [
        ("label", ("0", "1"), [0, 1, 0, 1]),
        ("json:label", ("0", "1"), [0, 1, 0, 1]),
        ("about.class", ("a", "b"), [1, 0, 1, 0]),
        ("id", ("27", "28", "29", "30"), [3, 2, 1, 0]),
        ("some", ("1", "2", "3"), [None, 0, 1, 2]),
    ],
)
def test_label_key(
    described: Path, key: str, classes: tuple[str, ...], labels: list[int | None], reader: str
) -> None:
    found = read(described, reader, label_key=key)
    assert found == list(enumerate(labels))
    index = load_index(described)
    assert (index.classes, index.layout.label_key) == (classes, key)
    findings = check_shards(index, num_workers=0, progress=False).findings
    assert [finding.kind for finding in findings] == ["label"] * labels.count(None)


def test_label_key__numbers_are_labels_of_named_classes(described: Path) -> None:
    (described / "classes.txt").write_text("cat\ndog\n")
    assert read(described, "indexed", label_key="label") == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert load_index(described).classes == ("cat", "dog")
    assert read(described, "stream", label_key="label")[3] == (3, 1)
    with pytest.raises(
        UserError, match="2 labels that are no class, the first is 'a'; the 2 class"
    ):
        build_index(described, layout=SampleLayout(label_key="about.class"), progress=False)


def test_label_key__names_in_the_order_of_a_list(described: Path) -> None:
    (described / "classes.txt").write_text("b\na\nz\n")
    assert read(described, "indexed", label_key="about.class") == [(0, 0), (1, 1), (2, 0), (3, 1)]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "nope",
            r"there is no key nope in a \.json file.* Keys there are: label, about\.class, id",
        ),
        ("about", r"'s0' has a group of values where its label.* Choose one: about\.class"),
        (
            "bad",
            r"'s0' has \[0\] under the label key bad; a label is a whole number from 0, or a c",
        ),
        ("txt:", r"there is no \.txt file, as --label-key txt:"),
        ("", "data.label_key must be a text such as label"),
    ],
)
def test_label_key__mistakes(described: Path, key: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(described, "indexed", label_key=key)
    assert not (described / "index.json").exists()


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"\xff", b'{"label": 1.5}', b'{"label": -7}']
)
def test_label_key__damaged_json(tmp_path: Path, content: bytes) -> None:
    write_tar(tmp_path / "train-0.tar", {"s.png": picture(0), "s.json": content})
    with pytest.raises(UserError, match=r"train-0\.tar: sample 's' has .*(no JSON|a label is a)"):
        build_index(tmp_path, layout=SampleLayout(label_key="label"), progress=False)


def test_label_key__whole_files(tmp_path: Path) -> None:
    files = {f"{i}.{kind}": data for i, name in enumerate(["dog\n", "cat", "-1"])
             for kind, data in (("png", picture(i)), ("cls", name.encode()))}  # fmt: skip
    write_tar(tmp_path / "train-0.tar", files)
    with pytest.raises(UserError, match=r"no label: b'dog\\n'.* read with --label-key cls:"):
        build_index(tmp_path, progress=False)
    assert read(tmp_path, "indexed", label_key="cls:") == [(0, 1), (1, 0), (2, None)]


def test_label_file__of_a_size_to_fill_memory(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"s.png": picture(0), "s.cls": b"0" * (2**24 + 1)})
    with pytest.raises(UserError, match=r"has a \.cls of 16777217 bytes; .* has 16777216 at most"):
        build_index(tmp_path, progress=False)


def test_understand_values() -> None:
    assert understand_values(["10", "9"], (), "x") == LabelValues(("9", "10"), by_name=True)
    assert understand_values(["1", "0"], ("a", "b"), "x") == LabelValues(("a", "b"), by_name=False)
    assert understand_values(["1"], ("1", "2"), "x") == LabelValues(("1", "2"), by_name=True)
    with pytest.raises(UserError, match="x has 1 labels that are no class, the first is '0'"):
        understand_values(["0", "1"], ("1", "2"), "x")
    unseen = values_of_classes(("a", "b"))
    assert [unseen.number("b"), unseen.number("0")] == [1, 0]
    assert values_of_classes(("4", "3")).number("3") == 1
    with pytest.raises(ValueError, match="has the label 'c', which is no class: a, b"):
        unseen.number("c")
    with pytest.raises(ValueError, match="has the label 'c', which is no number"):
        LabelValues().number("c")


def test_image_and_members__puts_the_image_first() -> None:
    files = dict.fromkeys(["txt", "seg.png", "a.png", "cls"])
    found = image_and_members(files, "s", SampleLayout("a"))
    assert list(found.items()) == [("image", "a.png"), ("txt", "txt"), ("mask", "seg.png")]


def index_lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main(["index", *map(str, arguments), "--workers", "0"]) == 0
    return capsys.readouterr().out.splitlines()


def test_command__tells_of_labels_that_are_not_read(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index_lines(capsys, described) == [
        "train: images 4, shards 1",
        "classes: none",
        "note: labels are not read: samples hold .json files with the key label: --label-key label",
        f"next: ssl-swin pretrain data=shards data.root={described} batch_size=4",
    ]
    splits = open_splits(described, "indexed", how_to_make="", order=ORDER)
    told = f"the key label: ssl-swin index {described} --label-key label"
    assert splits["train"].warning.endswith(told)
    assert index_lines(capsys, described, "--label-key", "label") == [
        "train: images 4, shards 1",
        "classes: 2",
        "label key: label",
        f"next: ssl-swin pretrain data=shards data.root={described} batch_size=4",
    ]


def test_command__tells_of_other_images_and_of_labels_without_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"f_1.png": picture(0), "f_1.5.png": picture(1), "f_1.mask.png": picture(0)}
    write_tar(tmp_path / "train-0.tar", files | {"f_1.cls": b"3"})
    assert index_lines(capsys, tmp_path)[2:4] == [
        "note: samples hold other images than the first plain one: 5.png; --image EXTENSION, as "
        "--image 5.png, takes another",
        "note: labels are numbers up to 3, and their classes have no names: write classes.txt "
        "beside the shards, a name per line, and index them anew",
    ]


@pytest.mark.parametrize("option", ["--image", "--label-key", "--out"])
def test_command__empty_options(
    stereo: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(stereo), option, ""]) == 2
    assert capsys.readouterr().err.startswith(f"ssl-swin: {option} is empty")


def test_pack__takes_labels_and_image_of_the_index(described: Path, tmp_path: Path) -> None:
    build_index(described, layout=SampleLayout(label_key="about.class"), progress=False)
    out = tmp_path / "out"
    assert main(["pack", str(described), str(out), "--val-ratio", "0", "--workers", "0"]) == 0
    index = load_index(out)
    packed = ShardDataset(index, "train")
    assert index.classes == ("a", "b") and index.layout == SampleLayout()
    found = sorted((level_of(packed[i].data), packed[i].label) for i in range(4))
    assert found == [(0, 1), (1, 0), (2, 1), (3, 0)]
    assert np.array_equal(np.sort(packed.labels()), [0, 0, 1, 1])
