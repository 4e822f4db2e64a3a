"""Machines that lack what is needed: compiler, network, the right wheel, the exporter's libraries, disk that can be
written."""

import contextlib
import os
import platform
import sys
from unittest import mock

from bad_inputs import Case
from kandinsky_mindir.runner.engine import runtime

INSTALL = ("runtime", "install")
GENERATE = ("generate", "{place.bundle}", "a cat")
EXPORT = ("export", "--prior", "{place.prior}", "--decoder", "{place.decoder}", "--output", "out")


def cases():
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_INDEX": "1"}
    for command in (INSTALL, GENERATE):
        name = " ".join(command[:2])
        yield Case(f"{name}, no network", "pip could not fetch MindSpore Lite 2.0.0 ... check the network, or set",
                   _machine(command, environment=offline))
        yield Case(f"{name}, no compiler", "No C++ compiler found: install g++", _machine(command, unpacked, {"PATH": ""}))
        yield Case(f"{name}, CXX is no program", "CXX is set to 'missing-c++', and 'missing-c++' is not a program",
                   _machine(command, unpacked, {"CXX": "missing-c++"}))
        yield Case(f"{name}, the compiler fails", "could not build bridge.cc", _machine(command, unpacked, {"CXX": "false"}))
        yield Case(f"{name}, the wheel is not there", "missing.whl: no such wheel file",
                   _machine(command, environment={runtime.WHEEL_VARIABLE: "missing.whl"}))
        yield Case(f"{name}, the wheel is another file", "sha256 is ... not the MindSpore Lite 2.0.0 wheel",
                   _machine(command, environment={runtime.WHEEL_VARIABLE: __file__}))
        yield Case(f"{name}, the wheel is a folder", "no such wheel file",
                   _machine(command, environment={runtime.WHEEL_VARIABLE: "/"}))
        yield Case(f"{name}, the cache cannot be made", "Cannot install the runtime in /dev/null/kandinsky-mindir",
                   _machine(command, environment={runtime.CACHE_VARIABLE: "/dev/null"}))
        yield Case(f"{name}, on another processor", "exists for Linux on x86_64 and aarch64, not for Linux on riscv64",
                   _machine(command, mock.patch.object(platform, "machine", lambda: "riscv64")))
        yield Case(f"{name}, on another system", "not for Darwin on",
                   _machine(command, mock.patch.object(platform, "system", lambda: "Darwin")))
        yield Case(f"{name}, without glibc", "needs glibc",
                   _machine(command, mock.patch.object(platform, "libc_ver", lambda: ("", ""))))
    yield Case("runtime install --wheel missing.whl", "missing.whl: no such wheel file",
               _machine((*INSTALL, "--wheel", "missing.whl")))
    for name in ("mindspore", "transformers"):
        for command in (EXPORT, ("demo",)):
            yield Case(f"{command[0]} without {name}", f"needs {name}: run pip install '.[export]'",
                       _machine(command, _without(name)))
    read_only = mock.patch.object(os, "access", lambda *_, **__: False)  # root may write anywhere
    for command in (EXPORT, GENERATE):
        installed = {runtime.CACHE_VARIABLE: str(runtime.cache_folder().parent)}
        yield Case(f"{command[0]} into a read-only folder", "is not writable: choose another --output",
                   _machine(command, read_only, installed))


@contextlib.contextmanager
def _without(name):
    """A module that cannot be imported. (Not by mock.patch.dict, which would forget what is imported meanwhile.)"""
    module = sys.modules.get(name)
    sys.modules[name] = None
    try:
        yield
    finally:
        if module:
            sys.modules[name] = module
        else:
            del sys.modules[name]


class _Unpacked:
    """The libraries lie in the cache, the programs are not built."""

    def __enter__(self):
        (runtime._find().root / "include").mkdir(parents=True)

    def __exit__(self, *_):
        (runtime._find().root / "include").rmdir()  # each must be as empty as it was
        runtime._find().root.rmdir()


unpacked = _Unpacked()


def _machine(command, circumstance=None, environment=None):
    """Run `command` under `circumstance` with an empty cache and `environment`; nothing but the lock may stay there."""

    def act(place):
        cache = place.folder.with_name(place.folder.name + "-cache")
        variables = {runtime.CACHE_VARIABLE: str(cache), **(environment or {})}
        with mock.patch.dict(os.environ, variables), circumstance or mock.patch.dict(os.environ):
            for name in {runtime.WHEEL_VARIABLE} - variables.keys():
                os.environ.pop(name, None)
            error = place.command(*(word.format(place=place) for word in command))
        left = [path.name for path in cache.rglob("*") if path.is_file()]
        assert left in ([], ["install.lock"]), left
        return error.replace(str(cache), "CACHE")

    return act
