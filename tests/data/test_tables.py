"""Tables as Hugging Face's `datasets` lays them out, written here with pyarrow alone."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.data.sources.tables import TableDataset
from ssl_swin.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASS_LABEL = {"names": ["a", "b", "c"], "_type": "ClassLabel"}


def png(level: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (4, 4), level).save(content, "PNG")
    return content.getvalue()


def table(levels: range, labels: Any = None, names: Any = CLASS_LABEL, plain: bool = False) -> Any:
    """Image `level` is of that gray and of class level % 3, unless labels are given."""
    images = [png(level) for level in levels]
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = images if plain else [{"bytes": i, "path": "x.png"} for i in images]
    columns = {"image": pa.array(rows, kind)}
    features = {"image": {"_type": "Image"}}
    if labels is not False:
        columns["label"] = pa.array([n % 3 for n in levels] if labels is None else labels)
        features["label"] = names
    description = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return pa.table(columns).replace_schema_metadata(description if names else None)


def write_parquet(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=4)
    return path


def write_saved(folder: Path, *tables: Any) -> Path:
    """Writes what `Dataset.save_to_disk` does."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{len(tables):05d}.arrow" for n in range(len(tables))]
    for name, content in zip(names, tables, strict=True):
        with pa.ipc.new_stream(str(folder / name), content.schema) as stream:
            stream.write_table(content, max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def level_of(data: bytes) -> int:
    return int(Image.open(io.BytesIO(data)).getpixel((0, 0)))


def levels_and_labels(source: Any) -> list[tuple[int, int | None]]:
    records = [source[index] for index in range(len(source))]
    return [(level_of(record.data), record.label) for record in records]


EXPECTED = [(level, level % 3) for level in range(23)]


def test_parquet__splits_by_file_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", table(range(13)))
    write_parquet(tmp_path / "train-00001-of-00002.parquet", table(range(13, 23)))
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", table(range(100, 105)))
    sources = open_datasets(tmp_path)
    assert {split: len(source) for split, source in sources.items()} == {"train": 23, "val": 5}
    train = sources["train"]
    assert train.classes == sources["val"].classes == ("a", "b", "c")
    assert levels_and_labels(train) == EXPECTED
    assert (train[14].extension, train[14].name) == ("png", "train-00001-of-00002.parquet:1")
    assert [level_of(train[index].data) for index in (22, 0, 12, 13, 5)] == [22, 0, 12, 13, 5]
    assert open_datasets(tmp_path, labelled=False)["train"][1].label is None


@pytest.mark.parametrize("name", ["x.parquet", "data/train-0.parquet", "train/0000.parquet"])
def test_parquet__where_it_may_lie(tmp_path: Path, name: str) -> None:
    path = write_parquet(tmp_path / name, table(range(23)))
    assert levels_and_labels(open_datasets(tmp_path)["train"]) == EXPECTED
    assert levels_and_labels(open_datasets(path)["train"]) == EXPECTED


def test_saved_dataset(tmp_path: Path) -> None:
    folder = write_saved(tmp_path / "one", table(range(13)), table(range(13, 23)))
    source = open_datasets(folder)["train"]
    assert levels_and_labels(source) == EXPECTED
    assert source[13].name == "data-00001-of-00002.arrow:0"


def test_saved_dataset__with_splits(tmp_path: Path) -> None:
    write_saved(tmp_path / "train", table(range(23)))
    write_saved(tmp_path / "validation", table(range(100, 103), [-1, -1, -1]))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    sources = open_datasets(tmp_path)
    assert levels_and_labels(sources["train"]) == EXPECTED
    assert levels_and_labels(sources["val"]) == [(100, None), (101, None), (102, None)]
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "unlabeled"]}')
    with pytest.raises(UserError, match="has the splits train, unlabeled; packing knows train"):
        open_datasets(tmp_path)


def test_labels__texts_and_numbers_without_names(tmp_path: Path) -> None:
    texts = ["dog", "cat", None, "dog"]
    path = write_parquet(tmp_path / "0.parquet", table(range(4), texts, None))
    source = open_datasets(path)["train"]
    assert source.classes == ("cat", "dog")
    assert [source[index].label for index in range(4)] == [1, 0, None, 1]
    path = write_parquet(tmp_path / "0.parquet", table(range(4), [30, 4, None, 30], None))
    source = open_datasets(path)["train"]
    assert source.classes == ("4", "30")
    assert [source[index].label for index in range(4)] == [1, 0, None, 1]


def test_columns__plain_bytes_without_labels(tmp_path: Path) -> None:
    content = table(range(5), labels=False, plain=True).rename_columns(["jpg"])
    source = open_datasets(write_parquet(tmp_path / "0.parquet", content))["train"]
    assert source.classes == ()
    assert levels_and_labels(source) == [(level, None) for level in range(5)]


def test_columns__image_is_preferred(tmp_path: Path) -> None:
    content = table(range(5)).append_column("mask", pa.array([png(9)] * 5))
    source = open_datasets(write_parquet(tmp_path / "0.parquet", content))["train"]
    assert levels_and_labels(source) == EXPECTED[:5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pa.table({"x": [1]}), r"has 0 columns of encoded images.*x \(int64\)"),
        (pa.table({"x": [b"1"], "y": [b"2"]}), "has 2 columns of encoded images"),
        (table(range(2), [0, 3]), "has labels from 0 to 3, but 3 names"),
        (table(range(0), []), "no images in .*its tables have no rows"),
    ],
)
def test_tables__that_do_not_fit(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_datasets(write_parquet(tmp_path / "0.parquet", content))


def test_tables__that_differ(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", table(range(2)))
    write_parquet(tmp_path / "train-1.parquet", pa.table({"x": [1]}))
    with pytest.raises(UserError, match=r"train-1\.parquet has no column 'image', unlike"):
        open_datasets(tmp_path)


def test_tables__damaged(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "0.parquet", table(range(9)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cannot read .*0\.parquet: .*Download it anew"):
        open_datasets(path)
    folder = write_saved(tmp_path / "saved", table(range(9)))
    arrow = folder / "data-00000-of-00001.arrow"
    arrow.write_bytes(arrow.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"cannot read .*00001\.arrow: "):
        open_datasets(folder)
    (folder / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot read .*state\.json \(KeyError"):
        open_datasets(folder)


def test_table_source__pickles_and_follows_its_content(tmp_path: Path) -> None:
    for number, labels in enumerate(([0, 1, 2], [0, 1, 1])):
        write_parquet(tmp_path / str(number) / "0.parquet", table(range(3), labels))
    source, other = (open_datasets(tmp_path / name)["train"] for name in "01")
    assert source[2].label == 2
    copy = pickle.loads(pickle.dumps(source))
    assert (copy[1], copy.fingerprint) == (source[1], source.fingerprint)
    assert other.fingerprint != source.fingerprint


def test_unpacked__same_images(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "0.parquet", table(range(23)))
    source = open_datasets(path)["train"]
    assert isinstance(source, TableDataset)
    quick = source.unpacked(tmp_path / "quick")
    path.unlink()
    assert levels_and_labels(quick) == EXPECTED
    assert (quick.fingerprint, quick[7].name) == (source.fingerprint, "0.parquet:7")
    assert [file.name for file in (tmp_path / "quick").iterdir()] == ["0.parquet.arrow"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pack__tables(tmp_path: Path, num_workers: int) -> None:
    """Parquet and Arrow give the same shards, and of unpacking nothing is left."""
    write_parquet(tmp_path / "pq" / "data.parquet", table(range(23)))
    write_saved(tmp_path / "hf", table(range(23)))
    for name in ("pq", "hf"):
        pack(
            open_datasets(tmp_path / name),
            tmp_path / "out" / name,
            shard_samples=6,
            num_workers=num_workers,
            progress=False,
        )
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / "out" / name).iterdir()}
        for name in ("pq", "hf")
    )
    assert first == second
    report = open_datasets(tmp_path / "out" / "pq")
    assert isinstance(report["train"], ShardDataset)
    assert sorted(levels_and_labels(report["train"])) == EXPECTED


def test_pack__rows_without_bytes(tmp_path: Path) -> None:
    content = table(range(4))
    rows = content.column("image").to_pylist()
    rows[2] = {"bytes": None, "path": "/elsewhere/2.png"}
    content = content.set_column(
        0, content.schema.field(0), pa.array(rows, content.schema.types[0])
    )
    source = open_datasets(write_saved(tmp_path / "hf", content))
    report = pack(source, tmp_path / "out", num_workers=0, progress=False)
    reason = "the table has no bytes of it, only the path /elsewhere/2.png"
    assert report.skipped == [("data-00000-of-00001.arrow:2", reason)]


def test_pyarrow__absent(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", table(range(2)))
    code = (
        "import sys\n"
        "from ssl_swin.data.sources.opening import open_datasets\n"
        "assert 'pyarrow' not in sys.modules\n"
        "sys.modules['pyarrow'] = None\n"
        "open_datasets(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    errors = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert errors.endswith("which is not installed: pip install 'ssl_swin[hf]'\n")


def test_numbers__are_arrays(tmp_path: Path) -> None:
    """Millions of labels must not be kept as Python objects."""
    source = open_datasets(write_parquet(tmp_path / "0.parquet", table(range(9))))["train"]
    assert isinstance(source, TableDataset)
    assert isinstance(source._labels, np.ndarray) and source._labels.dtype == np.int32
