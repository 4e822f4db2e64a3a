"""A picture server in this process, on a free port of the loopback."""

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from kandinsky_mindir.runner.service.server import Service, open_socket
from kandinsky_mindir.runner.service.settings import Settings

STEPS = {"steps": 3, "prior_steps": 2}


class Served:
    """url: of the server. lines: what it logged."""

    def __init__(self, service, url, lines):
        self.service, self.url, self.lines = service, url, lines
        self.host = url.removeprefix("http://")

    def call(self, path, body=None, headers=(), method=None, raw=None):
        """(status, JSON or text, headers) of an answer."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **dict(headers)} if data is not None else dict(headers)
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return self._parts(answer)
        except urllib.error.HTTPError as error:
            return self._parts(error)

    @staticmethod
    def _parts(answer):
        data = answer.read()
        return answer.status, json.loads(data) if "json" in answer.headers.get("Content-Type", "") else data.decode(), answer.headers


@contextmanager
def served(bundle, pipeline=None, **settings):
    lines = []
    pipeline = pipeline or KandinskyV22CombinedPipeline.from_pretrained(bundle, threads=1)
    service = Service(pipeline, Settings(**settings), lines.append)
    listening = open_socket("127.0.0.1", 0)
    thread = threading.Thread(target=service.run, args=(listening,))
    thread.start()
    found = Served(service, f"http://127.0.0.1:{listening.getsockname()[1]}", lines)
    try:
        wait(lambda: service.worker.state != "preparing")
        assert service.worker.state == "ready", service.worker.reason
        yield found
    finally:
        service.stop()
        service.stop()
        thread.join(60)
        listening.close()
        assert not thread.is_alive(), "the server does not end"


def wait(condition, seconds=60):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.01)
    return found


@contextmanager
def held(served):
    """The worker stops before its next step until the block ends; gives two events: that it has come there, and that it
    may go on."""
    worker, reached, go = served.service.worker, threading.Event(), threading.Event()
    follow = worker._follow

    def slow(job, *arguments):
        reached.set()
        while not go.wait(0.01) and not (job.cancelled or job.interrupted):
            pass
        follow(job, *arguments)

    worker._follow = slow
    try:
        yield reached, go
    finally:
        worker._follow = follow
        go.set()
