"""The contract of a target."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch.export import ExportedProgram

from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets import TARGETS


class Target(ABC):
    """A kind of file. A module of this package has one, under the name `TARGET`.

    Attributes:
        ending: Of its files.
        title: For a reader.
        extra: Extra of this package that it needs; empty if none.
        needs: Modules that this extra brings.
    """

    ending: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return the files that are written beside a file and belong to it."""
        return ()

    @abstractmethod
    def write(
        self, program: ExportedProgram, path: Path, facts: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        """Write a file.

        Args:
            program: The network, of a batch of any size.
            path: Where to; it has the right ending.
            facts: What the file is to say of itself.
            names: Of the outputs.
        """

    @abstractmethod
    def runner(self, path: Path) -> Runner:
        """Return what runs a file by its own runtime."""

    @abstractmethod
    def usage(self, path: Path) -> str:
        """Return one line that runs the file."""


def target_of(word: str) -> Target:
    """Return the target of a word on the command line, one of `TARGETS`."""
    target: type[Target] = importlib.import_module(TARGETS[word]).TARGET
    return target()
