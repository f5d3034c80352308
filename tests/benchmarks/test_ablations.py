import json
from unittest.mock import patch

import pytest
import torch

from benchmarks.step import ablations
from benchmarks.step.variants import build
from benchmarks.step.workload import make_workload

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("objective", ["dense", "sparse"])
def test_replaced__alternatives_compute_the_same(objective):
    workload = make_workload("swin_nano", batch_size=2, device=torch.device("cpu"))
    variant = build(objective, workload, None)
    mask = variant.prepare(workload.mask(0))
    with torch.no_grad():
        chosen = variant.loss(mask)
        for target, other in ablations.REPLACED.values():
            with patch(target, autospec=True, side_effect=other) as replaced:
                torch.testing.assert_close(variant.loss(mask), chosen, rtol=1e-5, atol=0)
            assert replaced.called, target


def test_main__measures_every_choice(tmp_path, capsys):
    file = tmp_path / "ablations.json"
    words = ["--batch-size", "1", "--rounds", "1", "--precision", "fp32", "--json", str(file)]
    ablations.main(words)
    printed = capsys.readouterr().out
    results = json.loads(file.read_text())["results"]
    assert len(results) == 9
    for result in results:
        assert result["choice"] in printed
        assert all(second > 0 for times in result["seconds"].values() for second in times)


def test_main__of_swin_v2(capsys):
    with pytest.raises(SystemExit) as stopped:
        ablations.main(["--model", "swinv2_t", "--batch-size", "1"])
    assert stopped.value.code == 2
    assert "compared for Swin V1, and swinv2_t is V2" in capsys.readouterr().err
