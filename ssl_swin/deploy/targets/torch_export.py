"""A program of torch.export, which any torch of about the same version runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ssl_swin.deploy.facts import KEY
from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets.base import Target

_FACTS = f"{KEY}.json"


class TorchExport(Target):
    """See the module."""

    ending = ".pt2"
    title = "torch.export"

    def write(
        self, program: ExportedProgram, path: Path, facts: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        """See `Target.write`."""
        extra = {_FACTS: json.dumps({**facts, "outputs": [*names]})}
        torch.export.save(program, path, extra_files=extra)

    def runner(self, path: Path) -> Runner:
        """See `Target.runner`."""
        module = torch.export.load(path).module()

        def run(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answer = module(pixels)
            return answer if isinstance(answer, tuple) else (answer,)

        return run

    def usage(self, path: Path) -> str:
        """See `Target.usage`."""
        return f"torch.export.load({str(path)!r}).module()(pixels)"


TARGET = TorchExport
