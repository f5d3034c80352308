"""The server around the application: its socket, its connections, and how it stops."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ssl_swin.errors import UserError
from ssl_swin.serving.service import Service
from ssl_swin.stopping.stopped import RunStopped
from ssl_swin.stopping.watch import watching_signals

HEAD_S = 10.0  # in which a connection has to send the head of a request
KEPT_S = 10  # that a connection may wait for its next request
UNREAD_S = 5.0  # in which a client has to take the end of its answer
QUIET_S = 0.5  # without a request in work, after which a server that stops has heard everybody
MOST_CONNECTIONS = 512
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; whoever connects waits until it is served.

    Args:
        host: Name or address of this machine's.
        port: 0 for any that is free.

    Raises:
        UserError: If the port is taken, or not for this user, or there is no such address here.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=MOST_CONNECTIONS)
        # Connections inherit it. asyncio sets it itself only where the protocol has its number, and
        # without it the second part of an answer waits 40 ms for the client to confirm the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except socket.gaierror as error:
        raise UserError(f"--host {host}: {error.strerror}") from error
    except UnicodeError as error:
        raise UserError(f"--host {host!r} is no name of a machine") from error
    except OSError as error:
        reason = {
            errno.EADDRINUSE: f"port {port} is taken: give another --port, or 0 for any free one",
            errno.EACCES: f"port {port} is not for this user: give one from 1024 on",
            errno.EADDRNOTAVAIL: f"{host} is no address of this machine: give another --host",
        }.get(error.errno or 0, error.strerror or str(error))
        raise UserError(f"cannot listen on {host}, port {port}: {reason}") from error


def url_of(listening: socket.socket) -> str:
    """Return the address of a server for a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, listening: socket.socket, *, timeout_s: float) -> int:
    """Answer requests until a signal says stop; then answer those in flight.

    Args:
        service: The application.
        listening: What `bound_socket` returned; it is closed in the end.
        timeout_s: Longest that a request may take, as the service's.

    Returns:
        128 + the number of the signal.
    """
    with watching_signals(owns_process=True) as watch, listening:
        watch.defer(True, "stopping after the requests in flight; Ctrl-C again ends at once")
        asyncio.run(_serve(service, listening, timeout_s, watch.asked))
        watch.disregard()
        return watch.asked()


def reason_of(status: int) -> str:
    """Return what stopped the server, in words."""
    return RunStopped(status).reason


async def _serve(
    service: Service, listening: socket.socket, timeout_s: float, asked: Callable[[], int]
) -> None:
    config = uvicorn.Config(
        service,
        http=partial(_Connection, timeout_s=timeout_s),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEPT_S,
        timeout_graceful_shutdown=int(UNREAD_S) + 1,
        backlog=MOST_CONNECTIONS,
    )
    async with service.running():
        await _Server(config, service, asked).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Stops where a signal has left its wish, and only when nobody waits for an answer.

    Meanwhile it goes on to listen, and refuses new questions with an answer: a connection that is
    closed instead would leave its client without a word.
    """

    def __init__(self, config: uvicorn.Config, service: Service, asked: Callable[[], int]) -> None:
        super().__init__(config)
        self._service, self._asked = service, asked
        self._quiet_since_s = 0.0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `ssl_swin.stopping`."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop now."""
        await super().on_tick(counter)
        if not self._asked():
            return False
        now_s = asyncio.get_running_loop().time()
        if not self._service.is_stopping or self._service.num_requests:
            self._service.is_stopping = True
            self._quiet_since_s = now_s
        return now_s - self._quiet_since_s >= QUIET_S


class _Connection(H11Protocol):
    """A connection that cannot be held open by a client that does nothing.

    The head of a request has to arrive in time, and its answer be taken in time; between two
    requests the time is uvicorn's own.
    """

    def __init__(self, *args: Any, timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._longest_s = timeout_s + UNREAD_S
        self._end: asyncio.TimerHandle | None = None
        self._timed_cycle: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one connection too many, and wait for the head of a request from others."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(_TOO_MANY)
            transport.close()
        self._end_in(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._end_in(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Start the time of a request when its head is there."""
        super().handle_events()
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and self._timed_cycle is not self.cycle:
            self._timed_cycle = self.cycle
            self._end_in(self._longest_s)
        elif not is_answering and self._end is None and self.timeout_keep_alive_task is None:
            self._end_in(HEAD_S)  # the next request has begun, or the rest of one that is answered

    def on_response_complete(self) -> None:
        """Let the end of an answer be taken in time."""
        self._end_in(UNREAD_S if self.transport.is_closing() else None)
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also one whose client takes nothing."""
        super().timeout_keep_alive_handler()
        self._end_in(UNREAD_S)

    def shutdown(self) -> None:
        """Close an idle connection, or let its answer be the last."""
        super().shutdown()
        self._end_in(UNREAD_S)

    def _end_in(self, seconds: float | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = None
        if (seconds is not None and not self.transport.is_closing()) or seconds == UNREAD_S:
            self._end = self.loop.call_later(seconds, self.transport.abort)
