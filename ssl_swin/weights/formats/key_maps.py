"""Tables that rename and reshape the tensors of a Swin, read in either direction.

Our side of every table has timm's names, and `mask_token` and `decoder.*` of `SimMIM` beside them.
A name is a pattern: `{s}` and `{b}` stand for the number of a stage and a block, `{p}` for `weight`
or `bias`, and `{s+1}` or `{2s+1}` for that number of the same `s`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from torch import Tensor

from ssl_swin.weights.formats.report import Entry, LoadReport

Tensors = tuple[Tensor, ...]
Values = Mapping[str, int | str]  # of the variables in a pattern

_VARIABLE = re.compile(r"\{(\d*)([a-z])(?:\+(\d+))?\}")


def unchanged(tensors: Tensors) -> Tensors:
    """Returns tensors as they are."""
    return tensors


@dataclass(frozen=True)
class Rule:
    """Some of our tensors and what they are elsewhere.

    Attributes:
        ours: Patterns of names, all with the same variables.
        theirs: Patterns of names there.
        to_ours: Turns their tensors into ours.
        to_theirs: Turns ours into theirs.
        reason: Why the name is not the same, in a few words.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to_ours: Callable[[Tensors], Tensors] = unchanged
    to_theirs: Callable[[Tensors], Tensors] = unchanged
    reason: str = "another name"


def same(*patterns: str) -> tuple[Rule, ...]:
    """Makes rules for names that are equal on both sides."""
    return tuple(Rule((pattern,), (pattern,)) for pattern in patterns)


def rename(names: Mapping[str, str], *, reason: str = "another name") -> tuple[Rule, ...]:
    """Makes rules for tensors that only have another name there."""
    return tuple(Rule((ours,), (theirs,), reason=reason) for ours, theirs in names.items())


class Translation(NamedTuple):
    """A state dict under other names."""

    state: dict[str, Tensor]
    report: LoadReport  # matched and renamed only
    unknown: tuple[str, ...]  # names that no rule has
    incomplete: tuple[str, ...]  # names that a rule needs beside others that are there


def flip(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Makes rules that lead the other way."""
    return tuple(Rule(r.theirs, r.ours, r.to_theirs, r.to_ours, r.reason) for r in rules)


def to_ours(rules: Sequence[Rule], state: Mapping[str, Tensor]) -> Translation:
    """Translates a state dict from their names to ours."""
    return to_theirs(flip(rules), state)


def to_theirs(rules: Sequence[Rule], state: Mapping[str, Tensor]) -> Translation:
    """Translates a state dict from our names to theirs."""
    groups: dict[tuple[int, tuple[tuple[str, int | str], ...]], None] = {}
    unknown = []
    for name in state:
        found = _find(rules, name)
        if found is None:
            unknown.append(name)
        else:
            groups[found[0], tuple(sorted(found[1].items()))] = None
    translated: dict[str, Tensor] = {}
    entries: list[Entry] = []
    incomplete: list[str] = []
    for index, values in groups:
        rule = rules[index]
        sources = [_fill(pattern, dict(values)) for pattern in rule.ours]
        targets = [_fill(pattern, dict(values)) for pattern in rule.theirs]
        absent = [name for name in sources if name not in state]
        incomplete += absent
        if not absent:
            results = rule.to_theirs(tuple(state[name] for name in sources))
            translated.update(zip(targets, results, strict=True))
            became = ", ".join(targets)
            entries += [Entry(name, became, rule.reason) for name in sources]
    return Translation(translated, _sort(entries), tuple(unknown), tuple(incomplete))


def _sort(entries: Sequence[Entry]) -> LoadReport:
    return LoadReport(
        matched=tuple(entry._replace(reason="") for entry in entries if entry.name == entry.became),
        renamed=tuple(entry for entry in entries if entry.name != entry.became),
    )


def _find(rules: Sequence[Rule], name: str) -> tuple[int, Values] | None:
    for index, rule in enumerate(rules):
        for pattern in rule.ours:
            values = _match(pattern, name)
            if values is not None:
                return index, values
    return None


def _match(pattern: str, name: str) -> Values | None:
    expression, variables = _compile(pattern)
    match = expression.fullmatch(name)
    if match is None:
        return None
    values: dict[str, int | str] = {}
    for text, (factor, variable, offset) in zip(match.groups(), variables, strict=True):
        if variable == "p":
            values[variable] = text
            continue
        number, rest = divmod(int(text) - offset, factor)
        if rest or number < 0:
            return None
        values[variable] = number
    return values


@cache
def _compile(pattern: str) -> tuple[re.Pattern[str], tuple[tuple[int, str, int], ...]]:
    variables = tuple(
        (int(factor or 1), variable, int(offset or 0))
        for factor, variable, offset in _VARIABLE.findall(pattern)
    )
    expression, end = "", 0
    for found in _VARIABLE.finditer(pattern):
        expression += re.escape(pattern[end : found.start()])
        expression += "(weight|bias)" if found[2] == "p" else r"(\d+)"
        end = found.end()
    return re.compile(expression + re.escape(pattern[end:])), variables


def _fill(pattern: str, values: Values) -> str:
    def write(found: re.Match[str]) -> str:
        value = values[found[2]]
        if isinstance(value, str):
            return value
        return str(int(found[1] or 1) * value + int(found[3] or 0))

    return _VARIABLE.sub(write, pattern)
