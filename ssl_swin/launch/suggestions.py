"""Messages for a configuration that does not compose, with the nearest valid names."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue


def explain_composition_error(error: Exception, config_folder: Path, config_name: str) -> str:
    """Says what in the command line is wrong and what comes nearest.

    Args:
        error: Raised by Hydra or OmegaConf.
        config_folder: Where the YAML files are.
        config_name: Of the script's primary configuration.
    """
    text = str(error)
    if option := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        return _unknown_option(option.group(1), option.group(2), config_folder)
    if key := re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text):
        return _unknown_key(key.group(1) or key.group(2), config_folder, config_name)
    if isinstance(error, MissingMandatoryValue) or "Missing mandatory value" in text:
        name = re.search(r"full_key: (\S+)", text) or re.search(r"value: (\S+)", text)
        missing = name.group(1) if name else "a value"
        return f"{missing} is not set: give it as {missing}=VALUE"
    return text.splitlines()[0]


def _unknown_option(group: str, option: str, config_folder: Path) -> str:
    options = sorted(path.stem for path in (config_folder / group).glob("*.yaml"))
    return (
        f"there is no {group}={option}{_nearest(option, options)}; "
        f"{group} can be: {', '.join(options) or 'nothing'}"
    )


def _unknown_key(key: str, config_folder: Path, config_name: str) -> str:
    key = key.split("@")[0].lstrip("+~")
    return f"there is no setting {key}{_nearest(key, _valid_keys(config_folder, config_name))}"


def _nearest(name: str, valid: Iterable[str]) -> str:
    close = get_close_matches(name, list(valid), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(close)}?" if close else ""


def _valid_keys(config_folder: Path, config_name: str) -> list[str]:
    """Lists every dotted key of the default configuration, and the config groups."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder.resolve()), version_base="1.3"):
        defaults = compose(config_name)
    groups = [path.name for path in config_folder.iterdir() if path.is_dir()]
    return [*_dotted_keys(defaults), *groups]


def _dotted_keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig):
            keys += _dotted_keys(node[key], f"{prefix}{key}.")
    return keys
