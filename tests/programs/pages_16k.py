"""Runs the program of a board's archive on a whole emulated machine whose kernel has pages of 16 KB, as some boards do.

  python tests/programs/pages_16k.py AARCH64 BUNDLE --work FOLDER

AARCH64 is what `kandinsky-mindir board BUNDLE --target aarch64` wrote. QEMU's user mode has pages as this machine has them, so
this takes Debian's kernel for such pages, and its packages qemu-system-arm, cpio, mmdebstrap and qemu-user-static. The machine
has two processors of the kind PROCESSOR, a C library, a shell and the archive. It runs `verify` and draws a picture, which comes
back by its serial line.

Prints what the machine says, and how the picture differs from this machine's. Ends with status 1 if a graph is wrong, or the
picture is another one than rounding explains.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import emulated
import numpy as np
import support_path  # noqa: F401
from aarch64 import VERDICT, apart
from kandinsky_mindir.runner.board.archive import FOLDER
from PIL import Image
from psnr import LEAST_PSNR, psnr

PROCESSOR, MEMORY, SECONDS = "cortex-a76", "2G", 1800
KERNEL, SUITE = "linux-image-arm64-16k", "trixie"  # the first Debian that has one
OPTIONS = "'a tiger' --seed 7 --steps 5 --prior-steps 5 --threads 2 --quiet"
INIT = f"""#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
busybox grep -m 1 KernelPageSize /proc/self/smaps
/{FOLDER}/kandinsky verify /{FOLDER}/bundle --threads 2
/{FOLDER}/kandinsky generate /{FOLDER}/bundle {OPTIONS} --output /text.png
echo PICTURE
busybox base64 /text.png
echo END
busybox poweroff -f
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="AARCH64")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="keeps the kernel for the next time")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as temporary:
        folder = Path(temporary)
        said = boot(kernel(args.work), disk(args.archive, folder), folder)
        here = folder / "here.png"
        command = f"{sys.executable} -m kandinsky_mindir.runner.cli generate {args.bundle} {OPTIONS} --output {here}"
        subprocess.run(command, shell=True, check=True, capture_output=True)
        expected = np.asarray(Image.open(here))
    head, _, rest = said.partition("PICTURE")
    print(head.strip())
    assert re.search(r"KernelPageSize: +16 kB", head), "the kernel has other pages"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(rest.partition("END")[0]))))
    print(f"picture beside this machine's: {apart(picture, expected)}")
    words = [word for _, _, word in VERDICT.findall(head)]
    sys.exit(not (words and set(words) == {"right"} and psnr(picture / 255, expected / 255) >= LEAST_PSNR))


def kernel(work: Path) -> Path:
    """The kernel's file."""
    found = work / KERNEL
    if not found.exists():
        with tempfile.TemporaryDirectory(dir=work) as temporary:
            emulated.make_root(Path(temporary) / "root", [KERNEL], suite=SUITE)
            (image,) = (Path(temporary) / "root" / "boot").glob("vmlinuz-*")
            shutil.copy(image, found)
    return found


def disk(archive: Path, folder: Path) -> Path:
    """A file with all that the machine has: it lies in its memory."""
    root, file = folder / "root", folder / "disk"
    emulated.make_root(root, ["libc6", "busybox-static"])
    subprocess.run(["tar", "-xf", archive, "-C", root], check=True)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    for name in ("proc", "dev"):
        (root / name).mkdir(exist_ok=True)
    with open(file, "wb") as written:
        subprocess.run("find . | cpio --quiet -o -H newc", shell=True, cwd=root, stdout=written, check=True)
    return file


def boot(image: Path, files: Path, folder: Path) -> str:
    """What the machine says on its serial line until it switches itself off."""
    command = ["qemu-system-aarch64", "-M", "virt", "-cpu", PROCESSOR, "-smp", "2", "-m", MEMORY, "-nographic", "-no-reboot", "-net",
               "none", "-kernel", image, "-initrd", files, "-append", "console=ttyAMA0 quiet panic=-1"]
    said = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, cwd=folder, check=True)
    return said.stdout.decode(errors="replace").replace("\r", "")


if __name__ == "__main__":
    main()
