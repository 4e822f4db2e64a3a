"""The programs in benchmarks/ run to their end on a small bundle; the seconds that they print are not tested."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from native_program import built

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles("narrow")


def printed(program, *arguments):
    command = [sys.executable, FOLDER / program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def rows(text):
    """The cells of a table's rows, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][2:]


@pytest.mark.slow
def test_peers(bundle, tmp_path):
    text = printed("peers.py", "--checkpoint", bundle.parent, "--bundle", bundle, "--sizes", "16x16", "16x24", "--parts", "unet",
                   "--systems", "ours", "eager", "--rounds", 1, "--runs", 1, "--threads", 1, "--output", tmp_path / "table")
    found = rows(text)
    assert [row[:2] for row in found] == [[f"unet {size} batch 2", system] for size in ("16x16", "16x24")
                                          for system in ("ours", "eager")]
    # ratios are printed to 0.005, and seconds to four digits, which moves a ratio below 10 by less than 0.001
    for (_, _, seconds, ratio, *_), best in zip(found, (1, 1, 3, 3)):
        assert float(ratio) == pytest.approx(float(seconds) / float(found[best][2]), abs=0.006)
    assert (tmp_path / "table").read_text() == text
    assert max(map(len, text.rpartition("|")[2].splitlines())) <= 120


def test_fidelity(bundle):
    (error,) = re.findall(r"^movq +(\S+)", printed("fidelity.py", bundle, bundle.parent, "--parts", "movq"), re.MULTILINE)
    assert 0 < float(error) <= 1e-5  # as test_lite_graphs.py


@pytest.mark.slow
def test_packed(bundles, tmp_path):
    """peers.py packs the bundle; memory.py then measures it both ways."""
    bundle = shutil.copytree(bundles("micro"), tmp_path / "bundle")
    found = rows(printed("peers.py", "--bundle", bundle, "--sizes", "64x64", "--parts", "unet", "--systems", "ours", "packed",
                         "--rounds", 1, "--runs", 1, "--threads", 1))
    assert [row[:2] for row in found] == [["unet 64x64 batch 2", "ours"], ["unet 64x64 batch 2", "packed"]]
    assert all(float(row[column]) > 0 for row in found for column in (2, 5, 7))
    plain, packed = rows(printed("memory.py", bundle, "--runs", 2, "--threads", 1))  # one piece can be loaded in one way
    assert (plain[0], packed[0]) == ("1 of 1", "1 of 1, packed")
    assert all(float(figure) >= 0 for row in (plain, packed) for figure in row[1:])
    assert float(packed[1]) <= float(plain[1])  # the estimate


@pytest.mark.slow
def test_verification(bundle):
    text = printed("verification.py", bundle, "--runs", 1, "--loads")
    assert re.search(r"^hashing all \d+ MB +\d+\.\d+ s +\d+\.\d+ s/GB$", text, re.MULTILINE)
    assert re.search(r"^loading all stages, \d+ MB, hashing beside it", text, re.MULTILINE)


@pytest.mark.slow
def test_native_start(bundle, kept):
    text = printed("native_start.py", bundle, built(kept) / "kandinsky", "--runs", 1)
    assert [row[0] for row in rows(text.partition("\n\n")[0])] == ["bare", "kandinsky", "kandinsky, hashing"]
    ours, theirs, own, share = map(float, re.search(
        r"kandinsky (\d+\.\d) MB; kandinsky-mindir (-?\d+\.\d) MB beside (\d+\.\d) MB of Python's own; (-?\d+\.\d\d) of it$", text).groups())
    assert min(ours, theirs, own) > 0 and share == pytest.approx(ours / theirs, abs=0.01)


@pytest.mark.slow
def test_conditions_cost():
    found = rows(printed("conditions_cost.py", "encoder", "--size", 64))
    assert [name for name, _ in found][:3] == ["this project", "diffusers on torch", "the same, channels last"]
    assert all(float(seconds) > 0 for _, seconds in found)
