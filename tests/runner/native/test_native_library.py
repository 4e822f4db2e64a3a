"""The C library: several bundles and threads in one process, progress, stopping, errors as one line."""

import ctypes
import json
import os
import threading

import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, Request
from native_program import run

pytestmark = pytest.mark.slow  # the build takes minutes

REQUEST = {"task": "text2image", "prompt": ["a tiger"], "seed": 7, "num_inference_steps": 4, "prior_num_inference_steps": 3}
PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t)


class Picture(ctypes.Structure):
    _fields_ = [("number", ctypes.c_size_t), ("count", ctypes.c_size_t), ("width", ctypes.c_int), ("height", ctypes.c_int),
                ("rgb", ctypes.POINTER(ctypes.c_uint8)), ("recipe", ctypes.c_char_p)]


PICTURE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Picture))


class Callbacks(ctypes.Structure):
    _fields_ = [("progress", PROGRESS), ("picture", PICTURE), ("context", ctypes.c_void_p)]


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(str(path))
        self.c.kandinsky_version.restype = ctypes.c_char_p
        for name in ("close", "stop", "unload"):
            getattr(self.c, f"kandinsky_{name}").argtypes = [ctypes.c_void_p]

    def open(self, path):
        """(status, bundle, error)"""
        bundle, error = ctypes.c_void_p(), ctypes.create_string_buffer(1024)
        status = self.c.kandinsky_open(os.fsencode(path), None, ctypes.byref(bundle), error, ctypes.c_size_t(1024))
        return status, bundle, error.value.decode()

    def make(self, bundle, request, on_step=lambda done: 0):
        """(status, arrays of the pictures, error); on_step: from the number of steps done to whether to stop."""
        arrays, error = [], ctypes.create_string_buffer(1024)

        def picture(_, found):
            found = found.contents
            arrays.append(np.ctypeslib.as_array(found.rgb, (found.height, found.width, 3)).copy())
            assert json.loads(found.recipe)["seed"] == 7
            return 0

        callbacks = Callbacks(PROGRESS(lambda _, stage, done, all: int(on_step(done))), PICTURE(picture), None)
        text = request if isinstance(request, bytes) else json.dumps(request).encode()
        status = self.c.kandinsky_make(bundle, text, ctypes.byref(callbacks), error, ctypes.c_size_t(1024))
        return status, arrays, error.value.decode()


@pytest.fixture(scope="module")
def library(kandinsky):
    os.environ["KANDINSKY_MINDIR_BRIDGE"] = kandinsky.environment["KANDINSKY_MINDIR_BRIDGE"]
    yield Library(kandinsky.folder / "libkandinsky_mindir.so")
    del os.environ["KANDINSKY_MINDIR_BRIDGE"]


@pytest.fixture(scope="module")
def expected(bundles):
    with_python = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    with_python.set_progress_bar_config(disable=True)
    (picture,) = with_python.make(Request.from_dict(REQUEST))
    with_python.unload()
    return np.asarray(picture.image)


def test_two_bundles_in_two_threads(library, bundles, expected):
    found = {}

    def work(number):
        status, bundle, error = library.open(bundles("narrow"))
        assert status == 0, error
        found[number] = [library.make(bundle, REQUEST) for _ in range(2)]
        library.c.kandinsky_close(bundle)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for status, arrays, error in [made for number in range(2) for made in found[number]]:
        assert (status, error) == (0, "")
        np.testing.assert_array_equal(arrays[0], expected)


def test_a_request_is_stopped_and_the_next_is_right(library, bundles, expected):
    _, bundle, _ = library.open(bundles("narrow"))
    assert library.make(bundle, REQUEST, on_step=lambda done: done == 2)[::2] == (130, "stopped")
    timer = threading.Timer(0.5, library.c.kandinsky_stop, [bundle])
    timer.start()
    assert library.make(bundle, {**REQUEST, "num_inference_steps": 1000})[::2] == (130, "stopped")
    status, arrays, _ = library.make(bundle, REQUEST)
    assert status == 0
    np.testing.assert_array_equal(arrays[0], expected)
    library.c.kandinsky_close(bundle)


@pytest.mark.parametrize("request_, words", [
    (b"", "it is not JSON"),
    (b"[]", "expected an object"),
    (b'{"task": "text2image", "prompt": ["a"], "seed": NaN}', "it is not JSON"),
    ({}, "missing the required field 'task'"),
    ({**REQUEST, "surprise": 1}, "unknown field 'surprise'"),
    ({**REQUEST, "task": "paint"}, "task is 'paint'"),
    ({**REQUEST, "prompt": []}, "prompt is an empty list"),
    ({**REQUEST, "prompt": 7}, "prompt must be a text or a list of texts"),
    ({**REQUEST, "seed": -1}, "seed"),
    ({**REQUEST, "seed": 1.5}, "seed must be an integer"),
    ({**REQUEST, "num_inference_steps": 0}, "num_inference_steps is 0"),
    ({**REQUEST, "num_inference_steps": 1001}, "from 1 to 1000"),
    ({**REQUEST, "num_inference_steps": True}, "num_inference_steps is True"),
    ({**REQUEST, "guidance_scale": 1e39}, "it must be a finite number"),
    ({**REQUEST, "guidance_interval": [0.8, 0.2]}, "guidance_interval is (0.8, 0.2)"),
    ({**REQUEST, "height": 24, "width": 24}, "no size 24x24"),
    ({**REQUEST, "scheduler": "magic"}, "magic"),
    ({**REQUEST, "scheduler": {"_class_name": "MagicScheduler"}}, "MagicScheduler"),
    ({**REQUEST, "image": [{"image": "missing.png"}]}, "missing.png cannot be read"),
    ({**REQUEST, "image": "cat.png"}, "image must be a list of pictures, each with an image or a sha256"),
    ({**REQUEST, "image": [{"path": "cat.png"}]}, "a picture of image has an unknown field path"),
    ({**REQUEST, "image": [{}]}, "a picture must have an image or a sha256"),
    ({**REQUEST, "image": [{"sha256": "1" * 64}]}, "image is a picture without a path (sha256 1111111111)"),
    ({**REQUEST, "image": [{"image": "a.png"}] * 2}, "image has 2 pictures and prompt has 1: give one or as many"),
    ({**REQUEST, "mask_image": [{"image": "a.png"}]}, "a request cannot bring mask_image alone"),
    ({**REQUEST, "paste": 1}, "paste is 1: it must be True or False"),
    ({**REQUEST, "hint": [{"image": "a.png"}]}, "has no controlnet decoder"),
    ({**REQUEST, "cache_interval": 2}, "use kandinsky-mindir where a request has cache_interval"),
    ({**REQUEST, "rows": 3}, "rows is 3 without a row"),
    ({"task": "interpolate", "items": []}, "items is empty"),
    ({"task": "interpolate", "items": [{"text": "a", "weight": 0}]}, "weights are all zero"),
    ({"task": "interpolate", "items": [{"image": "missing.png", "weight": 1}]}, "missing.png cannot be read"),
], ids=str)
def test_bad_requests(library, bundles, request_, words):
    _, bundle, _ = library.open(bundles("narrow"))
    status, arrays, error = library.make(bundle, request_)
    library.c.kandinsky_close(bundle)
    assert status == 2 and not arrays and words in error and "\n" not in error, error


def test_bad_bundle(library, tmp_path):
    assert library.open(tmp_path)[::2] == (2, f"{tmp_path} is not a bundle (no manifest.json): make one with kandinsky-mindir export")


def test_the_example_in_c(kandinsky, bundles, tmp_path, expected):
    made = run(kandinsky.folder / "example", bundles("narrow"), json.dumps(REQUEST), tmp_path / "picture.ppm", env=kandinsky.environment)
    assert made.returncode == 0, made.stderr
    header, pixels = (tmp_path / "picture.ppm").read_bytes().split(b"\n", 1)
    assert header == b"P6 16 16 255"
    np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8).reshape(16, 16, 3), expected)
