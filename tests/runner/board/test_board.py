"""Archives for boards: what stands in the way is one line, and what is written is whole."""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import tarfile
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from emulated import in_root
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.board import archive, making, toolchain
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.engine.compiler import find_compiler
from numpy.testing import assert_array_equal
from PIL import Image

HERE = platform.machine()
C_LIBRARY = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1",
             "ld-linux-x86-64.so.2" if HERE == "x86_64" else "ld-linux-aarch64.so.1")
PROJECT = """
cmake_minimum_required(VERSION 3.16)
project(small CXX)
add_library(kandinsky_mindir SHARED part.cc)
add_executable(kandinsky main.cc)
target_compile_definitions(kandinsky PRIVATE VERSION="${KANDINSKY_VERSION}")
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small project in the program's place, a program of two lines in the bridge's, and two of Lite's libraries."""
    sources, libraries = tmp_path / "sources", tmp_path / "libraries"
    sources.mkdir()
    (libraries / "usr" / "include").mkdir(parents=True)
    (sources / "CMakeLists.txt").write_text(PROJECT)
    (sources / "part.cc").write_text("int part() { return 1; }")
    (sources / "main.cc").write_text('#include <cstdio>\nint main() { std::puts("version " VERSION); }')
    (sources / making.HEADER).write_text("// header")
    monkeypatch.setattr(making, "SOURCES", sources)

    def compiled(name, compiler, root, scratch):
        assert (root / "include").is_dir()
        (scratch / "bridge.cc").write_text("int main() {}")
        subprocess.run([*compiler, scratch / "bridge.cc", "-o", scratch / "built"], check=True)
        return scratch / "built"

    monkeypatch.setattr(making, "compile_program", compiled)
    monkeypatch.setattr(archive, "LITE", ("libmindspore_glog.so.0", "libthat_is_not_there.so"))
    return libraries


def test_an_archive_unpacks_and_runs(small, bundles, engine, tmp_path, capsys):
    """It holds what it should, and its programs can be started."""
    outputs = [tmp_path / "board.tar.gz", tmp_path / "again.tar.gz"]
    for output in outputs:
        arguments = ["board", bundles("narrow"), "--target", HERE, "--output", output, "--libraries", small]
        assert main([str(word) for word in arguments]) == 0
    out = capsys.readouterr().out
    assert "board.tar.gz: " in out and "read README" in out
    with tarfile.open(outputs[0]) as made, tarfile.open(outputs[1]) as again:
        names = made.getnames()
        assert names == again.getnames()
        made.extractall(tmp_path / "board")
    folder = tmp_path / "board" / archive.FOLDER
    expected = {"README", "kandinsky", "kandinsky-bridge", making.LIBRARY, making.HEADER, "lib/libmindspore_glog.so.0",
                "lib/libstdc++.so.6", "lib/libgcc_s.so.1", *archive.bundle_files(Bundle(bundles("narrow")))}
    assert {name.removeprefix(f"{archive.FOLDER}/") for name in names} == expected
    readme = (folder / "README").read_text()
    assert len(readme.splitlines()) == 5 and f"for {HERE}" in readme and "glibc 2." in readme
    said = subprocess.run([folder / "kandinsky"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("version ") and not os.access(folder / making.HEADER, os.X_OK)
    Bundle(folder / "bundle").verify_files()


OTHER = next(name for name in toolchain.TARGETS if name != HERE)


@pytest.mark.parametrize("target, missing, message", [
    (OTHER, f"{toolchain.TARGETS[OTHER].triplet}-g++", f"no C\\+\\+ compiler for {OTHER} .*apt-get install g\\+\\+-"),
    (HERE, "cmake", "There is no CMake, .*: apt-get install cmake"),
    (HERE, "apt-get", "There is no apt-get to fetch libraries .*--libraries"),
    (HERE, "dpkg-deb", "There is no dpkg-deb to fetch libraries .*--libraries"),
])
def test_a_machine_that_lacks_something(small, bundles, tmp_path, monkeypatch, target, missing, message):
    which = shutil.which
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}" if "g++" not in name
                        else which(name))
    monkeypatch.setenv("KANDINSKY_MINDIR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=message) as caught:
        making.make(Bundle(bundles("narrow")), target, tmp_path / "board.tar.xz", lambda _: None)
    assert "\n" not in str(caught.value) and not (tmp_path / "board.tar.xz").exists()


def linked_with_another():
    (making.SOURCES / "main.cc").write_text("int part();\nint main() { return part(); }")
    (making.SOURCES / "CMakeLists.txt").write_text(PROJECT + "add_library(other SHARED part.cc)\ntarget_link_libraries(kandinsky other)")


@pytest.mark.parametrize("name, change, message", [
    ("board.zip", lambda small: None, "the name of an archive ends in .tar.xz or .tar.gz"),
    ("board.tar.gz", lambda small: shutil.rmtree(small / "usr"), "has no usr/include: unpack nlohmann-json3-dev"),
    ("board.tar.gz", lambda small: (making.SOURCES / "main.cc").write_text("int main() { return nothing; }"),
     "could not build the program: .*error.*nothing"),
    ("board.tar.gz", lambda small: (making.SOURCES / "CMakeLists.txt").write_text("find_package(NoSuchThing REQUIRED)"),
     "CMake cannot set up the program for"),
    ("board.tar.gz", lambda small: linked_with_another(), "kandinsky needs libother.so, which no board"),
])
def test_what_cannot_be_made_leaves_nothing(small, bundles, engine, tmp_path, name, change, message):
    output = tmp_path / name
    output.write_text("an old one")
    change(small)
    with pytest.raises(UserError, match=message) as caught:
        making.make(Bundle(bundles("narrow")), HERE, output, lambda _: None, small)
    assert "\n" not in str(caught.value) and output.read_text() == "an old one"
    assert not list(tmp_path.glob(".kandinsky*"))


def test_a_damaged_bundle_is_not_carried(small, bundles, tmp_path):
    bundle = shutil.copytree(bundles("narrow"), tmp_path / "bundle")
    (bundle / "constants.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"constants\.npz"):
        making.make(Bundle(bundle, check="always"), HERE, tmp_path / "board.tar.gz", lambda _: None, small)
    assert not (tmp_path / "board.tar.gz").exists()


def test_what_the_library_needs_comes_with_it(tmp_path):
    """And what that needs; not what the C library brings."""
    triplet = toolchain.TARGETS[HERE].triplet
    folder = tmp_path / "usr" / "lib" / triplet
    folder.mkdir(parents=True)
    for name, needs in (("inner", []), ("middle", ["-linner"]), ("outer", ["-lmiddle", "-lm"])):
        (tmp_path / "part.c").write_text(f"int {name}() {{ return 1; }}")
        command = [*find_compiler(), "-x", "c", tmp_path / "part.c", "-x", "none", "-shared", "-fPIC", "-o", folder / f"lib{name}.so",
                   f"-L{folder}", "-Wl,--no-as-needed", *needs]
        subprocess.run(command, check=True)
    found = archive.small_libraries(folder / "libouter.so", tmp_path, triplet)
    assert found == {f"lib/lib{name}.so": folder / f"lib{name}.so" for name in ("inner", "middle")}


def test_what_a_command_started_ends_with_it(tmp_path):
    """As the compilers that make has started do when a signal ends the command."""
    marker = tmp_path / "number"

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        parent = os.getpid()
        script = f"sleep 60 & echo $! > {marker}; kill -USR1 {parent}; wait"
        with pytest.raises(TimeoutError):
            toolchain._run(["sh", "-c", script], "it fails")
    finally:
        signal.signal(signal.SIGUSR1, before)
    status = Path(f"/proc/{int(marker.read_text())}/stat")
    deadline = time.monotonic() + 20
    while status.exists() and status.read_text().split()[2] != "Z":  # its parent is gone; nobody may have asked for its end yet
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_whose_start_is_interrupted_does_nothing(tmp_path, monkeypatch):
    """As when a signal comes before the process is known: nobody could end it."""
    started = []

    class Interrupted(subprocess.Popen):
        def _execute_child(self, *args):
            super()._execute_child(*args)
            started.append(self.pid)
            raise TimeoutError

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(TimeoutError):
        toolchain._run(["touch", tmp_path / "done"], "it fails")
    with contextlib.suppress(ChildProcessError):  # its Popen has seen its end
        os.waitpid(started[0], 0)
    assert not (tmp_path / "done").exists()


def test_links_stay_in_the_folder(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libz.so.1").write_text("z")
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "usr" / "lib" / "libz.so").symlink_to("/lib/libz.so.1")
    toolchain._mend_links(tmp_path)
    assert (tmp_path / "usr" / "lib" / "libz.so").read_text() == "z"


@pytest.mark.slow
@pytest.mark.parametrize("target, suffix", [(HERE, "gz"), (OTHER, "xz")])
def test_the_real_program(bundles, engine, tmp_path, target, suffix):
    """For this machine it makes the runner's picture in a root that holds nothing but a C library; for another, it has the size
    that boards have room for, and is started where there is an emulator."""
    try:
        compiler, _ = toolchain.compiler_for(target), toolchain.require_cmake()
        libraries = toolchain.libraries_for(target, None, lambda _: None)
    except UserError as error:
        pytest.skip(str(error))
    output, root = tmp_path / f"board.tar.{suffix}", tmp_path / "root"
    made = making.make(Bundle(bundles("narrow")), target, output, lambda _: None, libraries)
    with tarfile.open(output) as archive_file:
        archive_file.extractall(root)
    folder = root / archive.FOLDER
    assert made.unpacked == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) - (folder / "README").stat().st_size
    if target == "aarch64":
        assert made.unpacked - made.bundle <= 135e6 and made.packed - made.bundle <= 30e6
    if target == HERE:
        for name in C_LIBRARY:
            found = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
            place = root / ("lib64" if name.startswith("ld-linux-x86") else "lib") / name
            place.parent.mkdir(exist_ok=True)
            shutil.copy(found, place)
        common = ["a tiger", "--seed", "7", "--steps", "3", "--prior-steps", "3", "--threads", "1", "--quiet", "--output"]
        in_root(root, [f"/{archive.FOLDER}/kandinsky", "verify", f"/{archive.FOLDER}/bundle"]).check()
        in_root(root, [f"/{archive.FOLDER}/kandinsky", "generate", f"/{archive.FOLDER}/bundle", *common, "/tiger.png"]).check()
        assert main(["generate", str(bundles("narrow")), *common, str(tmp_path / "tiger.png")]) == 0
        assert_array_equal(Image.open(root / "tiger.png"), Image.open(tmp_path / "tiger.png"))
    elif emulator := shutil.which(f"qemu-{target}-static"):
        said = subprocess.run([emulator, "-L", f"/usr/{toolchain.TARGETS[target].triplet}", folder / "kandinsky", "--version"],
                              capture_output=True, text=True, check=True).stdout
        assert said == f"kandinsky {version('kandinsky-mindir')}\n"
