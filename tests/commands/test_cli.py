import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images in two folders, and one file that is none."""
    folder = tmp_path / "my photos"
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    (folder / "b" / "broken.jpg").write_text("no image")
    return folder


def test_pack__says_what_it_did_and_what_comes_next(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "the shards"
    options = ["--shard-samples", "2", "--val-ratio", "0.15", "--workers", "0", "--seed", "0"]
    assert main(["pack", str(photos), str(out), *options]) == 0
    num_val = load_index(out).num_samples("val")
    num_train = load_index(out).num_samples("train")
    assert num_train + num_val == 6
    assert capsys.readouterr().out.splitlines() == [
        f"train: {num_train} images in {-(-num_train // 2)} shards",
        f"val: {num_val} images in 1 shard, held out of train",
        f"classes: 2, the sub-folders of {photos}",
        f"left out: 1 unreadable image, listed in {out}/skipped.txt",
        f"next: ssl-swin pretrain data=shards 'data.root=\"{out}\"' "
        f"batch_size={num_train // 2 * 2}",
    ]


def test_pack__defaults(photos: Path, tmp_path: Path) -> None:
    (photos / "b" / "broken.jpg").unlink()
    assert main(["pack", str(photos), str(tmp_path / "out")]) == 0
    index = load_index(tmp_path / "out")
    assert {split: index.num_samples(split) for split in index.splits} == {"train": 5, "val": 1}
    assert index.classes == ("a", "b")


def test_pack__no_labels(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["pack", str(photos), str(out), "--no-labels", "--val-ratio", "0"]) == 0
    assert "classes: none, since labels are left out" in capsys.readouterr().out.splitlines()
    assert list(load_index(out).splits) == ["train"]


def test_pack__images_that_are_not_8_bit_colour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "maps").mkdir()
    for number in range(4):
        levels = np.full((12, 32, 40), 0.5 * number, np.float32)
        np.save(tmp_path / "maps" / f"{number}.npy", levels)
    Image.new("RGB", (8, 8)).save(tmp_path / "maps" / "legend.png")
    out = tmp_path / "out"
    options = ["--max-short-side-px", "16", "--verify", "--val-ratio", "0", "--workers", "0"]
    assert main(["pack", str(tmp_path / "maps"), str(out), *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "images of 12 channels, float32: data.channels, data.dtype, data.mean and data.std must "
        f"say so; see: ssl-swin stats {out}"
    )
    shapes = {
        np.load(io.BytesIO(record.data)).shape
        for record in ShardDataset(load_index(out), "train")
        if record.extension == "npy"
    }
    assert shapes == {(12, 16, 20)}


def test_pack__val_labels(photos: Path, tmp_path: Path) -> None:
    folder = photos.rename(tmp_path / "train").parent
    (folder / "val").mkdir()
    for name, level in {"2.png": 20, "1.png": 10}.items():
        Image.new("L", (8, 8), level).save(folder / "val" / name)
    (tmp_path / "labels.txt").write_text("b\na\n")
    out = tmp_path / "out"
    options = ["--val-labels", str(tmp_path / "labels.txt"), "--workers", "0"]
    assert main(["pack", str(folder), str(out), *options]) == 0
    val = ShardDataset(load_index(out), "val")
    levels = {
        Image.open(io.BytesIO(data)).getpixel((0, 0)): label
        for data, label in ((s.data, s.label) for s in val)
    }
    assert levels == {10: 1, 20: 0}


def test_main__mistake_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"ssl-swin: {tmp_path}/absent does not exist. Give a folder of images\n"


def test_main__interrupted(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssl_swin.data.packing.pack.write_index", interrupt)
    out = tmp_path / "out"
    assert main(["pack", str(photos), str(out), "--workers", "0"]) == 130
    kept = len(list(out.glob("*.tar")))
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"{kept} of 7 shards are done: the same command goes on from there",
        "ssl-swin: interrupted",
    ]
    monkeypatch.undo()
    assert main(["pack", str(photos), str(out), "--workers", "0"]) == 0
    assert len(list(out.glob("*.tar"))) == kept


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["pack", "only-one"], ["pack", "--x"]])
def test_main__wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("ssl-swin: ")
    assert told.endswith("see ssl-swin pack --help" if "pack" in arguments else "ssl-swin --help")


def test_main__version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ssl-swin {ssl_swin.__version__}\n"


@pytest.mark.slow
def test_command__prints_one_line_for_a_mistake(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("ssl-swin")
    command = [str(script), "pack", str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"ssl-swin: no images in {tmp_path} and its sub-folders")


@pytest.mark.slow
def test_module__is_the_command_and_says_how_it_goes_on(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssl_swin", "pack", str(photos), "shards", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"next: {sys.executable} -m ssl_swin pretrain data=shards" in done.stdout


def test_help__imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from ssl_swin.cli import main\n"
        "main(['pack', '--help'])\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'PIL', 'torch', 'tqdm')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
        == 0
    )
