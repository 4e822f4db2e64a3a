"""One file over HTTP, bounded in time and size."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress

from ..common.errors import UserError

CHUNK = 1 << 16
SCHEMES = ("http://", "https://")
URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"  # those with a meaning in a URL, besides letters and digits


def is_url(text: str) -> bool:
    """Whether `text` is an http or https address."""
    return text.lower().startswith(SCHEMES)


def fetch(url: str, *, timeout: float, max_bytes: int) -> bytes:
    """The body of `url`: `timeout` seconds in all, redirects and name look-up included, and at most `max_bytes`.

    A socket's own timeout starts anew with each byte, so a server that sends one now and then would hold us for ever.
    The transfer runs in a thread that is given up, and its connection shut down, when the time is over.
    UserError, naming the address, for anything but a whole answer.
    """
    transfer = _Transfer(url, timeout, max_bytes)
    thread = threading.Thread(target=transfer.run, name="fetch", daemon=True)
    thread.start()
    try:
        thread.join(timeout)
        body, failure = transfer.body, transfer.failure
    finally:
        transfer.stop()
    if body is None:
        raise UserError(f"{shorten(url)} cannot be fetched: {failure or transfer.late}")
    return body


def shorten(name: str, length: int = 200) -> str:
    """A name that others chose, fit for one line of an error message."""
    name = name if len(name) <= length else name[:length - 3] + "..."
    return name if name.isprintable() else repr(name)


class _Transfer:
    """What the thread does, and what it leaves behind: `body`, or the reason for `failure`."""

    def __init__(self, url: str, timeout: float, max_bytes: int):
        self.body: bytes | None = None
        self.failure: str | None = None
        self.late = f"it did not arrive within {timeout:g} s"
        self._url, self._timeout, self._max_bytes = url, timeout, max_bytes
        self._stopped = False
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        try:
            url = urllib.parse.quote(self._url, safe=URL_CHARACTERS)
            request = urllib.request.Request(url, headers={"User-Agent": "kandinsky-mindir"})
            with self._opener().open(request, timeout=self._timeout) as response:
                self.body = self._read(response)
        except UserError as error:
            self.failure = str(error)
        except urllib.error.HTTPError as error:
            self.failure = f"the server answered {error.code} {shorten(str(error.reason))}"
            error.close()
        except urllib.error.URLError as error:
            self.failure = self.late if isinstance(error.reason, TimeoutError) else shorten(str(error.reason))
        except TimeoutError:
            self.failure = self.late
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a well-formed address
            self.failure = shorten(str(error) or type(error).__name__)

    def stop(self) -> None:
        self._stopped = True
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        expected = response.length  # None where the server does not say
        too_large = UserError(f"it is larger than {self._max_bytes} bytes")
        if expected is not None and expected > self._max_bytes:
            raise too_large
        body = bytearray()
        while chunk := response.read1(CHUNK):
            body += chunk
            if len(body) > self._max_bytes:
                raise too_large
            if self._stopped:
                raise UserError(self.late)
        if expected is not None and len(body) < expected:
            raise UserError(f"it was cut after {len(body)} of {expected} bytes")
        return bytes(body)

    def _opener(self) -> urllib.request.OpenerDirector:
        """HTTP and HTTPS, through the environment's proxies; no other scheme, whatever a redirect says."""
        opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.ProxyHandler(), _Connections(self), _Redirects(),
                        urllib.request.HTTPErrorProcessor(), urllib.request.HTTPDefaultErrorHandler()):
            opener.add_handler(handler)
        return opener

    def track(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self._stopped:
            self.stop()


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(self, request, fp, code, message, headers, url):
        if not is_url(url):
            raise UserError(f"it redirects to {shorten(url)}, which is not an http or https address")
        return super().redirect_request(request, fp, code, message, headers, url)


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """urllib's handlers, telling `transfer` of the sockets."""

    def __init__(self, transfer: _Transfer):
        super().__init__()
        self._transfer = transfer

    def do_open(self, connection, request, **options):  # type: ignore[override]
        transfer = self._transfer

        class Connection(connection):  # type: ignore[misc, valid-type]
            def connect(self):
                super().connect()
                transfer.track(self.sock)

        return super().do_open(Connection, request, **options)
