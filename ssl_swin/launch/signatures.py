"""What a callable takes: the names of its arguments, and their types."""

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
}
PLURALS = {bool: "flags", int: "whole numbers", float: "numbers", str: "words", Path: "paths"}


class Signature(NamedTuple):
    """The arguments of a callable."""

    types: dict[str, Any]  # by name; Any where there is no annotation
    required: frozenset[str]
    takes_others: bool  # any other keyword is passed on, nobody knows where to


def signature_of(target: Callable[..., Any]) -> Signature:
    """Return the arguments of a function or class.

    Keywords that a class passes on by `**` are looked for in the class that it derives from.
    """
    functions = [target]
    if inspect.isclass(target):
        layers = target.__mro__[:-1]
        functions = [vars(layer)["__init__"] for layer in layers if "__init__" in vars(layer)]
    types_: dict[str, Any] = {}
    required: set[str] = set()
    for function in functions:
        hints, passes_on = _hints(function), False
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in types_:
                types_[parameter.name] = hints.get(parameter.name, Any)
                if parameter.default is parameter.empty:
                    required.add(parameter.name)
        if not passes_on:
            break
    else:
        return Signature(_without_self(types_), frozenset(required - {"self"}), True)
    return Signature(_without_self(types_), frozenset(required - {"self"}), False)


def accepts(annotation: Any, value: Any) -> bool:
    """Return whether a value of a configuration has a type; no text is taken for a number.

    Args:
        annotation: The type. What says nothing about plain values accepts all of them.
        value: Plain: a number, text, flag, None, list or mapping.
    """
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        return False
    except (PydanticUserError, TypeError, NameError):
        return True  # a type that pydantic cannot resolve, as one that only type checkers import
    return True


def in_words(annotation: Any) -> str:
    """Return what a type allows, as a phrase: "a whole number or null"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0]) + _bounds_in_words(arguments[1:])
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, arguments)))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} {PLURALS.get(arguments[0], 'values')}"
    if origin in (list, tuple, Sequence):
        return f"a list of {PLURALS.get(arguments[0], 'values')}"
    if origin in (dict, Mapping):
        return "a group of settings"
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds_in_words(metadata: Sequence[Any]) -> str:
    bounds = ""
    for bound in metadata:
        if isinstance(bound, annotated_types.Ge):
            bounds += f" of at least {bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            bounds += f" above {bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            bounds += f" and at most {bound.le}" if bounds else f" of at most {bound.le}"
    return bounds


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a name that only type checkers import
        return {}


def _without_self(types_: dict[str, Any]) -> dict[str, Any]:
    return {name: annotation for name, annotation in types_.items() if name != "self"}
