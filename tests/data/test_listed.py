"""Lists of images: their order, names and labels, and what is no list."""

from pathlib import Path

import pytest
from PIL import Image

from ssl_swin.data.sources.listed import ListedDataset
from ssl_swin.data.sources.opening import open_data
from ssl_swin.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for level, name in enumerate(("a.png", "b c.png", "d/e.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (level, 0, 0)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, name: str, *lines: str) -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def test_listed__order_names_and_labels(folder: Path) -> None:
    absolute = str(folder / "d" / "e.png")
    path = write(folder, "x.tsv", "split\tpath\tclass", f"-\t{absolute}\tno", "-\ta.png\t")
    listed = ListedDataset(path)
    assert [sample.name for sample in listed] == [absolute, "a.png"]  # type: ignore[attr-defined]
    assert listed[1].data == (folder / "a.png").read_bytes()
    assert (listed.classes, listed.labels().tolist()) == (("no",), [0, -1])
    assert (listed[0].label, listed[1].label) == (0, None)
    unlabelled = ListedDataset(path, labelled=False)
    assert (unlabelled.classes, unlabelled[0].label) == ((), None)
    assert unlabelled.fingerprint != listed.fingerprint


def test_listed__lines_and_a_column_without_a_header(folder: Path) -> None:
    for name in ("x.txt", "x.csv"):
        opened = open_data(write(folder, name, "d/e.png", "a.png"))
        listed = opened.splits["train"]
        assert [listed[index].name for index in range(len(listed))] == ["d/e.png", "a.png"]
        assert opened.classes_line() == f"classes: none, since {folder / name} holds paths alone"


@pytest.mark.parametrize(
    ("name", "lines", "told"),
    [
        ("x.txt", ["a.png", "b c.png", "a.png"], "names a.png twice"),
        ("x.txt", [""], "names no image"),
        ("x.txt", ["hello"], "there is no file .*hello. A list has a path on each line"),
        ("x.csv", ["colour,size", "red,4"], "no column of images .* only: colour, size"),
    ],
)
def test_listed__refuses(folder: Path, name: str, lines: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ListedDataset(write(folder, name, *lines))
