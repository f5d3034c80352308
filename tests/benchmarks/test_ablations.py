import json
from dataclasses import fields
from unittest.mock import patch

import pytest
import torch

from benchmarks.step import ablations
from benchmarks.step.variants import build
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
    for name, (other, _) in ablations.KERNELS.items():
        assert getattr(ablations.BASE, name) != other


def test_main__measures_every_choice(tmp_path, capsys):
    file = tmp_path / "ablations.json"
    words = ["--batch-size", "1", "--rounds", "1", "--precision", "fp32", "--json", str(file)]
    ablations.main(words)
    printed = capsys.readouterr().out
    results = json.loads(file.read_text())["results"]
    assert len(results) == 9
    kernels = [result["kernel"] for result in results if result["kernel"]]
    assert sorted(kernels) == ["attention"] * 2 + ["decoder_attention"] + ["mlp"] * 2
    for result in results:
        assert result["choice"] in printed
        assert set(result["values"]) == (set(result["seconds"]) if result["kernel"] else set())
        assert all(second > 0 for times in result["seconds"].values() for second in times)
