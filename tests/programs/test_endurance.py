"""A sample of what endurance.py does a thousand times."""

import gc
import os
import signal

import endurance
import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.loading.owner import OWNER

STEPS, PICTURES = 1, 8


@pytest.fixture(scope="module")
def expected(bundles):
    return endurance.pictures_alone(bundles("narrow"), PICTURES, STEPS)


def test_many_pictures_in_a_row_have_the_same_bits_and_leave_nothing(bundles, expected):
    first, last = endurance.in_a_row(bundles("narrow"), expected, 5 * PICTURES, STEPS)
    assert first.processes > 0 and first.memory > last.memory / 2


def test_what_grows_is_found():
    few = endurance.Figures(memory=1 << 28, threads=1, files=9, processes=2)
    endurance.assert_no_growth(few, few._replace(memory=few.memory + 1))
    for field, more in (("memory", 1 << 28), ("threads", 1), ("files", 1), ("processes", 1)):
        with pytest.raises(AssertionError, match="became"):
            endurance.assert_no_growth(few, few._replace(**{field: getattr(few, field) + more}))


@pytest.mark.parametrize("options", [pytest.param({}, id="one"), *(pytest.param(options, id=name, marks=pytest.mark.slow) for name, options in (
    ("two", {"pipelines": 2}), ("frees its models", {"keep_loaded": False})))])
def test_eight_threads_get_the_bits_of_one(bundles, expected, options):
    endurance.in_threads(bundles("narrow"), expected[:1], 1, STEPS)  # what is started once a process, is by then
    gc.collect()  # pipelines of other tests
    before = endurance.Figures.now()
    endurance.in_threads(bundles("narrow"), expected, 8, STEPS, **options)
    gc.collect()
    endurance.assert_no_growth(before._replace(memory=0), endurance.Figures.now()._replace(memory=0))


def test_a_model_whose_process_died_is_loaded_anew(bundles, expected):
    pipeline = endurance.open_pipeline(bundles("narrow"))
    endurance.picture(pipeline, 0, STEPS)
    (held,) = [held for key, held in OWNER._held.items() if (key.source, key.graph.name) == (pipeline.models.source, "prior")]
    os.kill(held.model._process._process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="MindSpore Lite was killed, as the system does when memory runs out"):
        endurance.picture(pipeline, 0, STEPS)
    assert np.array_equal(endurance.picture(pipeline, 0, STEPS), expected[0])
    pipeline.unload()


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_ctrl_c_leaves_nothing(bundles, after):
    assert endurance.interrupted(bundles("narrow"), after) == "kandinsky-mindir: stopped"
