"""The owner of a loaded model: who gets which model, and when it is closed."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.loading.models import Component


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
        self.closed = True


def component(*works, keep_loaded=True):
    """A component whose models run those works, and the models that it will load, in their order."""
    models = [Model(work) for work in works]
    bundle = SimpleNamespace(manifest=SimpleNamespace(find=lambda *_: "graph"))
    part = Component(bundle, "unet", None, device="cpu", threads=1, keep_loaded=keep_loaded)
    left = iter(models)
    part._load = lambda graph: next(left)
    return part, models


def fails(error):
    def work():
        raise error

    return work


def use(part):
    with part.loaded() as run:
        run()


@pytest.mark.parametrize("keep_loaded", [True, False])
def test_a_model_is_shared_and_closed_after_its_last_user(keep_loaded):
    part, (model, _) = component(int, int, keep_loaded=keep_loaded)
    with part.loaded() as run:
        use(part)
        assert not model.closed
        run()
    assert model.closed is not keep_loaded
    part.unload()
    assert model.closed


@pytest.mark.parametrize("keep_loaded", [True, False])
@pytest.mark.parametrize("error", [EngineError("killed"), KeyboardInterrupt(), SystemExit(), TimeoutError()])
def test_after_a_failure_the_next_user_gets_another_model(error, keep_loaded):
    part, (first, second) = component(fails(error), int, keep_loaded=keep_loaded)
    with pytest.raises(type(error)):
        use(part)
    assert first.closed
    use(part)
    assert second.closed is not keep_loaded


def test_a_forked_process_loads_models_of_its_own():
    """Even if a thread that is not there held the lock at the fork; the parent's model is left alone."""
    part, (parents, childs) = component(int, int)
    use(part)
    with part._lock:
        if not (child := os.fork()):
            signal.alarm(20)  # it must not hang
            status = 1
            try:
                use(part)
                status = 0 if part.in_memory == ["graph"] and list(part._models.values()) == [childs] else 2
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    use(part)
    assert list(part._models.values()) == [parents] and not parents.closed


def test_a_model_that_is_not_usable_makes_way():
    """Whatever became of it between two calls; nobody used it, so it is closed."""
    part, (first, second) = component(int, int)
    use(part)
    first.usable = False
    use(part)
    assert first.closed and not second.closed


def test_a_bad_call_costs_no_model():
    part, (model,) = component(int)
    with part.loaded() as run, pytest.raises(TypeError, match="unet has no input latents"):
        run(latents=0)
    use(part)
    assert not model.closed


def test_a_failed_model_is_closed_once_nobody_waits_for_it():
    """Two threads use one model when its process dies: both are told of that, and not that somebody closed it."""
    both_use_it, first_left = threading.Barrier(2), threading.Event()
    part, (model, other) = component(fails(EngineError("killed")), int)
    said = []

    def one(waits):
        try:
            with part.loaded() as run:
                both_use_it.wait(10)
                if waits:
                    first_left.wait(10)
                run()
        except Exception as error:
            said.append((type(error), model.closed))
        first_left.set()

    threads = [threading.Thread(target=one, args=(waits,)) for waits in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [(EngineError, False), (EngineError, True)]
    use(part)
    assert not other.closed
