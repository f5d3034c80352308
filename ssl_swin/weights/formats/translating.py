"""From the names of a file to ours, with every name accounted for."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.format import Format
from ssl_swin.weights.formats.key_maps import to_ours, to_theirs
from ssl_swin.weights.formats.known_formats import enumerate_names
from ssl_swin.weights.formats.report import Entry, LoadReport

_OUTSIDE = "belongs to a larger model around the backbone"
_PATCHES = "patch_embed.proj.weight"


class Translated(NamedTuple):
    """A file's tensors under our names."""

    state: dict[str, Tensor]
    report: LoadReport


def translate(state: Mapping[str, Tensor], source: Format) -> Translated:
    """Translates a state dict of a format.

    Raises:
        UserError: If it has tensors that the format does not know, or lacks some of those that
            become one tensor.
    """
    prefix = _prefix(state, source)
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    given_as = {name.removeprefix(prefix): name for name in state}
    translation = to_ours(source.rules, inside)
    dropped, unexpected = [], []
    for name in translation.unknown:
        reason = _reason_to_drop(name, given_as[name].startswith(prefix), source)
        if reason is None:
            unexpected.append(given_as[name])
        else:
            dropped.append(Entry(given_as[name], "", reason))
    if unexpected or translation.incomplete:
        problems = {"unexpected": unexpected, "missing": translation.incomplete}
        listed = (f"{len(n)} {kind}: {enumerate_names(n)}" for kind, n in problems.items() if n)
        raise UserError(f"the tensors are not those of {source.title}; {'; '.join(listed)}")
    renamed = LoadReport(
        matched=_with_given_names(translation.report.matched, given_as),
        renamed=_with_given_names(translation.report.renamed, given_as),
        dropped=tuple(dropped),
    )
    return Translated(translation.state, renamed)


def _with_given_names(entries: tuple[Entry, ...], given_as: Mapping[str, str]) -> tuple[Entry, ...]:
    return tuple(entry._replace(name=given_as[entry.name]) for entry in entries)


def _prefix(state: Mapping[str, Tensor], source: Format) -> str:
    (patches,) = to_theirs(source.rules, {_PATCHES: Tensor()}).state
    for prefix in sorted(source.prefixes, key=len, reverse=True):
        if f"{prefix}{patches}" in state:
            return prefix
    raise UserError(f"the tensor {source.prefixes[0]}{patches} is missing")


def _reason_to_drop(name: str, is_inside: bool, source: Format) -> str | None:
    for pattern, reason in source.dropped.items():
        if re.fullmatch(pattern, name):
            return reason
    return _OUTSIDE if source.drops_rest and not is_inside else None
