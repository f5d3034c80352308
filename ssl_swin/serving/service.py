"""The application behind the server: who is let in, what is done for them, and how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.quoting import on_screen
from ssl_swin.serving.batching import Batcher, ComputeFailed, Row
from ssl_swin.serving.limits import TIMES_DRAINED, Limits, Refusal
from ssl_swin.serving.metrics import CONTENT_TYPE, Metrics
from ssl_swin.serving.page import PAGE, POLICY
from ssl_swin.serving.questions import Question, Served
from ssl_swin.serving.uploads import (
    FORM,
    JSON,
    content_type,
    image_of_bytes,
    images_of_form,
    images_of_json,
    read_body,
)

T = TypeVar("T")
_CLOSE = (b"connection", b"close")
DRAINED_S = 5.0  # that a refused client may go on to send
TOO_SLOW = 408
CLIENT_LEFT = 499  # as nginx counts it; nobody reads it
FAILED = "the network failed on this request; the server's log says how"


class Service:
    """An ASGI application that answers questions about images.

    Attributes:
        metrics: What was counted.
        is_stopping: Whether new questions are refused.
        num_requests: Requests whose answer is not sent yet.
    """

    def __init__(
        self,
        served: Served,
        limits: Limits,
        *,
        num_threads: int,
        hosts: Collection[str] | None = None,
    ) -> None:
        """Set the service up; it works inside `running`.

        Args:
            served: What is served.
            limits: Of size and time.
            num_threads: That decode images; one more computes.
            hosts: Names by which a browser may ask; None takes every name. A page of another site
                can lead its own name to this machine, and would read what is meant for its user.
        """
        self.metrics = Metrics()
        self.is_stopping = False
        self.num_requests = 0
        self._served, self._limits, self._hosts = served, limits, hosts
        self._num_images = self._held_bytes = 0
        self._decode = served.decoder()
        self._decoding = ThreadPoolExecutor(num_threads, thread_name_prefix="decoding")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="computing")
        self._batchers = {
            name: Batcher(
                question.compute,
                self._computing,
                batch_size=limits.batch_size,
                max_wait_s=limits.max_wait_ms / 1000,
                on_batch=self.metrics.count_batch,
            )
            for name, question in served.questions.items()
        }
        self._paths = {
            "/",
            "/about",
            "/health",
            "/metrics",
            *(f"/{name}" for name in served.questions),
        }
        self._app = Starlette(
            routes=[
                Route("/", self._show_page),
                Route("/about", self._describe),
                Route("/health", self._health),
                Route("/metrics", self._show_metrics),
                *(
                    Route(f"/{name}", self._endpoint(question), methods=["POST"])
                    for name, question in served.questions.items()
                ),
            ],
            exception_handlers={
                Refusal: _refused,
                HTTPException: _not_served,
                ComputeFailed: _failed,
                ClientDisconnect: _left,
            },
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute while the body runs."""
        tasks = [asyncio.create_task(each.run()) for each in self._batchers.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for pool in (self._decoding, self._computing):
                pool.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        start_s = time.perf_counter()
        waits = (b"expect", b"100-continue") in scope["headers"]
        most_bytes = TIMES_DRAINED * self._limits.request_bytes
        exchange = _Exchange(receive, send, most_drained=0 if waits else most_bytes)
        self.num_requests += 1
        try:
            await self._app(scope, exchange.receive, partial(self._send, exchange))
        finally:
            self.num_requests -= 1
            path = scope["path"] if scope["path"] in self._paths else "other"
            self.metrics.count(path, exchange.status, time.perf_counter() - start_s)

    async def _send(self, exchange: "_Exchange", message: Message) -> None:
        if message["type"] == "http.response.start" and self.is_stopping:
            others = [pair for pair in message["headers"] if pair[0] != _CLOSE[0]]
            message["headers"] = [*others, _CLOSE]
        await exchange.send(message)

    def _endpoint(self, question: Question) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            self._check_host(request)
            if self.is_stopping:
                raise Refusal(503, "the server is stopping", closes=True)
            self._check_queue(num_images=1)
            held_before = 0

            def hold(num_bytes: int) -> None:
                nonlocal held_before
                held_before += num_bytes
                self._held_bytes += num_bytes
                if self._held_bytes > self._limits.held_bytes:
                    raise _busy("holds as many bodies as it may", closes=True)

            deadline_s = asyncio.get_running_loop().time() + self._limits.timeout_s
            try:
                images = await self._images(request, hold, deadline_s)
                results = await self._results(request, question, images, deadline_s)
            finally:
                self._held_bytes -= held_before
            return JSONResponse({"results": results})

        return answer

    async def _images(
        self, request: Request, hold: Callable[[int], None], deadline_s: float
    ) -> list[EncodedSample]:
        kind = content_type(request)
        try:
            async with asyncio.timeout_at(deadline_s):
                body = await read_body(request, self._limits, hold)
        except TimeoutError:
            raise Refusal(
                TOO_SLOW,
                f"the request was not whole after {self._limits.timeout_s:g} s",
                closes=True,
            ) from None
        in_thread = asyncio.get_running_loop().run_in_executor
        if kind == FORM:
            headers = request.headers
            return await in_thread(self._decoding, images_of_form, headers, body, self._limits)
        if kind == JSON:
            return await in_thread(self._decoding, images_of_json, body, self._limits)
        return image_of_bytes(body, self._limits)

    async def _results(
        self, request: Request, question: Question, images: list[EncodedSample], deadline_s: float
    ) -> list[dict[str, Any]]:
        self._check_queue(len(images))
        self._num_images += len(images)
        try:
            async with asyncio.timeout_at(deadline_s):
                return await _unless_client_leaves(request, self._of_all(question, images))
        except TimeoutError:
            raise Refusal(
                504,
                f"there was no answer after {self._limits.timeout_s:g} s: send fewer images, or "
                "try again later",
            ) from None
        finally:
            self._num_images -= len(images)

    async def _of_all(
        self, question: Question, images: list[EncodedSample]
    ) -> list[dict[str, Any]]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._of_one(question, each)) for each in images]
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    async def _of_one(self, question: Question, image: EncodedSample) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self._decoding, self._decode, image)
        row = await self._batchers[question.name](pixels)
        if not _is_finite(row):
            raise Refusal(
                422,
                f"the network's answer to the image {image.name} is not finite: its values are "
                "beyond those that the network was trained on",
            )
        answer = await loop.run_in_executor(self._decoding, question.answer, row)
        return {"name": image.name, **answer}

    def _check_host(self, request: Request) -> None:
        name = request.url.hostname or ""
        if self._hosts is not None and name not in self._hosts:
            raise Refusal(
                421,
                f"this server shows pictures to its own machine alone, and was asked as "
                f"{on_screen(name, 1, 200)}: ask as {', '.join(sorted(self._hosts))}",
            )

    def _check_queue(self, num_images: int) -> None:
        if self._num_images + num_images > self._limits.queue:
            raise _busy("has as many images as it may")

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(PAGE, headers={"content-security-policy": POLICY})

    async def _describe(self, request: Request) -> Response:
        questions = {each.name: each.told for each in self._served.questions.values()}
        limits = asdict(self._limits)
        return JSONResponse(
            {"serving": self._served.title, "questions": questions, "limits": limits}
        )

    async def _health(self, request: Request) -> Response:
        state = "stopping" if self.is_stopping else "ready"
        answer = {"status": state, "serving": self._served.title}
        return JSONResponse(answer, status_code=503 if self.is_stopping else 200)

    async def _show_metrics(self, request: Request) -> Response:
        text = self.metrics.text(
            images_in_work=self._num_images,
            images_waiting=sum(map(len, self._batchers.values())),
            requests_in_work=self.num_requests,
            body_bytes_held=self._held_bytes,
        )
        return Response(text, media_type=CONTENT_TYPE)


class _Exchange:
    """A request and its answer, on a connection that may end with it.

    Before an answer that ends the connection, what the client still sends is read and thrown away,
    up to a limit: a connection that is closed on unread bytes is reset, and the answer lost.
    """

    def __init__(self, receive: Receive, send: Send, *, most_drained: int) -> None:
        self._receive, self._send = receive, send
        self._most_drained = most_drained  # bytes; 0 of a client that waits for a go-ahead
        self._is_whole = False
        self.status = CLIENT_LEFT

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if _CLOSE in message["headers"] and self.status != TOO_SLOW:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAINED_S):
                        await self._drain()
        await self._send(message)

    async def _drain(self) -> None:
        num_bytes = 0
        while not self._is_whole and num_bytes < self._most_drained:
            num_bytes += len((await self.receive()).get("body", b""))


async def _unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what some work returns; raises ClientDisconnect, and drops it, if nobody waits."""
    working = asyncio.ensure_future(work)
    working.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is told
    leaving = asyncio.ensure_future(_leaving(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _is_finite(row: Row) -> bool:
    return all(bool(value.isfinite().all()) for value in row.values())


def _busy(what: str, *, closes: bool = False) -> Refusal:
    return Refusal(503, f"the server {what} at a time: try again later", closes=closes)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)


async def _not_served(request: Request, error: Exception) -> Response:
    """Answer a path that is not there, or a method that it does not take."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path[:200]
    told = f"{path} does not take {method}" if error.status_code == 405 else f"no page {path}"
    return JSONResponse({"error": told}, error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": FAILED}, 500)


async def _left(request: Request, error: Exception) -> Response:
    """Give the framework something to send, which goes nowhere."""
    return Response(status_code=CLIENT_LEFT)
