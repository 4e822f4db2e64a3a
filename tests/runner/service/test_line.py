"""The line in front of the one who draws: its bound, and what those are told who find no room."""

import asyncio

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
    """A picture takes 10 s: places get free one after another, and each is promised once."""
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
        assert [put() for _ in range(5)] == [10, 20, 30, 40, 50]
        clock.now = 10.5  # the first has had its chance: the next to come waits behind four promises
        assert put() == 50
        clock.now = 1000.0
        assert put() == 10

    asyncio.run(act())


def test_a_closed_line_takes_nobody():
    async def act():
        line = Line(most=2, most_bytes=1 << 30, pace=Pace())
        line.close()
        with pytest.raises(ApiError) as caught:
            line.put(Job([Drawing(REQUEST)], Form(), "openai"))
        assert caught.value.status == 503

    asyncio.run(act())
