"""A program of torch.export, which any torch of about the same version runs."""

import json
import zipfile
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

    def facts(self, path: Path) -> Mapping[str, Any]:
        """See `Target.facts`."""
        with zipfile.ZipFile(path) as archive:
            (place,) = (name for name in archive.namelist() if name.endswith(f"/extra/{_FACTS}"))
            told: Mapping[str, Any] = json.loads(archive.read(place))
        return told

    def usage(self, path: Path) -> str:
        """See `Target.usage`."""
        return f"torch.export.load({str(path)!r}).module()(pixels)"


TARGET = TorchExport
