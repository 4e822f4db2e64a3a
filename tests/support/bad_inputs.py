"""Bad input of every kind, as a table of cases: what is done, and words of the one line that answers it.

  python tests/support/bad_inputs.py        prints the table: case | error

The rows are in bad_commands.py, bad_requests.py, bad_bundles.py, bad_checkpoints.py and bad_machines.py, and
test_bad_input.py holds every row to its words.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME, sealed
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine.bridge import BridgeEngine
from kandinsky_mindir.runner.pipelines import KandinskyV22CombinedPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline
from row_names import row_name

PROGRESS = ("Fetching MindSpore Lite", "Unpacking MindSpore Lite", "Building the bridge")  # lines that are no errors


class Case(NamedTuple):
    """`act` does something wrong in a Place, by its `command` or `call`, and returns the error that it got;
    `words` must be in it, in that order where " ... " stands between them."""

    name: str
    words: str
    act: Callable[["Place"], str]


class Place:
    """Where a case happens: a whole bundle and checkpoint, not to be touched, and an empty folder to work in.

    No model is loaded here: bad input must be found before that.
    """

    def __init__(self, bundle: Path, folder: Path):
        """`bundle` has its checkpoint beside it, as the folders prior and decoder."""
        self.bundle, self.prior, self.decoder = bundle, bundle.parent / "prior", bundle.parent / "decoder"
        self.folder = folder
        self.work = folder / "here"
        self.work.mkdir(parents=True)

    def command(self, *arguments) -> str:
        """What the command line says on standard error, as one line; AssertionError unless it ends with status 2."""
        output, errors = io.StringIO(), io.StringIO()
        with self._untouched(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                status = cli.main(list(map(str, arguments)))
            except SystemExit as exit:  # argparse
                status = exit.code
        assert status == 2, f"status {status}, errors: {errors.getvalue()!r}"
        assert output.getvalue() == ""
        said = "".join(line for line in errors.getvalue().splitlines(keepends=True) if not line.startswith(PROGRESS))
        assert said.count("\n") == 1 and said.endswith("\n"), f"not one line: {said!r}"
        assert said.startswith("kandinsky-mindir")
        return said.rstrip("\n")

    def call(self, function, *arguments, **options) -> str:
        """The UserError of a call."""
        with self._untouched():
            try:
                function(*arguments, **options)
            except UserError as error:
                assert "\n" not in str(error)
                return str(error)
        raise AssertionError("it was accepted")

    @contextlib.contextmanager
    def _untouched(self):
        """Nothing is written, no model is loaded."""
        before, home = self._files(), Path.cwd()
        os.chdir(self.work)
        try:
            with mock.patch.object(BridgeEngine, "load", side_effect=AssertionError("a model was loaded")):
                yield
        finally:
            os.chdir(home)
        after = self._files()
        assert after == before, f"left behind: {sorted(after.items() ^ before.items())}"

    def _files(self) -> dict:
        return {str(path): path.is_file() and path.stat().st_size for path in self.folder.rglob("*")}

    def copy(self, name: str) -> Path:
        """A copy of "bundle", "prior" or "decoder" whose files `rewrite` and others may change."""
        target = self.folder / name
        shutil.copytree(getattr(self, name), target, copy_function=os.link)  # links: a copy costs no bytes
        return target

    @cached_property
    def pipelines(self) -> dict:
        bundle = Bundle(self.bundle)
        classes = {"prior": KandinskyV22PriorPipeline, "decoder": KandinskyV22Pipeline, "combined": KandinskyV22CombinedPipeline}
        pipelines = {name: cls.from_pretrained(bundle) for name, cls in classes.items()}
        for pipeline in pipelines.values():
            pipeline.set_progress_bar_config(disable=True)
        return pipelines


def rewrite(path: Path, data: bytes | str) -> None:
    """New content for a file of a copy, whose old content others share."""
    path.unlink()
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """`change` alters the parsed content of a JSON file of a copy, or returns what replaces it; a manifest is sealed anew."""
    content = json.loads(path.read_text())
    changed = change(content)
    content = content if changed is None else changed
    rewrite(path, sealed(content) if path.name == FILE_NAME and isinstance(content, dict) else json.dumps(content))


def put(*keys_and_value) -> Callable[[dict], None]:
    """A change for `edit_json`: put("graphs", 0, "batch", 7) sets content["graphs"][0]["batch"] = 7."""
    *keys, last, value = keys_and_value

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def drop(*keys) -> Callable[[dict], None]:
    """A change for `edit_json` that takes out content[keys[0]][keys[1]]..."""
    *keys, last = keys

    def change(content):
        for key in keys:
            content = content[key]
        del content[last]

    return change


def short(value) -> str:
    text = row_name(value)
    return text if len(text) <= 60 else text[:40] + "..." + text[-17:]


def all_cases() -> list[Case]:
    import bad_bundles
    import bad_checkpoints
    import bad_commands
    import bad_machines
    import bad_requests

    modules = bad_commands, bad_requests, bad_bundles, bad_checkpoints, bad_machines
    return [case for module in modules for case in module.cases()]


def main() -> None:
    """Print the table."""
    import tempfile

    import checkpoints
    from kandinsky_mindir.export.bundle import export_bundle

    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folders = checkpoints.save("narrow", scratch)
        bundle = export_bundle(*folders, scratch / "bundle", checkpoints.SIZES["narrow"], progress=False)
        cases = all_cases()
        for i, case in enumerate(cases):
            error = case.act(Place(bundle, scratch / "cases" / str(i)))
            print(f"{case.name} | {error.replace(str(scratch), '')}", flush=True)
        print(f"{len(cases)} cases, each answered in one line")


if __name__ == "__main__":
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings
    from bad_inputs import main  # the rows' modules import this file by its name: one copy of it, not two

    main()
