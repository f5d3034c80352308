"""Configurations that a run has written, read without trust: a small file must not cost hours."""

from pathlib import Path
from typing import Any

import yaml

from ssl_swin.errors import UserError

DEEPEST = 50  # levels of a configuration
LONGEST_REASON = 300  # characters


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds.

    Args:
        path: The file.

    Raises:
        UserError: If it is damaged: no YAML, no mapping, with aliases, which multiply, or with
            levels beyond any configuration.
        OSError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if problem := _odd(text):
            raise UserError(f"{path} is damaged: it has {problem}, which no run writes")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:LONGEST_REASON]
        raise UserError(f"{path} is damaged: {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no configuration")
    return content


def _odd(text: str) -> str:
    """Return what makes a small file cost hours or gigabytes to read; nothing if it has none."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            return "YAML aliases"
        if depth > DEEPEST:
            return f"more than {DEEPEST} levels"
    return ""
