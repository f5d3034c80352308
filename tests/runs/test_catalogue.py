import json
import math
import os
from pathlib import Path

import pytest
import torch

from ssl_swin.runs.catalogue import Catalogue, Damaged, entry_of
from ssl_swin.runs.checkpoint_files import checksum, num_bytes


def save(path: Path, step: int, value: float = 1.0, **others: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    content = {
        "state_dict": {"weight": torch.full((100, 100), value) + step},
        "optimizer_states": [{"state": {}}],
        "loops": {},
        "global_step": step,
        **others,
    }
    torch.save(content, path)
    return path


def record(catalogue: Catalogue, path: Path, step: int) -> None:
    catalogue.add(entry_of(path, path.name, step=step, found=checksum(path)))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Three checkpoints, all written down."""
    catalogue = Catalogue(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        record(catalogue, save(catalogue.folder / f"step_{step}.ckpt", step), step)
    return catalogue


def steps(catalogue: Catalogue) -> list[int]:
    return [entry.step for entry in catalogue.by_step()]


def test_by_step__newest_first(catalogue):
    assert steps(catalogue) == [30, 20, 10]
    entry = next(catalogue.by_step())
    assert (entry.name, entry.healthy, entry.size) == (
        "step_30.ckpt", True, (catalogue.folder / "step_30.ckpt").stat().st_size
    )  # fmt: skip


DAMAGED = (b"", b"{", b"[]", b'{"entries": 3}', b'{"entries": [{}]}', b"\xff", b"[" * 9000)


@pytest.mark.parametrize("content", [None, *DAMAGED, b'{"entries": [{"name": 3}]}'])
def test_catalogue__is_rebuilt_from_the_files(catalogue, content):
    file = catalogue.folder / "catalogue.json"
    before = catalogue.recorded()
    file.unlink() if content is None else file.write_bytes(content)
    assert catalogue.recorded() == []
    rebuilt = list(catalogue.by_step())
    assert [(e.name, e.step, e.checksum, e.size) for e in rebuilt] == [
        (e.name, e.step, e.checksum, e.size) for e in reversed(before)
    ]
    record(catalogue, save(catalogue.folder / "step_40.ckpt", 40), 40)
    assert {entry.step for entry in catalogue.recorded()} == {10, 20, 30, 40}


def test_last_healthy_before__skips_what_is_later_damaged_or_gone(catalogue):
    def found(step: int) -> str | None:
        entry = catalogue.last_healthy_before(step)
        return entry and entry.name

    assert [found(step) for step in (31, 30, 11, 10)] == [
        "step_30.ckpt", "step_20.ckpt", "step_10.ckpt", None
    ]  # fmt: skip
    flip(catalogue.folder / "step_20.ckpt", -4000)
    assert found(30) == "step_10.ckpt"
    (catalogue.folder / "step_10.ckpt").unlink()
    assert found(30) is None


def test_mark_unhealthy_from__is_never_gone_back_to(catalogue):
    catalogue.mark_unhealthy_from(20)
    assert [(e.step, e.healthy) for e in catalogue.by_step()] == [
        (30, False), (20, False), (10, True)
    ]  # fmt: skip
    entry = catalogue.last_healthy_before(100)
    assert entry is not None and entry.step == 10


def test_rebuilt__weights_that_are_not_finite_are_not_healthy(catalogue):
    save(catalogue.folder / "old.ckpt", 25, value=math.nan)
    assert [e.healthy for e in catalogue.by_step()] == [True, False, True, True]
    entry = catalogue.last_healthy_before(30)
    assert entry is not None and entry.step == 20


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_verified__any_flipped_bit_is_found(catalogue):
    path = catalogue.folder / "step_20.ckpt"
    whole = path.read_bytes()
    assert catalogue.verified(path.name).step == 20
    for offset in range(0, len(whole), 997):
        flip(path, offset)
        with pytest.raises(Damaged, match=rf"^{path} "):
            catalogue.verified(path.name)
        path.write_bytes(whole)


@pytest.mark.parametrize("length", [0, 1, 1000, -1])
def test_verified__any_truncation_is_found(catalogue, length):
    path = catalogue.folder / "step_20.ckpt"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Damaged, match=rf"^{path} is (truncated|damaged)"):
        catalogue.verified(path.name)


def test_verified__without_a_catalogue_a_flip_in_the_content_is_found(catalogue):
    path = catalogue.folder / "step_20.ckpt"
    (catalogue.folder / "catalogue.json").unlink()
    content = path.read_bytes()
    for offset in (content.index(b"global_step"), len(content) // 2):
        flip(path, offset)
        with pytest.raises(Damaged):
            catalogue.verified(path.name)
        flip(path, offset)
    assert catalogue.verified(path.name).step == 20


@pytest.mark.parametrize("content", [{"model": {"weight": torch.ones(3)}}, {"global_step": "3"}])
def test_verified__a_strangers_file(catalogue, content):
    torch.save(content, catalogue.folder / "step_20.ckpt")
    with pytest.raises(Damaged, match="is not the state of a training"):
        catalogue.verified("step_20.ckpt")


def test_verified__another_whole_file_under_the_name_is_taken_for_what_it_is(catalogue):
    """A user puts a backup back; the catalogue knows the file that was there before."""
    os.replace(catalogue.folder / "step_10.ckpt", catalogue.folder / "step_30.ckpt")
    assert catalogue.verified("step_30.ckpt").step == 10
    save(catalogue.folder / "step_30.ckpt", 5)
    assert catalogue.verified("step_30.ckpt").step == 5


def test_add__before_the_rename_the_file_of_old_is_still_whole(catalogue):
    folder = catalogue.folder
    new = save(folder / "new", 40)
    catalogue.add(entry_of(new, "step_30.ckpt", step=40, found=checksum(new)))
    assert catalogue.verified("step_30.ckpt").step == 30  # killed here
    os.replace(new, folder / "step_30.ckpt")
    assert catalogue.verified("step_30.ckpt").step == 40
    assert steps(catalogue) == [40, 20, 10]
    record(catalogue, save(folder / "step_50.ckpt", 50), 50)
    assert steps(catalogue) == [50, 40, 20, 10]


def test_add_name__of_a_second_link(catalogue):
    os.link(catalogue.folder / "step_30.ckpt", catalogue.folder / "last_30.ckpt")
    catalogue.add_name("step_30.ckpt", "last_30.ckpt")
    assert {e.name for e in catalogue.recorded() if e.step == 30} == {
        "step_30.ckpt",
        "last_30.ckpt",
    }


def test_folder__is_a_checkpoint_of_several_files(catalogue):
    folder = catalogue.folder / "step_60.ckpt"
    save(folder / "meta.pt", 60, divided={}, parts={})
    (folder / "part_0").write_bytes(b"weights")
    assert num_bytes(folder) == 7 + (folder / "meta.pt").stat().st_size
    record(catalogue, folder, 60)
    assert catalogue.verified("step_60.ckpt").step == 60
    (folder / "part_0").write_bytes(b"Weights")
    with pytest.raises(Damaged, match="its bytes are not those that were written"):
        catalogue.verified("step_60.ckpt")


def test_recorded__names_do_not_leave_the_folder(catalogue):
    file = catalogue.folder / "catalogue.json"
    content = json.loads(file.read_text())
    content["entries"][0]["name"] = "../../x.ckpt"
    file.write_text(json.dumps(content))
    assert catalogue.recorded() == []
