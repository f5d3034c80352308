"""Which image files can be read here: what Pillow was built with, and its plugins.

Importing this module registers the plugins that are installed. They are optional.
"""

from contextlib import suppress
from functools import cache

from PIL import Image

from ssl_swin.data.file_types import ARRAY_EXTENSIONS, IMAGE_EXTENSIONS

_PLUGINS = {"heic": "pillow-heif", "jxl": "pillow-jxl-plugin"}  # packages, by what they read
# Extensions that are not registered where others of the same format are.
_FAMILIES = {"heif": "heic", "hif": "heic", "jif": "jpg", "mpo": "jpg"}

with suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()

with suppress(ImportError):
    import pillow_jxl  # noqa: F401 - it registers itself


@cache
def readable_extensions() -> frozenset[str]:
    """Return those of `IMAGE_EXTENSIONS` whose files can be decoded here."""
    Image.init()
    opened = {extension for extension, name in _registered() if name in Image.OPEN}
    return frozenset(
        extension
        for extension in IMAGE_EXTENSIONS
        if extension in ARRAY_EXTENSIONS or _FAMILIES.get(extension, extension) in opened
    )


def missing_package(extension: str) -> str | None:
    """Return the package that reads images of this extension, if it is one that is missing.

    Args:
        extension: Extension of an image file, in lower case.
    """
    if extension in readable_extensions():
        return None
    return _PLUGINS.get(_FAMILIES.get(extension, extension))


def _registered() -> list[tuple[str, str]]:
    return [(extension[1:], name) for extension, name in Image.registered_extensions().items()]
