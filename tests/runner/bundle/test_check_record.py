"""An unchanged file is hashed once; a changed one again; what cannot be remembered is hashed."""

import hashlib
import os
import threading
import time
from types import SimpleNamespace

import pytest
from kandinsky_mindir.runner.bundle import check_record, checked_files
from kandinsky_mindir.runner.bundle.check_record import SETTLED, CheckRecord, State
from kandinsky_mindir.runner.bundle.checked_files import CheckedFiles
from kandinsky_mindir.runner.common.errors import UserError

CONTENT = b"weights" * 1000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KANDINSKY_MINDIR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kandinsky-mindir" / "checked"


@pytest.fixture
def folder(tmp_path, cache, monkeypatch):
    """With a file "a" that seems to have settled: nobody can set the time at which a file was altered."""
    monkeypatch.setattr(check_record, "SETTLED", -SETTLED)
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a").write_bytes(CONTENT)
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that were hashed."""
    names, sha256_of = [], checked_files.sha256_of
    monkeypatch.setattr(checked_files, "sha256_of", lambda path: (names.append(path.name), sha256_of(path))[1])
    return names


def opened(folder, check="once", names=("a",)):
    """As a process does that starts anew."""
    info = SimpleNamespace(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    return CheckedFiles(folder, dict.fromkeys(names, info), "export it again", check)


@pytest.mark.parametrize("check, expected", [("once", 1), ("always", 3), ("never", 0)])
def test_how_often_a_file_is_hashed(folder, hashed, check, expected):
    for _ in range(3):
        files = opened(folder, check)
        assert files.file("a") == files.file("a") == folder / "a"
    assert len(hashed) == expected


def test_whoever_asks_for_it_hashes_all_once(folder, hashed):
    opened(folder).file("a")
    for check in checked_files.CHECKS:
        hashed.clear()
        files = opened(folder, check)
        files.verify_files()
        files.verify_files()
        assert hashed == ["a"]


def rewrite(path):
    status = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time of change is set back


def replace(path):
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(CONTENT[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [rewrite, replace])
def test_a_file_that_was_changed_is_hashed_again(folder, hashed, change):
    opened(folder).file("a")
    time.sleep(0.02)  # a tick of the file system's clock
    change(folder / "a")
    with pytest.raises(UserError, match="a does not match its sha256"):
        opened(folder).file("a")
    assert opened(folder, "never").file("a")  # who trusts it, has it


def test_a_file_that_is_to_be_another_is_hashed_again(folder, hashed):
    opened(folder).file("a")
    other = SimpleNamespace(size=len(CONTENT), sha256="0" * 64)
    with pytest.raises(UserError, match="a does not match its sha256"):
        CheckedFiles(folder, {"a": other}, "export it again").file("a")


def test_a_young_file_is_not_remembered(folder, hashed, monkeypatch):
    """It may still be changed within the same tick of a clock."""
    monkeypatch.setattr(check_record, "SETTLED", SETTLED)
    opened(folder).file("a")
    opened(folder).file("a")
    assert hashed == ["a", "a"]


@pytest.mark.parametrize("changed, altered, now, expected", [
    (0, 0, SETTLED, True), (0, 1, SETTLED, False), (1, 0, SETTLED, False), (0, 5 * SETTLED, SETTLED, False),
], ids=["settled", "altered", "changed", "in the future"])
def test_when_a_file_has_settled(changed, altered, now, expected):
    assert State(1, 2, 3, changed, altered).settled(now) is expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"files": 3}', b'{"files": {"a": 7}}', b"\xff\xfe",
                                     b'{"files": {"a": [1, 2, 3, 4, 5, "x"]}}', b"[" * 100000])
def test_a_damaged_record_is_as_none(folder, cache, hashed, content):
    opened(folder).file("a")
    (path,) = cache.iterdir()
    path.write_bytes(content)
    opened(folder).file("a")
    opened(folder).file("a")
    assert hashed == ["a", "a"]  # and it is written anew


def is_a_file(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("")


def has_a_file_for_a_parent(cache):
    cache.parent.parent.parent.mkdir(parents=True, exist_ok=True)
    cache.parent.parent.write_text("")


@pytest.mark.parametrize("spoil", [is_a_file, has_a_file_for_a_parent])
def test_a_cache_that_cannot_be_written_is_no_error(folder, cache, hashed, spoil):
    spoil(cache)
    opened(folder).file("a")
    opened(folder).file("a")
    assert hashed == ["a", "a"]


def test_no_home_is_no_error(folder, hashed, monkeypatch):
    def missing():
        raise UserError("there is no home")

    monkeypatch.setattr(check_record, "cache_folder", missing)
    opened(folder).file("a")
    opened(folder).file("a")
    assert hashed == ["a", "a"]


def test_several_at_once(folder, hashed):
    """Each with a file of its own: the record is whole whatever comes last, and at most asks for another hash."""
    names = [str(number) for number in range(8)]
    for name in names:
        (folder / name).write_bytes(CONTENT)
    threads = [threading.Thread(target=opened(folder, names=names).file, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        opened(folder, names=names).file(name)
    hashed.clear()
    opened(folder, names=names).verify_files()
    assert hashed == names  # all as they were


def test_the_records_of_folders_that_are_gone_are_removed(folder, cache, tmp_path):
    opened(folder).file("a")
    folder.rename(tmp_path / "elsewhere")
    opened(tmp_path / "elsewhere").file("a")
    assert len(list(cache.iterdir())) == 1


def test_the_record_is_the_users_own(folder, cache):
    opened(folder).file("a")
    (path,) = cache.iterdir()
    assert cache.stat().st_mode & 0o077 == 0 and path.stat().st_mode & 0o077 == 0
    assert CONTENT not in path.read_bytes()


def test_a_choice_that_is_none(folder):
    with pytest.raises(UserError, match="^check is 'sometimes': it must be once, always or never$"):
        opened(folder, "sometimes")


def test_a_fork_while_a_thread_hashes(folder, monkeypatch):
    """The child does not wait for a lock that nobody in it holds."""
    files, inside, leave = opened(folder), threading.Event(), threading.Event()
    sha256_of = checked_files.sha256_of
    monkeypatch.setattr(checked_files, "sha256_of", lambda path: (inside.set(), leave.wait(20), sha256_of(path))[2])
    thread = threading.Thread(target=files.file, args=("a",))
    thread.start()
    inside.wait(20)
    child = os.fork()
    if not child:
        checked_files.sha256_of = sha256_of
        files.file("a")
        os._exit(7)
    ended, deadline = (0, 0), time.monotonic() + 20
    while not ended[0] and time.monotonic() < deadline:
        ended = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(ended[1]) == 7 and ended[0]


def test_the_states_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    before = State.of(path)
    assert State.of(path) == before
    record = CheckRecord(tmp_path)
    assert not record.knows("file", before, "0" * 64)
