"""Which model a pretraining has that starts from weights, where none is named: theirs.

Imports nothing heavy, so that `--help` answers at once.
"""

from collections.abc import Sequence
from importlib import resources

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from ssl_swin.launch.config_files import PACKAGE

OF_BACKBONE = "model=from_backbone"
_NO_WEIGHTS = ("none", "null", None, "")


def model_of_backbone(job: str, overrides: Sequence[str]) -> list[str]:
    """Return the override by which pretraining takes the architecture of its `backbone=`.

    It is not added where the command line names a model, describes one by its settings, or chooses
    a recipe, which names its own.

    Args:
        job: Name of the job; the others take the backbone's architecture in any case.
        overrides: The command line, which Hydra can read.
    """
    if job != "pretrain" or not any(each.startswith("backbone=") for each in overrides):
        return []
    given = [each for each in overrides if each and not each.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(given)
    backbones = [each for each in parsed if each.key_or_group == "backbone"]
    names_model = any(_names_model(each.key_or_group.partition("@")[0]) for each in parsed)
    return [] if names_model or not all(map(_has_weights, backbones)) else [OF_BACKBONE]


def _names_model(key: str) -> bool:
    if key in ("model", "experiment"):
        return True
    group, _, setting = key.partition(".")
    return group == "model" and setting.partition(".")[0] not in _sizes()


def _sizes() -> set[str]:
    """Return the settings that a model taken from a backbone has."""
    file = resources.files(PACKAGE) / "model" / "from_backbone.yaml"
    return set(map(str, OmegaConf.create(file.read_text())))


def _has_weights(backbone: Override) -> bool:
    if backbone.is_sweep_override():
        return not any(value in _NO_WEIGHTS for value in backbone.sweep_string_iterator())
    return backbone.value() not in _NO_WEIGHTS
