"""What can be said of aarch64.py and emulated.py without an emulator."""

import sys

import aarch64
import emulated
import pytest

SMAPS = """00930000-00a5f000 rw-p 00520000 fe:00 5597683        /usr/bin/python3.11
Rss:                  12 kB
Anonymous:             8 kB
7ff7c0dff000-7ff7c4000000 rw-p 00000000 00:00 0
Anonymous:             2 kB
7ff7c4000000-7ff7cbfff000 rwxp 00000000 00:00 0
Anonymous:            64 kB
555590efb000-555591141000 rw-p 00000000 00:00 0          [heap]
Anonymous:            32 kB
7ff7d3a0d000-7ff7d3b81000 r--p 00e0c000 fe:00 5554563    /usr/bin/qemu
Anonymous:            16 kB
"""
VERIFIED = """graph           batch size          error  allowed    PSNR  seconds  verdict
text_encoder    1                 1.0e-07  6.4e-06   150.1     0.42  right
unet            2     64x64       2.0e-01  5.0e-06    10.0     1.42  WRONG
prior           2                     inf  0.0e+00    -inf     0.02  does not run
"""
ALLOCATES = "import time; held = bytearray(200 << 20); held[::4096] = b'1' * len(held[::4096]); time.sleep(0.5)"


def test_memory_of_the_emulator_does_not_count():
    assert emulated.anonymous(SMAPS, "/usr/bin/qemu") == 10 * 1024
    assert emulated.anonymous(SMAPS) == 122 * 1024


def test_what_is_installed_must_be_what_is_tested(tmp_path):
    for folder in ("installed", "sources"):
        (tmp_path / folder / "bundle").mkdir(parents=True)
        (tmp_path / folder / "bundle" / "manifest.py").write_text("FORMAT = 5\n")
    aarch64.require_same(tmp_path / "installed", tmp_path / "sources")
    (tmp_path / "installed" / "bundle" / "manifest.py").write_text("FORMAT = 4\n")
    with pytest.raises(AssertionError, match="another day: manifest.py"):
        aarch64.require_same(tmp_path / "installed", tmp_path / "sources")


def test_the_peak_of_a_command_and_its_children():
    child = ["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ALLOCATES!r}], check=True)"]
    run = emulated.watched([sys.executable, *child]).check()
    assert 200 << 20 < run.peak < 260 << 20 and run.seconds > 0.5


def test_pages_that_a_forked_process_shares_count_once():
    """200 MB that both have, and 100 that the forked one has made."""
    forks = ("import os, time; held = bytearray(200 << 20); held[::4096] = b'1' * len(held[::4096])\n"
             "if os.fork() == 0:\n own = bytearray(100 << 20); own[::4096] = b'1' * len(own[::4096]); time.sleep(1); os._exit(0)\n"
             "os.wait()")
    run = emulated.watched([sys.executable, "-c", forks]).check()
    assert 300 << 20 < run.peak < 360 << 20


def test_what_verify_prints_is_read():
    assert [(name, word) for name, _, word in aarch64.VERDICT.findall(VERIFIED)] == [
        ("text_encoder", "right"), ("unet", "WRONG"), ("prior", "does not run")]
