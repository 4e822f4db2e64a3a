"""Calls that exceptions end, and forked processes: every picture that is made is the one that its call makes alone."""

import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline

STEPS = {"num_inference_steps": 2, "prior_num_inference_steps": 2}


class TooLate(Exception):
    pass


def make(pipeline, prompt, seed=1):
    return np.asarray(pipeline(prompt, generator=seed, **STEPS).images[0])


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def children():
    return sorted(int(word) for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split())


def used():
    """How many processes, descriptors and threads."""
    gc.collect()
    return len(children()), len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("error", [
    TooLate, pytest.param(SystemExit, marks=pytest.mark.slow), pytest.param(TimeoutError, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_call_after_one_that_was_stopped(pipeline, error):
    """Ten times, at other moments; and what the calls have left, once they are over, is one process a model."""
    def strike(*_):
        if armed:
            raise error

    def undisturbed():
        started = time.monotonic()
        assert np.array_equal(make(pipeline, "a cat"), right)
        return time.monotonic() - started

    right = make(pipeline, "a cat")
    before, stopped, tries = used(), 0, 0
    previous = signal.signal(signal.SIGALRM, strike)
    try:
        while stopped < 10:
            tries += 1
            assert tries <= 200
            takes = undisturbed()  # every time: how fast the machine is changes
            try:
                armed = True
                try:
                    signal.setitimer(signal.ITIMER_REAL, takes * (tries % 25 + 1) / 30)
                    make(pipeline, "a dog", tries)
                finally:
                    armed = False
            except error:
                stopped += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        undisturbed()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert used() == before


@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_forked_workers(pipeline, rounds):
    """Two at a time, each with models of its own; the parent's stay the parent's."""
    prompts = ["a cat", "a dog"]
    right = {prompt: make(pipeline, prompt) for prompt in prompts}
    before, models = used(), children()
    for _ in range(rounds):
        workers = []
        for prompt in prompts:
            if not (worker := os.fork()):
                signal.alarm(120)  # it must not hang
                status = 1
                try:
                    status = 0 if np.array_equal(make(pipeline, prompt), right[prompt]) else 2
                finally:
                    os._exit(status)
            workers.append(worker)
        assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
    assert children() == models and used() == before
    for prompt in prompts:
        assert np.array_equal(make(pipeline, prompt), right[prompt])
    assert children() == models


def test_a_process_that_is_forked_while_threads_make_pictures(pipeline):
    """Whatever locks they hold at that moment."""
    right, wrong, over = make(pipeline, "a cat"), [], threading.Event()

    def work():
        while not over.is_set():
            wrong.extend([1] if not np.array_equal(make(pipeline, "a cat"), right) else [])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        if not (worker := os.fork()):
            signal.alarm(120)
            status = 1
            try:
                status = 0 if np.array_equal(make(pipeline, "a cat"), right) else 2
            finally:
                os._exit(status)
        assert os.waitpid(worker, 0)[1] == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong
