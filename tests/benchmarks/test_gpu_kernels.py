"""From timed choices to the table that `kernels=auto` reads."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.gpu import kernels as command
from benchmarks.step.ablations import BASE
from ssl_swin.launch.kernels import NAMES

CARD = "NVIDIA H100 80GB HBM3"


def timed(kernel: str, chosen: list[float], other: list[float], value: str) -> dict[str, Any]:
    return {
        "kernel": kernel,
        "values": {"chosen": "products", "other": value},
        "seconds": {"chosen": chosen, "other": other},
    }


def test_fastest__counts_both_objectives_alike_by_their_medians():
    measured = [
        timed("attention", [2.0, 2.0, 9.0], [1.0, 1.0, 1.0], "fused"),  # twice as fast
        timed("attention", [1.0], [1.5], "fused"),  # half as slow again
        timed("mlp", [1.0], [1.01], "keep"),
        timed("patch_embedding", [1.0], [0.9], "conv"),
        {"kernel": "attention", "values": {"other": "flex"}, "error": "why"},
        timed("patch_embedding", [1.0], [0.8], "channels_last"),
        {"kernel": "", "values": {}, "seconds": {"chosen": [9.0], "other": [1.0]}},
    ]
    assert command.fastest(measured) == asdict(
        replace(BASE, attention="fused", patch_embedding="channels_last")
    )


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the table."""
    path = tmp_path / "kernels.yaml"
    path.write_text(command.TABLE.read_text())
    monkeypatch.setattr(command, "TABLE", path)
    monkeypatch.setattr(command, "read_table", lambda: yaml.safe_load(path.read_text()))
    return path


def write_results(folder: Path, *, rehearsal: bool) -> None:
    choices = {"numbers": {"results": [timed("attention", [2.0], [1.0], "fused")]}}
    modes = {"numbers": {"results": [timed("compile_mode", [2.0], [1.0], "reduce-overhead")]}}
    machine = {"gpu": CARD, "rehearsal": rehearsal}
    (folder / "results.json").write_text(
        json.dumps({"machine": machine, "parts": {"choices": choices, "compile_modes": modes}})
    )


def test_main__puts_a_card_on_top_once_and_keeps_the_rest(tmp_path: Path, table: Path):
    before = yaml.safe_load(table.read_text())
    write_results(tmp_path, rehearsal=False)
    for _ in range(2):
        command.main([str(tmp_path)])
    after = yaml.safe_load(table.read_text())
    assert after[1:] == before
    assert after[0] == {
        "device": CARD,
        **asdict(replace(BASE, attention="fused", compile_mode="reduce-overhead")),
    }
    assert set(after[0]) == {"device", *NAMES}
    assert table.read_text().startswith("# What kernels=auto takes")


def test_main__shows_without_writing_and_refuses_rehearsals(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
):
    before = table.read_text()
    write_results(tmp_path, rehearsal=False)
    command.main([str(tmp_path), "--show"])
    assert f"device: {CARD}" in capsys.readouterr().out
    write_results(tmp_path, rehearsal=True)
    for folder, message in ((tmp_path, "a rehearsal's"), (tmp_path / "none", "no single choices")):
        with pytest.raises(SystemExit) as ended:
            command.main([str(folder)])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert table.read_text() == before
