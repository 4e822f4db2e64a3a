"""Installing oneDNN beside Lite's libraries: once, whole or not at all, and every obstacle is one line."""

import hashlib
import sys
import tarfile
import zipfile

import pytest
import stand_ins
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.engine import onednn, precision, runtime
from stand_ins import contents, program

FAILING_PIP = """#!/bin/sh
echo "ERROR: No matching distribution found for onednn" >&2
exit 1
"""


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A small wheel laid out as oneDNN's, taken for the right one, and named by the environment."""
    path = tmp_path / "onednn.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("libdnnl.so", onednn.LIBRARY, f"{onednn.LIBRARY}.2"):
            archive.writestr(f"onednn.data/data/lib/{name}", name)
    monkeypatch.setattr(onednn, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv(onednn.WHEEL_VARIABLE, str(path))
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder of an installed runtime."""
    stand_ins.empty_cache(tmp_path, monkeypatch)
    return runtime.install(lambda _: None, wheel=stand_ins.wheel(tmp_path, monkeypatch)).root


def test_it_is_put_beside_lite_s_libraries_once(wheel, root, monkeypatch):
    before = sorted((root / "lib").iterdir())
    runtime.ensure_onednn(lambda _: None)
    added = {path.name for path in set((root / "lib").iterdir()) - set(before)}
    assert added - {onednn.OPENMP} == {onednn.LIBRARY}
    assert (root / "lib" / onednn.LIBRARY).read_text() == onednn.LIBRARY
    monkeypatch.setenv(onednn.WHEEL_VARIABLE, "not looked at any more")
    runtime.ensure_onednn(pytest.fail)
    monkeypatch.setattr(precision, "processor", lambda: "x86_64 avx512_bf16")
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    assert runtime.info()["bfloat16"] == f"oneDNN {onednn.VERSION}, installed"
    assert runtime.info()["float16"] == "no: its kernels are for aarch64, not x86_64"


def other_wheel(wheel, monkeypatch):
    wheel.write_bytes(b"another")


def no_wheel(wheel, monkeypatch):
    wheel.unlink()


def no_network(wheel, monkeypatch):
    monkeypatch.delenv(onednn.WHEEL_VARIABLE)
    monkeypatch.setattr(sys, "executable", program(wheel.parent / "python", FAILING_PIP))


@pytest.mark.parametrize("obstacle, message", [
    (other_wheel, "sha256 is .*, not .*: not the oneDNN 3.2 wheel"),
    (no_wheel, r"no such wheel file \(KANDINSKY_MINDIR_ONEDNN_WHEEL\)"),
    (no_network, "pip could not fetch oneDNN 3.2: No matching distribution found for onednn .*KANDINSKY_MINDIR_ONEDNN_WHEEL"),
])
def test_what_stands_in_the_way_is_one_line_and_nothing_is_left(wheel, root, monkeypatch, obstacle, message):
    obstacle(wheel, monkeypatch)
    with pytest.raises(UserError, match=message) as caught:
        runtime.ensure_onednn(lambda _: None)
    assert "\n" not in str(caught.value)
    assert contents(root.parent) == [root.name] and not (root / "lib" / onednn.LIBRARY).exists()


def test_an_archive_of_the_runtime_brings_it(wheel, root, tmp_path):
    runtime.ensure_onednn(lambda _: None)
    with tarfile.open(runtime.write_archive(tmp_path / "runtime.tar.gz", lambda _: None)) as archive:
        assert f"{root.name}/lib/{onednn.LIBRARY}" in archive.getnames()


@pytest.fixture
def wants_it(monkeypatch):
    """A processor that computes float32 faster with it."""
    monkeypatch.setattr(runtime, "lacking_own_float32", lambda: "")


def test_an_install_brings_it_before_the_programs(wheel, tmp_path, monkeypatch):
    """Another process that finds them computes with it, too."""
    stand_ins.empty_cache(tmp_path, monkeypatch)
    monkeypatch.setattr(runtime, "lacking_own_float32", lambda: "")
    unpack, built = onednn.unpack, []
    monkeypatch.setattr(onednn, "unpack", lambda *where: built.append(runtime._find().built) or unpack(*where))
    runtime.install(lambda _: None, wheel=stand_ins.wheel(tmp_path, monkeypatch))
    assert built == [False] and runtime._find().built and runtime.kernels("float32") == "own"


def test_an_install_without_it_goes_on_and_says_so(wheel, root, wants_it, monkeypatch):
    next(root.glob("bridge-*")).unlink()  # as after an update
    no_network(wheel, monkeypatch)
    said = []
    runtime.install(said.append)
    assert runtime._find().built and runtime.kernels("float32") == "lite" and contents(root.parent) == [root.name]
    (line,) = (line for line in said if "float32" in line)
    assert line.startswith("float32 is computed by MindSpore Lite's own kernels, which are slower: pip could not fetch oneDNN 3.2")


def test_who_brings_lite_as_a_file_is_not_asked_for_a_network(wheel, tmp_path, monkeypatch):
    stand_ins.empty_cache(tmp_path, monkeypatch)
    monkeypatch.setattr(runtime, "lacking_own_float32", lambda: "")
    no_network(wheel, monkeypatch)
    said = []
    runtime.install(said.append, wheel=stand_ins.wheel(tmp_path, monkeypatch))
    assert runtime.kernels("float32") == "lite" and not [line for line in said if "oneDNN" in line]


def test_it_is_added_later(wheel, root, wants_it, monkeypatch):
    runtime.add_onednn(say=lambda _: None)
    assert runtime.kernels("float32") == "own"
    wheel.unlink()
    runtime.add_onednn(say=pytest.fail)


def test_what_it_is_linked_with_comes_with_it(wheel, root, tmp_path, monkeypatch):
    """From the compiler, where it has that; a device that gets an archive may have none."""
    openmp = tmp_path / "libgomp.so.1.0"
    openmp.write_text("OpenMP")
    program(tmp_path / "gcc", f"#!/bin/sh\n[ $1 = -print-file-name={onednn.OPENMP} ] && echo {openmp}\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(onednn.platform, "machine", lambda: onednn.MACHINE)
    runtime.ensure_onednn(lambda _: None)
    assert (root / "lib" / onednn.OPENMP).read_text() == "OpenMP" and onednn.usable(root / "lib" / onednn.LIBRARY)
    with tarfile.open(runtime.write_archive(tmp_path / "runtime.tar.gz", lambda _: None)) as archive:
        assert f"{root.name}/lib/{onednn.OPENMP}" in archive.getnames()


def test_without_what_it_is_linked_with_lite_computes(tmp_path, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    library = tmp_path / onednn.LIBRARY
    assert not onednn.usable(library)
    library.touch()
    monkeypatch.setattr(onednn.ctypes, "CDLL", missing)
    assert not onednn.usable(library)
    (tmp_path / onednn.OPENMP).touch()
    assert onednn.usable(library)
