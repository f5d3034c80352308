"""Checkpoints in parts, read without the processes that wrote them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssl_swin.divided_checkpoint import (
    DIVIDED,
    META,
    PARTS,
    PLACES,
    is_divided,
    load_state,
    open_state,
    sum_of,
    take_out,
)
from ssl_swin.errors import UserError

WEIGHT = torch.arange(12.0).reshape(4, 3)


def write(folder: Path, pieces: list[tuple[int, torch.Tensor]]) -> Path:
    """Writes a checkpoint whose one divided tensor lies in pieces that begin at some rows."""
    folder.mkdir(parents=True)
    sums = {}
    for number, (row, piece) in enumerate(pieces):
        part = folder / f"shard-{number}.safetensors"
        places = {PLACES: json.dumps({"state.0.w": {"saved_offsets": [row, 0]}})}
        save_file({"state.0.w": piece.clone()}, part, places)
        sums[part.name] = sum_of(part)
    facts = {"path": ["state", 0, "w"], "shape": [4, 3], "dtype": torch.float32}
    content = {"state": [{"w": None, "step": 7}], DIVIDED: {"state.0.w": facts}, PARTS: sums}
    torch.save(content, folder / META)
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    empty = WEIGHT[4:]  # of a process that has nothing of it
    return write(tmp_path / "last.ckpt", [(0, WEIGHT[:3]), (3, WEIGHT[3:]), (4, empty)])


def test_load_state__puts_the_pieces_together_in_their_place(whole: Path) -> None:
    assert is_divided(whole)
    content = load_state(whole)
    assert content.keys() == {"state"}
    assert content["state"][0]["w"].equal(WEIGHT)
    assert content["state"][0]["step"] == 7


def test_load_state__reads_a_file_too(tmp_path: Path) -> None:
    torch.save({"w": WEIGHT}, tmp_path / "last.ckpt")
    assert not is_divided(tmp_path / "last.ckpt")
    assert load_state(tmp_path / "last.ckpt")["w"].equal(WEIGHT)


@pytest.mark.parametrize("at", [0, 8, 60, -1])
def test_load_state__a_flipped_bit(whole: Path, at: int) -> None:
    part = whole / "shard-1.safetensors"
    content = bytearray(part.read_bytes())
    content[at] ^= 1
    part.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-1.safetensors is damaged"):
        load_state(whole)


def test_load_state__a_missing_part(whole: Path) -> None:
    (whole / "shard-0.safetensors").unlink()
    with pytest.raises(UserError, match=r"incomplete: shard-0.safetensors is missing"):
        load_state(whole)


def test_load_state__no_facts(whole: Path) -> None:
    (whole / META).unlink()
    with pytest.raises(UserError, match=r"there is no file .*meta.pt"):
        load_state(whole)


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, WEIGHT[:2])],
        [(0, WEIGHT[:2]), (3, WEIGHT[2:])],
        [(0, WEIGHT[:, :2])],
        [(0, WEIGHT), (0, WEIGHT)],
    ],
)
def test_load_state__pieces_that_are_not_the_whole(
    tmp_path: Path, pieces: list[tuple[int, torch.Tensor]]
) -> None:
    with pytest.raises(UserError, match="do not fit together"):
        load_state(write(tmp_path / "last.ckpt", pieces))


def test_load_state__a_part_in_another_folder_is_not_read(whole: Path) -> None:
    content = torch.load(whole / META, weights_only=True)
    outside = whole.parent / "shard-9.safetensors"
    (whole / "shard-0.safetensors").rename(outside)
    content[PARTS] = {f"../{outside.name}": sum_of(outside)}
    torch.save(content, whole / META)
    with pytest.raises(UserError, match=r"shard-9.safetensors is missing"):
        load_state(whole)


def test_take_out__leaves_the_rest_as_it_is() -> None:
    content = {"a": [{"w": WEIGHT}, 1], "b": {"c": (2, 3)}}
    rest, found = take_out(content, torch.Tensor)
    assert rest == {"a": [{"w": None}, 1], "b": {"c": (2, 3)}}
    assert list(found) == ["a.0.w"]
    assert found["a.0.w"][0] == ["a", 0, "w"]
    assert content["a"][0]["w"] is WEIGHT


def test_open_state__reads_only_what_is_asked_for(whole: Path) -> None:
    found = open_state(whole)["state"][0]["w"]
    assert found.shape == (4, 3) and found.dtype == torch.float32
    assert found.whole().equal(WEIGHT)
    for first, last in [(0, 3), (1, 2), (2, 4), (3, 4), (0, 4), (2, 2)]:
        assert found.cut((first, 0), (last - first, 3)).equal(WEIGHT[first:last])
    assert found.cut((1, 1), (3, 2)).equal(WEIGHT[1:, 1:])
    (whole / "shard-1.safetensors").unlink()
    assert found.cut((0, 0), (3, 3)).equal(WEIGHT[:3])  # the other part is not touched
    with pytest.raises(UserError, match=r"shard-1.safetensors is missing"):
        open_state(whole)
