"""Installing MindSpore Lite, with a wheel, a pip and a compiler that are stand-ins: every obstacle is one line."""

import errno
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import platform
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest
import stand_ins
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import compiler, runtime
from kandinsky_mindir.runner.engine.wheel import LIBRARIES, WHEELS
from stand_ins import contents, program

FAILING_COMPILER = """#!/bin/sh
echo "In file included from bridge.cc:1:" >&2
echo "bridge.cc:7:10: fatal error: include/api/context.h: No such file or directory" >&2
echo "compilation terminated." >&2
exit 1
"""
# Plays `python -m pip download`: notes its arguments, and puts the wheel where it was told to.
PIP = """#!{python}
import json, shutil, sys
json.dump(sys.argv[1:], open({notes!r}, "w"))
shutil.copy({wheel!r}, sys.argv[sys.argv.index("--dest") + 1])
"""
FAILING_PIP = """#!/bin/sh
echo "WARNING: Retrying (Retry(total=0)) after connection broken" >&2
echo "ERROR: Could not find a version that satisfies the requirement mindspore-lite==2.0.0" >&2
echo "ERROR: No matching distribution found for mindspore-lite==2.0.0" >&2
exit 1
"""


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    return stand_ins.wheel(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    return stand_ins.empty_cache(tmp_path, monkeypatch)


def test_installs_what_is_needed_and_says_so(wheel, cache):
    said = []
    installed = runtime.install(said.append, wheel=wheel)
    assert contents(cache) == [installed.root.name]
    assert sorted(path.name for path in (installed.root / "lib").iterdir()) == sorted(LIBRARIES)
    assert (installed.root / "include/api/model.h").read_text() == "// model"
    assert installed.bridge.read_text() == installed.convert.read_text() == "built"
    assert [line.split()[0] for line in said] == ["Unpacking", "Building"]


def test_finds_what_is_installed(wheel, monkeypatch):
    monkeypatch.setenv(runtime.WHEEL_VARIABLE, str(wheel))
    first = runtime.ensure(lambda line: None)
    monkeypatch.delenv(runtime.WHEEL_VARIABLE)
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = []
    assert runtime.ensure(said.append) == first
    assert not said


def test_info(wheel, cache):
    before = runtime.info()
    assert (before["installed"], before["built"], before["bytes"]) == (False, False, 0)
    runtime.install(lambda line: None, wheel=wheel)
    after = runtime.info()
    assert after["installed"] and after["built"]
    assert after["bytes"] == sum(map(len, LIBRARIES)) + len("// model") + 2 * len("built")
    assert after["folder"].startswith(str(cache))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_libraries_of_any_machine_are_had_without_a_compiler(wheel, cache, monkeypatch, machine):
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = []
    root = runtime.ensure_libraries(machine, said.append, wheel)
    assert root == cache / f"lite-2.0.0-{machine}" and (root / "include/api/model.h").exists()
    assert sorted(path.name for path in (root / "lib").iterdir()) == sorted(LIBRARIES) and contents(cache) == [root.name]
    assert runtime.ensure_libraries(machine, pytest.fail) == root and [line.split()[0] for line in said] == ["Unpacking"]


@pytest.mark.parametrize("name, other", [("bridge", "convert"), ("convert", "bridge")])
def test_a_new_source_is_built_without_unpacking(wheel, tmp_path, monkeypatch, name, other):
    first = runtime.install(lambda line: None, wheel=wheel)
    sources = tmp_path / "sources"
    shutil.copytree(compiler.SOURCES, sources)
    with open(sources / f"{name}.cc", "a") as file:
        file.write("// changed\n")
    monkeypatch.setattr(compiler, "SOURCES", sources)
    assert not runtime.info()["built"]
    said = []
    second = runtime.ensure(said.append)
    assert getattr(second, name) != getattr(first, name) and second.built and runtime.info()["built"]
    assert second.root == first.root and getattr(second, other) == getattr(first, other)
    assert [line.split()[0] for line in said] == ["Building"]


@pytest.mark.parametrize("machine, tag", [("x86_64", "manylinux1_x86_64"), ("aarch64", "manylinux2014_aarch64")])
def test_pip_is_asked_for_the_machines_wheel(wheel, cache, tmp_path, monkeypatch, machine, tag):
    notes = tmp_path / "notes.json"
    pip = PIP.format(python=sys.executable, notes=str(notes), wheel=str(wheel))
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", pip))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    said = []
    installed = runtime.install(said.append)
    arguments = json.loads(notes.read_text())
    assert arguments[:4] == ["-m", "pip", "download", "mindspore-lite==2.0.0"]
    assert arguments[arguments.index("--platform") + 1] == tag
    assert not any("index" in argument or "://" in argument for argument in arguments)  # pip's configuration decides
    assert said[0].startswith("Fetching MindSpore Lite 2.0.0 (") and machine in installed.root.name
    assert contents(cache) == [installed.root.name]


def fail(**options):
    """The message of the error that install raises, which is one line."""
    with pytest.raises(UserError) as caught:
        runtime.install(lambda line: None, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pip_fails(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", FAILING_PIP))
    message = fail()
    assert "No matching distribution found for mindspore-lite==2.0.0" in message
    assert runtime.WHEEL_VARIABLE in message
    assert contents(cache) == []


def test_no_pip(cache, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "has no pip" in fail()
    assert contents(cache) == []


def test_wrong_sha256_names_both(wheel, cache):
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wheel.write_bytes(wheel.read_bytes()[:-1])
    wrong = hashlib.sha256(wheel.read_bytes()).hexdigest()
    message = fail(wheel=wheel)
    assert right in message and wrong in message
    assert contents(cache) == []


def test_wheel_is_not_there(cache, tmp_path, monkeypatch):
    monkeypatch.setenv(runtime.WHEEL_VARIABLE, str(tmp_path / "none.whl"))
    assert fail() == f"{tmp_path / 'none.whl'}: no such wheel file"
    assert contents(cache) == []


def test_no_compiler(wheel, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "install g++" in fail(wheel=wheel)
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert "CXX is set to 'no-such-compiler -O2', and 'no-such-compiler' is not a program" in fail(wheel=wheel)


@pytest.mark.parametrize("cxx, words", [
    ("{0}", ["{0}"]),
    ("{0} -m64", ["{0}", "-m64"]),
    ("'{0}' --define 'a b'", ["{0}", "--define", "a b"]),
    ("  {0}  ", ["{0}"]),
])  # fmt: skip
def test_cxx_is_a_command_with_arguments(tmp_path, monkeypatch, cxx, words):
    """As build tools know it: "ccache g++"."""
    path = program(tmp_path / "my compiler" if "'" in cxx else tmp_path / "my-compiler", "")
    monkeypatch.setenv("CXX", cxx.format(path))
    assert compiler.find_compiler() == [word.format(path) for word in words]


@pytest.mark.parametrize("cxx", ["", "  "])
def test_an_empty_cxx_names_nothing(tmp_path, monkeypatch, cxx):
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "c++", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CXX", cxx)
    assert compiler.find_compiler() == ["c++"]


def test_compilers_arguments_reach_it(wheel, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", f"{sys.executable} {os.environ['CXX']} -m64")
    said = []
    assert runtime.install(said.append, wheel=wheel).built
    assert said[-1] == f"Building the bridge to it with {os.environ['CXX']} ..."


def test_cxx_is_no_command(monkeypatch):
    monkeypatch.setenv("CXX", "g++ '-m64")
    with pytest.raises(UserError, match=r"CXX is set to \"g\+\+ '-m64\", which is no command \(No closing quotation\)"):
        compiler.find_compiler()


def test_compiler_fails(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", program(tmp_path / "broken", FAILING_COMPILER))
    message = fail(wheel=wheel)
    assert "fatal error: include/api/context.h" in message and "compilation terminated" not in message
    assert not runtime.info()["built"]


@pytest.mark.parametrize(
    "system, machine, libc, message",
    [
        ("Darwin", "arm64", "", "not for Darwin on arm64"),
        ("Windows", "AMD64", "", "not for Windows on AMD64"),
        ("Linux", "riscv64", "glibc", "not for Linux on riscv64"),
        ("Linux", "x86_64", "", "needs glibc"),
    ],
)
def test_unsupported_machines(cache, monkeypatch, system, machine, libc, message):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    assert message in fail()
    assert contents(cache) == []


def test_cache_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "file"))
    message = fail()
    assert message.startswith(f"Cannot install the runtime in {tmp_path / 'file'}") and "Not a directory" in message


def test_disk_is_full(wheel, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert fail(wheel=wheel).startswith(f"No space left in {cache}")
    assert contents(cache) == []


def test_leftovers_of_a_killed_install_go(wheel, cache):
    (cache / "partial-old" / "new" / "lib").mkdir(parents=True)
    installed = runtime.install(lambda line: None, wheel=wheel)
    assert contents(cache) == [installed.root.name]


def test_a_killed_install_leaves_no_runtime(wheel, cache, tmp_path):
    """Killed while it compiles, with the libraries unpacked: the next one only has to build."""
    started = tmp_path / "started"
    endless = program(tmp_path / "endless", f"#!/bin/sh\ntouch {started}\nexec sleep 60\n")
    script = (
        "import sys\n"
        "from kandinsky_mindir.runner.engine import runtime\n"
        "from kandinsky_mindir.runner.engine.wheel import WHEELS\n"
        f"WHEELS[runtime._machine()] = WHEELS[runtime._machine()]._replace(sha256={WHEELS['x86_64'].sha256!r})\n"
        f"runtime.install(wheel={str(wheel)!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "CXX": endless}, text=True,
                               stdout=subprocess.DEVNULL, start_new_session=True)
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    process.wait()
    assert not runtime.info()["built"]
    said = []
    installed = runtime.ensure(said.append)
    assert [line.split()[0] for line in said] == ["Building"]
    assert contents(cache) == [installed.root.name] and installed.bridge.read_text() == "built"


def test_a_second_install_waits_for_the_first(wheel, cache):
    cache.mkdir(parents=True)
    said, waiting = [], threading.Event()

    def say(line):
        said.append(line)
        waiting.set()

    with open(cache / "install.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(target=runtime.install, args=(say, wheel))
        second.start()
        assert waiting.wait(10)
        assert "waiting" in said[0] and contents(cache) == []
    second.join(10)
    assert runtime.info()["built"]


@pytest.mark.parametrize(
    "variables, folder",
    [
        ({runtime.CACHE_VARIABLE: "/a", "XDG_CACHE_HOME": "/b"}, "/a/kandinsky-mindir"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/kandinsky-mindir"),
        ({"HOME": "/c"}, "/c/.cache/kandinsky-mindir"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, folder):
    for name in (runtime.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(runtime.cache_folder()) == folder


def test_no_home(monkeypatch):
    """A container that runs as a number that /etc/passwd does not know."""
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in (runtime.CACHE_VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert fail().startswith(f"This user has no home folder for MindSpore Lite: set {runtime.CACHE_VARIABLE} to a folder")


def test_no_locks_on_files(monkeypatch):
    """On Windows there is no fcntl."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert fail() == "This program needs Linux: the Python that runs it has no module fcntl"


def test_what_is_installed_needs_no_writable_folder(wheel, cache, monkeypatch):
    """A cache that others made, on a read-only disk: not even the lock file is touched."""
    installed = runtime.install(lambda line: None, wheel=wheel)
    (cache / "install.lock").unlink()
    before = cache.stat().st_mtime_ns
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setattr(runtime, "alone", None)
    assert runtime.ensure() == runtime.install(wheel=wheel) == installed
    assert cache.stat().st_mtime_ns == before


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
def test_standard_error_is_closed(wheel, monkeypatch, capfd, stderr):
    """What is said goes nowhere then: print would take standard output."""
    if stderr:
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert runtime.install(wheel=wheel).built
    assert capfd.readouterr() == ("", "")


def test_a_process_forked_in_an_install_does_not_keep_its_lock(wheel, cache, monkeypatch):
    child = []

    def say(line):
        if not child:
            child.append(os.fork())
            if not child[0]:
                time.sleep(60)
                os._exit(0)

    runtime.install(say, wheel=wheel)
    try:
        with open(cache / "install.lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child[0], 9)
        os.waitpid(child[0], 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
@pytest.mark.parametrize("at", ["Unpacking", "Building"])
def test_an_exception_in_an_install_leaves_nothing_half(wheel, cache, at, error):
    def say(line):
        if line.startswith(at):
            raise error

    with pytest.raises(error):  # also a TimeoutError, which is an OSError
        runtime.install(say, wheel=wheel)
    assert contents(cache) == ([] if at == "Unpacking" else [runtime._find().root.name])
    assert runtime.install(lambda line: None, wheel=wheel).built
