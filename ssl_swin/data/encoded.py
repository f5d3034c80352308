"""Encoded samples: what one holds, and which file of a sample is which member."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ssl_swin.data.file_types import IMAGE_EXTENSIONS
from ssl_swin.errors import UserError

IMAGE, MASK, JSON = "image", "mask", "json"
OTHER_IMAGE = "other_image"  # the member NAME.image.jpg where another file is the sample's image
LABEL_EXTENSION = "cls"
_MASK_NAMES = ("mask", "seg", "label_map")


class Member(NamedTuple):
    """One file of a sample, still encoded."""

    data: bytes
    extension: str  # lower case, without a dot and without the member's name, such as "png"


@dataclass(frozen=True)
class EncodedSample:
    """One sample as it lies on disk: an image, and what belongs to it.

    Attributes:
        name: Name of the sample, unique in its data set and the same wherever that lies.
        label: Index into the classes of the data set; None without a label.
        members: Files by the name of the member; "image" is always one of them.
    """

    name: str
    label: int | None
    members: Mapping[str, Member]

    @classmethod
    def of_image(cls, data: bytes, extension: str, label: int | None, name: str) -> "EncodedSample":
        """Return a sample that holds an image alone.

        Args:
            data: The contents of the image file.
            extension: The extension of the image file, in lower case and without a dot.
            label: Index into the classes of the data set; None without a label.
            name: Name of the sample in its data set.
        """
        return cls(name, label, {IMAGE: Member(data, extension)})

    @property
    def data(self) -> bytes:
        """The contents of the image file."""
        return self.members[IMAGE].data

    @property
    def extension(self) -> str:
        """The extension of the image file."""
        return self.members[IMAGE].extension

    def with_label(self, label: int | None) -> "EncodedSample":
        """Return the same sample with another label."""
        return replace(self, label=label)

    def with_member(self, name: str, member: Member) -> "EncodedSample":
        """Return the same sample with one member added or replaced."""
        return replace(self, members={**self.members, name: member})

    def member(self, name: str) -> Member:
        """Return a member by its name.

        Raises:
            UserError: If the sample has no such member.
        """
        if name not in self.members:
            held = ", ".join(self.members)
            raise UserError(f"the sample {self.name} has no member {name!r}, only: {held}")
        return self.members[name]


def member_names(extensions: Iterable[str], image: str | None = None) -> dict[str, str]:
    """Return which file of a sample is which member, by WebDataset's naming.

    The extension of a file is all that follows the first dot of its name. This is the one home of
    the rule, which docs/DATA.md describes under "What a sample may hold":

    - `jpg`, `png`, ... (an extension of an image, without another dot): the first is the member
      "image"; the others are members with the extension as their name.
    - `NAME.EXT`: the member NAME; `seg` and `label_map` are other words for "mask".
    - `cls`: the label, no member.
    - any other extension, such as `json`: a member with the extension as its name.

    Args:
        extensions: Extensions of one sample's files, in lower case and in their order.
        image: Extension ("left.jpg") or member name ("left") of the file that is the image; then
            no other file is. None takes the first plain image.

    Returns:
        By member, the extension of its file; the image is left out where there is none.

    Raises:
        ValueError: If two files are the same member. The message continues "sample NAME".
    """
    found: dict[str, str] = {}
    for extension in extensions:
        if extension in ("", LABEL_EXTENSION):
            continue
        if image is None:
            is_image = extension in IMAGE_EXTENSIONS and IMAGE not in found
            name = IMAGE if is_image else member_name(extension)
        elif image in (extension, member_name(extension)):
            name = IMAGE
        else:
            name = further_member_name(extension)
        if name in found:
            raise ValueError(
                f"has two files for its member {name!r}: {found[name]} and {extension}"
            )
        found[name] = extension
    return found


def member_name(extension: str) -> str:
    """Return the member that a file belongs to which is not the sample's plain image.

    Args:
        extension: All that follows the first dot of the file's name, in lower case.
    """
    name = extension.rpartition(".")[0] or extension
    return MASK if name in _MASK_NAMES else name


def further_member_name(extension: str) -> str:
    """Return the member that a file belongs to where another file is the sample's image.

    Args:
        extension: All that follows the first dot of the file's name, in lower case.
    """
    name = member_name(extension)
    return OTHER_IMAGE if name == IMAGE else name


def member_extension(extension: str) -> str:
    """Return the type of a member's file, such as "png" for the extension "mask.png"."""
    return extension.rpartition(".")[2]


def file_extension(name: str, member: Member) -> str:
    """Return the extension of the file that a member is to be written to.

    It is the inverse of `member_names`: "png" for an image, "mask.png" for a mask, "json" for JSON.

    Args:
        name: Name of the member.
        member: The member.
    """
    return member.extension if name in (IMAGE, member.extension) else f"{name}.{member.extension}"
