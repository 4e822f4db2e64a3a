"""Whatever happens, the program prints one line and ends with the status that says so."""

import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from kandinsky_mindir.runner import UserError, cli
from kandinsky_mindir.runner.commands import inspect as command
from kandinsky_mindir.runner.common.stopping import Terminated

PROGRAM = [sys.executable, "-m", "kandinsky_mindir.runner.cli"]


def shell(line, **environment):
    """A shell's command line, in which `kandinsky-mindir` is this program: (status, standard output, standard error)."""
    function = 'kandinsky-mindir() { "$PYTHON" -m kandinsky_mindir.runner.cli "$@"; }; set -o pipefail; '
    result = subprocess.run(["bash", "-c", function + line], capture_output=True, timeout=120,
                            env={**os.environ, "PYTHON": sys.executable, **environment})
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("raised, status, line", [
    (UserError("bad\ninput"), 2, "error: bad input"),
    (MemoryError(), 2, "error: not enough memory: ask for fewer or smaller pictures, or give the machine more"),
    (OSError(28, "No space left on device", "cat\n.png"), 2, "error: cat .png: No space left on device"),
    (OSError(28, "No space left on device", b"\xea.png"), 2, "error: \\xea.png: No space left on device"),
    (OSError("odd"), 2, "error: odd"),
    (KeyboardInterrupt(), 130, "stopped"),
    (KeyboardInterrupt("prior done"), 130, "stopped: prior done"),
    (Terminated(), 143, "stopped"),
    (RecursionError("too deep"), 1, ("error: a fault of this program, please report it: RecursionError: too deep "
                                    "(KANDINSKY_MINDIR_TRACEBACK=1 shows where)")),
    (ZeroDivisionError("\x1b[31m"), 1, ("error: a fault of this program, please report it: ZeroDivisionError: \\x1b[31m "
                                       "(KANDINSKY_MINDIR_TRACEBACK=1 shows where)")),
    (SystemExit(3), 3, None),
])
def test_every_exception_is_one_line(raised, status, line, monkeypatch, capsys):
    def run(_):
        raise raised

    monkeypatch.setattr(command, "run", run)
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    assert cli.main(["inspect", "bundle"]) == status
    assert capsys.readouterr().err == (f"kandinsky-mindir: {line}\n" if line else "")


def test_a_traceback_for_who_asks(monkeypatch, capsys):
    monkeypatch.setattr(command, "run", lambda _: 1 / 0)
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert cli.main(["inspect", "bundle"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert cli.TRACEBACK in cli.EPILOG


def test_a_warning_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "run", lambda _: warnings.warn("two\nlines\x1b", stacklevel=1))
    assert cli.main(["inspect", "bundle"]) == 0
    assert capsys.readouterr().err == "kandinsky-mindir: warning: two lines\\x1b\n"


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("kandinsky-mindir ")


@pytest.mark.parametrize("line, status, output, error", [
    ("kandinsky-mindir --help | true", 141, b"", b""),
    ("kandinsky-mindir --version >&-", 0, b"", b""),
    ("kandinsky-mindir inspect missing <&- >&- 2>&-", 2, b"", b""),
    ("kandinsky-mindir inspect missing 2> /dev/full", 2, b"", b""),
    (r"kandinsky-mindir inspect $'m\nissing\e[31m\xea'", 2, b"",
     (rb"kandinsky-mindir: error: m issing\x1b[31m\xea is not a bundle (no manifest.json): make one with kandinsky-mindir "
     b"export\n")),
    (r"kandinsky-mindir inspect $'\xea' more$'\e\xea'", 2, b"",
     b"kandinsky-mindir: error: unrecognized arguments: more\\x1b\\xea (see kandinsky-mindir --help)\n"),
])
def test_the_program_itself(line, status, output, error):
    assert shell(line) == (status, output, error)


def test_output_that_cannot_be_written():
    status, _, error = shell("kandinsky-mindir --version > /dev/full")
    assert status == 2 and error.endswith(b"No space left on device\n") and error.count(b"\n") == 1


def test_a_terminal_that_is_ascii():
    _, _, error = shell("kandinsky-mindir inspect кот", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert error.startswith(rb"kandinsky-mindir: error: \u043a\u043e\u0442 is not a bundle")


def test_a_working_folder_that_is_gone(tmp_path):
    status, _, error = shell(f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone; kandinsky-mindir inspect missing')
    assert status == 2 and error.endswith(b"kandinsky-mindir: error: missing is not a bundle (no manifest.json): make one with "
                                          b"kandinsky-mindir export\n")


def test_a_name_is_printed_as_bytes_to_a_pipe_and_escaped_to_a_terminal(bundles, tmp_path):
    name = tmp_path / os.fsdecode(b"\xea\x1b")
    name.symlink_to(bundles("narrow"))
    piped = subprocess.run([*PROGRAM, "inspect", name], capture_output=True, check=True, timeout=60).stdout
    assert piped.startswith(os.fsencode(tmp_path) + b"/\xea\\x1b: format")
    ours, theirs = pty.openpty()
    subprocess.run([*PROGRAM, "inspect", name], stdout=theirs, check=True, timeout=60)
    assert os.read(ours, 4096).startswith(os.fsencode(tmp_path) + rb"/\xea\x1b: format")


def test_sigterm_stops_generate_without_rubbish(bundles, tmp_path):
    process = subprocess.Popen(
        [*PROGRAM, "generate", bundles("narrow"), "a cat", "--images", "1000", "--prior-steps", "1000", "--quiet"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text():  # a model is loaded
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=120) == ("", "kandinsky-mindir: stopped\n")
    assert process.returncode == 143 and os.listdir(tmp_path) == []
