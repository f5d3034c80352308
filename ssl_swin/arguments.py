"""What arguments may be: types that say it, and the check of plain values against them.

A constraint stands once, in the signature of what uses the value. From there `checked` reads it
when Python calls, and a job when its configuration is checked, before anything is built.
"""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen

from ssl_swin.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """A constraint that has no name in `annotated_types`; also for pydantic."""

    holds: Callable[[Any], bool]
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.words)
        return value


Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
MOST_WORKERS = 1024  # processes or threads; every one takes memory
Workers = Annotated[int, Ge(0), Le(MOST_WORKERS)]
Several = Annotated[int, Ge(2)]
MOST_VALUES = 2**16  # of a mask's file
MaskValue = Annotated[int, Ge(0), Le(MOST_VALUES - 1)]
NonNegative = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
MOST_RATE = 1e6  # of a learning rate or decay; whatever is higher is a slip of the keyboard
Rate = Annotated[float, Gt(0), Le(MOST_RATE)]
RateOr0 = Annotated[float, Ge(0), Le(MOST_RATE)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what NumPy takes
Fraction = Annotated[float, Ge(0), Le(1)]
Portion = Annotated[float, Gt(0), Le(1)]  # a fraction that is not empty
InnerFraction = Annotated[float, Gt(0), Lt(1)]
RateBelow1 = Annotated[float, Ge(0), Lt(1)]
MOST_SIDE_PX = 2**14
Side = Annotated[int, Ge(1), Le(MOST_SIDE_PX)]  # px
SizePx = Side | Annotated[Sequence[Side], Len(2, 2)]  # a side, or (height, width)
MOST_NEIGHBOURS = 10_000  # that vote; many more are all there are
Neighbours = Annotated[int, Ge(1), Le(MOST_NEIGHBOURS)]
Name = Annotated[str, Rule(lambda text: bool(text.strip()), "not empty")]
PathLike = Annotated[str | Path, Rule(lambda path: bool(str(path).strip()), "not empty")]
PathName = Annotated[str | Path, Rule(lambda path: str(path) not in ("", "."), "not empty")]
NotEmpty = Annotated[Sequence[Positive], MinLen(1)]
EACH_ONCE = Rule(lambda values: len(set(values)) == len(values), "each once")
OddWindow = Annotated[int, Ge(3), Rule(lambda value: value % 2 == 1, "odd")]
_ASCENDING = Rule(lambda values: values[0] <= values[1], "the smaller first")
PortionRange = Annotated[tuple[Portion, Portion], _ASCENDING]
InnerFractionRange = Annotated[tuple[InnerFraction, InnerFraction], _ASCENDING]
Above0Range = Annotated[tuple[Above0, Above0], _ASCENDING]
SideRange = Annotated[tuple[Side, Side], _ASCENDING]
Sides = Annotated[Sequence[Side], MinLen(1)]

_WORDS: dict[Any, tuple[str, str]] = {  # one, several
    bool: ("true or false", "flags"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "words"),
    Path: ("a path", "paths"),
    type(None): ("null", "nulls"),
}
COMPILED = "_orig_mod"  # where torch.compile keeps the module that it wraps
_LISTS = (list, tuple, Sequence)
_GROUPS = (dict, Mapping)


def checked(function: F) -> F:
    """Decorate a function, or a class, so that its arguments are checked when it is called.

    Each is held against its annotation: numbers, words, paths and lists of them by type and range,
    an encoder or a tensor by its class. What has no class, as a function, is passed on as it is.

    Raises:
        UserError: On the call, naming the argument, what it must be, and the value.
    """
    if inspect.isclass(function):
        function.__init__ = checked(function.__init__)  # type: ignore[method-assign]
        return function
    signature = inspect.signature(function)
    annotations = functools.cache(lambda: _checkable_annotations(function))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python's own error names the function
        for name, annotation in annotations().items():
            if name in given and not accepts(annotation, given[name]):
                raise UserError(f"{name} must be {in_words(annotation)}, got {shown(given[name])}")
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def accepts(annotation: Any, value: Any) -> bool:
    """Return whether a value has a type: no text is taken for a number, and none is infinite.

    Args:
        annotation: The type. What is neither plain nor a class accepts everything.
        value: A number, text, flag, None, list or mapping; or an object.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        return any(accepts(each, value) for each in get_args(annotation))
    if _is_class(annotation) and not _is_plain(annotation):
        return isinstance(getattr(value, COMPILED, value), annotation)
    try:
        text = json.dumps(_plain(value))
    except (TypeError, ValueError):  # an object, or a list that holds itself
        return not _is_plain(annotation)
    return _is_plain_value(annotation, text)


def in_words(annotation: Any) -> str:
    """Return what a type allows, as a phrase: "a whole number of at least 1 or null"."""
    return _in_words(annotation, several=False)


def shown(value: Any) -> str:
    """Return a value as a configuration writes it, cut where it is long."""
    plain = _plain(value)
    if plain is None or isinstance(plain, bool):
        return {None: "null", True: "true", False: "false"}[plain]
    text = repr(plain) if _is_made_of_plain(plain) else _with_article(type(value).__name__)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _is_plain_value(annotation: Any, text: str) -> bool:
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    try:
        _adapter(annotation).validate_json(text, strict=True)
    except ValidationError:
        return False
    except (PydanticUserError, TypeError, NameError):
        return True  # a type that pydantic cannot resolve, as one that only type checkers import
    return True


def _in_words(annotation: Any, several: bool) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        length = next((mark.max_length for mark in arguments[1:] if isinstance(mark, Len)), None)
        if length:
            inner = _in_words(get_args(arguments[0])[0], several=True)
            return f"a list of {length} {inner}"
        return f"{_in_words(arguments[0], several)}{_bounds_in_words(arguments[1:])}"
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_in_words(each, several) for each in arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} {_in_words(arguments[0], several=True)}"
    if origin in _LISTS:
        return f"a list of {_in_words(arguments[0], several=True)}"
    if origin in _GROUPS or annotation in _GROUPS:
        return "a group of settings"
    if annotation in _WORDS:
        return _WORDS[annotation][several]
    return "values" if several else _with_article(getattr(annotation, "__name__", str(annotation)))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def _bounds_in_words(metadata: Sequence[Any]) -> str:
    bounds = {type(bound): bound for bound in metadata}
    low, high = bounds.get(Ge) or bounds.get(Gt), bounds.get(Le) or bounds.get(Lt)
    words = ""
    if low and high:
        opening, closing = "(" if Gt in bounds else "[", ")" if Lt in bounds else "]"
        words += f" in {opening}{_bound(low)}, {_bound(high)}{closing}"
    elif low:
        words += f" {'above' if Gt in bounds else 'of at least'} {_bound(low)}"
    elif high:
        words += f" {'below' if Lt in bounds else 'of at most'} {_bound(high)}"
    if MinLen in bounds:
        words += ", not empty"
    return words + "".join(f", {rule.words}" for rule in metadata if isinstance(rule, Rule))


def _bound(bound: Any) -> str:
    value = getattr(bound, type(bound).__name__.lower())
    return str(value) if isinstance(value, int) else f"{value:g}"


@functools.cache
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return TypeAdapter(annotation, config=config)


def _plain(value: Any) -> Any:
    """Return a value without the classes of NumPy, torch or a configuration around it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _is_made_of_plain(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_made_of_plain, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str | int | float | bytes)


def _checkable_annotations(function: Callable[..., Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(function, include_extras=True)
    names = inspect.signature(function).parameters
    return {name: hint for name, hint in hints.items() if name in names and _is_checkable(hint)}


def _is_checkable(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return all(map(_is_checkable, get_args(annotation)))
    if get_origin(annotation) in _GROUPS:  # of settings, whose values may be anything
        return all(each is Any or _is_plain(each) for each in get_args(annotation))
    return _is_plain(annotation) or _is_class(annotation)


def _is_class(annotation: Any) -> bool:
    is_protocol = getattr(annotation, "_is_protocol", False)
    return inspect.isclass(annotation) and annotation is not Any and not is_protocol


def _is_plain(annotation: Any) -> bool:
    """Return whether a type is made of what a configuration can hold."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain(arguments[0])
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, *_LISTS, *_GROUPS):
        return all(_is_plain(each) for each in arguments if each is not Ellipsis)
    return annotation in _WORDS
