import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.inspection.check import CheckReport, check_shards
from ssl_swin.data.inspection.duplicates import repeated
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.indexing import build_index


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def images(start: int, stop: int) -> dict[str, bytes]:
    return {f"{level}.png": png(level) for level in range(start, stop)}


@pytest.fixture
def packed(shards: Path, tmp_path: Path) -> Path:
    """The shards of conftest.py, to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def check(folder: Path, *, decode: bool = True, num_workers: int = 0) -> CheckReport:
    index = load_index(folder, check_shards=False)
    return check_shards(index, decode=decode, num_workers=num_workers, progress=False)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_check_shards__sound(packed: Path, num_workers: int) -> None:
    report = check(packed, num_workers=num_workers)
    assert report == CheckReport(30, [])
    assert report.is_sound


def test_check_shards__images_that_do_not_decode(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    cut = file.getvalue()[:2000] + bytes(100) + file.getvalue()[2100:]
    members = {"good.png": file.getvalue(), "cut.png": cut, "text.png": b"no image"}
    write_shard(tmp_path / "train-0.tar", members)
    build_index(tmp_path, progress=False)
    report = check(tmp_path)
    assert report.num_read == 3
    assert [finding[:4] for finding in report.findings] == [
        ("image", "train", "train-0.tar", "cut.png"),
        ("image", "train", "train-0.tar", "text.png"),
    ]
    assert "cannot decode the image train-0.tar:1" in report.findings[0].problem
    assert not report.is_sound
    assert check(tmp_path, decode=False).findings == []


def test_check_shards__damaged_shards(packed: Path) -> None:
    truncated, missing, torn = (packed / f"train-00000{number}.tar" for number in (0, 2, 3))
    num_bytes = truncated.stat().st_size
    truncated.write_bytes(truncated.read_bytes()[:-600])
    missing.unlink()
    overwrite(torn, 0, b"\xff")
    shutil.copy(packed / "val-000000.tar", packed / "more.tar")
    report = check(packed)
    found = {finding.shard: finding for finding in report.findings}
    assert len(found) == len(report.findings) == 4
    assert {finding.kind for finding in report.findings} == {"shard"}
    sizes = f"it has {num_bytes - 600} bytes, the index says {num_bytes}"
    assert found["train-000000.tar"].problem == sizes
    assert "cannot be read: No such file" in found["train-000002.tar"].problem
    assert "bad tar header at byte 0" in found["train-000003.tar"].problem
    assert found["more.tar"].problem == "the index does not list it"
    assert report.num_read == 30 - 3 * 5  # those of three shards of five are not read
    assert not report.is_sound


def test_check_shards__shard_of_the_same_size_with_other_content(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", {"a.png": png(1), "a.cls": b"0", "b.png": png(2)})
    build_index(tmp_path, progress=False)
    (tmp_path / "train-0.tar").unlink()
    write_shard(tmp_path / "train-0.tar", {"a.png": png(1), "a.cls": b"7", "b.png": png(2)})
    (finding,) = check(tmp_path).findings
    assert finding.kind == "shard"
    assert "other places or labels of 1 of its images, the first is number 0" in finding.problem
    (tmp_path / "train-0.tar").unlink()
    write_shard(tmp_path / "train-0.tar", {"a.png": png(1), "a.cls": b"0", "a.txt": png(2)})
    (finding,) = check(tmp_path).findings
    assert finding.problem == "it holds 1 image, the index says 2"


def test_check_shards__index_file_that_was_changed(packed: Path) -> None:
    labels_of_first = 12
    overwrite(packed / "index.bin", labels_of_first, b"\x63")
    kinds = [finding.kind for finding in check(packed).findings]
    assert kinds == ["index", "shard"]


def test_check_shards__labels(tmp_path: Path) -> None:
    members = {"a.png": png(1), "a.cls": b"1", "b.png": png(2), "b.cls": b"2", "c.png": png(3)}
    write_shard(tmp_path / "train-0.tar", members)
    build_index(tmp_path, progress=False)
    assert check(tmp_path).is_sound  # no class names, so nothing to compare with
    content = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(content | {"classes": ["cat", "dog"]}))
    report = check(tmp_path)
    assert [finding[3:] for finding in report.findings] == [
        ("b.png", "label 2, where there are 2 classes"),
        ("c.png", "no label, where there are 2 classes"),
    ]
    assert not report.is_sound


def test_check_shards__duplicates_and_leaks(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", images(0, 5))
    write_shard(tmp_path / "train-1.tar", {**images(5, 7), "again.png": png(1)})
    write_shard(tmp_path / "val-0.tar", {**images(7, 9), "leak.png": png(6), "more.png": png(7)})
    write_shard(tmp_path / "test-0.tar", {"both.png": png(1)})
    build_index(tmp_path, progress=False)
    for num_workers in (0, 2):
        report = check(tmp_path, num_workers=num_workers)
        found = [(*finding[:4], finding.problem.split()[-3:]) for finding in report.findings]
        assert found == [
            ("duplicate", "train", "train-1.tar", "again.png", ["train", "train-0.tar", "1.png"]),
            ("leak", "test", "test-0.tar", "both.png", ["train", "train-0.tar", "1.png"]),
            ("leak", "val", "val-0.tar", "leak.png", ["train", "train-1.tar", "6.png"]),
            ("duplicate", "val", "val-0.tar", "more.png", ["val", "val-0.tar", "7.png"]),
        ]
        assert report.is_sound


def test_repeated__equals_a_dictionary() -> None:
    digests = np.random.default_rng(0).integers(4, size=(300, 2)).astype(np.uint64)
    seen: dict[tuple[int, int], int] = {}
    expected = []
    for image, digest in enumerate(map(tuple, digests.tolist())):
        if digest == (0, 0):
            continue
        if digest in seen:
            expected.append((image, seen[digest]))
        seen.setdefault(digest, image)
    assert list(repeated(digests)) == expected
    assert list(repeated(digests[:0])) == []


def test_check__says_that_all_is_sound(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(packed), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 23 images in 5 shards",
        "val: 7 images in 2 shards",
        "sound: the shards are what the index says, 30 images decoded",
    ]


def test_check__duplicates_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = {f"copy{number}.png": png(0) for number in range(22)}
    write_shard(tmp_path / "train-0.tar", {**images(0, 1), **copies})
    write_shard(tmp_path / "val-0.tar", images(0, 2))
    build_index(tmp_path, progress=False)
    report = tmp_path / "check.jsonl"
    options = ["--fast", "--workers", "0", "--report", str(report)]
    assert main(["check", str(tmp_path), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    same = "images with the same bytes as"
    assert f"duplicate: {same} an earlier one of their split: 22 in train" in lines
    assert "  train-0.tar copy0.png: the same bytes as train train-0.tar 0.png" in lines
    assert "  ... and 2 more: --report FILE lists all" in lines
    assert f"leak: {same} one of another split: 1 in val" in lines
    assert lines[-1] == "sound: the shards are what the index says, 25 images read"
    findings = [json.loads(line) for line in report.read_text().splitlines()]
    assert Counter(finding["kind"] for finding in findings) == {"duplicate": 22, "leak": 1}
    assert findings[22] == {
        "kind": "leak",
        "split": "val",
        "shard": "val-0.tar",
        "member": "0.png",
        "problem": "the same bytes as train train-0.tar 0.png",
    }


def test_check__findings_end_with_status_1(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (packed / "val-000001.tar").unlink()
    assert main(["check", str(packed), "--workers", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("not what the index says: 1 in val")
    assert lines[3].startswith("  val-000001.tar: it cannot be read")
    assert lines[-1] == "not sound, see above; 28 images could be read"


def test_check__mistakes(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert f"no index: there is no {tmp_path}/index.json" in capsys.readouterr().err
    assert main(["check", str(packed), "--workers", "-1"]) == 2
    assert "--workers must be a whole number in [0, 1024], got '-1'" in capsys.readouterr().err


def test_check__index_in_another_folder(packed: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    for name in ("index.json", "index.bin"):
        (packed / name).rename(aside / name)
    assert main(["check", str(packed), "--index-dir", str(aside), "--workers", "0"]) == 0
