"""Runs this project on aarch64, emulated, beside this machine, and prints a table of what came of it.

  python tests/programs/aarch64.py BUNDLE --work FOLDER [--case NAME PRECISION]... [--board AARCH64 X86_64]

BUNDLE was exported on this machine, an x86-64 one. FOLDER keeps the root, the wheels and Lite for the next time; the root
takes the superuser, Linux 6.7, 1 GB, and Debian's packages mmdebstrap and qemu-user-static (8.2 or later: an older QEMU shows
programs the instructions of this machine's processor). In each case: `verify`, a picture of a text, one of a mix
with a picture, `pack`, and the first picture again from what was packed. Wheels are fetched for every Python; the one that
Debian has runs. AARCH64 and X86_64 are what `kandinsky-mindir board BUNDLE --target …` wrote: they are unpacked into roots that
hold nothing but a C library, and their program makes the same of their own bundle, without packing.

Ends with status 1 if a graph is wrong, a float32 picture is another one than rounding explains, a packed bundle makes another
picture, memory is above LIMIT times what it is here, or a processor without float16 does not say so.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import emulated
import numpy as np
import support_path  # noqa: F401
from emulated import Run
from kandinsky_mindir.runner.board.archive import FOLDER
from kandinsky_mindir.runner.engine.wheel import VERSION, WHEELS
from PIL import Image
from psnr import LEAST_PSNR, psnr

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
STEPS = ["--steps", "5", "--prior-steps", "5", "--seed", "7", "--threads", "2", "--quiet"]
TEXT = ["generate", "{bundle}", "a tiger", *STEPS, "--precision", "{precision}", "--output", "{out}/text.png"]
MIX = ["interpolate", "{bundle}", "--text", "a cat", "0.4", "--image", "{given}/text.png", "0.6", *STEPS, "--precision", "{precision}",
       "--output", "{out}/mix.png"]
VERIFY = ["verify", "{bundle}", "--threads", "2", "--precision", "{precision}"]
PACK = ["pack", "{packed}", "--threads", "2"]
PACKED = ["generate", "{packed}", *TEXT[2:-1], "{out}/packed.png"]
LIMIT = 1.15  # of this machine's memory
VERDICT = re.compile(r"^(\w+) .*?(\d\.\de[+-]\d+|inf)\s+\d\.\de[+-]\d+\s+\S+\s+\S+\s+(right|WRONG|does not run)$", re.MULTILINE)
HEADS = ("program", "processor", "precision", "graphs right", "worst error", "text", "mix", "packed", "peak, MB", "x86-64's",
         "packed, MB", "x86-64's", "seconds")


class Case(NamedTuple):
    """processor: a model's name in QEMU."""

    processor: str
    precision: str


CASES = (Case("cortex-a53", "float32"), Case("cortex-a72", "float32"), Case("cortex-a76", "float32"), Case("cortex-a76", "float16"))
WITHOUT_FLOAT16 = "cortex-a53"


class Outcome(NamedTuple):
    """What a machine made. graphs: name, error and verdict of each; pictures: by command, 8-bit values; runs: by command."""

    graphs: list[tuple[str, float, str]]
    pictures: dict[str, np.ndarray]
    runs: dict[str, Run]

    @property
    def right(self) -> int:
        return sum(word == "right" for _, _, word in self.graphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--case", action="append", nargs=2, metavar=("NAME", "PRECISION"),
                        help=f"a model of QEMU's, and a precision (default: {', '.join(map(' '.join, CASES))})")
    parser.add_argument("--board", type=Path, nargs=2, metavar=("AARCH64", "X86_64"), help="archives with the same bundle")
    parser.add_argument("--only", choices=("Python", "C++"), help="what is emulated (default: both)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there, too")
    args = parser.parse_args()
    cases = [Case(*words) for words in args.case or CASES]
    args.work.mkdir(parents=True, exist_ok=True)
    with_python, board = args.only != "C++", args.board if args.only != "Python" else None
    notes = [install(args.work, cases[0].processor)] if with_python else []
    lines, good = [f"| {' | '.join(HEADS)} |", "| --- " * len(HEADS) + "|"], True

    def note(program: str, processor: str, precision: str, found: Outcome, here: Outcome) -> None:
        nonlocal good
        lines.append(row(program, processor, precision, found, here))
        good &= is_good(found, here, precision)
        print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory(dir=args.work) as temporary:
        folder = Path(temporary)
        here = outcome(natively, args.bundle, folder / "x86-64", "float32", None)
        note("Python", "x86-64", "float32", here, here)
        for number, case in enumerate(cases if with_python else ()):
            found = outcome(partial(emulated_run, args.work, case.processor), args.bundle, folder / str(number), case.precision, here)
            note("Python", case.processor, case.precision, found, here)
        if board:
            other, own = (unpacked(archive, folder / f"root-{name}", name) for archive, name in zip(board, ("arm64", "amd64")))
            near = outcome(partial(on_board, own, None), args.bundle, folder / "board", "float32", here, packs=False)
            note("C++", "x86-64", "float32", near, here)
            for number, case in enumerate(cases):
                found = outcome(partial(on_board, other, case.processor), args.bundle, folder / f"board-{number}", case.precision, here, packs=False)
                note("C++", case.processor, case.precision, found, near)
    if with_python:
        said = emulated_run(args.work, WITHOUT_FLOAT16, [*VERIFY, "--part", "prior"], {"bundle": args.bundle.resolve()}, "float16").err
        notes.append(f"`--precision float16` on {WITHOUT_FLOAT16}: \"{said.strip()}\"")
        good &= "float32 is used instead" in said
    table = "\n".join([*lines, "", *(f"- {note}" for note in notes)])
    print(table)
    if args.output:
        args.output.write_text(f"{table}\n")
    sys.exit(not good)


def install(work: Path, processor: str) -> str:
    """Make the root, with this project installed in it by pip from wheels, and Lite from its vendor's; what was installed."""
    root, wheels = work / "root", work / "wheels"
    if not root.exists():
        emulated.make_root(work / "root.partial")
        (work / "root.partial").rename(root)
    pip = [sys.executable, "-m", "pip"]
    shutil.rmtree(work / "own", ignore_errors=True)
    subprocess.run([*pip, "wheel", "-qq", "--no-deps", "--wheel-dir", work / "own", ROOT], check=True)
    (own,) = (work / "own").iterdir()
    for python in PYTHONS:
        for old in (wheels / python).glob("kandinsky_mindir-*"):  # of the same version, which pip would leave there
            old.unlink()
        tags = ["--only-binary=:all:", "--python-version", python, *(word for name in PLATFORMS for word in ("--platform", name))]
        subprocess.run([*pip, "download", "-qq", *tags, "--dest", wheels / python, own], check=True)
    lite = work / "lite"
    if not lite.exists():
        tags = ["--python-version", "37", "--implementation", "cp", "--abi", "cp37m", "--platform", WHEELS["aarch64"].platform]
        subprocess.run([*pip, "download", "-q", "--no-deps", "--only-binary=:all:", *tags, "--dest", lite,
                        f"mindspore-lite=={VERSION}"], check=True)
    run = partial(in_root, work, processor)
    if not (root / "venv").exists():
        run(["python3", "-m", "venv", "/venv"]).check()
    version = run(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).check().out.strip()
    install = ["/venv/bin/pip", "install", "-q", "--no-index", "--find-links", f"/wheels/{version}"]
    run([*install, "kandinsky-mindir"]).check()
    run([*install, "--no-deps", "--force-reinstall", "kandinsky-mindir"]).check()  # that of today
    (site,) = (root / "venv" / "lib").glob("python3*/site-packages/kandinsky_mindir")
    require_same(site / "runner", ROOT / "runner")
    (wheel,) = lite.iterdir()
    run(["kandinsky-mindir", "runtime", "install", "--wheel", f"/lite/{wheel.name}"]).check()
    return f"wheels are there for Python {', '.join(PYTHONS)}; {version}, which Debian has, was run"


def require_same(installed: Path, sources: Path) -> None:
    """AssertionError names a module that is installed otherwise than it is here."""
    other = [path.name for path in sources.rglob("*.py") if (installed / path.relative_to(sources)).read_bytes() != path.read_bytes()]
    assert not other, f"{installed} is of another day: {', '.join(other)}"


def in_root(work: Path, processor: str, command: list[str], **folders: Path) -> Run:
    binds = {work / "wheels": "/wheels", work / "lite": "/lite", work / "cache": "/cache",
             **{path: f"/{name}" for name, path in folders.items()}}
    (work / "cache").mkdir(exist_ok=True)
    return emulated.in_root(work / "root", command, processor=processor,
                            binds={k.resolve(): v for k, v in binds.items()}, environment={"KANDINSKY_MINDIR_CACHE": "/cache"})


def emulated_run(work: Path, processor: str, arguments: list[str], folders: dict[str, Path], precision: str) -> Run:
    words = [word.format(precision=precision, **{name: f"/{name}" for name in folders}) for word in arguments]
    return in_root(work, processor, ["kandinsky-mindir", *words], **folders)


def unpacked(archive: Path, root: Path, architecture: str) -> Path:
    """A root that holds nothing but a C library and what is in the archive. architecture: in Debian's words."""
    emulated.make_root(root, ["libc6"], architecture)
    for path in root.rglob("libgcc_s.so*"):  # which Debian's C library asks for
        path.unlink()
    subprocess.run(["tar", "-xf", archive, "-C", root], check=True)
    return root


def on_board(root: Path, processor: str | None, arguments: list[str], folders: dict[str, Path], precision: str) -> Run:
    """The program of an archive in its root, on the bundle that came with it. processor: as in emulated.in_root."""
    places = {name: f"/{name}" for name in folders} | {"bundle": f"/{FOLDER}/bundle"}
    words = [word.format(precision=precision, **places) for word in arguments]
    binds = {path.resolve(): places[name] for name, path in folders.items() if name != "bundle"}
    return emulated.in_root(root, [f"/{FOLDER}/kandinsky", *words], processor=processor, binds=binds)


def natively(arguments: list[str], folders: dict[str, Path], precision: str) -> Run:
    words = [word.format(precision=precision, **folders) for word in arguments]
    return emulated.watched([sys.executable, "-m", "kandinsky_mindir.runner.cli", *words])


def outcome(run: Callable[[list[str], dict[str, Path], str], Run], bundle: Path, out: Path, precision: str,
            here: Outcome | None, packs: bool = True) -> Outcome:
    """What comes of all commands. here: of the machine whose first picture is mixed; None: it is the own one. packs: whether
    there is a command that packs."""
    out.mkdir()
    copy = shutil.copytree(bundle, out / "bundle", ignore=lambda folder, names: {"packed"} if folder == str(bundle) else ())
    folders = {"bundle": bundle.resolve(), "out": out, "packed": copy, "given": out if here is None else out.parent / "x86-64"}
    commands = {"verify": VERIFY, "text": TEXT, "mix": MIX}
    if precision == "float32" and packs:
        commands |= {"pack": PACK, "packed": PACKED}
    runs = {}
    for name, arguments in commands.items():
        runs[name] = run(arguments, folders, precision)
        if name != "verify":
            runs[name].check()
    pictures = {name: np.asarray(Image.open(out / f"{name}.png")) for name in ("text", "mix", "packed") if name in runs}
    graphs = [(name, float(error), word) for name, error, word in VERDICT.findall(runs["verify"].out)]
    assert graphs, runs["verify"].err
    return Outcome(graphs, pictures, runs)


def row(program: str, processor: str, precision: str, found: Outcome, here: Outcome) -> str:
    cells = [program, processor, precision, f"{found.right} of {len(found.graphs)}", f"{max(error for _, error, _ in found.graphs):.1e}",
             *(apart(found.pictures[name], here.pictures[name]) for name in ("text", "mix"))]
    if "packed" in found.pictures:
        cells.append("the same" if np.array_equal(found.pictures["packed"], found.pictures["text"]) else "ANOTHER")
    else:
        cells.append("")
    for name in ("text", "packed"):
        peak, other = (each.runs[name].peak if name in each.runs else 0 for each in (found, here))
        cells += [f"{peak / 1e6:.0f}", f"{other / 1e6:.0f}"] if peak else ["", ""]
    cells.append(f"{sum(run.seconds for run in found.runs.values()):.0f}")
    return f"| {' | '.join(cells)} |"


def apart(picture: np.ndarray, other: np.ndarray) -> str:
    """How many of the 8-bit values of two pictures differ, and by how much at most."""
    steps = np.abs(picture.astype(int) - other)
    return f"{np.count_nonzero(steps)} of {steps.size} by {steps.max()}" if steps.any() else "the same"


def is_good(found: Outcome, here: Outcome, precision: str) -> bool:
    good = found.right == len(found.graphs) and found.runs["text"].peak <= LIMIT * here.runs["text"].peak
    if precision == "float32":
        good &= all(psnr(found.pictures[name] / 255, here.pictures[name] / 255) >= LEAST_PSNR for name in ("text", "mix"))
    if "packed" in found.pictures:
        good &= np.array_equal(found.pictures["packed"], found.pictures["text"])
        good &= found.runs["packed"].peak <= LIMIT * here.runs["packed"].peak
    return bool(good)


if __name__ == "__main__":
    main()
