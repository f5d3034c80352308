"""Messages for a configuration that does not compose, with the nearest valid names."""

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ssl_swin.launch.config_files import compose_job, group_options
from ssl_swin.launch.wording import in_our_words

PLUGINS = {  # of Hydra, and the packages that bring them
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
    "hydra/launcher=submitit_slurm": "'ssl_swin[slurm]'",
    "hydra/launcher=submitit_local": "'ssl_swin[slurm]'",
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=rq": "hydra-rq-launcher",
}


def explain_composition_error(error: Exception, job: str, options: Sequence[str]) -> str:
    """Return what in the command line is wrong, and what comes nearest.

    Args:
        error: Raised by Hydra or OmegaConf.
        job: Name of the primary configuration.
        options: The command line; the user's own files are found by its `--config-dir`.
    """
    text = str(error)
    if option := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        return _unknown_option(option.group(1), option.group(2), text)
    if key := re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text):
        return _unknown_key(key.group(1) or key.group(2), job, options)
    if key := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return _nothing_to_delete(key.group(1), job, options)
    if name := re.search(r"invalid literal for int\(\) with base 10: '(.+)'", text):
        return _name_in_list(name.group(1), options)
    if isinstance(error, MissingMandatoryValue) or "Missing mandatory value" in text:
        name = re.search(r"full_key: (\S+)", text) or re.search(r"value: (\S+)", text)
        missing = name.group(1) if name else "a value"
        return f"{missing} is not set: give it as {missing}=VALUE"
    if is_null_group(error):
        nulls = [option for option in options if re.fullmatch(r"[^.=]+=null", option)]
        return f"{', '.join(nulls)}: a group cannot be null, give the name of one of its files"
    return in_our_words(error)


def is_null_group(error: Exception) -> bool:
    """Return whether Hydra, which has no error of its own for it, refused null for a group."""
    return isinstance(error, ValueError) and "Config group override must be" in str(error)


def is_name_in_list(error: Exception) -> bool:
    """Return whether OmegaConf sought a name in a list, for which it has no error of its own."""
    return isinstance(error, ValueError) and "invalid literal for int()" in str(error)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a phrase with the valid names that come nearest; an empty one if none is near."""
    close = get_close_matches(name, sorted({*valid} - {name}), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(close)}?" if close else ""


def _unknown_option(group: str, option: str, text: str) -> str:
    """Return the message for an option that no searched folder has; Hydra's text lists them."""
    if package := PLUGINS.get(f"{group}={option}"):
        return f"{group}={option} needs a package that is not installed: pip install {package}"
    listed = re.findall(r"^\t([^_\s]\S*)$", text, re.MULTILINE)
    known = sorted(set(listed) or set(group_options(group)))
    return (
        f"there is no {group}={option}{nearest(option, known)}; "
        f"{group} can be: {', '.join(known) or 'nothing'}"
    )


def _name_in_list(name: str, options: Sequence[str]) -> str:
    """Return the message for a setting that is sought in a list."""
    keys = [option.partition("=")[0].lstrip("+~") for option in options]
    key = next((key for key in keys if name in key.split(".")[1:]), name)
    parent = key[: key.rindex(f".{name}")] if f".{name}" in key else key
    return f"there is no setting {key}: {parent} is a list; give it whole, as {parent}=[...]"


def _unknown_key(key: str, job: str, options: Sequence[str]) -> str:
    key = key.split("@")[0].lstrip("+~")
    return f"there is no setting {key}{nearest(key, _valid_keys(key, job, options))}"


def _nothing_to_delete(key: str, job: str, options: Sequence[str]) -> str:
    known = _valid_keys(key, job, [option for option in options if not option.startswith("~")])
    if key in known:
        return f"~{key} removes nothing: {key} is null already"
    return f"there is no setting {key}{nearest(key, known)}"


def _valid_keys(unknown: str, job: str, options: Sequence[str]) -> list[str]:
    """Return every dotted key of the configuration without the unknown one, and all groups."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    args, rest = parser.parse_known_args(list(options))
    overrides = [o for o in rest if not o.startswith("-") and o.split("=")[0] != unknown]
    try:
        cfg = compose_job(job, overrides, config_dir=args.config_dir)
    except (HydraException, OmegaConfBaseException):
        cfg = compose_job(job, ())
    groups = [name for name in map(str, HydraConfig.get().runtime.choices) if "hydra" not in name]
    return [*dotted_keys(cfg), *groups]


def dotted_keys(node: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted keys of a configuration, and of the groups in it.

    Args:
        node: The configuration.
        prefix: What stands before each.
    """
    keys = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig):
            keys += dotted_keys(node[key], f"{prefix}{key}.")
    return keys
