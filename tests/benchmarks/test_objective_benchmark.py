"""A row per objective: each does its whole step on the same encoder, at toy size."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.step import __main__ as step
from benchmarks.step.comparison import Comparison, compare
from benchmarks.step.objectives import HALFWAY, NAMES, build_objective
from benchmarks.step.variants import Absent, Variant
from benchmarks.step.workload import Workload, workload_of

CPU = torch.device("cpu")


@pytest.fixture
def workload(tiny_encoder) -> Workload:
    return workload_of(tiny_encoder(), batch_size=2, device=CPU)


def built(name: str, workload: Workload) -> Variant:
    variant = build_objective(name, workload)
    assert isinstance(variant, Variant), variant
    return variant


def test_names__are_all_objectives_and_simmim_is_compared_with() -> None:
    assert NAMES[0] == "simmim"
    assert {"distillation", "ibot", "ibot_sparse", "moby", "simmim_sparse"} < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_step__trains_the_workloads_encoder_and_nothing_of_the_workload(name, workload) -> None:
    before = copy.deepcopy(workload.encoder.state_dict())
    variant = built(name, workload)
    model: Any = variant.model
    assert all(value.equal(before[n]) for n, value in model.encoder.state_dict().items())
    followed: list[int] = []
    after_step = model.after_step
    model.after_step = lambda number: (followed.append(number), after_step(number))
    first, second = (variant.prepare(workload.mask(number)) for number in range(2))
    assert not first.pixels.equal(second.pixels) and len(first.names) == 2
    variant.step(first)
    assert followed == [HALFWAY.step + 1]
    assert not all(value.equal(before[n]) for n, value in model.encoder.state_dict().items())
    assert all(value.equal(before[n]) for n, value in workload.encoder.state_dict().items())


def test_momentum_target__moves_with_a_step(workload) -> None:
    variant = built("moby", workload)
    start = copy.deepcopy(variant.model.target.state_dict())
    variant.step(variant.prepare(workload.mask(0)))
    assert not all(v.equal(start[n]) for n, v in variant.model.target.state_dict().items())


def test_operations__of_two_views_and_a_target_by_hand(workload) -> None:
    """A target adds two forward passes to two of all three: at least 2.5 times those of one."""
    found: Comparison = compare(workload, ["simmim", "moby"], None, rounds=1, build=build_objective)
    assert found.reference == "simmim" and not found.absent
    assert found.variants["moby"].flops > 2.5 * found.variants["simmim"].flops


def test_batch__that_an_objective_cannot_take_leaves_it_out(tiny_encoder) -> None:
    alone = workload_of(tiny_encoder(), batch_size=1, device=CPU)
    absent = build_objective("moby", alone)
    assert isinstance(absent, Absent) and "batch_size=1 has no batch statistics" in absent.reason


def test_table__has_a_row_for_each_that_is_named(capsys, tmp_path: Path) -> None:
    words = "--model swin_nano --batch-size 2 --rounds 1 --precision fp32 --device cpu"
    file = tmp_path / "x.json"
    step.main([*words.split(), "--objectives", "simmim", "distillation", "--json", str(file)])
    printed = capsys.readouterr().out
    assert "ratio and difference: to simmim" in printed and "not in it" not in printed
    (result,) = json.loads(file.read_text())["results"]
    assert list(result["variants"]) == ["simmim", "distillation"]


def test_objectives__unknown(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        step.main(["--objectives", "mobi"])
    assert stopped.value.code == 2 and "mobi" in capsys.readouterr().err
