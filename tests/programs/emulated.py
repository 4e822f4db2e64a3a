"""Debian roots, and commands that run in them; those for aarch64 under emulation: QEMU's user mode, processor by processor."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
# An executable for aarch64, by the first bytes of its file: linux/fs/binfmt_elf.c, and QEMU's scripts/qemu-binfmt-conf.sh.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
SUITE = "bookworm"
PYTHON = ("python3", "python3-venv", "g++", "dash", "coreutils")  # what a board with a compiler has
INTERVAL = 0.1  # seconds between two looks at memory
PF_FORKNOEXEC = 0x40  # of the flags in /proc/PID/stat: include/linux/sched.h of Linux


class Run(NamedTuple):
    """What came of a command. peak: most bytes of it and of its children, without the emulator's own."""

    status: int
    out: str
    err: str
    seconds: float
    peak: int

    def check(self) -> Run:
        assert self.status == 0, f"status {self.status}: {self.out[-2000:]}{self.err[-2000:]}"
        return self


def emulator() -> Path:
    """QEMU's program, a static one: the kernel starts it within a root that does not hold it."""
    found = next((path for path in map(shutil.which, EMULATORS) if path), None)
    assert found, f"none of {' and '.join(EMULATORS)} is there: apt-get install qemu-user-static"
    return Path(found)


def make_root(folder: Path, packages: Sequence[str] = PYTHON, architecture: str = "arm64") -> None:
    """Unpack Debian packages, and those that they need, into a new folder. Nothing is run in it."""
    hooks = "/usr/share/mmdebstrap/hooks/merged-usr"
    command = ["mmdebstrap", f"--arch={architecture}", "--variant=extract", f"--include={','.join(packages)}",
               f"--hook-dir={hooks}", "--quiet", SUITE, folder]
    subprocess.run(list(map(str, command)), check=True)


def in_root(root: Path, command: Sequence[str], *, processor: str | None = None, binds: Mapping[Path, str] = {},
            environment: Mapping[str, str] = {}) -> Run:
    """Run a command in a root. processor: a model's name in QEMU, which emulates it, with pages as this machine has them; None:
    this machine's. binds: folders, by where they are seen.

    The kernel's table of what emulates which program is one of this command's own user namespace (Linux 6.7): nothing else
    on the machine notices.
    """
    script = ["set -e", f"mount -t proc proc {root}/proc"]
    known = {"PATH": "/venv/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **environment}
    if processor is not None:
        table = f"{root}/proc/sys/fs/binfmt_misc"
        script += [f"mount -t binfmt_misc none {table}",
                   f"printf '%s' ':aarch64:M::{MAGIC}:{MASK}:{emulator()}:F' > {table}/register"]
        known["QEMU_CPU"] = processor
    script.append(f"mount --rbind /dev {root}/dev")
    for path in ("proc", "dev", *(target.lstrip("/") for target in binds.values())):
        (root / path).mkdir(parents=True, exist_ok=True)
    script += [f"mount --bind {shlex.quote(str(source))} {root}{target}" for source, target in binds.items()]
    script.append("exec env -i " + shlex.join([*(f"{name}={value}" for name, value in known.items()), shutil.which("chroot"),
                                               str(root), *command]))
    spaces = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
    return watched([*spaces, "sh", "-c", "\n".join(script)], emulator() if processor is not None else None)


def watched(command: Sequence[str | Path], emulated_by: Path | None = None) -> Run:
    """Run a command and watch its memory, without that of the emulator, if there is one."""
    started = time.monotonic()
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace") as process:
        peak, done, failures = [0], threading.Event(), []

        def watch() -> None:
            try:
                while not done.wait(INTERVAL):
                    peak[0] = max(peak[0], in_use(process.pid, emulated_by))
            except Exception as error:
                failures.append(error)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            out, err = process.communicate()
        finally:
            done.set()
            watcher.join()
            process.kill()
    if failures:
        raise failures[0]
    return Run(process.returncode, out, err, time.monotonic() - started, peak[0])


def in_use(pid: int, emulated_by: Path | None = None) -> int:
    """Bytes of a process and of its descendants that are theirs alone: anonymous memory, and files in memory, each once."""
    own = None if emulated_by is None else str(emulated_by.resolve())
    files: dict[int, int] = {}
    smaps: dict[int, str] = {}
    total = 0
    for each in (pid, *descendants(pid)):
        try:
            words = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            forked, parent = int(words[6]) & PF_FORKNOEXEC, int(words[1])
            smaps[each] = Path(f"/proc/{each}/smaps").read_text()
            if forked and smaps[each] == smaps.get(parent):  # it runs in its parent's memory until it calls exec
                continue
            total += anonymous(smaps[each], own, bool(forked))
            for entry in os.scandir(f"/proc/{each}/fd"):
                if os.readlink(entry.path).startswith("/memfd:"):
                    found = entry.stat()
                    files[found.st_ino] = found.st_blocks * 512
        except OSError:  # it has ended, or is about to
            continue
    return total + sum(files.values())


def anonymous(smaps: str, emulated_by: str | None = None, forked: bool = False) -> int:
    """Bytes of anonymous memory, without that of the emulator: its program, the code it made, and what it keeps for itself.
    forked: without the pages that the process shares with the one that it was forked from, too."""
    total, private, counts = 0, 0, False
    for line in smaps.splitlines():
        if mapping := re.match(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) \S+ \S+ \d+ *(.*)", line):
            permissions, name = mapping.groups()
            counts = not emulated_by or not (permissions.startswith("rwx") or name in ("[heap]", "[stack]", emulated_by))
        elif line.startswith("Private_Dirty:"):  # it comes before the other one
            private = int(line.split()[1])
        elif counts and line.startswith("Anonymous:"):
            found = int(line.split()[1])
            total += (min(found, private) if forked else found) * 1024
    return total


def descendants(pid: int) -> Iterator[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:  # the process has ended
        return
    for task in tasks:
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in map(int, children):
            yield child
            yield from descendants(child)
