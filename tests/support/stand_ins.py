"""Stand-ins for what installing the runtime needs: a wheel laid out as Lite's, a compiler, an empty cache."""

import hashlib
import sys
import zipfile

from kandinsky_mindir.runner.engine import runtime
from kandinsky_mindir.runner.engine.wheel import LIBRARIES, WHEELS

COMPILER = """#!{python}
import sys
open(sys.argv[sys.argv.index("-o") + 1], "w").write({text!r})
"""


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def compiler(path, text="built"):
    """A compiler whose programs are that text."""
    return program(path, COMPILER.format(python=sys.executable, text=text))


def wheel(folder, monkeypatch):
    """A small wheel laid out as Lite's, taken for the right one on x86-64 and aarch64."""
    path = folder / "mindspore_lite-2.0.0-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for library in (*LIBRARIES, "libtransformer-shared.so", "_c_lite_wrapper.cpython-37m.so"):
            archive.writestr(f"mindspore_lite/lib/{library}", library)
        archive.writestr("mindspore_lite/include/api/model.h", "// model")
        archive.writestr("mindspore_lite/model.py", "raise ImportError")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for machine, entry in WHEELS.items():
        monkeypatch.setitem(WHEELS, machine, entry._replace(sha256=digest))
    return path


def empty_cache(folder, monkeypatch):
    """The folder where the runtime would go, which is not there yet; a compiler that works, and no wheel at hand; a processor
    that kernels of ours do not suit, so that oneDNN is not fetched."""
    monkeypatch.setattr(runtime, "lacking_own_float32", lambda: "it is an old one")
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(folder / "cache"))
    monkeypatch.setenv("CXX", compiler(folder / "compiler"))
    monkeypatch.delenv(runtime.WHEEL_VARIABLE, raising=False)
    return folder / "cache" / "kandinsky-mindir"


def contents(cache):
    """Names in the cache but for the lock, which stays."""
    return sorted(path.name for path in cache.iterdir() if path.name != "install.lock") if cache.exists() else []
