"""The one error that users see."""

from .one_line import one_line


class UserError(ValueError):
    """Bad input or a bad environment: one line that says what is wrong and what to do.

    The command line prints it and exits with status 2; callers of the API can catch it as a ValueError. The message is
    safe to print anywhere: what a file name or a server's answer holds of control characters is escaped.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


def is_of_system(error: BaseException) -> bool:
    """Whether an exception tells of a system call that failed.

    A TimeoutError is an OSError, too: one that a signal handler raises is the caller's own, and must reach it.
    """
    return isinstance(error, OSError) and error.errno is not None
