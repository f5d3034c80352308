"""Command lines and Python calls as people type them, with what should come of each.

`command_lines.yaml` lists them by kind of mistake, then by what is called. A line is what a shell
is given; `key=a | b` stands for a line with each value, and what follows `->` is a word that the
message must hold (otherwise the last key, option or argument of the line).
"""

import ast
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

IN_ALL = ("model", "data", "logger", "experiment")
IN_TRAINING = (*IN_ALL, "optim", "schedule", "trainer", "callbacks")
GROUPS = {
    "pretrain": (*IN_TRAINING, "objective"),
    "finetune": (*IN_TRAINING, "task"),
    "segment": (*IN_TRAINING, "task"),
    "detect": (*IN_TRAINING, "task"),
    "linear_probe": IN_ALL,
}
MOST_UNCLEAR = 4  # letters of a name that is not told from others without one of them
JOBS = ("pretrain", "finetune", "segment", "detect", "linear_probe")
PYTHON = "python"
BEFORE = {"once a traceback": "traceback", "once accepted": "accepted"}  # what 0.1.0 did
BETWEEN = " | "


@dataclass(frozen=True)
class Line:
    """A line, and what should come of it."""

    kind: str
    program: str  # a job, "ssl-swin" or "python"
    text: str  # as it is typed; a call for "python"
    is_refused: bool
    word: str = ""  # in the message of a refusal
    before: Literal["", "traceback", "accepted"] = ""

    @property
    def words(self) -> list[str]:
        """The line as a shell passes it on."""
        return shlex.split(self.text)

    def __str__(self) -> str:
        return f"{self.program} {self.text}"


def listed(path: Path) -> list[Line]:
    """Return the lines of a file."""
    found = []
    for kind, programs in yaml.safe_load(path.read_text()).items():
        for program, outcomes in programs.items():
            for outcome, text in outcomes.items():
                found += [
                    line
                    for typed in text.splitlines()
                    for line in _lines(kind, program, outcome, typed)
                ]
    return found


def generated(job: str, settings: Collection[str]) -> list[Line]:
    """Return what nobody has to list: every group chosen wrongly, and settings misspelt.

    Args:
        job: Name of the job.
        settings: Its dotted keys; every third is misspelt.
    """
    groups = [group for group in GROUPS[job] if group != "experiment"]  # which may be left out
    wrong = [
        *(f"{group}={value}" for group in groups for value in ("null", "3", "[]", "''", "true")),
        *(f"~{group}" for group in groups),
        *(f"{group}={option}" for group in GROUPS[job] for option in ("nope", "[nope,x]", "{a:1}")),
    ]
    lines = [Line("group", job, text, True, text.strip("~").partition("=")[0]) for text in wrong]
    for key in sorted(settings)[::3]:
        parent, dot, name = key.rpartition(".")
        if len(name) > MOST_UNCLEAR:
            misspelt = f"{parent}{dot}{name[:3]}{name[4:]}"
            lines.append(Line("unknown name", job, f"{misspelt}=1", True, misspelt))
    return lines


def _lines(kind: str, program: str, outcome: str, typed: str) -> Iterator[Line]:
    result, _, history = outcome.partition(", ")
    assert result in ("refused", "accepted"), outcome
    line, _, word = typed.partition(" -> ")
    for text in _alternatives(line.strip(), is_call=program == PYTHON):
        expected = word.strip() or _last_name(text, is_call=program == PYTHON)
        yield Line(
            kind, program, text, result == "refused", expected, BEFORE[history] if history else ""
        )


def _alternatives(line: str, is_call: bool) -> list[str]:
    """Return a line for each value of its last key, option or argument."""
    first, *others = line.split(BETWEEN)
    if not others:
        return [line]
    close = ""
    if is_call:
        close = ")"
        others[-1] = others[-1].removesuffix(close)
        before = first[: first.rindex("=") + 1]
    else:
        at = max(_start_of_last_value(first), 0)
        before = first[:at]
    return [first + close, *(f"{before}{other}{close}" for other in others)]


def _start_of_last_value(line: str) -> int:
    """Return where the value of the last word begins."""
    last = shlex.split(line)[-1]
    key, is_assigned, _ = last.partition("=")
    return line.rindex(f"{key}=") + len(key) + 1 if is_assigned else line.rindex(" ") + 1


def _last_name(text: str, is_call: bool) -> str:
    if is_call:
        (call,) = [node for node in ast.walk(ast.parse(text)) if _is_outermost(node, text)]
        return str(call.keywords[-1].arg) if call.keywords else ""
    words = shlex.split(text)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    settings = [word.partition("=")[0].strip("+~") for word in words if "=" in word]
    return (options or settings or words or [""])[-1]


def _is_outermost(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Call) and ast.get_source_segment(text, node) == text
