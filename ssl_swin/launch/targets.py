"""What a `_target_` may name, and the one place that calls it.

A group may be made by a package of the user's own, which its `_target_` names; what lies deeper
comes from there, or from the packages on the list. Nothing is taken from Python's standard library,
whatever name leads to it. Hydra has a list of what it refuses, and from 1.4 on takes one of what it
may call, which it gets here.

Imports nothing heavy, so that `--help` answers at once.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_swin.arguments import shown
from ssl_swin.errors import UserError

TARGET = "_target_"
PACKAGES = (
    "ssl_swin",
    "hydra_plugins",
    "lightning",
    "optuna",
    "timm",
    "torch",
    "torchmetrics",
    "torchvision",
    "wandb",
)
OWN_PACKAGES = "SSL_SWIN_PACKAGES"  # environment variable with more of them, as mine,yours


def make(settings: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what the `_target_` of a group makes of its settings; None of null.

    Args:
        settings: A group of a configuration.
        args: Arguments besides.
        kwargs: Others by name, which take the place of settings.

    Raises:
        UserError: If it, or a group in it, names what may not be called.
    """
    packages = check_targets(settings)
    for key, name, _ in _named(_plain(settings), "", is_outermost=True):
        located(key, name)
    return hydra.utils.instantiate(settings, *args, **kwargs, **_whitelist(packages))


def check_targets(settings: Any, key: str = "") -> set[str]:
    """Refuse a configuration that names what may not be called.

    Args:
        settings: A configuration, or a part of it.
        key: Its dotted key.

    Returns:
        The packages that it may name.

    Raises:
        UserError: If it names another, or Python's own library.
    """
    named = list(_named(_plain(settings), key, is_outermost=True))
    packages = {*PACKAGES, *filter(None, os.environ.get(OWN_PACKAGES, "").split(","))}
    packages |= {_package(name) for _, name, is_outermost in named if is_outermost}
    for where, name, _ in named:
        if _package(name) not in packages or _is_of_python(name):
            raise UserError(
                f"{where}: {name} may not be called here: give a name from {', '.join(PACKAGES)}, "
                f"or from a package that the environment variable {OWN_PACKAGES} names"
            )
    return packages


def whitelist_for_hydra(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the argument by which a function of Hydra is told what may be called, from 1.4 on.

    Args:
        function: As hydra.main.
    """
    name = "execution_whitelist"
    known = inspect.signature(function).parameters
    return {name: tuple(f"{each}.*" for each in PACKAGES)} if name in known else {}


def located(key: str, name: Any) -> Any:
    """Return what a dotted name stands for; the modules on its way are imported.

    Args:
        key: Of its `_target_`.
        name: The name.

    Raises:
        UserError: If there is nothing of that name, or nothing that may be called.
    """
    parts = str(name).split(".")
    if not isinstance(name, str) or len(parts) < 2 or not all(map(str.isidentifier, parts)):
        raise UserError(f"{key} must be a dotted name, as ssl_swin.swin, got {shown(name)}")
    found: Any = None
    try:
        for at, part in enumerate(parts):
            if at == 0 or (inspect.ismodule(found) and not hasattr(found, part)):
                found = importlib.import_module(".".join(parts[: at + 1]))
            else:
                found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}: there is no {name}: {error}") from error
    if not callable(found):
        raise UserError(f"{key}: {name} is nothing that can be called")
    home = getattr(found, "__module__", None) or parts[0]
    if _is_of_python(str(home)):
        raise UserError(f"{key}: {name} is of Python's own library ({home}): not called")
    return found


def _named(settings: Any, key: str, *, is_outermost: bool) -> Iterator[tuple[str, str, bool]]:
    """Yield key and name of each target, and whether no other lies around it."""
    if isinstance(settings, Mapping):
        name = settings.get(TARGET)
        if isinstance(name, str):
            yield _dotted(key, TARGET), name, is_outermost
        for word, part in settings.items():
            is_first = is_outermost and name is None
            yield from _named(part, _dotted(key, word), is_outermost=is_first)
    elif isinstance(settings, Sequence) and not isinstance(settings, str):
        for at, part in enumerate(settings):
            yield from _named(part, _dotted(key, at), is_outermost=is_outermost)


def _plain(settings: Any) -> Any:
    if isinstance(settings, DictConfig | ListConfig):
        return OmegaConf.to_container(settings, resolve=True)
    return settings


def _package(name: str) -> str:
    return name.partition(".")[0]


def _dotted(key: str, word: Any) -> str:
    return f"{key}.{word}" if key else str(word)


def _is_of_python(name: str) -> bool:
    return _package(name) in sys.stdlib_module_names


def _whitelist(packages: set[str]) -> dict[str, Any]:
    """Return the argument of `instantiate` that lists what may be called, where it knows one."""
    if not hasattr(hydra.utils, "execution_whitelist"):
        return {}
    return {"_execution_whitelist_": tuple(f"{each}.*" for each in sorted(packages))}
