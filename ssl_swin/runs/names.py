"""Names of run folders: which may be given, and how one is made of a text."""

import errno
import hashlib
import os
import re
from pathlib import Path

from ssl_swin.errors import UserError

MOST_BYTES = 200  # of a name, of which other names are made
MOST_BYTES_OF_ANY = 255  # where file systems stop
MOST_CHARACTERS = 150  # of a name that is made of a text
NUM_HEX_DIGITS = 8
SEPARATORS = {ord("="): "-", ord(","): "_"}


def check_name(name: str) -> str:
    """Return a run's name if one folder can have it.

    Args:
        name: Name as given.

    Raises:
        UserError: If it is empty, a path, too long, or holds control characters.
    """
    problem = _problem(name)
    if problem:
        raise UserError(
            f"name must be the name of one folder, and {_shown(name)} {problem}: choose another "
            "name=, as name=swin_t_photos"
        )
    return name


def check_folder(path: str) -> Path:
    """Return the path of a run's folder if a run can have it for its own.

    Args:
        path: Path as given in `run_dir`.

    Raises:
        UserError: If it is empty, a root or the working directory, cannot be a path, or holds other
            files and no run.
    """
    folder, way_out = Path(path), "choose another run_dir=, as run_dir=runs/mine"
    if not path.strip() or "\0" in path or any(map(_problem_of_part, folder.parts)):
        raise UserError(f"run_dir={_shown(path)} cannot be the path of a folder: {way_out}")
    whole = Path(os.path.abspath(folder))
    if whole in (Path(whole.anchor), Path.cwd(), Path.home()):
        raise UserError(f"run_dir={_shown(path)} is {whole}, no folder of a run: {way_out}")
    if _is_loop(folder):
        raise UserError(f"run_dir={_shown(path)} is a link that leads in a circle: {way_out}")
    if folder.is_dir() and _is_somebody_elses(folder):
        raise UserError(f"run_dir={_shown(path)} holds other files and no run: {way_out}")
    return folder


def _is_loop(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def folder_name(text: str) -> str:
    """Return a readable name of a folder for a text such as `seed=0,model=swin_t`.

    It has letters, digits and `._+-` only, which no shell and no configuration reads otherwise, and
    a bounded length, for which keys lose their groups. Where a name loses something, a hash of the
    text keeps different texts apart.

    Args:
        text: Any text.
    """
    name, plain = text.translate(SEPARATORS), _plain(text)
    if plain == name and plain.strip(".") and len(plain) <= MOST_CHARACTERS:
        return plain
    if len(plain) > MOST_CHARACTERS - NUM_HEX_DIGITS - 1:
        plain = _plain(re.sub(r"(^|,)[\w@/+~]+\.(?:\w+\.)*(?=\w+=)", r"\1", text))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:NUM_HEX_DIGITS]
    return f"{plain[: MOST_CHARACTERS - NUM_HEX_DIGITS - 1].strip('._') or 'run'}_{digest}"


def shortened(text: str, most: int) -> str:
    """Return a text, or its beginning and three dots.

    Args:
        text: Any text.
        most: Number of characters to keep.
    """
    return text if len(text) <= most else f"{text[:most]}..."


def _plain(text: str) -> str:
    bare = re.sub(r"[\[\]{}()\"']", "", text.translate(SEPARATORS))
    return re.sub(r"[^\w.+-]+", "_", bare, flags=re.ASCII)


def _problem(name: str) -> str:
    """Return what is wrong with the name of a folder, as a predicate; nothing if it is right."""
    if not name.strip():
        return "is empty"
    if name in (".", ".."):
        return "is a path"
    if "/" in name or os.sep in name:
        return f"holds {os.sep}"
    return _problem_of_part(name, MOST_BYTES)


def _problem_of_part(name: str, most_bytes: int = MOST_BYTES_OF_ANY) -> str:
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "is no text"
    if num_bytes > most_bytes:
        return f"has {num_bytes} bytes, more than {most_bytes}"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "holds control characters"
    return ""


def _shown(text: str) -> str:
    shown = shortened(text, 60)
    return ascii(shown) if not shown.isprintable() else repr(shown)


def _is_somebody_elses(folder: Path) -> bool:
    """Return whether a folder holds visible files, and none that a run begins with."""
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    return bool(names) and names.isdisjoint({"config.yaml", "checkpoints", "run_id"})
