"""Models that run what a test says, and users that lease them from an owner."""

import threading
import time

from kandinsky_mindir.runner.bundle.manifest import GraphInfo
from kandinsky_mindir.runner.loading.footprint import Footprint
from kandinsky_mindir.runner.loading.lease import Lease
from kandinsky_mindir.runner.loading.owner import Key, Source, Way

MB = 10**6
WAIT = 20  # seconds until a thread counts as stuck


class Model:
    """Runs `work`; like an engine's model, it says so if it is used after it was closed, or after a run that failed."""

    inputs = ()

    def __init__(self, work):
        self.work, self.closed, self.usable = work, False, True

    def run(self, arrays):
        if self.closed:
            raise RuntimeError("the model is closed")
        self.usable = False
        self.work()
        self.usable = True
        return []

    def close(self):
        self.closed, self.usable = True, False


class User:
    """Leases the graphs of one bundle from an owner, and knows the models that were loaded: each runs the next of `works`.

    sizes: of graphs in MB. pieces: ways that take so many MB, after the first.
    """

    def __init__(self, owner, *works, bundle="bundle", keep=True, sizes=None, pieces=(), delay=0.0):
        self.owner, self.works, self.loaded, self.ways = owner, list(works), [], []
        self.source = Source(bundle, "engine", "cpu", 1, ())
        self.number, self.sizes, self.pieces, self.delay = next(owner.numbers), sizes or {}, pieces, delay
        self.keepers = (self.number,) if keep else ()

    def lease(self, name="unet", batch=1, keepers=()):
        graph = GraphInfo(name, name, batch, None, "", "", (), (), ())

        def load(size):
            time.sleep(self.delay)
            self.ways.append(size)
            work = self.works.pop(0) if self.works else int
            if isinstance(work, BaseException):
                raise work
            self.loaded.append(Model(work))
            return self.loaded[-1]

        sizes = [self.sizes.get(name, 10), *self.pieces]
        ways = [Way(Footprint(size * MB, size * MB), lambda size=size: load(size)) for size in sizes]
        return Lease(self.owner, Key(self.source, graph), (*keepers, *self.keepers), lambda: ways)

    def use(self, name="unet", batch=1):
        with self.lease(name, batch) as run:
            return run()

    def open(self):
        return [not model.closed for model in self.loaded]


def fails(error):
    def work():
        raise error

    return work


def in_threads(*functions):
    """Run them at once; the exceptions that they raised."""
    raised = []

    def caught(function):
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=caught, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive(), "a thread is stuck"
    return raised
