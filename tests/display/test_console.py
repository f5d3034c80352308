"""Whatever becomes of the console, a run goes on; what it takes is written as before."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_swin.display.console import Lasting, lasting_console

PRINTS = """
import os, sys, time
from ssl_swin.display.console import lasting_console
with lasting_console():
    for number in range(9):
        print(f"line {number}", flush=True)
    while "wait" in sys.argv and not sys.stdout._is_told:  # for who reads, to be gone
        print("more", flush=True)
        time.sleep(0.01)
    print("an error", file=sys.stderr, flush=True)
    os.write(3, b"done")
"""


class Refusing(io.StringIO):
    """Takes nothing for as long as it is told to."""

    number = 0

    def write(self, text: str) -> int:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


def run(shell: str, folder: Path) -> tuple[str, str]:
    """Returns what the process that prints has done, and what it said elsewhere."""
    script = folder / "prints.py"
    script.write_text(PRINTS)
    line = shell.format(f"{sys.executable} {script}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["bash", "-c", line], cwd=folder, env=environment, check=True)
    read = [folder / name for name in ("done", "said")]
    done, said = (path.read_text() if path.exists() else "" for path in read)
    return done, said


@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        ("{} wait 3>done 2>said | head -1; echo ${{PIPESTATUS[0]}} >>done", "Broken pipe"),
        ("{} wait 3>done 2>said | true; echo ${{PIPESTATUS[0]}} >>done", "Broken pipe"),
        ("{} 3>done 2>said >/dev/full; echo $? >>done", "No space left on device"),
        ("{} 3>done >said 2>/dev/full; echo $? >>done", "No space left on device"),
        ("{} 3>done 2>said >&-; echo $? >>done", ""),
        ("{} 3>done >said 2>&-; echo $? >>done", ""),
        ("{} 3>done >&- 2>&- <&-; echo $? >>done", ""),
        ("{} 3>done >/dev/full 2>/dev/full; echo $? >>done", ""),
    ],
)
def test_lasting_console__in_a_process(tmp_path: Path, shell: str, reason: str) -> None:
    done, said = run(shell, tmp_path)
    assert done.split() == ["done0"]
    notes = [line for line in said.splitlines() if line.startswith("note: the output")]
    assert len(notes) == bool(reason)
    assert all(reason in note for note in notes)
    assert "Exception ignored" not in said and 'File "' not in said


def test_lasting__goes_on_when_there_is_room_again(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Refusing()
    lasting = Lasting(stream, "the output")
    assert lasting.write("one ") == 4
    stream.number = errno.ENOSPC
    assert lasting.write("two ") == 4
    stream.number = 0
    lasting.writelines(["three ", "four"])
    assert stream.getvalue() == "one three four"
    assert capsys.readouterr().err == (
        "note: the output takes no text (No space left on device): the run goes on\n"
    )


def test_lasting__writes_what_the_stream_has_no_letters_for() -> None:
    raw = io.BytesIO()
    lasting = Lasting(io.TextIOWrapper(raw, "ascii"), "the output")
    lasting.write("8 \xd7 8 px\n")
    lasting.flush()
    assert raw.getvalue() == b"8 \\xd7 8 px\n"


def test_lasting_console__is_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with lasting_console(), lasting_console():
        print("a line")
        assert not sys.stdout.isatty()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize(("number", "is_lost"), [(errno.ENOSPC, True), (errno.EPIPE, False)])
def test_lasting__of_a_command_says_nothing_and_knows_what_was_lost(
    capsys: pytest.CaptureFixture[str], number: int, is_lost: bool
) -> None:
    stream = Refusing()
    lasting = Lasting(stream, "the output", is_of_a_run=False)
    lasting.write("one ")
    assert lasting.refusal == ""
    stream.number = number
    lasting.write("two ")
    lasting.write("three")
    assert (lasting.refusal == "the output takes no text (No space left on device)") == is_lost
    assert bool(lasting.refusal) == is_lost
    assert capsys.readouterr().err == ""


def test_lasting_console__closed_streams_stay_without_a_word() -> None:
    stream = io.StringIO()
    lasting = Lasting(stream, "the output")
    stream.close()
    lasting.write("nobody hears it")
    lasting.flush()
    lasting.end()
