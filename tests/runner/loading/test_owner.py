"""The owner of the models of a process: who gets which model, and when it is closed."""

import contextlib
import gc
import os
import threading
import time
import weakref

import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.loading import owner as owners
from kandinsky_mindir.runner.loading.footprint import PROGRAM
from kandinsky_mindir.runner.loading.lease import Alternating
from model_users import MB, WAIT, User, fails, in_threads


@pytest.mark.parametrize("keep", [True, False])
def test_a_model_is_shared_and_closed_after_its_last_user(owner, keep):
    user = User(owner, keep=keep)
    with user.lease() as run:
        user.use()
        assert user.open() == [True]
        run()
    assert user.open() == [keep]
    owner.free(user.source)
    assert user.open() == [False]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("error", [EngineError("killed"), KeyboardInterrupt(), SystemExit(), TimeoutError()])
def test_after_a_failure_the_next_user_gets_another_model(owner, error, keep):
    user = User(owner, fails(error), int, keep=keep)
    with pytest.raises(type(error)):
        user.use()
    assert user.open() == [False]
    user.use()
    assert user.open() == [False, keep]


def test_a_model_that_became_unusable_while_nobody_used_it_is_replaced(owner):
    user = User(owner)
    user.use()
    user.loaded[0].usable = False  # its process was killed
    user.use()
    assert user.open() == [False, True]


@pytest.mark.parametrize("inputs, message", [({"latents": 0}, "unet has no input latents"), ({}, "unet lacks the input sample")])
def test_a_bad_call_costs_no_model(owner, inputs, message):
    user = User(owner)
    with user.lease() as run:
        if not inputs:
            user.loaded[0].inputs = (type("Tensor", (), {"name": "sample"}),)
        with pytest.raises(TypeError, match=message):
            run(**inputs)
    assert user.open() == [True]


def test_a_lease_that_has_ended_runs_nothing(owner):
    user = User(owner)
    with user.lease() as run:
        pass
    with pytest.raises(RuntimeError, match="unet is not leased any more"):
        run()


def test_a_failed_model_is_closed_once_nobody_waits_for_it(owner):
    """Two threads use one model when its process dies: both are told of that, and not that somebody closed it."""
    both_use_it, first_left, closed = threading.Barrier(2), threading.Event(), []
    user = User(owner, fails(EngineError("killed")), int)

    def one(waits):
        try:
            with user.lease() as run:
                both_use_it.wait(WAIT)
                if waits:
                    first_left.wait(WAIT)
                run()
        except EngineError:
            closed.append(user.loaded[0].closed)
        first_left.set()

    assert in_threads(lambda: one(True), lambda: one(False)) == []
    assert closed == [False, True]
    user.use()
    assert user.open() == [False, True]


@pytest.mark.parametrize("keep", [True, False])
def test_a_graph_that_many_ask_for_at_once_is_loaded_once(owner, keep):
    """Also where nobody keeps it: those who wait for it have it as soon as it is there."""
    user, ready = User(owner, keep=keep, delay=0.2), threading.Barrier(8)

    def one():
        with user.lease() as run:
            ready.wait(WAIT)
            run()

    assert in_threads(*[one] * 8) == []
    assert user.open() == [keep]


@pytest.mark.parametrize("error", [UserError("damaged"), KeyboardInterrupt(), SystemExit(), MemoryError()])
def test_a_load_that_fails_leaves_nothing(owner, error):
    user = User(owner, error, int)
    with pytest.raises(type(error)):
        user.use()
    assert owner.graphs(user.source) == set() and owner.others(set()) == (0, 0)
    user.use()
    assert user.open() == [True]


def test_who_waited_for_a_load_that_fails_tries_for_himself(owner):
    user = User(owner, UserError("damaged"), int, delay=0.2)
    raised = in_threads(*[user.use] * 4)
    assert [type(error) for error in raised] == [UserError]
    assert user.open() == [True]


def test_threads_that_come_and_go_leave_nothing_leased(owner):
    """Graphs of two bundles that do not fit together, loaded, freed and failing in eight threads at once."""
    users = [User(owner, bundle=bundle, keep=keep, sizes={"unet": 60, "movq": 50})
             for bundle in ("one", "two") for keep in (True, False)]
    for user in users:
        user.works = [fails(EngineError("killed")) if number % 5 == 4 else int for number in range(1000)]
    owner.keep_below(users[0].number, PROGRAM + 1000 * MB)

    def one(user, name):
        for _ in range(50):
            with contextlib.suppress(EngineError):
                user.use(name)

    assert in_threads(*[lambda user=user, name=name: one(user, name) for user in users for name in ("unet", "movq")]) == []
    for user in users:
        owner.free(user.source)
    assert owner.others(set()) == (0, 0)
    assert not any(still for user in users for still in user.open())


def test_pipelines_of_one_bundle_share_models_until_the_last_is_gone(owner):
    first, second = User(owner), User(owner)
    first.use()
    second.use()
    assert first.open() == [True] and second.loaded == []
    owner.give_back(first.number)
    assert first.open() == [True]
    owner.give_back(second.number)
    assert first.open() == [False]


def test_a_user_who_does_not_keep_models_leaves_those_of_one_who_does(owner):
    keeps, frees = User(owner), User(owner, keep=False)
    keeps.use()
    frees.use()
    assert keeps.open() == [True] and frees.loaded == []


@pytest.mark.parametrize("memory, open_after, loads", [(150, [False, False], 2), (100, [False, False, False], 3)])
def test_a_block_that_changes_between_batches_keeps_both_as_long_as_there_is_room(owner, memory, open_after, loads):
    user = User(owner, sizes={"unet": 60}, keep=False)
    owner.keep_below(user.number, PROGRAM + memory * MB)
    with Alternating(owner, lambda name, batch, keepers: user.lease(name, batch, keepers)) as at:
        for batch in (1, 2, 2, 1):
            at("unet", batch)()
        assert len(user.loaded) == loads
    assert user.open() == open_after


def test_a_block_that_changes_between_batches_ends_with_an_exception(owner):
    user = User(owner, int, fails(TimeoutError()), keep=False)
    with pytest.raises(TimeoutError):
        with Alternating(owner, lambda name, batch, keepers: user.lease(name, batch, keepers)) as at:
            at("unet", 1)()
            at("unet", 2)()
    assert user.open() == [False, False] and owner.others(set()) == (0, 0)


def test_a_lease_that_is_lost_ends(owner):
    """As when a signal comes between the lease and its block."""
    user = User(owner, keep=False)
    lease = user.lease()
    lease.__enter__()
    assert user.open() == [True]
    gone = weakref.ref(lease)
    gc.disable()
    try:
        del lease
        assert gone() is None and user.open() == [False]
    finally:
        gc.enable()


def test_a_forked_process_has_models_of_its_own(owner):
    user = User(owner)
    with user.lease():
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            owner.forget_parent()  # what the process's own owner does by itself
            said = [owner.graphs(user.source) == set()]
            user.use()
            said += [user.open() == [True, True]]  # the parent's is left alone
            owner.free(user.source)
            said += [user.open() == [True, False]]
            os.write(writing, b"1" if all(said) else b"0")
            os._exit(0)
        os.close(writing)
        assert os.read(reading, 1) == b"1"
        os.waitpid(child, 0)
        os.close(reading)
    assert user.open() == [True]


def test_a_fork_while_another_thread_is_in_the_owner(owner, monkeypatch):
    """The child does not wait for a lock that nobody in it holds."""
    monkeypatch.setattr(owners, "OWNER", owner)
    owners.in_forked_child(owner.forget_parent)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with owner._lock:
            inside.set()
            leave.wait(WAIT)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(WAIT)
    child = os.fork()
    if not child:
        User(owner).use()
        os._exit(7)
    leave.set()
    thread.join()
    deadline = time.monotonic() + WAIT
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
