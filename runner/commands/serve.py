"""Serve pictures over HTTP: to OpenAI's and AUTOMATIC1111's clients, and a page for people.

  kandinsky-mindir serve BUNDLE                                   on http://127.0.0.1:8000, for this machine alone
  kandinsky-mindir serve BUNDLE --host 0.0.0.0 --key-file KEY     for others, who show the key

SIGTERM and Ctrl-C finish the picture in hand; a second one gives it up. Each request is a line of JSON on standard error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.errors import UserError
from . import arguments

EXTRA = ("h11", "prometheus_client", "python_multipart", "starlette", "uvicorn")  # what the extra [serve] brings
HELP = "serve pictures over HTTP, and a page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    group = parser.add_argument_group("who may call")
    group.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    group.add_argument("--port", type=int, default=8000, metavar="N", help="port (default 8000; 0 for any that is free)")
    group.add_argument("--key-file", type=Path, metavar="FILE",
                       help="file with the key that callers must show (or KANDINSKY_MINDIR_KEY in the environment)")
    group.add_argument("--let-anyone-call", action="store_true", help="listen on other than loopback addresses without a key")
    group.add_argument("--host-name", action="append", default=[], metavar="NAME",
                       help="a name under which clients know this machine, beside its addresses and localhost; may be repeated")
    group = parser.add_argument_group("limits")
    group.add_argument("--most-waiting", type=int, default=16, metavar="N", help="requests that wait (default 16)")
    group.add_argument("--most-images", type=int, default=10, metavar="N", help="pictures of a request (default 10)")
    group.add_argument("--most-steps", type=int, default=150, metavar="N", help="steps of a picture (default 150)")
    group.add_argument("--allow-size", type=arguments.size, action="append", default=[], metavar="HxW",
                       help="a size that may be asked for; may be repeated (default: all of the bundle)")
    arguments.add_engine(parser, plans=False)
    parser.add_argument("--verify", action="store_true", help="first run every graph on its sealed example, too")


def run(args: argparse.Namespace) -> None:
    try:
        from ..service.gate import log_line
        from ..service.server import Service, open_socket
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise UserError(f"serve needs {error.name}: run pip install 'kandinsky-mindir[serve]'") from None
    from ..common.options import as_count
    from ..pipelines import KandinskyV22CombinedPipeline
    from ..service.settings import Settings, read_key, require_safe

    key = read_key(args.key_file)
    require_safe(args.host, key, args.let_anyone_call)
    settings = Settings(
        key=key,
        hosts=tuple(args.host_name),
        queue=as_count(args.most_waiting, "--most-waiting"),
        images=as_count(args.most_images, "--most-images"),
        steps=as_count(args.most_steps, "--most-steps"),
        sizes=tuple(args.allow_size),
    )
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(args.bundle, **arguments.engine_options(args))
    service = Service(pipeline, settings, log_line, replay=args.verify)
    with open_socket(args.host, args.port) as listening:
        host, port = listening.getsockname()[:2]
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        service.run(listening)
