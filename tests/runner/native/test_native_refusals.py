"""What the C++ program refuses: one line, status 2, nothing written; and how it ends when it is stopped."""

import hashlib
import shlex
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from bad_bundles import MANIFEST
from bad_commands import COMMANDS, OPTIONS
from bad_inputs import edit_json, put, rewrite

pytestmark = pytest.mark.slow  # the build takes minutes

# Rows of what this program does not have are refused as unknown options; in these it takes what Python does not.
BUILDERS = [(row, words) for row, words in COMMANDS if row.partition(" ")[0] in ("generate", "interpolate", "verify")]
BUILDERS += [(f"generate {{bundle}} cat {option} {value}", words) for option, rows in OPTIONS.items()
             for value, words in rows if not value.startswith("=")]  # fmt: skip
PARSERS = ("required:", "expected", "unrecognized", "invalid", "ambiguous", "ignored", "known picture format", "WEBP", "unclip:",
           "needs the", "cannot be fetched", "address", "--like", "does not suit", "read: it is not")  # words of argparse or of what is not here


def check(result, work):
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("kandinsky: error: "), result.stderr
    assert result.stdout == "" and list(work.iterdir()) == []
    return lines[0]


def test_bad_commands(kandinsky, bundles, tmp_path):
    """The rows that the Python program has, those of words that both say held to them."""
    work = tmp_path / "work"
    work.mkdir()
    held = 0
    for row, words in BUILDERS:
        # shlex, as a shell: a value may be an empty word
        arguments = [word.replace("{bundle}", str(bundles("narrow"))).encode(errors="surrogateescape") for word in shlex.split(row)]
        line = check(kandinsky(*(argument.decode(errors="surrogateescape") for argument in arguments), cwd=work), work)
        if not any(word in words for word in PARSERS):
            parts = words.split(" ... ")
            held += all(part in line for part in parts)
    assert held >= 20, held


def test_bad_manifests(kandinsky, bundles, tmp_path):
    """Damage to the meaning of a manifest with a right seal."""
    work = tmp_path / "work"
    work.mkdir()
    copy = shutil.copytree(bundles("narrow"), tmp_path / "bundle")
    whole = (copy / "manifest.json").read_bytes()
    for edit, _ in [*MANIFEST, (put("schedulers", "inpaint", {"_class_name": "DDPMScheduler"}), "")]:  # with no defaults of it
        edit_json(copy / "manifest.json", edit)
        check(kandinsky("generate", copy, "cat", "--plan", cwd=work), work)
        rewrite(copy / "manifest.json", whole)


def test_a_changed_byte_of_any_file(kandinsky, bundles, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    copy = shutil.copytree(bundles("narrow"), tmp_path / "bundle")
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(damaged) // 3] ^= 4
        rewrite(path, bytes(damaged))
        line = check(kandinsky("verify", copy, "--files", cwd=work), work)
        assert str(path) in line
        rewrite(path, whole)
    assert kandinsky("verify", copy, "--files").returncode == 0


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals(kandinsky, bundles, tmp_path, number, status):
    process = kandinsky.start("generate", bundles("narrow"), "a cat", "--steps", "1000", cwd=tmp_path)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    while process.poll() is None and not open(children).read():
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (status, "", "kandinsky: stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_standard_output_is_full(kandinsky, bundles):
    with open("/dev/full", "w") as full:
        result = subprocess.run([kandinsky.path, "generate", bundles("narrow"), "cat", "--plan"], stdout=full, stderr=subprocess.PIPE,
                                text=True, env=kandinsky.environment)
    assert result.returncode == 2 and result.stderr == "kandinsky: error: standard output cannot be written: No space left on device\n"


def test_memory_is_kept_below(kandinsky, bundles, tmp_path):
    line = check(kandinsky("generate", bundles("narrow"), "cat", "--memory", "20MB", cwd=tmp_path), tmp_path)
    assert "of memory" in line and "20.0 MB is there" in line


def test_values_that_are_not_finite(kandinsky, bundles, tmp_path):
    copy = shutil.copytree(bundles("narrow"), tmp_path / "bundle")
    constants = dict(np.load(copy / "constants.npz"))
    constants["clip_mean"] = np.full_like(constants["clip_mean"], np.nan)
    (copy / "constants.npz").unlink()
    np.savez(copy / "constants.npz", **constants)
    data = (copy / "constants.npz").read_bytes()
    edit_json(copy / "manifest.json", put("files", "constants.npz", {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}))
    (tmp_path / "work").mkdir()
    result = kandinsky("generate", copy, "cat", "--steps", 2, "--prior-steps", 2, cwd=tmp_path / "work")
    assert "values that are not finite" in check(result, tmp_path / "work")
