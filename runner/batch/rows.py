"""A file of requests, JSON lines or CSV, read whole: every row is a request and the name of its pictures."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..common.errors import UserError
from ..pictures.fetch import shorten
from ..pictures.saving import numbered
from ..request import SEED_BITS, Request
from ..tasks import PICTURES, TASKS

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
TEXTS = ("id", "task", "prompt", "negative_prompt", "negative_prior_prompt")  # of CSV: never read as JSON
DIGEST = 16  # hexadecimal digits of an id that nobody gave
MOST_BYTES = 1 << 30  # of the file
WHERE = "the request"  # before an error of it, where the line says more


class Row(NamedTuple):
    """A request of the file. line: where it stands, from 1. id: as it was given, or of the request's digest."""

    line: int
    id: str
    request: Request


class Job(NamedTuple):
    """One picture. file: its name in the output folder. request: makes it alone."""

    line: int
    id: str
    file: str
    request: Request


def read(path: Path) -> list[Row]:
    """The rows of a file. UserError names the first line that is wrong, and says how many others are.

    A row without a seed gets one that follows from its id and its request: the next run makes the same picture.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} ends in no known format of requests: use one of {', '.join(READERS)}")
    lines = reader(path, _text(path))
    rows = each(path, [line for line, _ in lines], (_row(line, data) for line, data in _checked(lines)))
    if not rows:
        raise UserError(f"{path} holds no request: write one on each line")
    return _with_ids(path, rows)


def jobs_of(path: Path, rows: Sequence[Row]) -> list[Job]:
    """A job for each picture. A row that makes several has them numbered, as generate numbers its files."""
    jobs, lines = [], dict[str, int]()
    for row in rows:
        for number, name in enumerate(numbered(Path(f"{row.id}.png"), row.request.count)):
            if (other := lines.setdefault(name.name, row.line)) != row.line:
                raise UserError(f"{path}, line {row.line}: it would write {name.name}, as line {other} does: give it another id")
            jobs.append(Job(row.line, row.id, name.name, row.request.alone(number)))
    return jobs


def each(path: Path, lines: Sequence[int], found: Iterator[Any]) -> list[Any]:
    """What is found for each of `lines`, where a UserError may stand for one; UserError names the first of them."""
    results, wrong = [], []
    for line, result in zip(lines, found):
        (wrong.append((line, result)) if isinstance(result, UserError) else results.append(result))
    if wrong:
        (line, error), others = wrong[0], len({line for line, _ in wrong}) - 1
        more = f" (and {others} more of its lines)" if others else ""
        raise UserError(f"{path}, line {line}: {error}{more}")
    return results


def walk(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """What JSON can hold, with every object in it changed."""
    if isinstance(value, dict):
        return change({name: walk(item, change) for name, item in value.items()})
    return [walk(item, change) for item in value] if isinstance(value, (list, tuple)) else value


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES} bytes: split it")
    try:
        return data.decode("utf-8-sig")  # a mark at its start, as spreadsheets write it, is no part of it
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: it is not UTF-8") from None


def _json_lines(_: Path, text: str) -> list[tuple[int, Any]]:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _table(path: Path, text: str) -> list[tuple[int, Any]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        names = next(reader, [])
        found: list[tuple[int, Any]] = []
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                found.append((line, (names, cells)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: it is not CSV: {error}") from None
    if len(set(names)) != len(names) or "" in names:
        raise UserError(f"{path}, line 1: it must name the columns, each once")
    return found


READERS: dict[str, Callable[[Path, str], list[tuple[int, Any]]]] = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _table,
}  # fmt: skip


def _checked(lines: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    for line, source in lines:
        try:
            yield line, _cells(*source) if isinstance(source, tuple) else _object(source)
        except UserError as error:
            yield line, error


def _object(text: str) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise UserError(f"it is not JSON ({shorten(str(error))})") from None
    if not isinstance(data, dict):
        raise UserError("it must be an object of JSON: {...}")
    return data


def _cells(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """A row of CSV. An empty cell leaves the field open; what JSON can read is read so, but for texts."""
    if len(cells) != len(names):
        raise UserError(f"it has {len(cells)} cells and the first line names {len(names)} columns")
    return {name: cell if name in TEXTS else _value(cell) for name, cell in zip(names, cells) if cell}


def _value(cell: str) -> Any:
    """A number or a list as itself, a word as a text."""
    try:
        return msgspec.json.decode(cell)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return cell


def _row(line: int, data: Any) -> Row | UserError:
    if isinstance(data, UserError):
        return data
    try:
        given = data.pop("id", None)
        name = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        if name is not None and not (isinstance(name, str) and ID.fullmatch(name)):
            raise UserError(f"id is {shorten(repr(name))}: it must be up to 128 letters, digits, points, hyphens and underlines, "
                            "the first a letter or a digit")
        data.setdefault("task", next((task for task, row in TASKS.items() if row.needs in data), next(iter(TASKS))))
        for field in PICTURES:
            if isinstance(data.get(field), str):  # a path is enough
                data[field] = [{"image": data[field]}]
        request = Request.from_dict(data, WHERE)
        digest = hashlib.sha256(f"{name}\n{request.to_json()}".encode()).hexdigest()
        if request.seed is None:
            request = request.replace(seed=int(digest, 16) % 2**SEED_BITS)
        return Row(line, name or digest[:DIGEST], request)
    except UserError as error:
        return UserError(str(error).removeprefix(f"{WHERE}: "))


def _with_ids(path: Path, rows: list[Row]) -> list[Row]:
    lines: dict[str, int] = {}
    for row in rows:
        if (other := lines.setdefault(row.id, row.line)) != row.line:
            raise UserError(f"{path}, line {row.line}: its id is {row.id}, as that of line {other}: give each an id of its own "
                            "(rows without one need different requests, for example different seeds)")
    return rows
