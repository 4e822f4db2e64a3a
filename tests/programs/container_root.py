"""Runs the steps of runner/container/Containerfile in clean roots, without a container daemon, and then the image's command.

  python tests/programs/container_root.py BASE BUNDLE OUTPUT.png [--keep FOLDER]

BASE: a tar file of a minimal Debian 12, for example by `mmdebstrap --variant=minbase --include=ca-certificates bookworm
BASE`, which stands for debian:bookworm-slim. BUNDLE: an exported bundle. It needs the superuser on Linux, and the network for
apt and pip, whose configuration is lent to the roots while a step runs. Each RUN is run by chroot in mount and process
namespaces of its own; COPY, ARG, ENV, USER and ENTRYPOINT do as a daemon does. Then:

- no compiler, assembler or pip is in the image, and its user can read all that it needs;
- as that user, in a root that is mounted read-only, without network, the entry point makes a picture;
- the picture is the one that this machine makes outside, to the last pixel.

Prints what was checked, with the size of the image.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = ROOT / "runner" / "container" / "Containerfile"
COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "as", "ld", "cpp", "make", "pip", "pip3")
LENT = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/apt/apt.conf.d", "/etc/apt/auth.conf.d", "/etc/ssl/certs", "/etc/hosts")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of a container's command
PROMPT = ["a tiger", "--seed", "7", "--steps", "3", "--prior-steps", "3", "--threads", "1", "--quiet"]


class Stage:
    """A root, and what the instructions have said of it."""

    def __init__(self, root: Path):
        self.root, self.environment, self.user, self.entry = root, {"PATH": SEARCH}, "0:0", []
        self.arguments: dict[str, str] = {}

    def expanded(self, text: str) -> str:
        known = {**self.environment, **self.arguments}
        return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text)


def instructions(text: str) -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    return [tuple(line.split(maxsplit=1)) for line in lines.splitlines() if line.strip()]


def build(folder: Path, base: Path, given: dict[str, str], context: Path) -> Stage:
    """The last stage."""
    stages: dict[str, Stage] = {}
    stage = None
    for word, rest in instructions(CONTAINERFILE.read_text()):
        print(f"{word} {rest[:100]}", flush=True)
        if word == "FROM":
            _, _, name = rest.partition(" AS ")
            root = folder / (name or "image")
            root.mkdir()
            subprocess.run(["tar", "-xpf", base, "-C", root], check=True)
            stage = stages[name] = Stage(root)
        elif word == "ARG":
            name, _, default = rest.partition("=")
            stage.arguments[name] = given.get(name, default)
        elif word == "ENV":
            name, _, value = rest.partition("=")
            stage.environment[name] = stage.expanded(value)
        elif word == "RUN":
            inside(stage, ["/bin/sh", "-c", rest], {**stage.environment, **stage.arguments}, lend=True)
        elif word == "COPY":
            *options, target = shlex.split(rest)
            origin = stages[options.pop(0).partition("=")[2]].root if options[0].startswith("--from=") else context
            copy([origin / stage.expanded(name).lstrip("/") for name in options], stage.root / target.lstrip("/"),
                 target.endswith("/"))
        elif word == "USER":
            stage.user = rest
        elif word == "ENTRYPOINT":
            stage.entry = json.loads(rest)
        else:
            assert word in ("WORKDIR", "CMD"), f"{word} is not known here"
    return stage


def copy(sources: list[Path], target: Path, into: bool) -> None:
    """As COPY: what is in a folder goes into the target; a file becomes it, or goes into it."""
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place = target / source.name if into else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


def inside(stage: Stage, command: list[str], environment: dict[str, str], *, lend: bool = False, user: str = "0:0",
           read_only: bool = False, mounts: str = "", check: bool = True) -> subprocess.CompletedProcess:
    """Run a command in a stage's root. lend: give it the network, and this machine's way to its package registries."""
    root = str(stage.root)
    script = ["set -e", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc",
              f"mount -t tmpfs tmpfs {root}/dev; touch {root}/dev/null; mount --bind /dev/null {root}/dev/null",
              f"mkdir {root}/dev/shm; for f in zero random urandom; do touch {root}/dev/$f; mount --bind /dev/$f {root}/dev/$f; done"]
    if lend:
        for path in filter(os.path.exists, (*LENT, *pip_files())):
            place = stage.root / path.lstrip("/")
            if os.path.isdir(path):
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            script.append(f"mount --bind {path} {place}")
        environment = {**{name: value for name, value in os.environ.items() if re.match("(?i)pip_|.*_proxy|SSL_", name)},
                       **environment}
    if mounts:
        script.append(mounts)
    if read_only:
        script.append(f"mount -o remount,bind,ro {root}")
    uid, gid = user.split(":")
    identity = [] if user == "0:0" else ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"]
    script.append("exec env -i " + shlex.join([f"{name}={value}" for name, value in environment.items()]) + " "
                  + shlex.join([shutil.which("chroot"), root, *identity, *command]))
    spaces = ["unshare", "--mount", "--pid", "--fork", *([] if lend else ["--net"])]
    result = subprocess.run([*spaces, "sh", "-c", "\n".join(script)], capture_output=True, text=True)
    assert not check or result.returncode == 0, f"{shlex.join(command)[:200]}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result


def pip_files() -> list[str]:
    """pip's configuration of this user, and files that the configuration names."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    named = [word for word in re.findall(r"'(/[^']*)'", listed) if os.path.exists(word)]
    return [*named, os.path.expanduser("~/.config/pip/pip.conf")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "bundle", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the roots there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        context = folder / "context"
        context.mkdir()
        for name in ("models", "export", "runner", "src", "pyproject.toml", "README.md", "LICENSE"):
            (context / name).symlink_to(ROOT / name)
        (context / "bundle").symlink_to(args.bundle.absolute())
        image = build(folder, args.base, {"BUNDLE": "bundle"}, context)
        check(image, args.bundle, args.output)


def check(image: Stage, bundle: Path, output: Path) -> None:
    found = inside(image, ["/bin/sh", "-c", f"for p in {' '.join(COMPILERS)}; do command -v $p; done; true"], image.environment)
    assert found.stdout == "", f"the image holds {found.stdout.split()}"
    print(f"no {', '.join(COMPILERS)}")
    users = inside(image, ["/bin/sh", "-c", f"grep -c :{image.user}: /etc/passwd"], image.environment, check=False)
    assert users.stdout.strip() == "0", "the user has a name"
    with tempfile.TemporaryDirectory() as pictures:
        os.chmod(pictures, 0o777)
        (image.root / "pictures").mkdir()
        command = [*image.entry, "generate", "/bundle", *PROMPT, "--output", "/pictures/tiger.png"]
        refused = inside(image, ["/bin/sh", "-c", "echo > /bundle/x"], image.environment, user=image.user, read_only=True, check=False)
        assert refused.returncode != 0, "the root can be written"
        made = inside(image, command, image.environment, user=image.user, read_only=True,
                      mounts=f"mount --bind {pictures} {image.root}/pictures")
        print(f"as {image.user}, root read-only, no network: {made.stdout.strip()} ({made.stderr.strip()})")
        shutil.copy(Path(pictures) / "tiger.png", output)
        outside = Path(pictures) / "outside.png"
        subprocess.run([sys.executable, "-m", "kandinsky_mindir.runner.cli", "generate", bundle, *PROMPT, "--output", outside],
                       check=True, capture_output=True)
        assert np.array_equal(np.asarray(Image.open(outside)), np.asarray(Image.open(output))), "another picture than outside"
        print("the same picture as outside, to the last pixel")
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())
    of_bundle = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    print(f"the image holds {size / 1e6:.0f} MB, {of_bundle / 1e6:.0f} of them the bundle")


if __name__ == "__main__":
    main()
