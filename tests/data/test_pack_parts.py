"""Packing in parts: what one process would have written, whoever wrote which part and when."""

import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.packing.in_parts import holds_parts, join_parts, pack_part
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.packing.part import Part
from ssl_swin.data.packing.plan import PackOptions
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.sources.left_out import LeftOut
from ssl_swin.errors import UserError

LEFT_OUT = [LeftOut("notes.zip", "an archive: unpack it"), LeftOut("\udcff.raw", "raw data")]


class Levels(ImageDataset):
    """Image i is a 4 x 4 px PNG of gray level i; those in `broken` are none."""

    def __init__(self, length: int, broken: Sequence[int] = (), wait_s: float = 0.0) -> None:
        self.classes = ("a", "b", "c")
        self.fingerprint = f"levels {length}"
        self.length = length
        self.broken = broken
        self.wait_s = wait_s

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        time.sleep(self.wait_s)
        png = io.BytesIO()
        Image.new("L", (4, 4), index).save(png, "PNG")
        data = b"<html>" if index in self.broken else png.getvalue()
        return EncodedSample.of_image(data, "png", index % 3, f"{index}.png")


# 9 shards of train, 1 of val, 3 of test; every image of one shard of test is broken.
SOURCES = {"train": Levels(40, broken=(3, 17)), "test": Levels(3, broken=(1,))}
OPTIONS: dict[str, Any] = {"val_ratio": 0.1}


def options(**changes: Any) -> PackOptions:
    return PackOptions(shard_samples=4, **OPTIONS | changes)


def part(out: Path, text: str, **changes: Any) -> None:
    pack_part(
        SOURCES,
        out,
        Part.parse(text),
        options(**changes),
        num_workers=0,
        progress=False,
        left_out=LEFT_OUT,
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    pack(
        SOURCES,
        folder,
        shard_samples=4,
        **OPTIONS,
        num_workers=0,
        progress=False,
        left_out=LEFT_OUT,
    )
    assert len(list(folder.glob("*.tar"))) == 11
    assert (folder / "skipped.txt").read_bytes().count(b"\n") == 5
    return digests(folder)


@pytest.mark.parametrize("of", [1, 3, 30], ids="{}_parts".format)
def test_parts__are_byte_equal_to_one_process_in_any_order(
    tmp_path: Path, whole: dict[str, str], of: int
) -> None:
    numbers = list(range(1, of + 1))
    random.Random(of).shuffle(numbers)
    for number in [*numbers, numbers[0]]:  # one of them twice
        part(tmp_path, f"{number}/{of}")
    assert holds_parts(tmp_path)
    report = join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == whole
    assert report.index == load_index(tmp_path)
    assert (report.num_packed, len(report.skipped)) == (40, 3)
    assert not holds_parts(tmp_path)


def test_parts__of_another_number_complete_them(tmp_path: Path, whole: dict[str, str]) -> None:
    part(tmp_path, "2/2")
    part(tmp_path, "1/4")
    part(tmp_path, "3/4")
    join_parts(tmp_path, num_workers=2, progress=False)
    assert digests(tmp_path) == whole


def test_parts__one_process_may_complete_them(tmp_path: Path, whole: dict[str, str]) -> None:
    part(tmp_path, "2/3")
    pack(
        SOURCES,
        tmp_path,
        shard_samples=4,
        **OPTIONS,
        num_workers=0,
        progress=False,
        left_out=LEFT_OUT,
    )
    assert digests(tmp_path) == whole


@pytest.mark.parametrize(
    ("done", "missing"),
    [
        (["1/3", "3/3"], r"part 2/3 is missing, 4 of 11 shards"),
        (["2/3"], r"parts 1/3, 3/3 are missing, 7 of 11 shards"),
        (["1/30", "5/30"], r"parts 2/30, 3/30, .* 10/30, 11/30 are missing, 9 of 11 shards"),
    ],
)
def test_join__names_the_parts_that_are_missing(
    tmp_path: Path, done: list[str], missing: str
) -> None:
    for text in done:
        part(tmp_path, text)
    before = digests(tmp_path)
    with pytest.raises(UserError, match=f"cannot be joined yet: {missing}. Pack what is missing"):
        join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == before


def test_join__notices_a_shard_that_changed(tmp_path: Path, whole: dict[str, str]) -> None:
    for number in (1, 2):
        part(tmp_path, f"{number}/2")
    shard = tmp_path / "train-000001.tar"  # the fourth: test and val come in other places
    content = shard.read_bytes()
    (record,) = (
        path
        for path in tmp_path.glob("part-*.json")
        if any(row[2] == shard.name for row in json.loads(path.read_text())["shards"])
    )
    text = str(Part(*json.loads(record.read_text())["part"]))
    for damaged, message in (
        (None, f"Pack part {text} again"),
        (content[:700], f"cut at a member boundary.*Pack part {text} again"),
        ((tmp_path / "test-000000.tar").read_bytes(), f"is not what part {text} wrote"),
    ):
        shard.unlink(missing_ok=True)
        if damaged is not None:
            shard.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            join_parts(tmp_path, progress=False)
    part(tmp_path, text)
    join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == whole


def test_join__notices_damaged_records_and_another_plan(tmp_path: Path) -> None:
    part(tmp_path, "1/1")
    record = tmp_path / "part-1-of-1.json"
    good = record.read_text()
    for content in ("", "[]", "{}", good[:-9], "[" * 100_000):
        record.write_text(content)
        with pytest.raises(UserError, match="Delete it, and pack that part again"):
            join_parts(tmp_path, progress=False)
    record.write_text(good.replace('"plan": "', '"plan": "0'))
    with pytest.raises(UserError, match=r"part 1/1 in .* was packed by another plan"):
        join_parts(tmp_path, progress=False)


def test_parts__with_other_options_are_refused(tmp_path: Path) -> None:
    part(tmp_path, "1/2")
    with pytest.raises(UserError, match="begun with other options: seed was 0, is 1"):
        part(tmp_path, "2/2", seed=1)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "-1/3", "1/0", "1/3/5", "a/b", "1.0/3"])
def test_part__that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="a part is K/N, from 1/N to N/N, got"):
        Part.parse(text)


def test_parts__remove_what_killed_processes_left_of_them_alone(
    tmp_path: Path, whole: dict[str, str]
) -> None:
    part(tmp_path, "1/2")
    leftovers = [
        tmp_path / f".{name}.abc123.tmp"
        for name in ("test-000000.tar", "train-000000.tar", "part-2-of-2.json", "plan.json")
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    (tmp_path / ".pack.7-of-9.lock").touch()
    part(tmp_path, "2/2")
    kept = [path for path in leftovers if path.exists()]
    assert leftovers[2] not in kept and len(kept) == 2
    join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == whole


def test_pack__removes_what_a_start_left_that_was_killed(
    tmp_path: Path, whole: dict[str, str]
) -> None:
    """It was killed before its plan was there."""
    for name in (".plan.json.abc.tmp", ".train-000000.tar.abc.tmp"):
        (tmp_path / name).write_bytes(b"half")
    part(tmp_path, "1/1")
    join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == whole


def write_part(out: Path, text: str, wait_s: float) -> None:
    slow = {split: Levels(len(s), s.broken, wait_s) for split, s in SOURCES.items()}
    chosen = Part.parse(text)
    pack_part(slow, out, chosen, options(), num_workers=0, progress=False, left_out=LEFT_OUT)


def in_processes(out: Path, texts: Sequence[str], wait_s: float) -> list[Any]:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_part, args=(out, t, wait_s)) for t in texts]
    for process in processes:
        process.start()
    return processes


def test_parts__at_once(tmp_path: Path, whole: dict[str, str]) -> None:
    processes = in_processes(tmp_path, ["1/3", "2/3", "3/3"], 0.005)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == whole


def test_parts__one_twice_at_once_and_the_whole_beside_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_swin.data.packing.locks.LOCK_WAIT_S", 0.05)
    (process,) = in_processes(tmp_path, ["1/2"], 0.05)
    while not list(tmp_path.glob("*.tar")):
        time.sleep(0.002)
    with pytest.raises(UserError, match=f"another process is packing part 1/2 to {tmp_path}"):
        part(tmp_path, "1/2")
    with pytest.raises(UserError, match="another process is packing to"):
        pack(SOURCES, tmp_path, shard_samples=4, **OPTIONS, num_workers=0, progress=False)
    with pytest.raises(UserError, match="another process is packing to"):
        join_parts(tmp_path, progress=False)
    process.kill()
    process.join()


def test_parts__killed_and_started_again(tmp_path: Path, whole: dict[str, str]) -> None:
    for num_shards in (1, 3):
        (process,) = in_processes(tmp_path, ["2/3"], 0.004)
        while len(list(tmp_path.glob("*.tar"))) < num_shards:
            assert process.is_alive()
            time.sleep(0.001)
        process.kill()
        process.join()
        assert not list(tmp_path.glob("part-*.json"))
    for number in (3, 2, 1):
        part(tmp_path, f"{number}/3")
    join_parts(tmp_path, progress=False)
    assert digests(tmp_path) == whole


def test_commands__pack_parts_and_join_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        path = Path(f"my photos/{'ab'[number % 2]}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    Path("my photos/a/x.png").write_bytes(b"none")
    words = ["pack", "my photos", "out", "--shard-samples", "2", "--workers", "0"]
    assert main([*words, "--part", "2/2"]) == 0
    out, _ = capsys.readouterr()
    assert "part 2/2: " in out and " of 7 shards\n" in out
    assert "next: when all 2 parts are done: ssl-swin index out" in out
    assert main(["index", "out", "--workers", "0"]) == 2
    assert "part 1/2 is missing, 4 of 7 shards" in capsys.readouterr().err
    assert main(["index", "out", "--out", "elsewhere"]) == 2
    assert "joined where they are: leave --out out" in capsys.readouterr().err
    assert main([*words, "--part", "3/2"]) == 2
    assert main([*words, "--part", "1/2"]) == 0
    assert main(["index", "out", "--workers", "0"]) == 0
    out, _ = capsys.readouterr()
    assert "left out: 1 unreadable image, listed in out/skipped.txt\n" in out
    assert "classes: 2\n" in out and "next: " in out
    assert main([*words[:2], "whole", *words[3:]]) == 0
    assert digests(Path("out")) == digests(Path("whole"))


PACKING = """
import sys, time
from test_pack_parts import Levels
import ssl_swin.data.sources.opening as opening
from ssl_swin.data.sources.opening import OpenedData
opening.open_data = lambda *a, **k: OpenedData({"train": Levels(400, wait_s=0.05)})
from ssl_swin.cli import main
sys.exit(main(["pack", sys.argv[1], sys.argv[2], "--workers", "2", "--shard-samples", "50"]))
"""


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def is_running(pid: int) -> bool:
    """Whether a process is there, and more than what its parent has not looked at yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("gap_s", [None, 0.0, 0.03, 0.25])
def test_pack__interrupted_ends_at_once_with_its_workers(
    tmp_path: Path, gap_s: float | None
) -> None:
    """A job of a worker takes 2.5 s; the second Ctrl-C comes while the first is worked off."""
    (tmp_path / "photos").mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        )
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PACKING, str(tmp_path / "photos"), str(tmp_path / "out")],
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    while len(list((tmp_path / "out").glob(".train-*.tmp"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    children = children_of(process.pid)
    assert len(children) >= 2
    start_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    if gap_s is not None:
        time.sleep(gap_s)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - start_s < 2
    assert 'File "' not in told
    assert told.rstrip().endswith(("ssl-swin: interrupted", "ssl-swin: stopped at once"))
    time.sleep(0.5)
    assert not [child for child in children if is_running(child)]
