"""Labels of images from a table beside them: what is read, what is refused, what is told."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.data.sources.table_files import read_table
from ssl_swin.data.sources.table_labels import label_by_table
from ssl_swin.data.sources.table_matching import ImagePaths
from ssl_swin.data.sources.table_roles import ColumnNames
from ssl_swin.data.sources.table_unread import unread_labels
from ssl_swin.errors import UserError

LABELS = [0, 1, 0, 1]


def save(root: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), level).save(path)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return save(tmp_path / "photos", *(f"images/00{i}.png" for i in range(4)))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def samples(source: ImageDataset) -> list[EncodedSample]:
    return [source[index] for index in range(len(source))]


def labelled(root: Path, file: Path, **columns: str):
    return label_by_table(open_datasets(root, labelled=False), file, ColumnNames(**columns))


CELLS = [(f"00{i}", "cat dog".split()[i % 2]) for i in range(4)]
TABLES = {
    "a.csv": "image,label\n" + "".join(f"{n}.png,{c}\n" for n, c in CELLS),
    "b.csv": "\ufefflabel;other;filename\n" + "".join(f'"{c}";x;{n}.png\n' for n, c in CELLS),
    "c.tsv": "File Path\tClass Name\n" + "".join(f"images/{n}.png\t{c}\n" for n, c in CELLS),
    "d.csv": "id_code,diagnosis\n" + "".join(f"{n},{c}\n" for n, c in CELLS),
    "e.csv": "id,image,label\n" + "".join(f"7{n},{n}.png,{c}\n" for n, c in CELLS),
    "f.csv": "path,target\n" + "".join(f"/old/disk/images/{n}.PNG,{c}\n" for n, c in CELLS),
    "g.csv": "path,target\n" + "".join(f".\\images\\{n}.png,{c}\n\n" for n, c in CELLS),
    "h.csv": "image,my words\n" + "".join(f"{n}.png,{c},\n" for n, c in CELLS),
    "i.txt": "".join(f"images/{n}.png {c}\n" for n, c in CELLS),
    "j.csv": "".join(f"{c},{n}.png\n" for n, c in CELLS),
    "k.jsonl": "".join(json.dumps({"file_name": f"{n}.png", "label": c}) + "\n" for n, c in CELLS),
    "l.json": json.dumps({f"{n}.png": c for n, c in CELLS}),
    "m.json": json.dumps([{"img": f"{n}.png", "category": c} for n, c in CELLS]),
    "n.csv": "image,label\n" + "".join(f"{n}.png,{c}\n" for n, c in CELLS + CELLS),
}


@pytest.mark.parametrize("name", TABLES)
def test_label_by_table__forms(photos: Path, tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, TABLES[name])
    sources, notes = labelled(photos, file)
    train = sources["train"]
    assert train.classes == ("cat", "dog")
    assert [train[i].label for i in range(4)] == train.labels().tolist() == LABELS
    assert len(notes) == 1 and notes[0].startswith("labels: column ") and str(file) in notes[0]


def test_label_by_table__parquet(photos: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"image": [f"{n}.png" for n, _ in CELLS], "label": [3.0, 10.0, 3.0, None]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    train = labelled(photos, tmp_path / "t.parquet").sources["train"]
    assert train.classes == ("3", "10") and train.labels().tolist() == [0, 1, 0, -1]
    assert train[3].label is None


def test_label_by_table__encodings(photos: Path, tmp_path: Path) -> None:
    content = "image,label\n000.png,café\n001.png,x\n002.png,x\n003.png,x\n"
    sources, _ = labelled(photos, write(tmp_path / "16.csv", content.encode("utf-16")))
    assert sources["train"].classes == ("café", "x")
    with pytest.raises(UserError, match=r"1\.csv is no text in UTF-8 .*\. Save it as UTF-8"):
        labelled(photos, write(tmp_path / "1.csv", content.encode("latin-1")))


def test_label_by_table__numbers(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "image,label\n000.png,10.0\n001.png,9\n002.png,-1\n003.png,\n")
    train = labelled(photos, file).sources["train"]
    assert train.classes == ("9", "10") and train.labels().tolist() == [1, 0, -1, -1]
    file = write(tmp_path / "a.csv", "image,label\n000.png,0.25\n001.png,1\n")
    with pytest.raises(UserError, match=r"column label of .* holds numbers such as 0\.25, which"):
        labelled(photos, file)


def test_label_by_table__tells_what_is_left_over(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "image,label\n000.png,a\n001.png,b\n002.png,\n9.png,c\n")
    sources, notes = labelled(photos, file)
    assert sources["train"].classes == ("a", "b", "c")  # of the whole table
    assert notes == [
        f"labels: column label of {file}, for the images in its column image",
        "rows without an image: 1 of 4, the first is '9.png' in line 5",
        "images without a label: 2 of 4, the first is photos/images/002.png",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,label\n000.png,a\n001.png,a\n000.png,b\n",
            r"1 rows of .* the first is photos/images/000\.png: 'a' in line 2, 'b' in line 4\.",
        ),
        (
            "image,label\nx.jpg,a\n",
            r"no row of .* its column image holds 'x\.jpg', and images are s",
        ),
        ("foo,bar,baz\n000.png,a,b\n", r"no column of images called .*only: foo, bar, baz\. Name"),
        (
            "image,bar,baz\n000.png,a,b\n",
            r"no column of labels .*only: image, bar, baz\. Name",
        ),
        ("000.png,a,b\n", r"t\.csv holds no row below its header"),
        ("000.png,a,b\n001.png,a,b\n", r"only: 000\.png, a, b\. .* a table without a header"),
        (
            "image,label\n000.png,a,b\n",
            r"line 2 has 3 cells, the header has 2: image, label",
        ),
        ('image,label\n000.png,"[1, 2]"\n', r"line 2: the label '\[1, 2\]' holds several values"),
        ("image,label\n000.png,a\0b\n", "is no table: it holds NUL bytes"),
        ("", r"t\.csv is empty"),
        ("image,label\n", "holds no row below its header"),
        ("PK\x03\x04", "a workbook of a spreadsheet: save the sheet as CSV"),
        (b"\x1f\x8b\x08", "cannot read the table .*: it is compressed: gunzip it"),
        (
            "image,label,split\n000.png,a,fold1\n",
            r"split of .* says 'fold1'.*--split-column none",
        ),
        ("image,label,split\n000.png,a,train\n", r"3 images have no row, .* first is .*001\.png"),
    ],
)
def test_label_by_table__mistakes(
    photos: Path, tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        labelled(photos, write(tmp_path / "t.csv", content))
    assert len(str(error.value).splitlines()) <= 6


def test_read_table__json_that_is_no_table(tmp_path: Path) -> None:
    for content, message in (
        ('{"images": [], "annotations": []}', "of COCO's form"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "must hold objects such as"),
        ("[]", "holds no row"),
    ):
        with pytest.raises(UserError, match=message):
            read_table(write(tmp_path / "t.json", content))
    with pytest.raises(UserError, match=r"cannot read the table .*: No such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(UserError, match=r"cannot read the table .*: Is a directory"):
        read_table(tmp_path)


def test_columns__are_given(photos: Path, tmp_path: Path) -> None:
    content = "where,what,image\n" + "".join(f"{n}.png,{c},x\n" for n, c in CELLS)
    file = write(tmp_path / "t.csv", content)
    assert labelled(photos, file, image="Where", label="what").sources["train"].labels()[1] == 1
    message = r"has no column 'wher' \(--image-column\), only: where, what, image; did you mean"
    with pytest.raises(UserError, match=message):
        labelled(photos, file, image="wher", label="what")


def test_splits__of_a_column(photos: Path, tmp_path: Path) -> None:
    rows = zip(CELLS, ("train", "test", "Training", "val"), strict=True)
    content = "image,label,split\n" + "".join(f"{n}.png,{c},{s}\n" for (n, c), s in rows)
    file = write(tmp_path / "t.csv", content)
    sources, notes = labelled(photos, file)
    found = {split: [x.name for x in samples(source)] for split, source in sources.items()}
    assert found == {
        "test": ["images/001.png"],
        "train": ["images/000.png", "images/002.png"],
        "val": ["images/003.png"],
    }
    assert {split: source.labels().tolist() for split, source in sources.items()} == {
        "test": [1],
        "train": [0, 0],
        "val": [1],
    }
    assert notes[1] == f"splits: column split of {file}"
    whole = labelled(photos, file, split="none").sources
    assert list(whole) == ["train"] and whole["train"].labels().tolist() == LABELS


def test_splits__of_folders(tmp_path: Path) -> None:
    root = save(tmp_path / "set", "train/0.png", "train/1.png", "val/0.png", "val/2.png")
    file = write(tmp_path / "t.csv", "image,label\ntrain/0.png,a\ntrain/1.png,b\nval/0.png,b\n")
    sources, notes = labelled(root, file)
    assert sources["train"].labels().tolist() == [0, 1]
    assert sources["val"].labels().tolist() == [1, -1]
    assert notes[1] == "images without a label: 1 of 4, the first is set/val/2.png"
    only_train = labelled(root / "train", file).sources["train"]
    assert only_train.labels().tolist() == [0, 1]  # val/0.png is not train/0.png
    file = write(tmp_path / "t.csv", "image,label\n0.png,a\n1.png,b\n")
    with pytest.raises(UserError, match=r"'0\.png' fits 2 images, as set/train/0\.png and set"):
        labelled(root, file)
    file = write(tmp_path / "t.csv", "image,label,split\ntrain/0.png,a,train\ntrain/1.png,b,val\n")
    message = r"the column split of .* puts set/train/1\.png into val, its folder into train"
    with pytest.raises(UserError, match=message):
        labelled(root, file)


def test_image_paths__find() -> None:
    paths = ImagePaths([Path("/d/a/1.jpg"), Path("/d/b/1.jpg"), Path("/d/b/v1.5.png")])
    assert paths.find(["a/1.jpg", "b/1.JPG"]) == [0, 1]
    assert paths.find(["/d/a/1", "v1.5", "v1"]) == [0, 2, None]
    assert paths.find(["c/1.jpg", "a/1.jpg"]) == [None, 0]
    assert paths.find(["x/y/a/1.jpg", "x/y/b/1.jpg"]) == [0, 1]
    assert paths.find(["", "b/v1.5.jpg"]) == [None, None]
    decomposed = ImagePaths([Path("/d/cafe\u0301.jpg")])
    assert decomposed.find(["café.jpg"]) == [0]
    test = ImagePaths([Path("/d/test/1.jpg")])
    assert test.find(["train/1.jpg"]) == [None]


def test_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(photos / "train.csv", TABLES["a.csv"])
    out = tmp_path / "out"
    arguments = ["pack", str(photos), str(out), "--val-ratio", "0", "--workers", "0"]
    assert main([*arguments, "--labels", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"labels: column label of {file}, for the images in its column image",
        "train: 4 images in 4 shards",
    ]
    packed = ShardDataset(load_index(out), "train")
    assert packed.classes == ("cat", "dog")
    assert sorted(packed.labels().tolist()) == [0, 0, 1, 1]
    assert main([*arguments[:2], str(tmp_path / "other"), *arguments[3:]]) == 0
    assert (
        f"note: {file} seems to hold labels, which are not read: --labels {file}"
        in capsys.readouterr().out.splitlines()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "t.csv", "--no-labels"], "--labels and --no-labels exclude each other"),
        (["--labels", "t.csv", "--val-labels", "v"], "--labels and --val-labels exclude each"),
        (
            ["--label-column", "x"],
            "--label-column is a column of a table: give it by --labels FILE",
        ),
        (["--labels", "absent.csv"], "cannot read the table absent.csv: No such file"),
    ],
)
def test_command__mistakes(
    photos: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pack", str(photos), str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unread_labels__only_tables_that_name_the_images(photos: Path) -> None:
    write(photos / "log.csv", "step,loss\n1,2\n")
    write(photos / "other.csv", "image,label\nx.png,a\n")
    write(photos / "broken.csv", b"\xff\xfe\xff")
    sources = open_datasets(photos)
    assert unread_labels(photos, sources) == []
    for name in ("a.csv", "k.jsonl"):
        write(photos.parent / name, TABLES[name])
    found = [note.split()[1] for note in unread_labels(photos, sources)]
    assert found == [str(photos.parent / "a.csv"), str(photos.parent / "k.jsonl")]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"labels.json": '{"%s": "cat"}'}, "labels.json names images, and is not read"),
        ({"train.txt": "sub/%s 3\n"}, "train.txt names images, and is not read"),
        ({"readme.txt": "photographs of 2019\n"}, ""),
        ({"labels.json": "[", "notes.xml": "\xff"}, ""),
    ],
)
def test_unread_labels__texts_that_name_images(
    photos: Path, files: dict[str, str], told: str
) -> None:
    sources = open_datasets(photos)
    (image,) = map(os.fsdecode, map(bytes, sources["train"].image_names()[:1]))
    for name, text in files.items():
        write(photos / name, text.replace("%s", os.path.basename(image)))
    notes = unread_labels(photos, sources)
    assert len(notes) == bool(told) and told in "".join(notes)


def test_unread_labels__a_text_of_each_image(photos: Path) -> None:
    sources = open_datasets(photos)
    images = [os.fsdecode(bytes(name)) for name in sources["train"].image_names()]
    for name in images:
        assert unread_labels(photos, sources) == []
        write((photos / name).with_suffix(".txt"), "cat\n")
    (note,) = unread_labels(photos, sources)
    assert note.startswith("note: each image has a .txt file (images/000.txt), which is not read")


def test_label_by_table__shards_have_their_own(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["pack", str(photos), str(out), "--val-ratio", "0", "--workers", "0"]) == 0
    with pytest.raises(UserError, match="labels from a table are for images in a folder or a tar"):
        labelled(out, write(tmp_path / "a.csv", TABLES["a.csv"]))
