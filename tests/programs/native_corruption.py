"""Damage at random places of a bundle, as corruption.py makes it: the C++ program refuses each, by name, in one line.

  python tests/programs/native_corruption.py BUNDLE PROGRAM [--cases 1000] [--seed 0]

PROGRAM is `kandinsky`. Prints how many of the cases were refused; status 1 unless it is all of them.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from corruption import Damaged, cases


def refused(program: Path, folder: Path, name: str) -> bool:
    """Whether the program says one line that names the damaged file `name`, with status 2."""
    result = subprocess.run([program, "verify", folder, "--files"], capture_output=True, text=True, timeout=600)
    return (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1) and str(folder / name) in result.stderr


def run(bundle: Path, program: Path, count: int, seed: int = 0) -> list[str]:
    """Do it; the cases that were not refused."""
    missed = []
    with tempfile.TemporaryDirectory(dir=bundle.parent) as folder:
        damaged = Damaged(bundle, Path(folder))
        assert subprocess.run([program, "verify", damaged.copy, "--files"]).returncode == 0  # whole, it is not refused
        for case in cases(bundle, count, seed):
            copy = damaged(case)
            if not refused(program, copy, case.name):
                missed.append(str(case))
            damaged.mend(case)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    missed = run(args.bundle, args.program.absolute(), args.cases, args.seed)
    print(*missed, sep="\n", end="\n" * bool(missed))
    print(f"{args.cases - len(missed)} of {args.cases} refused")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
