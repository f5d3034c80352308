"""Names of files that are written for images, one for each."""

from collections.abc import Iterable

from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of

_OF_SHARD = ".tar:"  # between the shard and the number in the name of a sample


class FileNames:
    """Gives each image a name below a folder that no other image has.

    It is the image's own without the ending, as `val/cat` for `val/cat.jpg`, and `val-000000/12`
    for number 12 of a shard. A second image that differs in the ending alone keeps its own. The
    names depend on the images and their order alone.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Start with the images that have been given names before.

        Args:
            names: Of those images, in their order.
        """
        self._taken: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> str:
        """Return the path of an image's files, relative, with forward slashes, without an ending.

        Args:
            name: Of the image in its set.
        """
        parts = [part for part in name.replace(_OF_SHARD, "/").split("/") if part.strip(".")]
        path = whole = "/".join(parts) or "image"
        extension = extension_of(path)
        if extension in IMAGE_EXTENSIONS:
            path = path[: -len(extension) - 1] or "image"
        number = 0
        while path in self._taken:
            path = f"{whole}_{number}" if number else whole
            number += 1
        self._taken.add(path)
        return path
