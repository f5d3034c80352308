"""What is a script in the pages: the fenced blocks, and the lines of sessions behind `$ `."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    *("ssl-swin", "python", "make", "torchrun", "srun", "sbatch", "wandb", "eval", "tensorboard"),
    *("pip", "scancel"),
)
BEGINS = re.compile(rf"(?:export |(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)})\s|[A-Z_]+=\S)")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int  # of its first line, from 1
    language: str
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """Every fenced block of a page, with the indentation of its fence taken off."""
    lines = path.read_text().splitlines()
    begun: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if begun is None:
            begun = number
            continue
        indent = len(lines[begun]) - len(lines[begun].lstrip())
        text = "\n".join(each[indent:] for each in lines[begun + 1 : number])
        yield Block(path.name, begun + 2, lines[begun].strip()[3:], text)
        begun = None
    assert begun is None, f"{path}: a block is not closed"


def scripts(path: Path) -> Iterator[Block]:
    """The blocks that a reader would type; of a session, what stands behind `$ `."""
    for block in blocks(path):
        typed = _session(block.text) or (block.text if _is_script(block.text) else "")
        if block.language in ("", "bash", "console") and typed:
            yield block._replace(text=typed)


def _session(text: str) -> str:
    """Lines behind `$ ` with those that continue them."""
    typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return "\n".join(typed)


def _is_script(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return bool(lines) and BEGINS.match(lines[0]) is not None
