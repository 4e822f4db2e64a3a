"""The owner of the models of a process: who gets which model, when it is closed, and what goes to make room."""

import contextlib
import gc
import os
import threading
import time
import weakref

import pytest
from kandinsky_mindir.runner.bundle.manifest import GraphInfo
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.loading import owner as owners
from kandinsky_mindir.runner.loading.footprint import PROGRAM, Footprint
from kandinsky_mindir.runner.loading.lease import Alternating, Lease
from kandinsky_mindir.runner.loading.owner import Key, Owner, Source, Way

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


@pytest.fixture
def owner(monkeypatch):
    """One of whose process nothing is in use but the program."""
    monkeypatch.setattr(owners, "private", lambda: 0)
    monkeypatch.setattr(owners, "in_use", lambda: PROGRAM)
    monkeypatch.setattr(owners, "available", lambda: 10**12)
    return Owner()


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


def test_what_nobody_uses_goes_to_make_room_the_longest_unused_first(owner):
    user, other = User(owner, sizes={"unet": 60}), User(owner, bundle="other", sizes={"prior": 30, "movq": 20})
    owner.keep_below(user.number, PROGRAM + 100 * MB)
    other.use("movq")
    other.use("prior")
    other.use("movq")
    assert owner.others(set()) == (0, 50 * MB)
    user.use("unet")  # prior must go, movq may stay
    assert other.open() == [True, False] and owner.others(set()) == (0, 80 * MB)


def test_what_is_in_use_stays(owner):
    user, other = User(owner, sizes={"unet": 60}, pieces=(45, 20)), User(owner, bundle="other", sizes={"prior": 50})
    owner.keep_below(user.number, PROGRAM + 100 * MB)
    with other.lease("prior") as run:
        user.use("unet")
        assert user.ways == [45]  # not as fast as it could be, yet as fast as there is room for
        run()
    owner.free(user.source)
    user.use("unet")
    assert user.ways == [45, 60] and other.open() == [False]


TOO_LARGE = (r"^unet batch 1 needs 60.0 MB of memory and 50.0 MB is left: what other requests use at this moment takes "
             r"50.0 MB; try again when they are done, or give more memory$")


@pytest.fixture
def two_users(owner):
    """Of one graph each, which do not fit into the memory together."""
    user, other = User(owner, sizes={"unet": 60}), User(owner, bundle="other", sizes={"prior": 50})
    owner.keep_below(user.number, PROGRAM + 100 * MB)
    return user, other


def test_what_does_not_fit_beside_what_the_same_thread_uses_is_refused(two_users):
    user, other = two_users
    with other.lease("prior"), pytest.raises(UserError, match=TOO_LARGE):
        user.use("unet")
    user.use("unet")


def test_what_does_not_fit_beside_what_other_threads_use_waits_for_them(owner, two_users):
    """Three threads wait for one; two of them for the same graph, which is loaded once."""
    user, other = two_users
    leased, over, order = threading.Event(), threading.Event(), []

    def use(user, name):
        leased.wait(WAIT)
        user.use(name)
        order.append(name)

    def hold():
        with other.lease("prior") as run:
            leased.set()
            over.wait(WAIT)
            run()
            order.append("prior")

    threading.Timer(0.3, over.set).start()
    assert in_threads(hold, lambda: use(user, "unet"), lambda: use(user, "unet")) == []
    assert order == ["prior", "unet", "unet"] and user.open() == [True] and other.open() == [False]


def test_two_threads_that_each_use_a_model_and_want_another_do_not_wait_for_each_other(owner):
    """One is refused and lets go of what it has; the other goes on."""
    first, second = (User(owner, bundle=name, sizes={"prior": 40, "unet": 50}, keep=False) for name in ("first", "second"))
    owner.keep_below(first.number, PROGRAM + 100 * MB)
    both = threading.Barrier(2)

    def use(user):
        with user.lease("prior"):
            both.wait(WAIT)
            user.use("unet")

    errors = in_threads(lambda: use(first), lambda: use(second))
    assert errors and all(isinstance(error, UserError) for error in errors)


def test_who_waits_too_long_is_refused(two_users, monkeypatch):
    user, other = two_users
    monkeypatch.setenv("KANDINSKY_MINDIR_DEADLINE", "0.2")
    over = threading.Event()

    def hold():
        with other.lease("prior"):
            over.wait(WAIT)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        while not other.loaded:
            time.sleep(0.01)
        with pytest.raises(UserError, match=TOO_LARGE):
            user.use("unet")
    finally:
        over.set()
        holder.join()
    user.use("unet")


def test_what_a_thread_left_behind_is_not_waited_for(two_users):
    user, other = two_users
    left = []
    thread = threading.Thread(target=lambda: left.append((lease := other.lease("prior"), lease.__enter__())))
    thread.start()
    thread.join()
    with pytest.raises(UserError, match=TOO_LARGE):
        user.use("unet")


def test_the_smallest_amount_of_the_living_counts_for_all(owner):
    numbers = [next(owner.numbers) for _ in range(3)]
    for number, memory in zip(numbers, (300 * MB, 200 * MB, None)):
        owner.keep_below(number, memory)
    assert owner.budget() == 200 * MB
    owner.give_back(numbers[1])
    assert owner.budget() == 300 * MB
    owner.give_back(numbers[0])
    assert owner.budget() == 10**12 + PROGRAM  # what the machine has left, and what is in use


def test_what_requests_hold_counts_as_the_program(owner, monkeypatch):
    number = next(owner.numbers)
    owner.reserve(number, 30 * MB)
    assert owner.program() == PROGRAM + 30 * MB
    monkeypatch.setattr(owners, "private", lambda: PROGRAM + 20 * MB)  # it has taken some of it
    assert owner.program() == PROGRAM + 30 * MB
    monkeypatch.setattr(owners, "private", lambda: PROGRAM + 70 * MB)
    assert owner.program() == PROGRAM + 70 * MB
    owner.give_back(number)
    assert owner.program() == PROGRAM + 70 * MB


@pytest.mark.parametrize("memory, open_after, loads", [(150, [False, False], 2), (100, [False, False, False], 3)])
def test_a_block_that_changes_between_batches_keeps_both_as_long_as_there_is_room(owner, memory, open_after, loads):
    user = User(owner, sizes={"unet": 60}, keep=False)
    owner.keep_below(user.number, PROGRAM + memory * MB)
    with Alternating(owner, lambda batch, keepers: user.lease("unet", batch, keepers)) as at:
        for batch in (1, 2, 2, 1):
            at(batch)()
        assert len(user.loaded) == loads
    assert user.open() == open_after


def test_a_block_that_changes_between_batches_ends_with_an_exception(owner):
    user = User(owner, int, fails(TimeoutError()), keep=False)
    with pytest.raises(TimeoutError):
        with Alternating(owner, lambda batch, keepers: user.lease("unet", batch, keepers)) as at:
            at(1)()
            at(2)()
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
