"""The application in this process: the same answers as the commands', and a sentence for a no."""

import asyncio
import base64
import io
import logging
import socket
import threading
import zlib
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from serving_worlds import asking, brightness
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.serving.limits import Limits
from ssl_swin.serving.metrics import Histogram, Metrics
from ssl_swin.serving.server import bound_socket
from ssl_swin.serving.service import Service

PNG = {"content-type": "image/png"}


def png(level: int = 100, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, "png")
    return file.getvalue()


def bomb(side_px: int = 30_000) -> bytes:
    """A PNG whose header promises more pixels than are taken, in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return len(data).to_bytes(4) + whole + zlib.crc32(whole).to_bytes(4)

    header = side_px.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    data = zlib.compress(bytes(10**6))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def means(answer: httpx.Response) -> list[tuple[str, float]]:
    assert answer.status_code == 200, answer.text
    return [(each["name"], each["mean"]) for each in answer.json()["results"]]


def test_every_way_to_send_an_image__gives_the_same() -> None:
    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        for kind in ("image/png", "image/anything", "application/octet-stream"):
            answer = await client.post("/mean", content=png(7), headers={"content-type": kind})
            assert means(answer) == [("1", 7.0)]
        assert means(await client.post("/mean", content=png(7))) == [("1", 7.0)]
        files = [("a", ("x.png", png(3))), ("a", ("y.png", png(250))), ("b", ("z.png", png(9)))]
        answer = await client.post("/mean", files=files, data={"other": "field"})
        assert means(answer) == [("x.png", 3.0), ("y.png", 250.0), ("z.png", 9.0)]
        answer = await client.post("/mean", json={"image": in_base64(png(4))})
        assert means(answer) == [("1", 4.0)]
        named = {"name": "n", "data": "data:image/png;base64," + in_base64(png(5))}
        answer = await client.post("/mean", json={"images": [in_base64(png(4)), named]})
        assert means(answer) == [("1", 4.0), ("n", 5.0)]

    asking(ask)


def test_images_that_arrive_together__are_one_batch() -> None:
    sizes = []

    def compute(levels: Tensor) -> Tensor:
        sizes.append(len(levels))
        return levels

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        levels = range(8)
        answers = await asyncio.gather(
            *(client.post("/mean", content=png(level), headers=PNG) for level in levels)
        )
        assert [means(answer)[0][1] for answer in answers] == [float(level) for level in levels]
        assert sizes == [6, 2], "a full batch goes at once, the rest after the wait"
        text = (await client.get("/metrics")).text
        assert 'ssl_swin_batch_images_bucket{le="4"} 1\n' in text
        assert "ssl_swin_batch_images_sum 8\nssl_swin_batch_images_count 2\n" in text
        assert 'ssl_swin_requests_total{path="/mean",status="200"} 8\n' in text
        assert 'ssl_swin_request_seconds_count{path="/mean"} 8\n' in text

    asking(ask, brightness(compute), batch_size=6, max_wait_ms=300)


JSON_KIND = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "status", "told"),
    [
        ({"content": b"", "headers": PNG}, 400, "the request holds no image"),
        ({"content": png()[:-30], "headers": PNG}, 422, "cannot decode the image 1: "),
        ({"content": png()[:20], "headers": PNG}, 422, "cannot decode the image 1: "),
        ({"content": b"%!PS-Adobe-3.0 EPSF-3.0\n", "headers": PNG}, 422, "1 is of no known kind"),
        ({"content": b"<svg/>", "headers": PNG}, 422, "the image 1 is of no known kind"),
        (
            {"content": bomb(), "headers": PNG},
            413,
            "the image 1 is 30000 x 30000 px (height x width); max_image_pixels is 1000000",
        ),
        ({"content": bytes(300_000), "headers": PNG}, 413, "a file of 300,000 bytes; at most 200,"),
        ({"content": bytes(600_000), "headers": PNG}, 413, "is larger than 0.5 MB"),
        ({"content": png(), "headers": {"content-type": "text/html"}}, 415, "text/html is not"),
        ({"content": png(), "headers": PNG | {"content-encoding": "gzip"}}, 415, "gzip is not"),
        ({"content": b"{", "headers": JSON_KIND}, 400, "the body is no JSON: Expecting"),
        ({"content": b"[" * 200_000, "headers": JSON_KIND}, 400, "no JSON: nested too deeply"),
        ({"content": b"\xff\xfe\x00", "headers": JSON_KIND}, 400, "the body is no JSON"),
        ({"content": b"9" * 9999, "headers": JSON_KIND}, 400, "the body is no JSON"),
        ({"json": [1]}, 400, 'the JSON must be {"image": "BASE64"}'),
        ({"json": {"images": []}}, 400, "the request holds no image"),
        ({"json": {"images": [3]}}, 400, "image 1 of the JSON is no text"),
        ({"json": {"images": ["A", {"name": 5}]}}, 400, "image 1 of the JSON is no base64"),
        ({"json": {"image": "%%%%"}}, 400, "image 1 of the JSON is no base64"),
        ({"json": {"images": [""] * 5}}, 413, "holds more than 4 images"),
        (
            {
                "content": rb'{"image": {"name": "a\u0000b\ud800\n", "data": ""}}',
                "headers": JSON_KIND,
            },
            422,
            r"the image a\x00b? is empty",
        ),
        ({"json": {"image": {"name": "n" * 999, "data": ""}}}, 422, "n" * 200 + "... is empty"),
        ({"files": [("a", (f"{n}.png", b"")) for n in range(1000)]}, 413, "more than 4 images"),
        ({"files": {"a": ("x\0y\r\nz.png", b"no")}}, 422, "is of no known kind"),
        ({"data": {"a": "b"}}, 415, "application/x-www-form-urlencoded is not taken"),
        (
            {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "the body is no form: Missing boundary",
        ),
        (
            {"content": b"no", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "the body is no form: ",
        ),
        (
            {"content": b"--x\r\n\r\nno\r\n--x--", "headers": {"content-type": "multipart/form-dat"
             "a; boundary=x"}},
            400,
            "the body is no form: ",
        ),
    ],
)  # fmt: skip
def test_bad_request__is_told_one_sentence(
    request_: dict[str, Any], status: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post("/mean", **request_)
        assert (answer.status_code, [*answer.json()]) == (status, ["error"])
        (sentence,) = answer.json().values()
        assert told in sentence and "\n" not in sentence and "Traceback" not in sentence
        assert "remove it" not in sentence and "raise it" not in sentence
        assert means(await client.post("/mean", content=png(7), headers=PNG)) == [("1", 7.0)]
        assert service._held_bytes == service._num_images == 0

    caplog.set_level(logging.WARNING)
    asking(ask, max_images=4, max_image_mb=0.2, max_request_mb=0.5)
    assert not caplog.records, "of a client's mistake the log says nothing"


def test_paths_and_methods() -> None:
    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.get("/mean")
        assert (answer.status_code, answer.json()) == (405, {"error": "/mean does not take GET"})
        answer = await client.post("/nothing/here")
        assert (answer.status_code, answer.json()) == (404, {"error": "no page /nothing/here"})
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        text = (await client.get("/metrics")).text
        assert 'path="other",status="404"} 1' in text and "nothing" not in text

    asking(ask)


def test_queue__refuses_what_is_too_much_and_lets_in_again() -> None:
    gate = threading.Event()

    def compute(levels: Tensor) -> Tensor:
        gate.wait(30)
        return levels

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        first = [asyncio.create_task(client.post("/mean", content=png(7))) for _ in range(4)]
        while service._num_images < 4:
            await asyncio.sleep(0.01)
        refused = await client.post("/mean", content=png(7))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"].startswith("the server has as many images as it may")
        gate.set()
        assert [means(await each) for each in first] == [[("1", 7.0)]] * 4
        assert means(await client.post("/mean", content=png(7))) == [("1", 7.0)]

    asking(ask, brightness(compute), queue=4, max_images=2)


def test_stopping__answers_what_was_let_in_and_nothing_more() -> None:
    gate = threading.Event()

    def compute(levels: Tensor) -> Tensor:
        gate.wait(30)
        return levels

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        first = asyncio.create_task(client.post("/mean", content=png(7)))
        while not service._num_images:
            await asyncio.sleep(0.01)
        service.is_stopping = True
        late = await client.post("/mean", content=png(7))
        assert (late.status_code, late.json()) == (503, {"error": "the server is stopping"})
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "stopping")
        assert late.headers["connection"] == "close"
        gate.set()
        assert means(await first) == [("1", 7.0)]
        assert (await first).headers["connection"] == "close"

    asking(ask, brightness(compute))


def test_timeout__is_told_and_the_image_is_not_computed_in_vain() -> None:
    computed = []
    gate = threading.Event()

    def compute(levels: Tensor) -> Tensor:
        gate.wait(30)
        computed.extend(levels.tolist())
        return levels

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        late = [
            asyncio.create_task(client.post("/mean", content=png(level))) for level in (1, 2, 3)
        ]
        for each in late:
            answer = await each
            assert answer.status_code == 504
            assert answer.json()["error"].startswith("there was no answer after 0.3 s: ")
        gate.set()
        assert means(await client.post("/mean", content=png(9))) == [("1", 9.0)]
        assert len(computed) == 2 and computed[1] == 9.0

    asking(ask, brightness(compute), timeout_s=0.3, batch_size=1)


def test_failing_network__costs_one_batch_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def compute(levels: Tensor) -> Tensor:
        if (levels == 66).any():
            raise RuntimeError("out of luck")
        return torch.where(levels == 77, torch.nan, levels)

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post("/mean", content=png(66))
        assert answer.status_code == 500
        assert answer.json() == {
            "error": "the network failed on this request; the server's log says how"
        }
        assert "out of luck" in caplog.text and "Traceback" in caplog.text
        answer = await client.post("/mean", content=png(77))
        assert answer.status_code == 422
        assert "answer to the image 1 is not finite" in answer.json()["error"]
        assert means(await client.post("/mean", content=png(7))) == [("1", 7.0)]

    asking(ask, brightness(compute))


def test_bodies__hold_no_more_memory_than_allowed() -> None:
    async def slowly(gate: asyncio.Event) -> Any:
        yield png() + bytes(90_000)
        await gate.wait()

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        gate = asyncio.Event()
        slow = [
            asyncio.create_task(client.post("/mean", content=slowly(gate), headers=PNG))
            for _ in range(8)
        ]
        while service._held_bytes < 8 * 90_000:
            await asyncio.sleep(0.01)
        refused = await client.post("/mean", content=png() + bytes(90_000), headers=PNG)
        assert refused.status_code == 503
        assert "holds as many bodies as it may" in refused.json()["error"]
        gate.set()
        assert [means(await each) for each in slow] == [[("1", 100.0)]] * 8

    asking(ask, max_image_mb=0.1, max_request_mb=0.1)


def test_limits__refuse_what_contradicts() -> None:
    for limits, told in (
        ({"queue": 3, "max_images": 4}, "a queue of 3 images cannot take a request of 4"),
        ({"max_request_mb": 1.0}, "a request of 1 MB cannot hold an image of 20 MB"),
    ):
        with pytest.raises(UserError, match=told):
            Limits(**limits)  # type: ignore[arg-type]


def test_bound_socket__its_connections_send_at_once() -> None:
    with (
        bound_socket("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_histogram__by_hand() -> None:
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 2, 2.5, 9):
        histogram.add(value)
    assert list(histogram.lines("h", 'path="/"')) == [
        'h_bucket{path="/",le="1"} 2',
        'h_bucket{path="/",le="2.5"} 4',
        'h_bucket{path="/",le="+Inf"} 5',
        'h_sum{path="/"} 15',
        'h_count{path="/"} 5',
    ]


def test_metrics__every_line_is_in_the_format_of_prometheus() -> None:
    import re

    metrics = Metrics()
    metrics.count("/predict", 200, 0.03)
    metrics.count_batch(3, 0.5)
    text = metrics.text(images_waiting=2)
    assert text.endswith("\n") and "ssl_swin_images_waiting 2\n" in text
    comment = r"# (HELP|TYPE) ssl_swin_\w+ [\w .;/-]+"
    value = r'ssl_swin_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [\d.e+-]+'
    for line in text.splitlines():
        assert re.fullmatch(f"{comment}|{value}", line), line
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert len(named) == 5
