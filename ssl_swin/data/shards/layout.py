"""Which file of a sample is its image, and which holds its label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_swin.data.encoded import IMAGE, LABEL_EXTENSION, member_name, member_names
from ssl_swin.data.file_types import IMAGE_EXTENSIONS
from ssl_swin.errors import UserError

_MOST_LISTED = 8


@dataclass(frozen=True)
class SampleLayout:
    """What a user says about the files of a sample, where the convention is not enough.

    Attributes:
        image: Extension or member name of the image, such as "left.jpg" or "left"; None takes the
            first plain image.
        label_key: Key of the label in the sample's `.json` file, such as "label" or "object.class";
            "EXTENSION:KEY" names another file of JSON, "EXTENSION:" a file that is the label as
            a whole. None reads the number in the `.cls` file.

    Raises:
        UserError: If one is not a text, or is empty.
    """

    image: str | None = None
    label_key: str | None = None

    def __post_init__(self) -> None:
        for name, example in (("image", "left.jpg"), ("label_key", "label")):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip(". :")):
                raise UserError(
                    f"data.{name} must be a text such as {example}, or null for WebDataset's "
                    f"convention, got {value!r}"
                )
        if self.image is not None:
            object.__setattr__(self, "image", self.image.strip().lower().lstrip("."))
        if self.image == LABEL_EXTENSION:
            raise UserError("data.image is cls, which is the file of the label; name an image's")


CONVENTION = SampleLayout()  # WebDataset's


def image_and_members(files: Mapping[str, Any], key: str, layout: SampleLayout) -> dict[str, str]:
    """Return the extensions of a sample's files by member, the image first.

    Args:
        files: The files of the sample by extension, in lower case.
        key: Key of the sample, for the message.
        layout: Which file is the image.

    Raises:
        ValueError: If there is no image, or two files are the same member. The message continues
            "sample NAME".
    """
    try:
        extensions = member_names(files, layout.image)
    except ValueError:
        if layout.image is not None or any(map(_is_convention, files)):
            raise
        extensions = {}  # the missing image explains two files for one member
    if IMAGE not in extensions:
        raise ValueError(_no_image(files, key, layout))
    return {IMAGE: extensions.pop(IMAGE), **extensions}


def _is_convention(extension: str) -> bool:
    """Return whether a file is an image by the convention alone."""
    return extension in IMAGE_EXTENSIONS or member_name(extension) == IMAGE


def _no_image(files: Mapping[str, Any], key: str, layout: SampleLayout) -> str:
    held = _listed(list(files))
    if layout.image is not None:
        return (
            f"has no file {layout.image}, which data.image (or --image) says is the image, only: "
            f"{held}"
        )
    images = [name for name in files if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if not images:
        return (
            f"holds no image, only: {held}. If one of these is the image, say which: "
            "ssl-swin index FOLDER --image EXTENSION, or data.image=EXTENSION"
        )
    name = key.rpartition("/")[2]
    return (
        f"holds no image by its plain extension, only: {held}\n"
        f"A key ends at the first dot, by WebDataset's rule: {name}.{images[0]} is the file "
        f"{images[0]} of the sample {name}.\n"
        f"If {_listed(images, ' or ')} is the image, say so: ssl-swin index FOLDER --image "
        f"{images[0]}, or data.image={images[0]}\n"
        f"If the dot belongs to the name, rename the files in the tar (as "
        f"{name}_{images[0].replace('.', '_', images[0].count('.') - 1)}), or unpack it and pack "
        "the folder: ssl-swin pack FOLDER OUT"
    )


def _listed(names: list[str], joint: str = ", ") -> str:
    shown = joint.join(names[:_MOST_LISTED])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _MOST_LISTED else shown


def label_file(layout: SampleLayout) -> tuple[str, tuple[str, ...]]:
    """Return the extension of the file that holds the label, and the keys that lead to it.

    Returns:
        ("cls", ()) by convention; ("json", ("object", "class")) for the label key "object.class".
    """
    if layout.label_key is None:
        return LABEL_EXTENSION, ()
    extension, colon, key = layout.label_key.rpartition(":")
    keys = tuple(key.split(".")) if key else ()
    return (extension.strip().lower().lstrip(".") if colon else "json"), keys
