"""What a server allows: who may call it, and how much one request may ask for."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError

KEY_VARIABLE = "KANDINSKY_MINDIR_KEY"
LEAST_KEY = 16  # characters: 16 letters and digits are 95 bits, which nobody guesses
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """key: what callers must show; None for no key. hosts: names in a Host header beside addresses and localhost.

    queue: requests that wait at most. queue_bytes: of the pictures that they hold. images, steps, items: of a request.
    prompt: characters of a text. body: bytes of a request. pixels: of a picture that is sent. sizes: (height, width) that
    may be asked for; () for all of the bundle. patience, body_seconds: for the head and the body of a request to arrive.
    keep_seconds, kept: how long, and how many, finished jobs are kept for those who poll.
    """

    key: str | None = None
    hosts: tuple[str, ...] = ()
    queue: int = 16
    queue_bytes: int = 512 * MEGABYTE
    images: int = 10
    steps: int = 150
    items: int = 8
    prompt: int = 4000
    body: int = 32 * MEGABYTE
    pixels: int = 1 << 23
    sizes: tuple[tuple[int, int], ...] = ()
    patience: float = 20.0
    body_seconds: float = 60.0
    keep_seconds: float = 600.0
    kept: int = 64

    def knows(self, key: str) -> bool:
        """Whether `key` is the server's. Takes as long for a wrong one as for the right one."""
        return self.key is not None and hmac.compare_digest(key.encode(errors="replace"), self.key.encode())

    def answers_to(self, host: str) -> bool:
        """Whether a request with this Host header is meant for this server.

        A page from elsewhere can point a name of its own at this machine (DNS rebinding); the name stays in the header.
        """
        name = host.strip().lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if name in ("localhost", *(known.lower() for known in self.hosts)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def read_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key in the file `path`, or in the environment; None where neither is given. UserError for one that is too short."""
    if path is not None:
        try:
            key, where = path.read_bytes()[:4096].decode("ascii").strip(), str(path)
        except OSError as error:
            raise UserError(f"the key file {path} cannot be read: {error.strerror}") from None
        except UnicodeError:
            raise UserError(f"the key in {path} must be ASCII letters, digits and signs") from None
    elif KEY_VARIABLE in environment:
        key, where = environment[KEY_VARIABLE].strip(), KEY_VARIABLE
    else:
        return None
    if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"the key in {where} must have {LEAST_KEY} characters or more, ASCII and without spaces: "
                        "make one with python3 -c 'import secrets; print(secrets.token_urlsafe())'")
    return key


def require_safe(host: str, key: str | None, anyone: bool) -> None:
    """UserError if a server on the address `host` would be open to other machines without a key."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UserError(f"--host {host} is no address: give one, for example 127.0.0.1 or 0.0.0.0") from None
    if not local and key is None and not anyone:
        raise UserError(f"--host {host} lets other machines call the server: give a key (--key-file, or {KEY_VARIABLE} in "
                        "the environment), or say --let-anyone-call")
