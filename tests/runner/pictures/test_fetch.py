"""Pictures from addresses: a server on loopback, each path a way to answer."""

import socketserver
import threading
import time

import pytest
from kandinsky_mindir.runner.pictures.fetch import fetch
from kandinsky_mindir.runner.pictures.images import load_image
from picture_files import assert_refused, assert_same, bomb, encoded, picture


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """The server on loopback is asked itself, whatever the machine's proxies."""
    monkeypatch.setenv("no_proxy", "*")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True


def page(body, *headers, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode() + body


def drip(send, data, stop, delay=0.05):
    for i in range(10**6):
        if stop.wait(delay):
            return
        send(data[i:i + 1] if i < len(data) else b"x")


@pytest.fixture(scope="module")
def server():
    png, stop = encoded(), threading.Event()
    plain = {
        "/cat.png": page(png, f"Content-Length: {len(png)}"),
        "/no-length": page(png),
        "/chunked": page(b"%x\r\n%s\r\n0\r\n\r\n" % (len(png), png), "Transfer-Encoding: chunked"),
        "/chunked-cut": page(b"%x\r\n%s" % (len(png), png[:50]), "Transfer-Encoding: chunked"),
        "/caf%C3%A9.png?a=1&b=%20": page(png),
        "/cut": page(png[:-20], f"Content-Length: {len(png)}"),
        "/cut-without-length": page(png[:-40]),
        "/missing": page(b"gone", status="404 Not Found"),
        "/broken": page(b"", status="500 Internal Server Error"),
        "/html": page(b"<!DOCTYPE html><html>a cat</html>", "Content-Type: image/png"),
        "/empty": page(b""),
        "/nothing": b"",
        "/no-http": b"SSH-2.0-OpenSSH_9.0\r\n",
        "/promises": page(png, "Content-Length: 99999999999"),
        "/redirect": page(b"", "Location: /cat.png", status="302 Found"),
        "/redirect-twice": page(b"", "Location: /redirect", status="301 Moved Permanently"),
        "/loop": page(b"", "Location: /loop", status="302 Found"),
        "/to-file": page(b"", "Location: file:///etc/hostname", status="302 Found"),
        "/to-ftp": page(b"", "Location: ftp://127.0.0.1/cat.png", status="302 Found"),
        "/to-data": page(b"", "Location: data:text/plain,hello", status="302 Found"),
        "/to-nowhere": page(b"", status="302 Found"),
        "/bomb": page(bomb(60000, 60000)),
    }

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            path = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            send = self.connection.sendall
            try:
                if path == "/endless":
                    send(page(b""))
                    while not stop.is_set():
                        send(b"x" * 65536)
                elif path == "/silent":
                    stop.wait(30)
                elif path == "/slow-body":
                    drip(send, page(png), stop)
                elif path == "/slow-headers":
                    send(b"HTTP/1.1 200 OK\r\nX: ")
                    drip(send, b"", stop)
                else:
                    send(plain[path])
            except OSError:
                pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        stop.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/cat.png", "/no-length", "/chunked", "/redirect", "/redirect-twice",
                                  "/café.png?a=1&b=%20"])
def test_addresses_that_answer(server, path):
    assert_same(load_image(server + path), picture())


@pytest.mark.parametrize("path, said", [
    ("/cut", "it was cut after"), ("/cut-without-length", "cannot be used"), ("/chunked-cut", "IncompleteRead"),
    ("/missing", "the server answered 404 Not Found"), ("/broken", "the server answered 500"),
    ("/html", "is not a picture"), ("/empty", "is not a picture"), ("/nothing", "closed connection"),
    ("/no-http", "SSH-2.0"), ("/promises", "larger than"), ("/loop", "302"), ("/to-nowhere", "302"),
    ("/to-file", "Redirection to url 'file:///etc/hostname' is not allowed"), ("/to-ftp", "redirects to ftp:"),
    ("/to-data", "Redirection to url 'data:"),
    ("/bomb", "3600000000 pixels"), ("/endless", "larger than 200000 bytes"),
])
def test_addresses_that_do_not(server, path, said):
    message = assert_refused(said, server + path, max_bytes=200_000)
    assert server + path in message


@pytest.mark.parametrize("path", ["/silent", "/slow-body", "/slow-headers", "/endless"])
def test_slow_answers_end_in_time_and_leave_no_thread(server, path):
    """A limit on each read alone would let the slow ones go on: every byte comes sooner than that."""
    start = time.monotonic()
    assert_refused("did not arrive within 0.3 s", server + path, timeout=0.3, max_bytes=10**12)
    assert time.monotonic() - start < 3  # 0.3 s, and what a busy machine adds
    for thread in threading.enumerate():
        if thread.name == "fetch":
            thread.join(3)
            assert not thread.is_alive()


def test_nobody_answers():
    with Server(("127.0.0.1", 0), None) as closed:
        address = f"http://127.0.0.1:{closed.server_address[1]}/cat.png"
    assert_refused("refused", address)


@pytest.mark.parametrize("address", ["http://", "http:///cat.png", "http://127.0.0.1:port/", "http://[::1/",
                                     "http://a b/", "http://" + "a" * 300 + "/", "http://no.such.host.invalid/"])
def test_addresses_that_are_none(address):
    assert_refused("", address, timeout=5)


def test_https_is_not_taken_for_granted(server):
    """A server that does not speak TLS."""
    assert_refused("cannot be fetched", server.replace("http:", "https:") + "/cat.png", timeout=5)


def test_the_body_arrives_as_it_is(server):
    assert fetch(server + "/cat.png", timeout=5, max_bytes=10**6) == encoded()
