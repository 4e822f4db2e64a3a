"""The line in front of the one who draws: its bound, and what those are told who find no room."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest
from kandinsky_mindir.runner.request import Request
from kandinsky_mindir.runner.service.drawing import jobs
from kandinsky_mindir.runner.service.drawing.errors import ApiError
from kandinsky_mindir.runner.service.drawing.images import Form
from kandinsky_mindir.runner.service.drawing.jobs import Drawing, Job, Line, Pace

REQUEST = Request(task="text2image", prompt="a cat", seed=1, height=1000, width=1000, num_inference_steps=10)


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now

    time = monotonic


def test_each_is_told_a_time_of_its_own(monkeypatch):
    """A picture takes 10 s, 13 with a margin: places get free one after another, and each is promised once."""
    clock = Clock()
    monkeypatch.setattr(jobs, "time", clock)

    async def act():
        pace = Pace()
        pace.measured(REQUEST, 10, 10.0, 10.0)
        line = Line(most=2, most_bytes=1 << 30, pace=pace)

        def put():
            try:
                line.put(Job([Drawing(REQUEST)], Form(), "openai"))
            except ApiError as error:
                return int(error.headers["Retry-After"])
            return None

        assert [put(), line.take() and None, put(), put()] == [None] * 4  # one in hand, two in the line
        assert [put() for _ in range(5)] == [13, 26, 39, 52, 65]
        clock.now = 16.5  # the first has had its chance: the next to come waits behind four promises
        assert put() == 65
        clock.now = 1000.0
        assert put() == 13

    asyncio.run(act())


class Callers:
    """Callers on a line of simulated time: a picture takes `turn` seconds in the mean, 0.4 to 1.6 of that, and each caller asks
    anew as soon as it has its own."""

    def __init__(self, clock, count, places, turn, cookies):
        pace = Pace()
        pace.measured(REQUEST, 10, turn, turn)
        self.line, self.clock, self.turn, self.cookies = Line(most=places, most_bytes=1 << 30, pace=pace), clock, turn, cookies
        self.random = random.Random(0)
        self.owners, self.tickets, self.returns = {}, {}, [(0.001 * number, number, False) for number in range(count)]
        self.tries, self.refused, self.pictures, self.told = [], Counter(), Counter(), []

    def run(self, seconds):
        ends = None
        while self.clock.now < seconds:
            if self.line.current is None and len(self.line):
                self.line.take()
                ends = self.clock.now + self.turn * self.random.uniform(0.4, 1.6)
            self.returns.sort()
            if ends is not None and (not self.returns or ends <= self.returns[0][0]):
                self.clock.now, ends, job = ends, None, self.line.current
                self.line.current = None
                if len(self.line):
                    self.line.take()
                    ends = self.clock.now + self.turn * self.random.uniform(0.4, 1.6)
                self.pictures[self.owners[job]] += 1
                self.returns.append((self.clock.now + 0.002, self.owners[job], False))
                continue
            self.clock.now, number, again = self.returns.pop(0)
            self.ask(number, again)

    def ask(self, number, again):
        job = Job([Drawing(REQUEST)], Form(), "openai")
        try:
            self.line.put(job, self.tickets.get(number))
        except ApiError as error:
            later = int(error.headers["Retry-After"])
            if self.cookies:
                self.tickets[number] = error.headers.get("Set-Cookie", "=").partition("=")[2].partition(";")[0]
            self.returns.append((self.clock.now + later, number, True))
            self.told.append(later)
        else:
            self.owners[job] = number
        self.tries += [job in self.owners] if again else []


@pytest.mark.parametrize("turn", (0.05, 10.0))
def test_who_comes_back_finds_room(turn, monkeypatch):
    """Three times as many callers as there is room for: nearly all who come back at the time that they were told get in, and
    all get pictures. Without their tickets few do, for who has just got a picture is first to see a place get empty."""
    clock, shares = Clock(), {}
    monkeypatch.setattr(jobs, "time", clock)

    async def act():
        for cookies in (False, True):
            clock.now = 0.0
            callers = Callers(clock, 50, 16, turn, cookies)
            callers.run(600 * turn)
            assert sum(callers.pictures.values()) > 540, "the one who draws is never idle"
            shares[cookies] = sum(callers.tries) / len(callers.tries)
            if cookies:
                assert len(callers.pictures) == 50 and min(callers.pictures.values()) >= 5

    asyncio.run(act())
    assert shares[True] > 0.9 and shares[True] > shares[False], shares


def test_promises_that_nobody_comes_back_for_cost_a_part_of_the_line(monkeypatch):
    """Somebody asks a thousand times and shows no ticket: others are told bounded times, and a quarter of the line is theirs."""
    clock = Clock()
    monkeypatch.setattr(jobs, "time", clock)

    async def act():
        pace = Pace()
        pace.measured(REQUEST, 10, 10.0, 10.0)
        line = Line(most=8, most_bytes=1 << 30, pace=pace)
        told = []
        for _ in range(1000):
            try:
                line.put(Job([Drawing(REQUEST)], Form(), "openai"))
            except ApiError as error:
                told.append((int(error.headers["Retry-After"]), "Set-Cookie" in error.headers))
        assert max(told)[0] <= 13 * (4 * 8 + 1) and sum(ticket for _, ticket in told) == 4 * 8
        for _ in range(7):
            line.take()
        with suppress(ApiError):
            line.put(Job([Drawing(REQUEST)], Form(), "openai"))
        assert len(line) == 2

    asyncio.run(act())


def test_a_closed_line_takes_nobody():
    async def act():
        line = Line(most=2, most_bytes=1 << 30, pace=Pace())
        line.close()
        with pytest.raises(ApiError) as caught:
            line.put(Job([Drawing(REQUEST)], Form(), "openai"))
        assert caught.value.status == 503

    asyncio.run(act())
