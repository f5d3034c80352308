import json
from collections import Counter
from dataclasses import fields
from typing import get_args, get_type_hints
from unittest.mock import patch

import pytest
import torch

from benchmarks.step import ablations
from benchmarks.step.variants import NAMES, build
from benchmarks.step.workload import make_workload
from ssl_swin.encoders.kernels import Kernels

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("objective", ["dense", "sparse"])
def test_gathers__alternative_computes_the_same(objective):
    workload = make_workload("swin_nano", batch_size=2, device=torch.device("cpu"))
    variant = build(objective, workload, None)
    mask = variant.prepare(workload.mask(0))
    target = "ssl_swin.encoders.windows.layout._rows"
    with torch.no_grad():
        chosen = variant.loss(mask)
        with patch(target, autospec=True, side_effect=ablations.along_dimension_1) as replaced:
            torch.testing.assert_close(variant.loss(mask), chosen, rtol=1e-5, atol=0)
        assert replaced.called


def test_kernels__cover_all_there_are():
    assert set(ablations.KERNELS) == {field.name for field in fields(Kernels)}
    hints = get_type_hints(Kernels)
    for name, (others, variants) in ablations.KERNELS.items():
        assert getattr(ablations.BASE, name) not in others
        assert hints[name] is int or set(others) < set(get_args(hints[name]))
        assert set(variants.split()) <= set(NAMES)


def test_measure__a_choice_that_fails_costs_no_other(monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("out of memory")

    sound, broken = {"chosen": str, "other": str}, {"chosen": str, "other": fail}
    ideas = [
        ablations.Idea("breaks", broken, {"chosen": "a", "other": "b"}, "mlp"),
        ablations.Idea("works", sound),
    ]
    monkeypatch.setattr(ablations, "ideas", lambda *_: iter(ideas))
    first, second = ablations.main(
        ["--device", "cpu", "--batch-size", "1", "--rounds", "1", "--precision", "fp32"]
    )
    assert (first["error"], "seconds" in first) == ("out of memory", False)
    assert "fails" in capsys.readouterr().out
    assert second["seconds"]["other"]


def test_main__measures_every_choice(tmp_path, capsys):
    file = tmp_path / "ablations.json"
    words = ["--batch-size", "1", "--rounds", "1", "--precision", "fp32", "--json", str(file)]
    ablations.main(words)
    printed = capsys.readouterr().out
    results = json.loads(file.read_text())["results"]
    assert len(results) == 12
    kernels = Counter(result["kernel"] for result in results if result["kernel"])
    assert kernels == Counter(
        attention=2, mlp=2, decoder_attention=1, patch_embedding=2, head=1, optimizer=1,
        bin_multiple=1,
    )  # fmt: skip
    for result in results:
        assert result["choice"] in printed
        assert set(result["values"]) == (set(result["seconds"]) if result["kernel"] else set())
        assert all(second > 0 for times in result["seconds"].values() for second in times)
