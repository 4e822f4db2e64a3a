"""A scheduler's options as a mapping that does not change, and where they are read from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError

FILE_NAME = "scheduler_config.json"
MOST_BYTES = 1 << 24  # of such a file; a thousand trained betas take 20 kB


class Config(dict):
    """Options by name, ``config["beta_end"]`` or ``config.beta_end``, as diffusers' configurations have them. Read only."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"this configuration has no option {name!r}; it has {', '.join(self)}")
        return self[name]

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise UserError("a scheduler's configuration does not change: make another one with from_config(config, option=...)")

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = __ior__ = _refuse  # type: ignore[assignment]
    pop = popitem = clear = update = setdefault = _refuse  # type: ignore[assignment]

    def __reduce__(self):
        return Config, (dict(self),)


def read_config(path: str | os.PathLike, subfolder: str | None = None) -> Mapping[str, Any]:
    """The options in a file, in the scheduler's folder of a checkpoint, or in a bundle.

    subfolder: of a checkpoint or a bundle: "scheduler" for the decoder's, "prior_scheduler" for the prior's of a bundle.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(subfolder, (str, type(None))):
        raise UserError(f"a scheduler is read from a folder, not from {path!r} with subfolder {subfolder!r}")
    folder = Path(path)
    if (folder / "manifest.json").is_file():
        from ..bundle.opened import Bundle

        kind = {None: "decoder", "scheduler": "decoder", "prior_scheduler": "prior"}.get(subfolder)
        if kind is None:
            raise UserError(f"{folder} is a bundle, which has no {subfolder}: choose scheduler or prior_scheduler")
        return Bundle(folder).manifest.schedulers[kind]
    places = [folder / (subfolder or ""), folder / (subfolder or "") / FILE_NAME, folder / "scheduler" / FILE_NAME]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"there is no {FILE_NAME} in {folder / (subfolder or '')}: give the folder of a checkpoint, of its "
                        "scheduler, or a bundle; a name on a hub has to be downloaded first")
    try:
        with open(found, "rb") as file:
            text = file.read(MOST_BYTES + 1)
        config = json.loads(text) if len(text) <= MOST_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{found} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{found} is no scheduler's configuration: it must hold a JSON object")
    return config
