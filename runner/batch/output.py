"""The folder that a batch fills: a picture for each job, whole or not at all, and results.jsonl, which only grows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from ..common.errors import UserError
from ..common.locks import locked_folder
from ..pictures.provenance import Provenance
from ..pictures.saving import check_outputs, save_bytes
from .crew import Outcome
from .rows import Job

RESULTS = "results.jsonl"


class Output:
    """A folder that this process alone fills: see `opened`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._results = open(folder / RESULTS, "a+b")
        self._recorded = self._read()

    def missing(self, jobs: Iterable[Job], bundle_sha256: str, precision: str = "float32") -> list[Job]:
        """The jobs whose picture is not there. UserError where something else has its name."""
        return [job for job in jobs if not self._has(job, bundle_sha256, precision)]

    def keep(self, outcome: Outcome, tries: int) -> Path:
        """Write the picture of an outcome that has one, and record it."""
        answer = outcome.answer
        assert answer is not None and answer.png is not None
        path = self.folder / outcome.job.file
        save_bytes(answer.png, path)
        self._record(outcome.job, seconds=round(answer.seconds, 3), worker=outcome.worker, tries=tries,
                     **({"warnings": answer.warnings} if answer.warnings else {}))
        return path

    def give_up(self, job: Job, error: str, worker: str, tries: int) -> None:
        """Record a job that fails again and again."""
        self._record(job, error=error, worker=worker, tries=tries)

    def close(self) -> None:
        self._results.close()

    def _has(self, job: Job, bundle_sha256: str, precision: str) -> bool:
        path = self.folder / job.file
        if not os.path.lexists(path):
            return False
        try:
            found = Provenance.read(path)
        except UserError as error:
            raise UserError(f"line {job.line}: {error}: move it away, or give the row another id") from None
        differs = {"another request": found.request != job.request, "another bundle": found.bundle_sha256 != bundle_sha256,
                   "another --precision": found.versions.get("precision", "float32") != precision}
        if what := next((name for name, is_so in differs.items() if is_so), None):
            raise UserError(f"line {job.line}: {path} is there, and it is a picture of {what}: move it away, give the row "
                            "another id, or choose another --output")
        if not _is_whole(path):
            warnings.warn(f"{path} is damaged: it is made again", stacklevel=2)
            return False
        if job.file not in self._recorded:  # the last run was killed before it could
            self._record(job, found=True)
        return True

    def _read(self) -> set[str]:
        """The names of the pictures that are recorded as made. What a kill has cut is left out, and ended with a newline."""
        self._results.seek(0)
        made, last = set(), b"\n"
        for last in self._results:
            try:
                record = msgspec.json.decode(last)
                if "error" not in record:
                    made.add(record["file"])
            except (msgspec.MsgspecError, TypeError, KeyError):
                continue
        if not last.endswith(b"\n"):
            self._append(b"\n")
        return made

    def _record(self, job: Job, **facts: Any) -> None:
        self._append(msgspec.json.encode({"id": job.id, "file": job.file, "line": job.line, **facts}) + b"\n")

    def _append(self, data: bytes) -> None:
        try:
            self._results.write(data)
            self._results.flush()
        except OSError as error:
            raise UserError(f"{self.folder / RESULTS} cannot be written: {error.strerror}") from None


@contextmanager
def opened(folder: Path, jobs: Sequence[Job]) -> Iterator[Output]:
    """The folder, made if it is not there, for this process alone. UserError if the pictures could not be written there.

    jobs: with complete requests.
    """
    new = not folder.is_dir()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror}): choose another --output") from None
    try:
        with locked_folder(folder, wait=False):
            _check(folder, jobs)
            output = Output(folder)
            try:
                yield output
            finally:
                output.close()
    except BlockingIOError:
        raise UserError(f"another batch is writing into {folder}: wait for it, or choose another --output") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be used ({error.strerror}): choose another --output") from None
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _check(folder: Path, jobs: Sequence[Job]) -> None:
    """UserError if the pictures that are not there could not be written."""
    by_size: dict[tuple[int, int], list[Path]] = {}
    for job in jobs:
        if not (folder / job.file).exists():
            by_size.setdefault((job.request.height or 1, job.request.width or 1), []).append(folder / job.file)
    for size, paths in by_size.items():
        check_outputs(paths, size)


def _is_whole(path: Path) -> bool:
    """Whether every stretch of a PNG file has its checksum."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except Exception:  # on damaged files Pillow raises nearly anything
        return False
    with open(path, "rb") as file:
        file.seek(-12, os.SEEK_END)
        return file.read() == b"\0\0\0\0IEND\xaeB`\x82"
