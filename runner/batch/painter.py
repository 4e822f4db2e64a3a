"""What makes the pictures of a batch: one process with the bundle open, on this machine or on a node of a cluster."""

from __future__ import annotations

import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..bundle.checked_files import sha256_of
from ..bundle.manifest import FILE_NAME
from ..common.errors import UserError, one_line
from ..common.memory import available
from ..common.scratch import scratch_folder
from ..pictures.provenance import Provenance, versions_of
from ..pictures.saving import encode
from ..pipelines import KandinskyV22CombinedPipeline
from ..request import Request
from .rows import walk

SPARE = 0.9  # of the memory that is left when a painter starts: it is to stay below that as long as it works
CONTENT = ("prompt", "negative_prompt", "negative_prior_prompt", "text", "image", "sha256", "seed")  # no matter for a check


class Order(NamedTuple):
    """A picture to make, as it travels. request: JSON of the complete request. beside: of its provenance.

    pictures: the bytes of the files that the request names, by their names, where the painter cannot open them.
    """

    file: str
    request: str
    beside: dict[str, str]
    pictures: dict[str, bytes]


class Answer(NamedTuple):
    """What became of an order. png: the file, or None with an `error`. seconds: that it took."""

    png: bytes | None
    error: str | None
    seconds: float
    warnings: tuple[str, ...]


class Setting(NamedTuple):
    """How a painter opens its bundle.

    bundle: the folder; $NAME and ~ are those of the painter's machine. named: how the pictures name it.
    options: of from_pretrained. share: how many painters share the memory of the machine, where `options` do not limit it.
    """

    bundle: str
    named: str
    options: dict[str, Any]
    share: int = 1


class Painter:
    """A bundle, open. UserError if it cannot be opened, or if the engine cannot be had."""

    def __init__(self, setting: Setting):
        options = dict(setting.options)
        if options.get("memory") is None:
            options["memory"] = int(SPARE * available() / setting.share)
        self._named = setting.named
        with _collected() as self.remarks:
            self._pipeline = KandinskyV22CombinedPipeline.from_pretrained(
                Path(os.path.expandvars(os.path.expanduser(setting.bundle))), **options)
        self._pipeline.set_progress_bar_config(disable=True)
        self.bundle_sha256 = sha256_of(self._pipeline.bundle.path / FILE_NAME)
        self._judged: dict[str, UserError | None] = {}

    @property
    def precision(self) -> str:
        return self._pipeline.models.precision

    def judge(self, requests: Sequence[str]) -> Iterator[Request | UserError]:
        """Each request, complete; or why it would be refused."""
        for text in requests:
            try:
                request = self._pipeline.complete(Request.from_json(text))
                shape = _shape(request)
                if shape not in self._judged:
                    self._judged[shape] = self._refusal(request)
                yield self._judged[shape] or request
            except UserError as error:
                yield error

    def judge_all(self, requests: Sequence[str]) -> list[str | UserError]:
        """The same as a list of JSON. A Request that is pickled is equal, but its JSON then names defaults, too."""
        return [found if isinstance(found, UserError) else found.to_json() for found in self.judge(requests)]

    def paint(self, order: Order) -> Answer:
        """The picture of an order. It raises nothing but what ends the process: a fault is the order's own."""
        started = time.monotonic()
        with _collected() as remarks:
            try:
                png, error = self._png(order), None
            except (Exception, MemoryError) as fault:
                png, error = None, _words(fault)
        return Answer(png, error, time.monotonic() - started, tuple(remarks))

    def facts(self) -> tuple[str, str, tuple[str, ...]]:
        """(sha256 of the bundle, precision, what it has to say of how it was opened)."""
        return self.bundle_sha256, self.precision, tuple(self.remarks)

    def _refusal(self, request: Request) -> UserError | None:
        # In a thread of its own: what one thread asks for, one request after another without running any, counts as one.
        with ThreadPoolExecutor(1) as pool, _collected():
            error = pool.submit(self._pipeline.check, request).exception()
        if error is not None and not isinstance(error, UserError):
            raise error
        return error

    def _png(self, order: Order) -> bytes:
        request = Request.from_json(order.request)
        with ExitStack() as stack:
            local = stack.enter_context(_with_files(request, order.pictures)) if order.pictures else request
            (picture,) = self._pipeline.make(local)
        engine = self._pipeline.models.engine
        provenance = Provenance(
            request=request, bundle=self._named, bundle_sha256=self.bundle_sha256, beside=order.beside,
            versions=versions_of(engine.name, engine.version, self.precision),
        )  # fmt: skip
        return encode(picture.image, order.file, text=provenance.text())


@contextmanager
def _with_files(request: Request, pictures: Mapping[str, bytes]) -> Iterator[Request]:
    """The request with its pictures in files of this machine."""
    with scratch_folder() as folder:
        places = {}
        for number, (name, data) in enumerate(pictures.items()):
            places[name] = str(folder / str(number))
            Path(places[name]).write_bytes(data)

        def move(found: dict[str, Any]) -> dict[str, Any]:
            name = found.get("image")
            return {**found, "image": places[name]} if isinstance(name, str) and name in places else found

        yield Request.from_dict(walk(request.to_dict(), move))


@contextmanager
def _collected() -> Iterator[list[str]]:
    """The warnings of the block, each once."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield found
    found += dict.fromkeys(one_line(each.message) for each in caught)


def _shape(request: Request) -> str:
    """The request without what it says: those of one shape are checked once."""
    def blank(found: dict[str, Any]) -> dict[str, Any]:
        return {name: _blank(value) if name in CONTENT else value for name, value in found.items()}

    return msgspec.json.encode(walk(request.to_dict(), blank)).decode()


def _blank(value: Any) -> Any:
    return len(value) if isinstance(value, list) else 0


def _words(fault: BaseException) -> str:
    if isinstance(fault, UserError):
        return str(fault)
    if isinstance(fault, MemoryError):
        return "not enough memory: ask for smaller pictures, or fewer --workers"
    where = traceback.extract_tb(fault.__traceback__)[-1]
    return one_line(f"a fault of this program, please report it: {type(fault).__name__}: {fault} "
                    f"({Path(where.filename).name}, line {where.lineno})")
