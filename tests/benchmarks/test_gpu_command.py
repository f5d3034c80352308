"""`benchmarks.gpu`: parts in slices of the time, continued from the results file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import losses
from benchmarks.gpu.child import run_limited
from benchmarks.gpu.parts import LEAST_S, Part, load_parts, slice_s
from benchmarks.gpu.profile import rows as profile_rows
from benchmarks.gpu.results import Found, Results
from benchmarks.tables import write_json
from ssl_swin.errors import UserError

MACHINE: dict[str, Any] = {"gpu": "card", "torch": "2", "rehearsal": False}


def part(name: str, minutes: float = 1.0, words: tuple[str, ...] = ("timeit", "-n1", "1")) -> Part:
    return Part(name, f"Title of {name}.", minutes, words)


def arguments(out: Path, minutes: float = 1.0) -> Any:
    return SimpleNamespace(out=out, minutes=minutes, reference=None, data=None)


def test_load_parts__have_the_same_names_at_both_sizes_and_commands_that_exist():
    real, toy = load_parts(rehearsal=False), load_parts(rehearsal=True)
    assert [each.name for each in real] == [each.name for each in toy]
    assert real[0].name == "tests"  # right before fast
    for each in (*real, *toy):
        module = each.words[0]
        file = Path(command.ROOT / module.replace(".", "/"))
        assert module == "pytest" or file.with_suffix(".py").is_file() or file.is_dir()
    assert all("--device" in each.words for each in toy if each.words[0].startswith("benchmarks.s"))


def test_slice_s__gives_what_was_not_used_to_all_that_are_left():
    parts = [part("a", 1), part("b", 2), part("c", 1)]
    assert slice_s(parts, 400) == 100
    assert slice_s(parts[1:], 390) == 260
    assert slice_s(parts[2:], 390) == 390
    assert slice_s(parts, 4 * LEAST_S - 1) == 0
    assert slice_s(parts, -5) == 0


def test_command__fills_the_placeholders_in():
    words = ("module", "{reference}", "--json", "{json}", "{data}")
    options = {"{reference}": ["--reference", "a path"], "{json}": ["file"], "{data}": []}
    assert part("a", words=words).command(options) == [
        *("module", "--reference", "a path", "--json", "file")
    ]


def test_run_limited__ends_a_command_with_its_children_when_the_time_is_up(tmp_path: Path):
    (tmp_path / "sleeper.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid)\n"
        "time.sleep(60)\n"
    )
    output = tmp_path / "output.txt"
    ended = run_limited(["sleeper"], folder=tmp_path, output=output, limit_s=1.5)
    assert ended.code is None
    assert 1.5 <= ended.seconds < 12
    child = int(output.read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_run_limited__returns_the_code_of_a_command(tmp_path: Path):
    (tmp_path / "failing.py").write_text("print('why'); raise SystemExit(7)\n")
    output = tmp_path / "output.txt"
    assert run_limited(["failing"], folder=tmp_path, output=output, limit_s=30).code == 7
    assert output.read_text() == "why\n"


def test_exiting_on_sigterm__ends_the_command_too(tmp_path: Path):
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('number').write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(
        "from pathlib import Path\n"
        "from benchmarks.gpu.child import exiting_on_sigterm, run_limited\n"
        "with exiting_on_sigterm():\n"
        "    run_limited(['sleeper'], folder=Path(), output=Path('output.txt'), limit_s=60)\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(command.ROOT)])
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
    )
    number = tmp_path / "number"
    deadline = time.monotonic() + 30
    while not (number.is_file() and number.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 143
    state = Path(f"/proc/{number.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_main__exits_on_sigterm_and_gives_the_signal_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "ask", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        command.main(["--rehearse", "--out", str(tmp_path)])
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_write_json__leaves_the_file_as_it_was_if_it_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "numbers.json"
    write_json(file, {"numbers": [1]})
    monkeypatch.setattr("ssl_swin.files.os.replace", lambda *_: sys.exit(143))
    with pytest.raises(SystemExit):
        write_json(file, {"numbers": [2]})
    assert json.loads(file.read_text()) == {"numbers": [1]}
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Parts in place of whose commands a name is noted, with its limit."""
    seen: dict[str, float] = {}

    def ask(each: Part, args: Any, limit_s: float) -> Found:
        seen[each.name] = limit_s
        state = {"bad": "failed", "slow": "time is up"}.get(each.name, "done")
        return Found(state, 1.0, "command", f"output of {each.name}")  # type: ignore[arg-type]

    monkeypatch.setattr(command, "ask", ask)
    return seen


def test_ask_all__goes_on_after_a_failure_and_continues_what_is_left(tmp_path: Path, asked: Any):
    parts = [part("good"), part("bad"), part("slow"), part("last")]
    results = Results.continued(tmp_path, MACHINE)
    command.ask_all(parts, results, arguments(tmp_path))
    assert list(asked) == ["good", "bad", "slow", "last"]
    assert command.exit_code(parts, results) == command.FAILED
    asked.clear()
    again = Results.continued(tmp_path, MACHINE)
    command.ask_all(parts, again, arguments(tmp_path))
    assert list(asked) == ["bad", "slow"]
    report = (tmp_path / "report.md").read_text()
    assert "Still to be done: bad, slow" in report
    places = [report.index(f"output of {each.name}") for each in parts]
    assert places == sorted(places)


def test_ask_all__begins_nothing_when_the_time_is_up(
    tmp_path: Path, asked: Any, capsys: pytest.CaptureFixture[str]
):
    parts = [part("a"), part("b")]
    results = Results.continued(tmp_path, MACHINE)
    command.ask_all(parts, results, arguments(tmp_path, minutes=0))
    assert not asked
    assert "b: not begun, the time is up" in capsys.readouterr().out
    assert command.exit_code(parts, results) == command.LEFT


def test_ask__tells_states_apart_and_reads_the_numbers(tmp_path: Path):
    (tmp_path / "a.json").write_text('"of an earlier try"')
    code = part("a", words=("timeit", "-n1", "-r1", "1"))
    found = command.ask(code, arguments(tmp_path), 60)
    assert (found.state, found.numbers) == ("done", None)
    assert "loop" in found.output
    assert command.ask(part("a", words=("no_such_module",)), arguments(tmp_path), 60).state == (
        "failed"
    )
    (tmp_path / "given.json").write_text("[1, 2]")
    words = ("json.tool", "--compact", str(tmp_path / "given.json"), "{json}")
    found = command.ask(part("a", words=words), arguments(tmp_path), 60)
    assert (found.state, found.numbers) == ("done", [1, 2])
    assert found.command.endswith(f"given.json {tmp_path / 'a.json'}")


def test_results__of_another_card_are_not_mixed(tmp_path: Path, asked: Any):
    command.ask_all([part("a")], Results.continued(tmp_path, MACHINE), arguments(tmp_path))
    with pytest.raises(UserError, match="is of gpu card, and here it is other: give another --out"):
        Results.continued(tmp_path, MACHINE | {"gpu": "other"})
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match="holds no results"):
        Results.continued(tmp_path, MACHINE)


def test_main__without_a_gpu_names_the_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "--rehearse" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(tmp_path), "--rehearse", "--parts", "nosuch"])
    assert ended.value.code == 2
    assert "there is no part nosuch; there are: tests, losses" in capsys.readouterr().err


def test_losses__mark_what_is_too_far_off(monkeypatch: pytest.MonkeyPatch):
    values = {
        ("dense", "fp32"): 2.0,
        ("dense", "bf16"): 2.03,
        ("dense_compiled", "fp32"): 2.00001,
        ("dense_compiled", "bf16"): "does not compile: why",
    }
    monkeypatch.setattr(losses, "loss", lambda name, precision, **_: values[name, precision])
    found = losses.cells(("dense", "dense_compiled"), ("fp32", "bf16"))
    assert [cell.get("is_near") for cell in found] == [True, False, True, None]
    assert [row[-1] for row in losses.rows(found)] == ["", "TOO FAR", "", ""]
    assert losses.rows(found)[3][2] == "does not compile: why"


def test_profile_rows__add_up_to_the_whole():
    found = [{"name": f"op{number}", "us": 1000.0, "calls": 2.0} for number in range(20)]
    rows = profile_rows(found)
    assert len(rows) == 16
    assert rows[0] == ["op0", "1.00", "5.0%", "2"]
    assert rows[-1] == ["5 others", "5.00", "25.0%", "10"]


@pytest.mark.slow
def test_rehearsal__does_every_part(tmp_path: Path):
    with pytest.raises(SystemExit) as ended:
        command.main(["--rehearse", "--minutes", "60", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    states = {name: found["state"] for name, found in results["parts"].items()}
    assert states == {each.name: "done" for each in load_parts(rehearsal=True)}
    assert ended.value.code == 0
    assert all(
        found["numbers"] for name, found in results["parts"].items() if not name.startswith("tests")
    )
    report = (tmp_path / "report.md").read_text()
    assert "GPU: not measured" in report
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in report
