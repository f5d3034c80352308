"""From the names of a file to ours, with every name accounted for."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.format import Format
from ssl_swin.weights.formats.key_maps import Rule, to_ours, to_theirs
from ssl_swin.weights.formats.names import enumerate_names
from ssl_swin.weights.formats.networks import OUTSIDE, Network
from ssl_swin.weights.formats.report import Entry, LoadReport

_OF_HEADS = ("mask_token", "decoder.", "head.fc.")  # ours, and beside the encoder in some formats


class Translated(NamedTuple):
    """A file's tensors under our names."""

    state: dict[str, Tensor]
    report: LoadReport


def translate(network: Network) -> Translated:
    """Translates a network to our names.

    Beside the encoder lie its heads, and perhaps a larger model, which is not taken.

    Raises:
        UserError: If the encoder has tensors that the format does not know, or lacks some of those
            that become one tensor.
    """
    source, state = network.format, network.state
    prefix = prefix_of(state, source)
    inside = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    outside = {name: t for name, t in state.items() if not name.startswith(prefix)}
    names_inside = {n.removeprefix(prefix): network.given_as[n] for n in state if n not in outside}
    encoder = to_ours(source.rules, inside)
    heads = to_ours(_rules_of_heads(source.rules), outside)
    dropped = [Entry(network.given_as[n], "", _reason(n, source) or OUTSIDE) for n in heads.unknown]
    unexpected = []
    for name in encoder.unknown:
        reason = _reason(name, source)
        if reason is None:
            unexpected.append(names_inside[name])
        else:
            dropped.append(Entry(names_inside[name], "", reason))
    if unexpected or encoder.incomplete:
        problems = {"unexpected": unexpected, "missing": encoder.incomplete}
        listed = (f"{len(n)} {kind}: {enumerate_names(n)}" for kind, n in problems.items() if n)
        raise UserError(f"the tensors are not those of {source.title}; {'; '.join(listed)}")
    report = _with_given_names(encoder.report, names_inside)
    report += _with_given_names(heads.report, network.given_as)
    report += LoadReport(dropped=(*dropped, *network.others))
    return Translated({**heads.state, **encoder.state}, report)


def _rules_of_heads(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if rule.ours[0].startswith(_OF_HEADS))


def _with_given_names(report: LoadReport, given_as: Mapping[str, str]) -> LoadReport:
    """Puts the names of the file into a report."""
    return LoadReport(
        matched=tuple(entry._replace(name=given_as[entry.name]) for entry in report.matched),
        renamed=tuple(entry._replace(name=given_as[entry.name]) for entry in report.renamed),
    )


def prefix_of(state: Mapping[str, Tensor], source: Format) -> str:
    """Return what stands before every name of the encoder.

    Raises:
        UserError: If there is no encoder of the format.
    """
    (landmark,) = to_theirs(source.rules, {source.landmark: Tensor()}).state
    for prefix in sorted(source.prefixes, key=len, reverse=True):
        if f"{prefix}{landmark}" in state:
            return prefix
    raise UserError(f"the tensor {source.prefixes[0]}{landmark} is missing")


def _reason(name: str, source: Format) -> str | None:
    return next((r for pattern, r in source.dropped.items() if re.fullmatch(pattern, name)), None)
