"""Tables and headers of benchmarks, readable as text and as Markdown."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch

from ssl_swin import __version__
from ssl_swin.files import write_atomically

MEBIBYTE = 2**20


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Returns where and with what numbers were measured."""
    facts: dict[str, str | int] = {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "ssl_swin": __version__,
    }
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
            "float32 products": torch.get_float32_matmul_precision(),
        }
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def header(facts: dict[str, str | int]) -> str:
    """Writes what `describe_machine` found as one line."""
    return "; ".join(f"{name} {value}" for name, value in facts.items())


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a Markdown table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(titles), line(rule), *map(line, rows)])


def mebibytes(count: float) -> str:
    """Writes a number of bytes."""
    return f"{count / MEBIBYTE:.0f}" if count >= 100 * MEBIBYTE else f"{count / MEBIBYTE:.1f}"


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Writes raw numbers, where a file is named: all of them, or nothing."""
    if path is not None:
        write_atomically(path, json.dumps(results, indent=1) + "\n")
