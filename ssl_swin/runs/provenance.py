"""Where a run comes from: command, code, packages, machine."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "hydra-core",
    "webdataset",
    "wandb",
)


def provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded about this process.

    Args:
        facts: What else to record.
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in RECORDED_PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cpu_threads": torch.get_num_threads(),
        **facts,
    }


def _git_revision() -> str | None:
    """Revision of the source tree, marked when it has uncommitted changes; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
