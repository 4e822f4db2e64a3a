"""A server process: the socket, the worker, signals, the end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..common.errors import UserError
from ..pipelines import KandinskyV22CombinedPipeline
from .app import make_app
from .drawing.jobs import Line, Pace
from .drawing.metrics import Metrics
from .drawing.worker import Worker
from .fields import Reader
from .office import Office
from .settings import Settings

MOST_CONNECTIONS = 1000
KEEP_ALIVE = 15  # seconds that an idle connection stays open
BACKLOG = 256
SLICE = 1 << 13  # bytes
SWITCH = 0.0005  # seconds after which a thread that computes in Python lets the loop go on: a request has several such waits


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. UserError where there can be none."""
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    found = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((str(address), port))
        found.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        found.close()
        raise UserError(f"the server cannot listen on {host} port {port}: {getattr(error, 'strerror', error)}") from None
    return found


class Service:
    """A pipeline behind HTTP. log: takes the facts of each request, and of faults."""

    def __init__(self, pipeline: KandinskyV22CombinedPipeline, settings: Settings, log: Callable[[dict[str, Any]], None], *,
                 replay: bool = False):
        pace, metrics = Pace(), Metrics()
        self.line = Line(settings.queue, settings.queue_bytes, pace)
        self.worker = Worker(pipeline, self.line, pace, metrics, replay=replay, log=log)
        reader = Reader(pipeline, settings)
        self.office = Office(self.worker, self.line, reader, settings, metrics)
        self.app: ASGIApp = make_app(self.office, log)
        self._patience = settings.patience

    def run(self, listening: socket.socket) -> None:
        """Serve until a signal comes. UserError if the worker ends by itself."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        try:
            asyncio.run(self._run(listening))
        finally:
            sys.setswitchinterval(interval)
        if self.worker.state == "failed":
            raise UserError(self.worker.reason)

    async def _run(self, listening: socket.socket) -> None:
        loop, patience = asyncio.get_running_loop(), self._patience

        class Protocol(_Impatient):
            seconds = patience

        config = uvicorn.Config(
            self.app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_keep_alive=KEEP_ALIVE, limit_concurrency=MOST_CONNECTIONS,
        )  # fmt: skip
        server = _Server(config)

        def stop() -> None:
            """The first signal: the picture in hand is finished. The second: it is given up after its step."""
            if self.line.closed and self.line.current is not None:
                self.line.cancel(self.line.current)
            self.line.close()

        def ended() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(setattr, server, "should_exit", True)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: nobody sends it signals
                    loop.add_signal_handler(number, stop)
        self.stop, self.worker.on_end = stop, ended
        self.worker.start()
        await server.serve(sockets=[listening])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `Service` sees to them


class _Impatient(H11Protocol):
    """Closes a connection on which no whole head of a request arrives in time.

    h11 refuses a head that is too large only while it is not whole, so a head is given to it in slices: ten thousand headers
    in one piece would keep the loop busy for longer than any other request.
    """

    seconds = 20.0

    def data_received(self, data: bytes) -> None:
        slices = [data]
        if self.conn.their_state is h11.IDLE:
            slices = [data[start : start + SLICE] for start in range(0, len(data), SLICE)]
        for part in slices:
            if not self.transport.is_closing():
                super().data_received(part)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(self.seconds, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
