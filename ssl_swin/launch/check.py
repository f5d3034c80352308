"""Checks a configuration against the signatures of what it configures, before anything is made."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ssl_swin.arguments import accepts, in_words, shown
from ssl_swin.errors import UserError
from ssl_swin.launch.settings import ArgumentsOf, Each, Makes
from ssl_swin.launch.signatures import signature_of
from ssl_swin.launch.suggestions import nearest
from ssl_swin.launch.targets import TARGET, check_targets, located

PARTIAL = "_partial_"
HYDRAS_OWN = {TARGET, PARTIAL, "_args_", "_recursive_", "_convert_"}


def check_settings(config: Mapping[str, Any], description: type) -> None:
    """Check every setting of a job: that it is known, and that its value has its type.

    What a `_target_` takes is read off that callable, however deep it lies.

    Args:
        config: Plain and resolved.
        description: The job's dataclass, see `ssl_swin.launch.settings`.

    Raises:
        UserError: If one is unknown, not set, or of another type.
    """
    check_targets(config)
    _check_arguments(config, description, "")


def _check_arguments(
    settings: Mapping[str, Any],
    target: Callable[..., Any],
    prefix: str,
    added: frozenset[str] | None = frozenset(),
) -> None:
    """Check settings as arguments of a callable.

    Args:
        settings: Values by name.
        target: The callable.
        prefix: What stands before the names in a dotted key.
        added: Arguments that the job adds later; None if nobody knows which.
    """
    known = signature_of(target)
    places = {name: place for place, name in enumerate(known.types)}
    # The home of a value comes before what refers to it, and what is unknown before all.
    for key, value in sorted(settings.items(), key=lambda item: places.get(item[0], -1)):
        if key in known.types and key not in (added or ()):
            _check(f"{prefix}{key}", value, known.types[key])
        elif not known.takes_others and key not in HYDRAS_OWN:
            names = [name for name in known.types if name not in (added or ())]
            valid = nearest(key, names) or f"; known are {', '.join(names)}"
            raise UserError(f"there is no setting {prefix}{key}{valid}")
        elif key not in HYDRAS_OWN:
            _check(f"{prefix}{key}", value, Any)
    if added is not None:
        for key in sorted(known.required - settings.keys() - added):
            raise UserError(f"{prefix}{key} is not set: give it as {prefix}{key}=VALUE")
    if together := getattr(target, "check_together", None):
        together(settings)


def _check(key: str, value: Any, annotation: Any) -> None:
    marks = _parts(annotation)
    makes = next((mark for mark in marks if isinstance(mark, Makes)), None)
    each = next((mark for mark in marks if isinstance(mark, Each)), None)
    has_target = isinstance(value, Mapping) and value.get(TARGET) is not None
    if makes is not None and (has_target or _described(annotation) is None):
        _check_built(key, value, makes)
    elif isinstance(value, Mapping) and each is not None:
        for name, part in value.items():
            _check_built(f"{key}.{name}", part, each.makes)
    elif has_target:
        _check_arguments(value, located(f"{key}.{TARGET}", value[TARGET]), f"{key}.", added=None)
    else:
        _check_plain(key, value, annotation)


def _check_plain(key: str, value: Any, annotation: Any) -> None:
    described = _described(annotation)
    is_group = isinstance(value, Mapping)
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} holds a NUL character, got {shown(value)}")
    if is_group and described is not None:
        target, added = described
        _check_arguments(value, target, f"{key}.", added)
    elif is_group and accepts(annotation, value):
        for name, part in value.items():
            _check(f"{key}.{name}", part, Any)
    elif is_group:
        raise UserError(f"{key} must be {in_words(annotation)}, got a group of settings")
    elif described is not None and (value is not None or NoneType not in _parts(annotation)):
        raise UserError(f"{key} must be a group of settings, got {shown(value)}")
    elif described is None and not accepts(annotation, value):
        raise UserError(f"{key} must be {in_words(annotation)}, got {shown(value)}")


def _check_built(key: str, value: Any, makes: Makes) -> None:
    """Check a group that is built by its `_target_`: that this makes what it should."""
    empty = value is None or (isinstance(value, Mapping) and value.get(TARGET) is None)
    if empty and makes.optional and set(value or {}) <= HYDRAS_OWN:
        return
    if not isinstance(value, Mapping):
        off = " or null" if makes.optional else ""
        raise UserError(f"{key} must be a group of settings{off}, got {shown(value)}")
    if empty:
        raise UserError(f"{key}.{TARGET} is not set: give what makes it, as {key}.{TARGET}=NAME")
    target = located(f"{key}.{TARGET}", value[TARGET])
    if not _makes(target, makes.kind):
        expected = makes.words or f"make an object of the class {makes.kind.__name__}"
        if makes.kind is NoneType:
            expected = "return nothing"
        raise UserError(f"{key}.{TARGET} must {expected}, and {value[TARGET]} does not")
    partial = value.get(PARTIAL, False)
    if partial is not makes.partial:
        word = shown(makes.partial)
        raise UserError(f"{key}.{PARTIAL} must be {word}, got {shown(partial)}")
    for word in HYDRAS_OWN - {TARGET, PARTIAL}:
        if word in value:
            raise UserError(f"{key}.{word} has no meaning here: give arguments by their names")
    _check_arguments(value, target, f"{key}.", makes.added)


def _makes(target: Callable[..., Any], kind: Any) -> bool:
    """Return whether a class, or what a function says that it returns, is what is wanted."""
    made = target if inspect.isclass(target) else signature_of(target).returns
    if inspect.isclass(made) and inspect.isclass(kind):
        return issubclass(made, kind)
    return bool(made == kind)


def _described(annotation: Any) -> tuple[Callable[..., Any], frozenset[str]] | None:
    """Return what a group without `_target_` is checked against, and what is added to it later."""
    for part in _parts(annotation):
        if isinstance(part, ArgumentsOf):
            return part.target, part.added
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            return part, frozenset()
    return None


def _parts(annotation: Any) -> list[Any]:
    """Return what an annotation is put together of: the members of a union, and the marks."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [part for each in get_args(annotation) for part in _parts(each)]
    return [annotation]
