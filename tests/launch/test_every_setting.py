"""Every setting of every job with every kind of value: accepted where it makes sense, or refused.

`accepted_values.yaml` lists what is accepted; whatever is not listed there must be refused with one
message that names the setting. No model is built and no image is read.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from ssl_swin.errors import UserError
from ssl_swin.jobs.settings import (
    DetectSettings,
    FinetuneSettings,
    LinearProbeSettings,
    PretrainSettings,
    SegmentSettings,
)
from ssl_swin.launch.check import check_settings
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.resolvers import register_resolvers

VALUES: dict[str, Any] = {
    "null": None,
    "-1": -1,
    "0": 0,
    "1": 1,
    "3": 3,
    "0.5": 0.5,
    "1.5": 1.5,
    "1e30": 1e30,
    "nan": float("nan"),
    "inf": float("inf"),
    "true": True,
    "empty": "",
    "abc": "abc",
    "[]": [],
    "[1]": [1],
    "[a]": ["a"],
    "{a: 1}": {"a": 1},
}
JOBS = {
    "pretrain": (PretrainSettings, ["data=shards"]),
    "finetune": (FinetuneSettings, ["data=folder", "backbone=none", "model=swin_nano"]),
    "segment": (SegmentSettings, ["data=masks", "backbone=none", "model=swin_nano", "classes=3"]),
    "detect": (
        DetectSettings,
        ["data=coco", "backbone=none", "model=swin_nano", "semi=soft_teacher"],
    ),
    "linear_probe": (LinearProbeSettings, ["data=remote", "backbone=b"]),
}
ACCEPTED = yaml.safe_load(Path(__file__).with_name("accepted_values.yaml").read_text())
# What Weights & Biases takes is known to type checkers only.
OF_ANOTHER_PROJECT = "logger."


def keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


def outcome(config: dict[str, Any], description: type, key: str, value: Any) -> str:
    """Return what is said of a value; nothing if it is accepted."""
    changed = node = copy.deepcopy(config)
    *path, last = key.split(".")
    for name in path:
        node = node[name]
    node[last] = value
    try:
        check_settings(changed, description)
    except UserError as refusal:
        return str(refusal)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_check_settings__every_kind_of_value(job: str) -> None:
    register_resolvers()
    description, options = JOBS[job]
    config: Any = OmegaConf.to_container(
        compose_job(job, [*options, "data.root=x"]), resolve=True, throw_on_missing=True
    )
    accepted = ACCEPTED["pretrain"] | ACCEPTED[job]
    number, wrong = 0, []
    for key in keys(config):
        if key.startswith(OF_ANOTHER_PROJECT):
            continue
        for name, value in VALUES.items():
            said = outcome(config, description, key, value)
            number += 1
            if bool(said) == (name in accepted.get(key, [])):
                wrong.append(f"{key}={name}: {said or 'accepted'}")
            elif said and (len(said.splitlines()) > 6 or key.partition(".")[0] not in said):
                wrong.append(f"{key}={name}: a message that names no key: {said}")
    assert number > 1000
    assert not wrong, "\n".join(wrong)
