"""The runtime as one file: made on one machine, installed on another that has neither compiler nor network."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import stand_ins
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import compiler, runtime
from kandinsky_mindir.runner.engine.wheel import ASCEND_LIBRARIES, CPU_LIBRARIES
from stand_ins import contents

STARTS = "#!/bin/sh\nexit 2\n"  # as the bridge does without arguments; a compiler that makes programs of this text


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, where a compiler makes programs that start."""
    cache = stand_ins.empty_cache(tmp_path, monkeypatch)
    make = f"import os, sys\npath = sys.argv[sys.argv.index('-o') + 1]\nopen(path, 'w').write({STARTS!r})\nos.chmod(path, 0o755)\n"
    stand_ins.program(tmp_path / "compiler", f"#!{sys.executable}\n{make}")
    return cache


@pytest.fixture(params=[".tar.gz"])
def archive(request, cache, tmp_path, monkeypatch):
    """An archive of a small runtime. The cache is empty again, and there is neither wheel, pip nor compiler."""
    runtime.install(lambda line: None, wheel=stand_ins.wheel(tmp_path, monkeypatch))
    path = runtime.write_archive(tmp_path / f"runtime{request.param}", lambda line: None)
    shutil.rmtree(cache)
    without_compiler(tmp_path, monkeypatch)
    return path


def without_compiler(folder, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(folder / "nothing"))
    monkeypatch.setattr(sys, "executable", str(folder / "no-python"))


def members(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def write(path, entries):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def fail(act, *arguments, **options):
    with pytest.raises(UserError) as caught:
        act(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("archive", [".tar.gz", ".tar.xz"], indirect=True)
def test_installs_what_the_cpu_needs_and_nothing_else(archive, cache):
    said = []
    installed = runtime.install(said.append, archive=archive)
    assert [line.split()[0] for line in said] == ["Unpacking"]
    assert installed.built and contents(cache) == [installed.root.name]
    assert sorted(path.name for path in (installed.root / "lib").iterdir()) == sorted(CPU_LIBRARIES)
    assert not set(CPU_LIBRARIES) & set(ASCEND_LIBRARIES)
    assert sorted(path.name for path in installed.root.iterdir()) == sorted([installed.bridge.name, installed.convert.name, "lib"])
    assert all(path.read_text() == STARTS and os.access(path, os.X_OK) for path in installed.programs)
    assert runtime.ensure() == installed
    runtime.install(archive=archive)  # nothing is missing


def test_unpacked_by_hand_it_serves(archive, cache):
    cache.mkdir(parents=True)
    with tarfile.open(archive) as file:
        file.extractall(cache, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    assert runtime.ensure(lambda line: pytest.fail(line)).built


def test_an_archive_of_an_archive(archive, tmp_path):
    """What was installed from one can be carried on: the same files."""
    runtime.install(lambda line: None, archive=archive)
    again = runtime.write_archive(tmp_path / f"again{''.join(archive.suffixes)}", lambda line: None)
    assert members(again) == members(archive)


def test_beside_libraries_of_a_wheel(archive, cache, tmp_path, monkeypatch):
    """Programs that were missing come from the archive; what else was there stays."""
    root = runtime._find().root
    (root / "lib").mkdir(parents=True)
    (root / "lib" / ASCEND_LIBRARIES[0]).write_text("of the wheel")
    (root / "include").mkdir()
    installed = runtime.install(lambda line: None, archive=archive)
    assert installed.built and (root / "include").is_dir()
    assert sorted(path.name for path in (root / "lib").iterdir()) == sorted([*CPU_LIBRARIES, ASCEND_LIBRARIES[0]])


def test_sources_that_changed_since(archive, tmp_path, monkeypatch):
    """Another version of the package: one line, whether its programs are in the archive or were installed from it."""
    installed = runtime.install(lambda line: None, archive=archive)
    sources = tmp_path / "sources"
    shutil.copytree(compiler.SOURCES, sources)
    with open(sources / "bridge.cc", "a") as file:
        file.write("// changed\n")
    monkeypatch.setattr(compiler, "SOURCES", sources)
    message = fail(runtime.install, lambda line: None, archive=archive)
    assert message.startswith(f"{archive} was made by another version of kandinsky-mindir (it holds {installed.bridge.name}")
    assert runtime._find().bridge.name in message
    message = fail(runtime.ensure, lambda line: pytest.fail(line))  # before a download
    assert message.startswith("No C++ compiler found") and "runtime archive" in message


def test_a_wheel_completes_what_an_archive_brought(archive, cache, tmp_path, monkeypatch):
    """To build the programs anew takes headers, which an archive lacks."""
    installed = runtime.install(lambda line: None, archive=archive)
    installed.bridge.unlink()
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    wheel = stand_ins.wheel(tmp_path, monkeypatch)
    again = runtime.install(lambda line: None, wheel=wheel)
    assert again.built and again.compilable
    assert (again.root / "lib" / ASCEND_LIBRARIES[0]).exists()


@pytest.mark.parametrize("change, message", [
    (lambda text: text | {"machine": "riscv64"}, "MindSpore Lite 2.0.0 for riscv64; this machine needs 2.0.0 for"),
    (lambda text: text | {"lite": "2.7.0"}, "holds MindSpore Lite 2.7.0 for"),
    (lambda text: text | {"programs": ["bridge-0"], "files": {"bridge-0": ""}}, "(it holds bridge-0; this version needs bridge-"),
    (lambda text: text | {"programs": []}, "its archive.json is not what"),
    (lambda text: text | {"programs": ["../bridge-0"], "files": {"../bridge-0": ""}}, "its archive.json is not what"),
    (lambda text: text | {"files": text["files"] | {"lib/../../evil": "0"}}, "its archive.json is not what"),
    (lambda text: text | {"files": text["files"] | {"lib/libdnnl.so.2": "0" * 64}}, "the sha256 of lib/libdnnl.so.2 is not"),
    (lambda text: text | {"files": 7}, "its archive.json is not what"),
    (lambda text: [], "its archive.json is not what"),
])  # fmt: skip
def test_contents_that_do_not_fit(archive, cache, tmp_path, change, message):
    entries = members(archive)
    name = next(iter(entries))
    entries[name] = json.dumps(change(json.loads(entries[name]))).encode()
    assert message in fail(runtime.install, lambda line: None, archive=write(tmp_path / "other.tar.gz", entries))
    assert contents(cache) == []


@pytest.mark.parametrize("archive", [".tar.gz", ".tar.xz"], indirect=True)
@pytest.mark.parametrize("change, message", [
    (lambda data: b"", "no archive of the runtime"),
    (lambda data: b"text" * 999, "no archive of the runtime"),
    (lambda data: data[: len(data) // 2], "copy it again"),
    (lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :], " again"),
])  # fmt: skip
def test_a_damaged_archive(archive, cache, tmp_path, change, message):
    archive.write_bytes(change(archive.read_bytes()))
    assert message in fail(runtime.install, lambda line: None, archive=archive)
    assert contents(cache) == []


@pytest.mark.parametrize("change, message", [
    (lambda entries, folder: entries.popitem(), "is cut: it lacks"),
    (lambda entries, folder: entries.update({f"{folder}/../../evil": b""}), "does not belong to the runtime"),
    (lambda entries, folder: entries.update({"/etc/evil": b""}), "does not belong to the runtime"),
])  # fmt: skip
def test_files_that_do_not_fit(archive, cache, tmp_path, change, message):
    entries = members(archive)
    change(entries, next(iter(entries)).partition("/")[0])
    assert message in fail(runtime.install, lambda line: None, archive=write(tmp_path / "other.tar.gz", entries))
    assert contents(cache) == []


def test_a_bridge_that_needs_a_newer_system(cache, tmp_path, monkeypatch):
    stand_ins.program(tmp_path / "old", "#!/bin/sh\necho \"bridge: version 'GLIBC_9.9' not found\" >&2\nexit 1\n")
    text = (tmp_path / "compiler").read_text().replace(repr(STARTS), repr((tmp_path / "old").read_text()))
    stand_ins.program(tmp_path / "compiler", text)
    runtime.install(lambda line: None, wheel=stand_ins.wheel(tmp_path, monkeypatch))
    path = runtime.write_archive(tmp_path / "runtime.tar.gz", lambda line: None)
    shutil.rmtree(cache)
    message = fail(runtime.install, lambda line: None, archive=path)
    assert "does not start on this machine (bridge: version 'GLIBC_9.9' not found)" in message
    assert contents(cache) == []


@pytest.mark.parametrize("name, message", [
    ("runtime.zip", "the name of an archive ends in .tar.xz or .tar.gz"),
    ("missing/runtime.tar.gz", "no such folder"),
    ("folder.tar.gz", "is a folder"),
])  # fmt: skip
def test_places_that_an_archive_cannot_have(cache, tmp_path, name, message):
    """Refused before anything is installed or compressed."""
    (tmp_path / "folder.tar.gz").mkdir()
    assert message in fail(runtime.write_archive, tmp_path / name, lambda line: pytest.fail(line))


@pytest.mark.parametrize("error, raised", [(KeyboardInterrupt(), KeyboardInterrupt), (TimeoutError(), TimeoutError),
                                           (OSError(28, "No space left on device"), UserError)])
def test_an_archive_is_there_whole_or_not_at_all(archive, tmp_path, monkeypatch, error, raised):
    runtime.install(lambda line: None, archive=archive)
    before = sorted(os.listdir(tmp_path))

    def stop(*_):
        raise error

    monkeypatch.setattr(tarfile.TarFile, "addfile", stop)
    with pytest.raises(raised):
        runtime.write_archive(tmp_path / "second.tar.gz", lambda line: None)
    assert sorted(os.listdir(tmp_path)) == before


def test_no_such_archive(cache, tmp_path):
    assert fail(runtime.install, archive=tmp_path / "none.tar.xz") == f"{tmp_path / 'none.tar.xz'} cannot be read: No such file or directory"


@pytest.mark.slow
def test_the_real_runtime_runs_a_graph_from_an_archive(tmp_path, monkeypatch):
    """300 MB of libraries, so slow. In a process without compiler, pip and anything else on its path."""
    import small_graph

    small_graph.write(tmp_path)
    path = runtime.write_archive(tmp_path / "runtime.tar.gz", lambda line: None)
    inputs = small_graph.make_inputs()
    np.savez(tmp_path / "inputs.npz", *inputs)
    code = (
        "import sys, numpy as np\n"
        "from kandinsky_mindir.runner.engine import create, runtime\n"
        f"runtime.install(archive={str(path)!r})\n"
        f"inputs = list(np.load({str(tmp_path / 'inputs.npz')!r}).values())\n"
        f"with create().load({str(tmp_path / 'lowered.mindir')!r}) as model:\n"
        f"    np.savez({str(tmp_path / 'outputs.npz')!r}, *model.run(inputs))\n"
    )
    environment = {"PATH": str(tmp_path / "nothing"), runtime.CACHE_VARIABLE: str(tmp_path / "device")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    for output, right in zip(np.load(tmp_path / "outputs.npz").values(), small_graph.expected(*inputs)):
        np.testing.assert_array_equal(output, right)
    assert engine.create().runtime.root != tmp_path / "device"
