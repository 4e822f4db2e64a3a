"""Exceptions that somebody keeps, and with them the objects that they passed.

An exception refers to the frames that it came through, and these to all their local variables. Notebooks, test runners and
task queues keep exceptions for long: what a pipeline holds in memory must not stay with them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

PACKAGE = __name__.partition(".runner.")[0]
Method = TypeVar("Method", bound=Callable[..., Any])


def lets_go(method: Method) -> Method:
    """A method whose exceptions do not hold its object.

    Frames that an exception passed forget their variables: those of this package, and those of others that got the object,
    as a callback does. All of them have ended by then.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except BaseException as error:
            _forget_variables(error, self)
            del self, args, options
            raise

    return call  # type: ignore[return-value]


def _forget_variables(error: BaseException, held: Any) -> None:
    for traceback in _tracebacks(error):
        frame = traceback.tb_frame
        if str(frame.f_globals.get("__name__")).partition(".")[0] == PACKAGE or _holds(frame, held):
            with suppress(RuntimeError):  # it is still running: one that called this one
                frame.clear()


def _holds(frame: FrameType, held: Any) -> bool:
    values = list(frame.f_locals.values())
    return any(value is held for value in itertools.chain(values, *(value for value in values if type(value) is tuple)))


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    """Those of an exception, and of the ones that it was raised for or beside."""
    left: list[BaseException | None] = [error]
    seen = set()
    while left:
        found = left.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            left += [found.__cause__, found.__context__]
            traceback = found.__traceback__
            while traceback is not None:
                yield traceback
                traceback = traceback.tb_next

