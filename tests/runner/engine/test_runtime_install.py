"""Installing MindSpore Lite, with a wheel, a pip and a compiler that are stand-ins: every obstacle is one line."""

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import runtime

COMPILER = """#!{python}
import sys
open(sys.argv[sys.argv.index("-o") + 1], "w").write("built")
"""
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


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A small wheel laid out as Lite's, taken for the right one on x86-64 and aarch64."""
    path = tmp_path / "mindspore_lite-2.0.0-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for library in (*runtime.LIBRARIES, "libtransformer-shared.so", "_c_lite_wrapper.cpython-37m.so"):
            archive.writestr(f"mindspore_lite/lib/{library}", library)
        archive.writestr("mindspore_lite/include/api/model.h", "// model")
        archive.writestr("mindspore_lite/model.py", "raise ImportError")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = {machine: entry._replace(sha256=digest) for machine, entry in runtime.WHEELS.items()}
    monkeypatch.setattr(runtime, "WHEELS", known)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, a compiler that works, and no wheel at hand."""
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", program(tmp_path / "compiler", COMPILER.format(python=sys.executable)))
    monkeypatch.delenv(runtime.WHEEL_VARIABLE, raising=False)
    return tmp_path / "cache" / "kandinsky-mindir"


def contents(cache):
    """Names in the cache but for the lock, which stays."""
    return sorted(path.name for path in cache.iterdir() if path.name != "install.lock") if cache.exists() else []


def test_installs_what_is_needed_and_says_so(wheel, cache):
    said = []
    installed = runtime.install(said.append, wheel=wheel)
    assert contents(cache) == [installed.root.name]
    assert sorted(path.name for path in (installed.root / "lib").iterdir()) == sorted(runtime.LIBRARIES)
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
    assert after["bytes"] == sum(map(len, runtime.LIBRARIES)) + len("// model") + 2 * len("built")
    assert after["folder"].startswith(str(cache))


@pytest.mark.parametrize("name, other", [("bridge", "convert"), ("convert", "bridge")])
def test_a_new_source_is_built_without_unpacking(wheel, tmp_path, monkeypatch, name, other):
    first = runtime.install(lambda line: None, wheel=wheel)
    sources = tmp_path / "sources"
    shutil.copytree(runtime.SOURCES, sources)
    with open(sources / f"{name}.cc", "a") as file:
        file.write("// changed\n")
    monkeypatch.setattr(runtime, "SOURCES", sources)
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
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX is set to 'no-such-compiler'" in fail(wheel=wheel)


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
        f"known = runtime.WHEELS[runtime._machine()]._replace(sha256={runtime.WHEELS['x86_64'].sha256!r})\n"
        "runtime.WHEELS[runtime._machine()] = known\n"
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
