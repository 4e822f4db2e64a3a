"""Numbers of a request: NumPy's scalars count as the numbers they are, not in the range of their own type."""

import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.common.options import as_count, as_number, as_size, as_weights, plain
from kandinsky_mindir.runner.diffusion.guidance import Guidance
from kandinsky_mindir.runner.request import Request
from kandinsky_mindir.runner.schedulers import DDIMScheduler, DDPMScheduler

FLOATS = (np.float16, np.float32, np.float64, np.longdouble)
INTEGERS = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint64)


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_become_pythons(kind):
    assert type(as_number(kind(4.5), "x")) is float and as_number(kind(4.5), "x") == 4.5
    for wrong in (kind("inf"), kind("-inf"), kind("nan")):
        with pytest.raises(UserError, match="^x is .*: it must be a finite number$"):
            as_number(wrong, "x")


def test_a_number_too_large_for_float32():
    for wrong in (np.longdouble("1e400"), np.float64(1e39), 1e39, 10**400):
        with pytest.raises(UserError, match="it must be a finite number"):
            as_number(wrong, "x")


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_become_pythons(kind):
    assert type(as_count(kind(100), "x")) is int
    assert as_size(kind(100), kind(100), 8) == (128, 128)  # 2 * 64 and more do not fit the narrow ones
    assert type(plain(kind(3))) is int
    request = Request(task="text2image", prompt="a cat", num_inference_steps=kind(100), num_images_per_prompt=kind(100))
    assert request.num_inference_steps * request.num_images_per_prompt == 10_000
    assert type(Guidance(kind(4)).scale) is float


def test_more_than_the_most():
    with pytest.raises(UserError, match="x is 200: at most 100"):
        as_count(np.uint8(200), "x", 100)


def test_truth_is_no_number():
    for wrong in (True, np.True_):
        for check in (as_number, as_count):
            with pytest.raises(UserError, match="^x is True"):
                check(wrong, "x")


def test_weights_of_narrow_types():
    assert as_weights(np.array([0.25, 0.75], np.float16), ["a", "b"]) == [0.25, 0.75]
    with pytest.raises(UserError, match=r"weights\[0\] is inf"):
        as_weights([np.float16("inf"), 1], ["a", "b"])


@pytest.mark.parametrize("kind", FLOATS[:3])
def test_an_interval_of_narrow_numbers_is_held_to_exact_shares(kind):
    """0.1 as float16 is 0.09998: a share of 0.1 is not before it, compared in whatever type."""
    guidance, same = Guidance(4.0, interval=(kind(0.1), kind(0.9))), Guidance(4.0, interval=(float(kind(0.1)), float(kind(0.9))))
    shares = [(index, 1000) for index in (99, 100, 101, 899, 900, 901)]
    assert [guidance.is_on(*share) for share in shares] == [same.is_on(*share) for share in shares]
    assert guidance == same and all(type(end) is float for end in guidance.interval)


@pytest.mark.parametrize("scale", [1.0001, 1.2])
def test_guidance_of_a_narrow_scale(scale):
    """Whether guidance is on is a matter of the number that was given: 1.0001 as float16 is 1."""
    for kind in FLOATS:
        assert Guidance(kind(scale)).on == (float(kind(scale)) > 1)


def test_options_of_schedulers():
    """200 timesteps: twice that is 144 as uint8."""
    exact = DDPMScheduler(num_train_timesteps=200, beta_start=0.0009765625, clip_sample=False)
    narrow = DDPMScheduler(num_train_timesteps=np.uint8(200), beta_start=np.float16(0.0009765625), clip_sample=np.False_)
    assert narrow.config == exact.config and type(narrow.config["num_train_timesteps"]) is int
    np.testing.assert_array_equal(narrow.schedule(np.uint8(150)).timesteps, exact.schedule(150).timesteps)
    for spacing in ("leading", "trailing", "linspace"):
        options = dict(num_train_timesteps=200, timestep_spacing=spacing)
        np.testing.assert_array_equal(DDIMScheduler(**options, steps_offset=np.uint8(1)).schedule(np.uint8(190)).timesteps,
                                      DDIMScheduler(**options, steps_offset=1).schedule(190).timesteps)
    with pytest.raises(UserError, match="num_inference_steps is 201"):
        exact.schedule(np.uint8(201))
