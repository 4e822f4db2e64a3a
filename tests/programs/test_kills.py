"""A sample of what kills.py does two hundred times; two exports to one place; places that cannot be written."""

import errno
import fcntl
import os
import resource
import subprocess
import sys

import kills
import numpy as np
import pytest
from kandinsky_mindir.export.staging import staged_folder
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.common.whole_file import PREFIX, SUFFIX
from kandinsky_mindir.runner.pictures.saving import save_image
from PIL import Image


@pytest.mark.parametrize("make, count", [
    (lambda folder, bundle: kills.Install(folder), 3),
    (lambda folder, bundle: kills.Generate(folder, bundle), 3),
])
def test_killed_at_random_moments(make, count, bundles, tmp_path):
    _, killed, late, *_, left = kills.run(make(tmp_path / "place", bundles("narrow")), count, np.random.default_rng(0))
    assert killed + late == count and left == 0


def test_half_an_output_is_found(tmp_path):
    operation = kills.Generate(tmp_path / "place", tmp_path)
    operation.right = b"whole"
    operation.output.write_bytes(b"who")
    with pytest.raises(AssertionError, match="half of it"):
        operation.check()



@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "one after the other"])
def test_the_old_bundle_stays_until_the_new_one_is_there(tmp_path, monkeypatch, exchange):
    from kandinsky_mindir.runner.common import publishing

    class Library:
        """A C library without renameat2."""

    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    if not exchange:
        monkeypatch.setattr(publishing.ctypes, "CDLL", lambda _: Library)
    with staged_folder(target, overwrite=True) as folder:
        (folder / "manifest.json").write_text("new")
        assert (target / "manifest.json").read_text() == "old"
    assert (target / "manifest.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["bundle"]


def test_two_exports_to_one_place(tmp_path):
    """The second says so at once; one that comes just as the first ends does not share the place with a third."""
    with staged_folder(tmp_path / "bundle") as folder:
        with pytest.raises(UserError, match="another export is writing .*bundle: wait for it") as caught:
            with staged_folder(tmp_path / "bundle"):
                pass
        assert folder.is_dir() and "\n" not in str(caught.value)
        (folder / "manifest.json").write_text("first")
    assert (tmp_path / "bundle" / "manifest.json").read_text() == "first"


def test_a_lock_that_its_holder_has_taken_away(tmp_path, monkeypatch):
    lock = tmp_path / ".bundle.lock"
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: (flock(*arguments), lock.unlink()))
    with pytest.raises(UserError, match="another export"), staged_folder(tmp_path / "bundle"):
        raise AssertionError("it went on without a lock")


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_what_a_killed_run_left_goes_with_the_next(tmp_path):
    left, held = tmp_path / f"{PREFIX}1{SUFFIX}", tmp_path / f"{PREFIX}2{SUFFIX}"
    left.write_bytes(b"half")
    with open(held, "wb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        save_image(PICTURE, tmp_path / "a[1].png")
    assert sorted(os.listdir(tmp_path)) == [held.name, "a[1].png"]


FULL = """
import resource, signal, sys
from kandinsky_mindir.runner import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(cli.main({arguments!r}))
"""


def test_no_room_for_the_picture(tmp_path, monkeypatch):
    """With a limit on the size of files, which stands for a full disk: the write fails part of the way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.chdir(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=f"picture.png cannot be written: {os.strerror(errno.EFBIG)}"):
            save_image(PICTURE, "picture.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_no_room_for_the_bundle(bundles, tmp_path):
    checkpoint = bundles("narrow").parent
    arguments = ["export", "--prior", str(checkpoint / "prior"), "--decoder", str(checkpoint / "decoder"), "--output", "out"]
    result = subprocess.run([sys.executable, "-c", FULL.format(limit=20_000, arguments=arguments)], cwd=tmp_path,
                            capture_output=True, text=True, timeout=600)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.count("\n") == 1 and os.strerror(errno.EFBIG) in result.stderr, result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write anywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="picture.png cannot be written: Permission denied"):
        save_image(PICTURE, tmp_path / "picture.png")
