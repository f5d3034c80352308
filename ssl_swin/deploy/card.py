"""The card beside an exported file: what it takes and gives, and how near it is to its network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_swin.deploy.facts import KEY
from ssl_swin.deploy.proof import BATCH_SIZES, Difference

_MOST_NAMED = 50  # classes


def card_beside(out: Path) -> Path:
    """Return the card of a file."""
    return out.with_name(f"{out.name}.md")


def card_of(facts: Mapping[str, Any], title: str, difference: Difference, usage: str) -> str:
    """Write the card, Markdown.

    Args:
        facts: What the file says of itself.
        title: Of its kind.
        difference: How far it is from its network.
        usage: One line that runs it.
    """
    pixels, prepared = facts["input"], facts["preparation"]
    size = f"{pixels['height_px']} x {pixels['width_px']}"
    inside = facts["normalisation_inside"]
    rows = [
        ("kind", title),
        ("network", f"{facts['architecture']}, weights {facts['weights']}"),
        ("input", f"`{pixels['name']}`, {pixels['dtype']} (batch, {pixels['channels']}, {size})"),
        ("values", pixels["values"]),
        ("normalisation", f"inside: mean {inside['mean']}, std {inside['std']}"),
        ("preparation", _preparation(prepared, size)),
        ("outputs", ", ".join(f"`{name}`" for name in facts["outputs"])),
        ("checked", f"batches of {', '.join(map(str, BATCH_SIZES))}, float32: {difference}"),
        ("made by", f"ssl_swin {facts['ssl_swin']}, torch {facts['torch']}"),
    ]
    lines = [f"# {title} file", "", f"    {usage}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in rows]
    lines += ["", f"The same as JSON lies in the file, under `{KEY}`.", ""]
    return "\n".join([*lines, *_of_classes(facts)])


def _preparation(prepared: Mapping[str, Any], size: str) -> str:
    if prepared["crop"] == "none":
        return f"a whole image, or a part of one, of {size}, resized {prepared['interpolation']}"
    return (
        f"shorter side to {prepared['shorter_side_px']} px ({prepared['interpolation']}), centre "
        f"crop of {size}"
    )


def _of_classes(facts: Mapping[str, Any]) -> list[str]:
    names = facts["classes"]
    if not names:
        return []
    shown = ", ".join(_cell(name) for name in names[:_MOST_NAMED])
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    calibrated = f"Probabilities are the softmax of scores / {facts['temperature']:g}."
    return [f"Classes, in the order of the scores: {shown}{more}. {calibrated}", ""]


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
