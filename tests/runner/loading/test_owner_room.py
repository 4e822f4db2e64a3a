"""What goes to make room for a model, who waits for room, and who is refused."""

import threading
import time

import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.loading import owner as owners
from kandinsky_mindir.runner.loading.footprint import PROGRAM
from model_users import MB, WAIT, User, in_threads


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
