"""The original SimMIM, imported from a user's checkout as it is."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import timm.layers

from ssl_swin.errors import UserError

_PACKAGE = "_benchmarked_checkout"
_OLD_LAYERS = "timm.models.layers"  # where the original looks for them


def import_simmim(checkout: Path) -> ModuleType:
    """Imports `models/simmim.py` of a checkout, without the package around it.

    Nothing is written into the checkout, and nothing of it stays importable by name.

    Args:
        checkout: Folder of a clone of microsoft/SimMIM.

    Raises:
        UserError: If there is no such file.
    """
    models = checkout / "models"
    if not (models / "simmim.py").is_file():
        raise UserError(
            f"{checkout} is not a checkout of microsoft/SimMIM: it has no models/simmim.py; "
            "give the folder that `git clone` made"
        )
    package = ModuleType(_PACKAGE)
    package.__path__ = [str(models.resolve())]
    with _importable(package):
        return importlib.import_module(f"{_PACKAGE}.simmim")


@contextmanager
def _importable(package: ModuleType) -> Iterator[None]:
    """Makes a package and timm's old module of layers importable for a while."""
    before, wrote = sys.modules.get(_OLD_LAYERS), sys.dont_write_bytecode
    sys.modules[_PACKAGE], sys.modules[_OLD_LAYERS] = package, timm.layers
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote
        del sys.modules[_OLD_LAYERS]
        if before is not None:
            sys.modules[_OLD_LAYERS] = before
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
