"""A folder that appears whole or not at all; what is done in it is kept whatever ends the work."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from damage import assert_one_line
from kandinsky_mindir.export.isolation import Killed
from kandinsky_mindir.export.staging import (
    NOTES,
    WrongBundle,
    forget_part,
    note_part,
    noted,
    parts_done,
    staged_folder,
)
from kandinsky_mindir.runner.common.errors import UserError


class Stop(Exception):
    """A fault of the program."""


class Alarm(BaseException):
    """What a signal handler may raise."""


GOES_ON = "part done; the same command goes on from there"
FULL = OSError(errno.ENOSPC, "No space left on device", "weights.bin")


def write_part(folder, name="part", source="s"):
    (folder / name).mkdir()
    (folder / name / "weights.bin").write_text("weights")
    note_part(folder, name, source, [name])


@pytest.mark.parametrize("error, raised, said", [
    (KeyboardInterrupt(), KeyboardInterrupt, f"^{GOES_ON}"),
    (Killed("killed"), Killed, f"^killed; {GOES_ON}"),
    (UserError("a NaN"), UserError, f"^a NaN; {GOES_ON}"),
    (MemoryError(), UserError, f"^not enough memory: give the machine more; {GOES_ON}"),
    (FULL, UserError, f"^weights.bin: No space left on device; {GOES_ON}"),
    (Stop("stop"), Stop, "^stop$"),
    (SystemExit(3), SystemExit, "^3$"),
    (Alarm("late"), Alarm, "^late$"),
])  # fmt: skip
def test_parts_that_are_done_stay_whatever_the_error(tmp_path, error, raised, said):
    with pytest.raises(raised, match=said), staged_folder(tmp_path / "out", source="a") as folder:
        write_part(folder)
        (folder / "half").mkdir()
        raise error
    with staged_folder(tmp_path / "out", source="a") as folder:
        assert parts_done(folder) == ["part"] and noted(folder, "part", "s") == ["part"]
        assert (folder / "part" / "weights.bin").read_text() == "weights" and not (folder / "half").exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "part", "weights.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Killed("killed"), UserError("x"), MemoryError(), Stop(), Alarm()])
def test_nothing_is_left_where_no_part_was_done(tmp_path, error):
    with pytest.raises(type(error)), staged_folder(tmp_path / "out") as folder:
        (folder / "part").mkdir()
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_origin_counts_for_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out") as folder:
        write_part(folder)
        raise KeyboardInterrupt
    with staged_folder(tmp_path / "out") as folder:
        assert noted(folder, "part", "another") is None
        forget_part(folder, "part")
        assert parts_done(folder) == [] and not (folder / "part").exists()


@pytest.mark.parametrize("note", ["[]", "", "{", '{"source": "s"}', "7"])
def test_a_note_of_another_version_or_a_cut_one(tmp_path, note):
    with pytest.raises(KeyboardInterrupt, match="another done"), staged_folder(tmp_path / "out") as folder:
        write_part(folder, "another")
        write_part(folder)
        (folder / NOTES / "part.json").write_text(note)
        raise KeyboardInterrupt
    with staged_folder(tmp_path / "out") as folder:
        assert parts_done(folder) == ["another"] and noted(folder, "part", "s") is None


def test_of_another_source_the_parts_alone_are_found_again(tmp_path):
    """Sealed examples and all else are made of more than the parts."""
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out", source="a") as folder:
        write_part(folder)
        for path in (folder / "part" / "graph.golden.npz", folder / "constants.npz", folder / "manifest.json"):
            path.write_text("of a")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out", source="a") as folder:
        assert (folder / "part" / "graph.golden.npz").exists() and (folder / "constants.npz").exists()
        raise KeyboardInterrupt
    with staged_folder(tmp_path / "out", source="b") as folder:
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        assert found == [NOTES, f"{NOTES}/part.json", f"{NOTES}/source", "part", "part/weights.bin"]


def fail(target, **options):
    with staged_folder(target, **options) as folder:
        if not noted(folder, "part", "s"):
            write_part(folder)
        (folder / "manifest.json").write_text("wrong")
        raise WrongBundle("unet batch 1 is wrong")


def test_a_bundle_that_is_wrong_stays_to_be_looked_into(tmp_path):
    failed = tmp_path / "out.failed"
    for _ in range(2):  # the second goes on from the first
        assert_one_line(f"^unet batch 1 is wrong; {failed} keeps the bundle: kandinsky-mindir verify {failed} --bisect names",
                        lambda: fail(tmp_path / "out"))
        assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
        assert (failed / "manifest.json").read_text() == "wrong" and (failed / "part" / "weights.bin").exists()
    with staged_folder(tmp_path / "out") as folder:
        assert noted(folder, "part", "s") == ["part"] and not (folder / "manifest.json").exists()
        (folder / "manifest.json").write_text("right")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_wrong_does_not_replace_what_is_there(tmp_path):
    """Neither the bundle of that name, nor a folder of somebody else's."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("old")
    (tmp_path / "out.failed").mkdir()
    (tmp_path / "out.failed" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"/\.out\.partial keeps the bundle: kandinsky-mindir verify .*/\.out\.partial --bisect"):
        fail(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "manifest.json").read_text() == "old"
    assert [path.name for path in (tmp_path / "out.failed").iterdir()] == ["notes.txt"]
    assert (tmp_path / ".out.partial" / "manifest.json").read_text() == "wrong"


def written(target, content):
    with staged_folder(target, overwrite=True, source=content) as folder:
        (folder / "manifest.json").write_text(content)
    return (target / "manifest.json").read_text()


@pytest.mark.parametrize("name", ["current", "current/", "links/current", "./links/../current", "far", "in/bundle"])
def test_a_link_is_followed_and_stays(tmp_path, monkeypatch, name):
    """current -> bundle, links/current -> ../current, far -> current -> bundle, in -> a folder that holds a bundle."""
    monkeypatch.chdir(tmp_path)
    for folder in ("bundle", "real/bundle"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "manifest.json").write_text("old")
    (tmp_path / "links").mkdir()
    for link, to in (("current", "bundle"), ("links/current", "../current"), ("far", "current"), ("in", "real")):
        (tmp_path / link).symlink_to(to)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    target = tmp_path / name if not name.startswith(".") and not name.endswith("/") else Path(name)
    for content in ("new", "newer"):
        assert written(target, content) == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert all((tmp_path / link).is_symlink() for link in ("current", "links/current", "far", "in"))


def test_a_link_that_leads_nowhere_yet(tmp_path):
    (tmp_path / "current").symlink_to("bundle-v2")
    assert written(tmp_path / "current", "new") == "new"
    assert (tmp_path / "bundle-v2" / "manifest.json").read_text() == "new" and (tmp_path / "current").is_symlink()


def test_the_folder_that_one_is_in(tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("old")
    monkeypatch.chdir(bundle)
    with staged_folder(Path("."), overwrite=True) as folder:
        (folder / "manifest.json").write_text("new")
    assert (bundle / "manifest.json").read_text() == "new"


def test_a_file_system_of_its_own_cannot_be_replaced(tmp_path, monkeypatch):
    """Which is said before the work: the renaming at its end would fail."""
    (tmp_path / "manifest.json").write_text("old")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(UserError, match="is a file system of its own, which cannot be replaced"):
        written(tmp_path, "new")


def test_a_disk_other_than_that_of_temporary_files(tmp_path):
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        assert written(Path(folder) / "bundle", "new") == "new"
        assert written(Path(folder) / "bundle", "newer") == "newer"


@pytest.mark.parametrize("name", ["bündel", "包", "two\nlines", "a b'c"])
def test_odd_names(tmp_path, name):
    assert written(tmp_path / name, "new") == "new" and written(tmp_path / name, "newer") == "newer"
    shutil.rmtree(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
