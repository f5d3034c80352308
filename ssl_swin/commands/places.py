"""Where a command may write, refused before any work is done for it."""

import os
from pathlib import Path

from ssl_swin.errors import UserError


def check_new(place: Path) -> None:
    """Refuse a place where something is, also a link that leads nowhere.

    Raises:
        UserError: If it is so.
    """
    check_link(place)
    if place.exists():
        raise UserError(f"{place} exists already. Choose another name, or delete it")


def check_file(option: str, place: Path) -> None:
    """Refuse a place that cannot become a file, or replace one.

    Args:
        option: The option that names it.
        place: What it names.

    Raises:
        UserError: If it is a folder, or a link that leads nowhere.
    """
    check_link(place)
    if place.is_dir():
        raise UserError(f"{option} {place} is a folder; give the name of a file in it")


def check_picture(option: str, place: Path) -> None:
    """Refuse a place for a picture that cannot become one.

    Args:
        option: The option that names it.
        place: What it names.

    Raises:
        UserError: If it is a folder, or its name is not that of a PNG.
    """
    check_file(option, place)
    if place.suffix.lower() != ".png":
        raise UserError(
            f"{option} {place}: the picture is a PNG; give a name that ends in .png, such as "
            f"{place.with_suffix('.png')}"
        )


def check_link(place: Path) -> None:
    """Refuse a link that leads nowhere.

    Raises:
        UserError: If the place is one.
    """
    if place.is_symlink() and not place.exists():
        raise UserError(
            f"{place} is a link to {os.readlink(place)}, which is not there. Delete the link, or "
            "choose another name"
        )
