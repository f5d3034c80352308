"""Reading `.pth` files from anywhere without running what is inside.

torch's own restricted unpickler does the work; this module only teaches it yacs's configuration
class, which the original training scripts store beside the weights, and turns its errors into one
clear sentence.
"""

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ssl_swin.errors import UserError

# yacs's CfgNode is a dictionary with attributes, and so is OrderedDict: the one such type that the
# restricted unpickler fills. yacs itself is neither needed nor imported.
_STAND_INS: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]


def load_checkpoint(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Loads a file written by `torch.save`, onto the CPU, executing nothing that it holds.

    Tensors, numbers, strings and plain containers are restored; yacs's `CfgNode` comes back as a
    dictionary of its entries. Everything else is refused by name.

    Args:
        path: The file.
        mmap: Read the tensors' values only when they are used; the file must then stay as it is.

    Raises:
        UserError: If there is no such file, it is damaged or no checkpoint, it holds an object that
            is not data, or its content is not a dictionary.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    with torch.serialization.safe_globals(_STAND_INS):
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        except PermissionError as error:
            raise UserError(f"no permission to read {file}") from error
        except Exception as error:  # a damaged pickle can fail as anything
            raise UserError(_explain(file, error)) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def _explain(file: Path, error: Exception) -> str:
    refused = _refused_names(file, error) if isinstance(error, pickle.UnpicklingError) else []
    if not refused:
        return f"{file} is truncated, damaged, or not a checkpoint as torch.save writes it"
    names = ", ".join(repr(name) for name in refused)
    return (
        f"{file} contains Python objects that are not data ({names}): refused, nothing was executed"
    )


def _refused_names(file: Path, error: pickle.UnpicklingError) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except (ValueError, pickle.UnpicklingError):  # torch lists only its zip format
        return re.findall(r"GLOBAL (\S+) w", str(error))
