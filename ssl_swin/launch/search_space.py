"""What a search may try, in the words of Hydra's sweeps: choice, range, interval, tag(log, ...).

Imports nothing heavy, so that `--help` answers at once.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from ssl_swin.errors import UserError
from ssl_swin.quoting import override as assignment

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DIGITS = 5  # of a number that is asked for: it stands in the name of a folder and in the table
_WORDS = "choice(a, b), range(1, 9), interval(0.1, 0.9) or tag(log, interval(1e-5, 1e-2))"


def split_overrides(
    arguments: Sequence[str], params: Mapping[str, Any]
) -> tuple[list[str], dict[str, Override]]:
    """Return the settings that all trials share, and what is searched.

    Args:
        arguments: Overrides of the command line; where one names a key of `params`, it counts.
        params: What a configuration says is searched, by dotted key.

    Raises:
        UserError: If one cannot be read, or gives a single value.
    """
    parser = OverridesParser.create()
    given = {o.get_key_element(): o for o in parser.parse_overrides(list(arguments))}
    searched = {key: _read(key, value) for key, value in params.items() if key not in given}
    searched |= {key: o for key, o in given.items() if o.is_sweep_override()}
    texts = [o.input_line for o in given.values() if not o.is_sweep_override()]
    return [str(text) for text in texts], searched


def _read(key: str, value: Any) -> Override:
    text = f"{key}={value}" if isinstance(value, str) else assignment(key, value)
    try:
        read = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError) as error:
        raise UserError(
            f"hydra.sweeper.params: cannot read {text!r}: give it as {_WORDS}"
        ) from error
    if not read.is_sweep_override():
        raise UserError(
            f"hydra.sweeper.params.{key} must be what can be searched, as {_WORDS}; a single value "
            f"is given as {text}"
        )
    return read


def distribution_of(searched: Override) -> "BaseDistribution":
    """Return what Optuna draws the values of a setting from.

    Args:
        searched: A setting with several values.

    Raises:
        UserError: If there is no value in it.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    value: Any = searched.value()
    try:
        if isinstance(value, IntervalSweep):
            low, high, is_log = value.start, value.end, "log" in value.tags
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=is_log)
            return FloatDistribution(float(low or 0), float(high or 0), log=is_log)
        if isinstance(value, RangeSweep):
            values = [float(number) for number in value.range()]
            if all(number.is_integer() for number in values) and len(values) > 1:
                step = abs(int(values[1] - values[0]))
                return IntDistribution(int(min(values)), int(max(values)), step=step)
        return CategoricalDistribution(list(searched.sweep_string_iterator()))
    except ValueError as error:
        raise UserError(f"cannot search {searched.input_line}: {error}") from error


def setting(key: str, value: Any, distribution: "BaseDistribution") -> str:
    """Return a value that Optuna has drawn as an override.

    Args:
        key: Of the setting.
        value: A text that Hydra can read, or a number.
        distribution: Where it comes from.
    """
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        value = short if distribution._contains(short) else value
    return f"{key}={value}"
