"""Every command and every program in the README runs as printed."""

import re
import shlex
from pathlib import Path

import checkpoints
import pytest
from kandinsky_mindir.runner import cli
from references import MICRO

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SETUP, TEST, *SHELL = [body.strip() for language, body in BLOCKS if language == "bash"]
ACTIVATE, *COMMANDS = [line for body in SHELL for line in body.splitlines()]
OWN_BUNDLE = ("kandinsky-mindir export", "kandinsky-mindir pack", "kandinsky-mindir generate bundle")  # that make and use one
PROGRAMS = [body for language, body in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory, bundles):
    """A folder like a clone after the first command, with the real checkpoints downloaded: in their place, parts of the same
    depth of levels with random weights."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "artifacts" / "demo").mkdir(parents=True)
    (folder / "artifacts" / "demo" / "bundle").symlink_to(bundles("micro"))
    (folder / "artifacts" / "micro").symlink_to(MICRO)
    for path in checkpoints.save("wide", tmp_path_factory.mktemp("wide")):
        (folder / f"kandinsky-2-2-{path.name}").symlink_to(path)
    return folder


def test_blocks_are_found():
    assert ACTIVATE == ". .venv/bin/activate"  # the environment that the first command made
    assert len(COMMANDS) >= 5 and len(PROGRAMS) >= 2


def test_the_two_commands_are_one_line_each():
    """The first is the demo, which test_demo.py runs; the second is what runs this."""
    assert [language for language, _ in BLOCKS[:2]] == ["bash", "bash"]
    for command, end in ((SETUP, "kandinsky-mindir demo"), (TEST, "-m pytest")):
        assert "\n" not in command and command.startswith("python3 -m venv .venv &&") and command.endswith(end)


def run(commands, capsys):
    """One after another: later commands use what earlier ones write."""
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "kandinsky-mindir"
        assert cli.main(arguments) == 0, f"{command}: {capsys.readouterr().err}"
        if "--output" in arguments:
            assert Path(arguments[arguments.index("--output") + 1]).exists(), command


@pytest.mark.slow
def test_commands(newcomer, monkeypatch, capsys):
    """On the demo's bundle."""
    monkeypatch.chdir(newcomer)
    run([command for command in COMMANDS if not command.startswith(OWN_BUNDLE)], capsys)


@pytest.mark.slow
def test_commands_on_a_bundle_of_ones_own(newcomer, monkeypatch, capsys):
    monkeypatch.chdir(newcomer)
    run([command for command in COMMANDS if command.startswith(OWN_BUNDLE)], capsys)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_program(program, newcomer, monkeypatch):
    monkeypatch.chdir(newcomer)
    saved = re.findall(r'save\("(.*?)"\)', program)
    assert saved
    for name in saved:
        Path(name).unlink(missing_ok=True)
    exec(compile(program, "README.md", "exec"), {})
    assert all(Path(name).stat().st_size > 1000 for name in saved)
