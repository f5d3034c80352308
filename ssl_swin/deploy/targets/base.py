"""The contract of a target."""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch.export import ExportedProgram

from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets import TARGETS
from ssl_swin.errors import UserError


class Target(ABC):
    """A kind of file. A module of this package has one, under the name `TARGET`.

    Attributes:
        ending: Of its files.
        title: For a reader.
        extra: Extra of this package that it needs; empty if none.
        needs: Modules that this extra brings.
        runs_with: Those of them that running a file needs.
    """

    ending: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    runs_with: ClassVar[tuple[str, ...]] = ()

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
    def facts(self, path: Path) -> Mapping[str, Any]:
        """Return what a file says of itself, without running it.

        Raises:
            Exception: Of the kind that its reader raises, if it says nothing or is damaged.
        """

    @abstractmethod
    def usage(self, path: Path) -> str:
        """Return one line that runs the file."""


def check_installed(target: Target, modules: Sequence[str]) -> None:
    """Name the extra that is missing.

    Args:
        target: A kind of file.
        modules: That are needed: its `needs` or its `runs_with`.

    Raises:
        UserError: If one of them is not there.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{target.title} needs {', '.join(missing)}: pip install 'ssl_swin[{target.extra}]'"
        )


def target_of(word: str) -> Target:
    """Return the target of a word on the command line, one of `TARGETS`."""
    target: type[Target] = importlib.import_module(TARGETS[word]).TARGET
    return target()
