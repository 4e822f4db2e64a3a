"""What diffusers' users write out of habit: taken, with one line where it means nothing here."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..engine.precision import PRECISIONS

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def require_bundle_path(path: Any) -> None:
    """UserError that says what to do if `path` is a checkpoint, or its name on a hub, and no bundle."""
    name = str(path)
    if isinstance(path, (str, Path)) and not Path(name).exists() and HUB_NAME.fullmatch(name):
        raise UserError(f"there is no folder {name}. If it is a checkpoint on a hub: download its prior and its decoder, make a "
                        "bundle of them with kandinsky-mindir export --prior DIR --decoder DIR --output BUNDLE, and give BUNDLE")
    if isinstance(path, (str, Path)) and (Path(name) / "model_index.json").is_file():
        raise UserError(f"{name} is a checkpoint, not a bundle: make one with "
                        "kandinsky-mindir export --prior DIR --decoder DIR --output BUNDLE, and give BUNDLE")


def precision_of(options: dict[str, Any]) -> str | None:
    """The precision that one of the options of diffusers and mindone asks for, which is taken out of them; None: none does."""
    for name in ("torch_dtype", "mindspore_dtype", "dtype", "mindspore"):
        word = str(options.get(name)).lower().rpartition(".")[2]
        if word in PRECISIONS:
            del options[name]
            return word
    return None


class Habits:
    """Methods of diffusers' pipelines that have no work to do here."""

    def to(self, *places: Any, **options: Any):
        """The pipeline itself: from_pretrained has chosen the device and the precision."""
        given = [str(place) for place in (*places, *options.values()) if place is not None]
        if any(place not in ("cpu", "float32", "torch.float32", "Float32") for place in given):
            warnings.warn(f"to({', '.join(given)}): this means nothing here; from_pretrained takes device= and precision=",
                          stacklevel=2)
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith(("enable_", "disable_")):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

        def nothing(*_: Any, **__: Any) -> None:
            warnings.warn(f"{name}: this means nothing here; models are loaded and freed as from_pretrained(memory=) says",
                          stacklevel=2)

        return nothing


def progress_bar_options(options: dict[str, Any]) -> dict[str, Any]:
    """`options`, if tqdm takes them all."""
    from tqdm import tqdm

    if "iterable" in options:
        raise UserError("set_progress_bar_config: iterable is the pipeline's own")
    try:
        tqdm(**{"total": 1, **options, "file": io.StringIO()}).close()
    except Exception as error:  # whatever tqdm raises for an option that it does not know or cannot use
        raise UserError(f"set_progress_bar_config: tqdm does not take {options}: {error}") from None
    return options
