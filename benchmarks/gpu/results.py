"""What has been found out about one GPU, in one file, and the same as Markdown."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.parts import Part
from benchmarks.tables import header
from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically

FILE, REPORT = "results.json", "report.md"
SAME = ("gpu", "torch", "processor", "ssl_swin", "rehearsal")  # facts that results share
CLOCKS = (
    *("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem"),
    *("power.draw", "power.limit", "temperature.gpu"),
)
MOST_SHOWN = 12_000  # characters of an output
State = Literal["done", "failed", "time is up"]


@dataclass
class Found:
    """What came of a part.

    Attributes:
        state: "done" where its command ended with 0.
        seconds: That it took.
        command: As a user would type it.
        output: What it printed.
        numbers: What it wrote as JSON; None for nothing.
        clocks: What the driver said of the GPU just after; "" without one.
    """

    state: State
    seconds: float
    command: str
    output: str
    numbers: Any = None
    clocks: str = ""


@dataclass
class Results:
    """All that is known of a GPU.

    Attributes:
        folder: Where the files are.
        machine: Facts, as `tables.describe_machine` gives them.
        parts: What came of each part, by name.
    """

    folder: Path
    machine: dict[str, Any]
    parts: dict[str, Found] = field(default_factory=dict)

    @classmethod
    def continued(cls, folder: Path, machine: dict[str, Any]) -> "Results":
        """Returns the results of a folder, or fresh ones.

        Raises:
            UserError: If they are of another machine, or the file is damaged.
        """
        file = folder / FILE
        if not file.is_file():
            return cls(folder, machine)
        try:
            stored = json.loads(file.read_text())
            parts = {name: Found(**found) for name, found in stored["parts"].items()}
            before = dict(stored["machine"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{file} holds no results: {error!r}; remove it, or give another --out"
            ) from error
        for fact in SAME:
            if before.get(fact) != machine.get(fact):
                raise UserError(
                    f"{file} is of {fact} {before.get(fact)}, and here it is {machine.get(fact)}: "
                    "give another --out"
                )
        return cls(folder, machine, parts)

    def is_done(self, part: Part) -> bool:
        """Returns whether a part has come to its end before."""
        return part.name in self.parts and self.parts[part.name].state == "done"

    def add(self, part: Part, found: Found) -> None:
        """Keeps what came of a part, on disk too."""
        self.parts[part.name] = found
        content = {
            "machine": self.machine,
            "parts": {name: asdict(each) for name, each in self.parts.items()},
        }
        write_atomically(self.folder / FILE, json.dumps(content, indent=1) + "\n")

    def write_report(self, parts: Sequence[Part]) -> Path:
        """Writes everything as Markdown, in the order of the parts; returns the file."""
        sections = [self._section(part) for part in parts if part.name in self.parts]
        missing = [part.name for part in parts if not self.is_done(part)]
        lines = ["# The first hours on a GPU", "", header(self.machine)]
        if self.machine["rehearsal"]:
            lines += ["", "**A rehearsal on a CPU, at toy sizes. GPU: not measured.**"]
        if missing:
            lines += ["", f"Still to be done: {', '.join(missing)}"]
        path = self.folder / REPORT
        write_atomically(path, "\n".join([*lines, *sections]) + "\n")
        return path

    def _section(self, part: Part) -> str:
        found = self.parts[part.name]
        output = found.output.strip()
        if len(output) > MOST_SHOWN:
            output = f"(the beginning is left out)\n{output[-MOST_SHOWN:]}"
        clocks = [f"GPU after it: {found.clocks}", ""] if found.clocks else []
        return "\n".join(
            [
                "",
                f"## {part.title}",
                "",
                f"{part.name}: {found.state}, {found.seconds:.0f} s",
                "",
                *clocks,
                f"```\n{found.command}\n```",
                "",
                output if "\n| " in output else f"```\n{output}\n```",
            ]
        )


def clocks() -> str:
    """Returns what the driver says of the GPU: clocks, power and heat; "" without one."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip().replace("\n", "; ") if asked.returncode == 0 else ""
