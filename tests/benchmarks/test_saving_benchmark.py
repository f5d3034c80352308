"""What saving costs: a benchmark that runs, and does not count its own copy twice."""

from pathlib import Path

import pytest
import torch

from benchmarks.step.saving import Thread, in_thread, main, state_of
from ssl_swin.safe_pickle import load_checkpoint


def test_in_thread__writes_the_state_as_it_was(tmp_path: Path) -> None:
    state = state_of(2)
    thread = in_thread(state, tmp_path / "x.ckpt", alone_s=0.05)
    written = load_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(written["state_dict"]["1"], state["state_dict"]["1"])
    assert thread.write_s > 0 and thread.slowed_s <= thread.write_s


def test_thread__loses_the_copy_and_what_is_slowed() -> None:
    assert Thread(copy_s=0.25, write_s=4.0, slowed_s=1.5).lost_s == 1.75


@pytest.mark.slow
def test_main__prints_a_line_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tensors", "1", "--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["3 MB", "3 MB"]
