"""A compiled library for this kind of processor, by AOTInductor; it wants a C++ compiler."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ssl_swin.deploy.facts import KEY
from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets.base import Target
from ssl_swin.errors import UserError


class AotInductor(Target):
    """See the module."""

    ending = ".pt2"
    title = "AOTInductor"

    def write(
        self, program: ExportedProgram, path: Path, facts: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        """See `Target.write`.

        Raises:
            UserError: If it cannot be compiled here, as without a compiler.
        """
        told = {"aot_inductor.metadata": {KEY: json.dumps(facts)}}
        try:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=told
            )
        except Exception as error:  # of the compiler and of torch's many kinds
            problem = " ".join(str(error).split())[:400]
            raise UserError(f"AOTInductor cannot compile here: {problem}") from error

    def runner(self, path: Path) -> Runner:
        """See `Target.runner`."""
        loaded: Any = torch._inductor.aoti_load_package(str(path))

        def run(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answer = loaded(pixels)
            return tuple(answer) if isinstance(answer, tuple | list) else (answer,)

        return run

    def facts(self, path: Path) -> Mapping[str, Any]:
        """See `Target.facts`."""
        loaded: Any = torch._inductor.aoti_load_package(str(path))
        told: Mapping[str, Any] = json.loads(loaded.get_metadata()[KEY])
        return told

    def usage(self, path: Path) -> str:
        """See `Target.usage`."""
        return f"torch._inductor.aoti_load_package({str(path)!r})(pixels)"


TARGET = AotInductor
