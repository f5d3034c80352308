"""Checks a configuration against the signatures of what it configures, before anything is made."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

from hydra.utils import get_object

from ssl_swin.errors import UserError
from ssl_swin.launch.settings import ArgumentsOf
from ssl_swin.launch.signatures import accepts, in_words, signature_of
from ssl_swin.launch.suggestions import nearest

HYDRAS_OWN = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}


def check_settings(config: Mapping[str, Any], description: type) -> None:
    """Check every setting of a job: that it is known, and that its value has its type.

    What a `_target_` takes is read off that callable, however deep it lies.

    Args:
        config: Plain and resolved.
        description: The job's dataclass, see `ssl_swin.launch.settings`.

    Raises:
        UserError: If one is unknown, not set, or of another type.
    """
    _check_arguments(config, description, "", whole=True)


def _check_arguments(
    settings: Mapping[str, Any], target: Callable[..., Any], prefix: str, *, whole: bool = False
) -> None:
    """Check settings as arguments of a callable; `whole` if nothing is added to them later."""
    known = signature_of(target)
    for key, value in settings.items():
        if key in known.types:
            _check(f"{prefix}{key}", value, known.types[key])
        elif not known.takes_others and key not in HYDRAS_OWN:
            valid = nearest(key, known.types) or f"; known are {', '.join(known.types)}"
            raise UserError(f"there is no setting {prefix}{key}{valid}")
        else:
            _check(f"{prefix}{key}", value, Any)
    if whole:
        for key in sorted(known.required - settings.keys()):
            raise UserError(f"{prefix}{key} is not set: give it as {prefix}{key}=VALUE")


def _check(key: str, value: Any, annotation: Any) -> None:
    described = _described(annotation)
    if isinstance(value, Mapping):
        if value.get("_target_") is not None:
            _check_arguments(value, _located(key, value["_target_"]), f"{key}.")
        elif described is not None:
            _check_arguments(value, described[0], f"{key}.", whole=described[1])
        elif accepts(annotation, {}):
            for name, part in value.items():
                _check(f"{key}.{name}", part, Any)
        else:
            raise UserError(f"{key} must be {in_words(annotation)}, got a group of settings")
    elif described is not None and (value is not None or type(None) not in get_args(annotation)):
        raise UserError(f"{key} must be a group of settings, got {_yaml(value)}")
    elif described is None and not accepts(annotation, value):
        raise UserError(f"{key} must be {in_words(annotation)}, got {_yaml(value)}")


def _described(annotation: Any) -> tuple[Callable[..., Any], bool] | None:
    """Return what a group without `_target_` is checked against, and whether it must be whole."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, ArgumentsOf):
            return part.target, False
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            return part, True
    return None


def _located(key: str, name: Any) -> Callable[..., Any]:
    try:
        target: Any = get_object(str(name))
    except Exception as error:
        problem = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"{key}._target_: there is no {name}: {problem}") from error
    if not callable(target):
        raise UserError(f"{key}._target_: {name} is nothing that can be called")
    found: Callable[..., Any] = target
    return found


def _yaml(value: Any) -> str:
    """Return a value as a configuration writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
