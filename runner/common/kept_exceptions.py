"""Exceptions that somebody keeps, and with them the objects that they passed.

An exception refers to the frames that it came through, and these to all their local variables. Notebooks, test runners and
task queues keep exceptions for long: what a pipeline holds in memory must not stay with them.
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from types import FrameType, FunctionType, TracebackType
from typing import Any, TypeVar

PACKAGE = __name__.partition(".runner.")[0]
Method = TypeVar("Method", bound=Callable[..., Any])


def lets_go(method: Method) -> Method:
    """A method whose exceptions do not hold its object; nor do those of the generator that it returns.

    Frames that an exception passed forget their variables: those of this package, and those of others that got the object,
    as a callback does. All of them have ended by then.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        try:
            found = method(self, *args, **options)
            return _letting_go(self, found) if isinstance(found, Generator) else found
        except BaseException as error:
            _forget_variables(error, self)
            del self, args, options
            raise

    return call  # type: ignore[return-value]


def _letting_go(held: Any, generator: Generator) -> Generator:
    try:
        return (yield from generator)
    except BaseException as error:
        _forget_variables(error, held)
        del held, generator
        raise


def _forget_variables(error: BaseException, held: Any) -> None:
    frames = [traceback.tb_frame for traceback in _tracebacks(error)]
    ours = [frame for frame in frames if str(frame.f_globals.get("__name__")).partition(".")[0] == PACKAGE]
    inner = {id(constant) for frame in ours for constant in frame.f_code.co_consts}
    for frame in ours:
        if id(frame.f_code) in inner:
            _empty_cells(frame)
    for frame in frames:
        if frame in ours or _holds(frame, held):
            with suppress(RuntimeError):  # it is still running: one that called this one
                frame.clear()
                dict(frame.f_locals)  # up to Python 3.12, a frame keeps what locals() gave until it is asked again


def _empty_cells(frame: FrameType) -> None:
    """Forget the outer variables of an inner function: from Python 3.11 on, a frame that was cleared still has them."""
    for function in gc.get_referents(frame):
        if isinstance(function, FunctionType) and function.__code__ is frame.f_code:
            for cell in function.__closure__ or ():
                with suppress(ValueError):  # it is empty
                    del cell.cell_contents


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

