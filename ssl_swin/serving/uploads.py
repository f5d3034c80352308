"""From the body of a request to named image files, within limits."""

import asyncio
import base64
import binascii
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_types import extension_of_content
from ssl_swin.quoting import on_screen
from ssl_swin.serving.limits import Limits, Refusal, too_large

RAW, FORM, JSON = "application/octet-stream", "multipart/form-data", "application/json"
TAKEN = f"image/*, {RAW}, {FORM} or {JSON}"
JSON_FORMS = '{"image": "BASE64"} or {"images": ["BASE64", {"name": "...", "data": "BASE64"}]}'
FIRST = "1"  # name of the first image where the client gives none
_DATA_URL = re.compile(r"data:[\w/+.;=-]*,")
_MOST_CHARACTERS = 200  # of a name
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # forms of clients are no news


def content_type(request: Request) -> str:
    """Return the kind of body that a request says it has.

    Raises:
        Refusal: If it is not taken, or compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refusal(415, f"Content-Encoding {_shown(encoding)} is not taken: send it plain")
    kind = request.headers.get("content-type", RAW).partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return RAW
    if kind not in (RAW, FORM, JSON):
        raise Refusal(415, f"Content-Type {_shown(kind)} is not taken: send {TAKEN}")
    return kind


async def read_body(request: Request, limits: Limits, hold: Callable[[int], None]) -> bytes:
    """Return the body of a request.

    Args:
        request: Its body was not touched.
        limits: Say how large it may be.
        hold: Is told the bytes that come to lie in memory; it may refuse them.

    Raises:
        Refusal: If it is too large.
        ClientDisconnect: If the client left.
    """
    if int(request.headers.get("content-length", "0")) > limits.request_bytes:
        raise too_large(limits)
    parts: list[bytes] = []
    num_bytes = 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes > limits.request_bytes:
            raise too_large(limits)
        hold(len(part))
        parts.append(part)
    return b"".join(parts)


def images_of_form(headers: Headers, body: bytes, limits: Limits) -> list[EncodedSample]:
    """Return the files of a form; its other fields are passed over.

    Not for the thread of the event loop, since hostile forms take seconds.

    Raises:
        Refusal: If it is none, or holds too many or too large files.
    """
    return _checked(asyncio.run(_files(headers, body, limits)), limits)


async def _files(headers: Headers, body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    parser = MultiPartParser(
        headers,
        _in_one(body),  # type: ignore[arg-type]
        max_files=limits.max_images,
        max_fields=limits.max_images,
    )
    parser.spool_max_size = limits.request_bytes  # nothing goes to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError) as error:
        said = _shown(str(getattr(error, "message", error)))
        if said.startswith("Too many files"):
            raise _too_many(limits) from None
        raise Refusal(400, f"the body is no form: {said.rstrip('.')}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    try:
        return [(each.filename or FIRST, each.file.read()) for each in files]
    finally:
        await form.close()


def images_of_json(body: bytes, limits: Limits) -> list[EncodedSample]:
    """Return the images of a JSON body.

    Raises:
        Refusal: If it is none of `JSON_FORMS`, or holds too many or too large images.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else _shown(str(error))
        raise Refusal(400, f"the body is no JSON: {said}") from None
    listed = _listed(given)
    if len(listed) > limits.max_images:
        raise _too_many(limits)
    return _checked(list(_decoded(listed)), limits)


def image_of_bytes(body: bytes, limits: Limits) -> list[EncodedSample]:
    """Return a body that is an image.

    Raises:
        Refusal: If it is too large.
    """
    return _checked([(FIRST, body)] if body else [], limits)


def _listed(given: Any) -> list[Any]:
    if isinstance(given, dict):
        if "image" in given:
            return [given["image"]]
        if isinstance(given.get("images"), list):
            return list(given["images"])
    raise Refusal(400, f"the JSON must be {JSON_FORMS}")


def _decoded(listed: list[Any]) -> Iterator[tuple[str, bytes]]:
    for number, entry in enumerate(listed, start=1):
        name, text = str(number), entry
        if isinstance(entry, dict):
            name, text = entry.get("name", name), entry.get("data")
        if not isinstance(text, str) or not isinstance(name, str):
            raise Refusal(400, f"image {number} of the JSON is no text: it must be {JSON_FORMS}")
        try:
            yield name, base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(400, f"image {number} of the JSON is no base64") from None


def _checked(named: list[tuple[str, bytes]], limits: Limits) -> list[EncodedSample]:
    if not named:
        raise Refusal(400, "the request holds no image")
    samples = []
    for name, data in named:
        shown = _shown(name)
        if len(data) > limits.image_bytes:
            raise Refusal(
                413,
                f"the image {shown} is a file of {len(data):,} bytes; at most "
                f"{limits.image_bytes:,} are taken",
            )
        kind = extension_of_content(data)
        if not kind:
            raise Refusal(422, f"the image {shown} is {'of no known kind' if data else 'empty'}")
        samples.append(EncodedSample.of_image(data, kind, None, shown))
    return samples


def _too_many(limits: Limits) -> Refusal:
    return Refusal(413, f"the request holds more than {limits.max_images} images")


def _shown(text: str) -> str:
    """Return a client's text as it may be printed and sent: short, valid, without control."""
    line = " ".join(text.encode(errors="replace").decode().split())
    return on_screen(line, 1, _MOST_CHARACTERS)


async def _in_one(body: bytes) -> AsyncIterator[bytes]:
    yield body
