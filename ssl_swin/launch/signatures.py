"""What a callable takes: the names of its arguments, and their types."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

PASSES_ON_TO = {
    "lightning.pytorch.loggers.wandb.WandbLogger": "wandb.init",
    "ssl_swin.training.wandb_logger.WandbLogger": "wandb.init",
}


class Signature(NamedTuple):
    """The arguments of a callable."""

    types: dict[str, Any]  # by name; Any where there is no annotation
    required: frozenset[str]  # of its own; a class may give its base what that requires
    takes_others: bool  # any other keyword is passed on, nobody knows where to
    returns: Any  # None where it is not annotated


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
    passes_on = True
    for function in functions:
        hints, passes_on = _hints(function), False
        for parameter in _parameters(function):
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in types_:
                types_[parameter.name] = hints.get(parameter.name, Any)
                if parameter.default is parameter.empty and function is functions[0]:
                    required.add(parameter.name)
        if not passes_on:
            break
    if passes_on and (receiver := _receiver(target)) is not None:
        known = signature_of(receiver)
        types_, passes_on = {**known.types, **types_}, known.takes_others
    types_.pop("self", None)
    returns = _hints(target).get("return")
    return Signature(types_, frozenset(required - {"self"}), passes_on, returns)


def _receiver(target: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return what a class of another project passes its other keywords to."""
    name = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    if name not in PASSES_ON_TO:
        return None
    module, _, function = PASSES_ON_TO[name].rpartition(".")
    try:
        receiver: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError):
        return None
    return receiver


def _parameters(function: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(function).parameters.values()
    except ValueError:  # of some that are built in, nobody knows
        return [inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD)]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a name that only type checkers import
        return dict(_hints_one_by_one(function))


def _hints_one_by_one(function: Callable[..., Any]) -> Iterable[tuple[str, Any]]:
    """Yield the hints that can be resolved."""
    space = getattr(function, "__globals__", {})
    for name, hint in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: hint})
        try:
            yield from typing.get_type_hints(alone, space, include_extras=True).items()
        except (NameError, TypeError, AttributeError):
            continue
