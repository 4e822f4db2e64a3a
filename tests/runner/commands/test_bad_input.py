"""Bad input of any kind gets one line that says what is wrong, status 2 on the command line, and leaves nothing."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from bad_inputs import Place, all_cases, rewrite
from kandinsky_mindir.runner import KandinskyV22Pipeline, UserError, cli
from kandinsky_mindir.runner.bundle.manifest import Manifest

CASES = all_cases()
COMMAND = [sys.executable, "-m", "kandinsky_mindir.runner.cli"]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_gets_one_line(case, bundles, tmp_path):
    error = case.act(Place(bundles("narrow"), tmp_path / "place"))
    rest = error
    for words in case.words.split(" ... "):
        _, found, rest = rest.partition(words)
        assert found, f"{words!r} is not in: {error}"


def test_there_are_enough_cases_and_no_two_are_the_same():
    assert len({case.name for case in CASES}) == len(CASES) >= 300


def test_a_changed_bit_of_any_file_is_found(bundles, tmp_path):
    place = Place(bundles("narrow"), tmp_path / "place")
    copy = place.copy("bundle")
    random = np.random.default_rng(0)
    for name in Manifest.parse((copy / "manifest.json").read_text()).files:
        whole = (copy / name).read_bytes()
        damaged = bytearray(whole)
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        rewrite(copy / name, bytes(damaged))
        assert f"{name} does not match its sha256" in place.command("inspect", copy, "--files")
        rewrite(copy / name, whole)
    assert cli.main(["inspect", str(copy), "--files"]) == 0


@pytest.mark.parametrize("arguments, words", [
    (["paint"], "invalid choice: 'paint'"),
    (["inspect", "missing"], "missing is not a bundle"),
    (["generate", "{bundle}", "a cat", "--size", "24x24"], "has no size 24x24"),
    (["interpolate", "{bundle}", "--text", "a cat", "nan"], "weight is nan"),
    (["export", "--prior", "{decoder}", "--decoder", "{prior}", "--output", "b"], "are the two folders swapped?"),
])
def test_the_program_itself_says_one_line(arguments, words, bundles, tmp_path):
    place = Place(bundles("narrow"), tmp_path / "place")
    arguments = [argument.format(**vars(place)) for argument in arguments]
    result = subprocess.run(COMMAND + arguments, cwd=place.work, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, list(place.work.iterdir())) == (2, "", [])
    assert words in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_ctrl_c_stops_generate(bundles, tmp_path, delay):
    """As a terminal sends it: to the program and to the processes that run its models."""
    place = Place(bundles("narrow"), tmp_path / "place")
    process = start(place, ["generate", str(place.bundle), "a cat", "--steps", "1000"])
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    wait_until(process, lambda: open(children).read())
    time.sleep(delay)
    assert interrupted(process) == (130, "", "kandinsky-mindir: stopped\n")
    assert list(place.work.iterdir()) == []


def test_ctrl_c_stops_export(bundles, tmp_path):
    """While MindSpore compiles, which does not bear an exception."""
    place = Place(bundles("narrow"), tmp_path / "place")
    process = start(place, ["export", "--prior", str(place.prior), "--decoder", str(place.decoder), "--output", "out",
                            "--size", "16x16"])
    wait_until(process, (place.work / ".out.partial" / "text_encoder").exists)
    time.sleep(1)
    status, out, error = interrupted(process)
    assert (status, out) == (130, "")
    done = re.fullmatch(r"kandinsky-mindir: stopped(: text_encoder done; the same command goes on from there .*)?\n", error)
    assert done, error
    assert [path.name for path in place.work.iterdir()] == ([".out.partial"] if done[1] else [])


def start(place, arguments):
    return subprocess.Popen(COMMAND + arguments, cwd=place.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def wait_until(process, ready):
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, "it ended, or hangs"
        time.sleep(0.01)


def interrupted(process):
    """(status, standard output, standard error) after Ctrl-C; no process of the group is left."""
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    deadline = time.monotonic() + 10  # a child that the system has not reaped yet still counts as one
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    return process.returncode, output, errors


def test_a_long_prompt_is_cut_with_a_warning_that_quotes_the_rest(bundles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prompt = "a cat " * 40 + "on the moon"  # 80 words and more, each a token at least
    steps = ["--steps", "1", "--prior-steps", "1", "--quiet"]
    assert cli.main(["generate", str(bundles("narrow")), prompt, *steps]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("kandinsky-mindir: warning: the prompt has more than 77 tokens; this part was cut: ")
    assert "on the moon'" in warnings[0] and warnings[0].count("cat") < 40
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("returned, words", [
    ({"latents": np.zeros((1, 4, 9, 9))}, "latents have shape (1, 4, 9, 9)"),
    ({"latents": np.full((1, 4, 8, 8), np.nan)}, "latents holds values that are not finite"),
    ({"latents": "none"}, "latents must be an array of numbers"),
    ({"image_embeds": np.zeros((1, 32))}, "replaced image_embeds: only latents can be replaced"),
    ([1], "callback_on_step_end returned a list: it must return a dict or None"),
])
def test_what_a_callback_must_not_return(returned, words, decoder):
    with pytest.raises(UserError) as error:
        decoder(np.zeros((1, 32)), num_inference_steps=2, callback_on_step_end=lambda *_: returned)
    assert words in str(error.value)


def test_what_a_callback_raises_comes_through_and_the_pipeline_lives_on(decoder):
    def stop(*_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="^enough$"):
        decoder(np.zeros((1, 32)), num_inference_steps=2, callback_on_step_end=stop)
    assert decoder(np.zeros((1, 32)), num_inference_steps=1, output_type="np").images.shape == (1, 16, 16, 3)


@pytest.fixture(scope="module")
def decoder(bundles):
    pipeline = KandinskyV22Pipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    yield pipeline
    pipeline.unload()
