"""A bundle whose weights are stored in another type: what an export with that choice writes, but for sealed examples."""

import os
from dataclasses import replace
from pathlib import Path

from kandinsky_mindir.export.checkpoint.folder import Checkpoint
from kandinsky_mindir.export.checkpoint.tensor_names import weights
from kandinsky_mindir.export.contents.stored_writer import type_of_part
from kandinsky_mindir.export.parts import PARTS, component, write_weights
from kandinsky_mindir.runner.bundle.checked_files import sha256_of
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME, FORMAT, STORED_FORMAT, FileInfo
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.tensor_index import NAME, STORED, WEIGHTS


def stored_again(bundle: Path, folder: Path, choice: str, parts=None) -> Path:
    """Write the bundle `folder`: `bundle` with its weights, or those of `parts`, stored as `choice` says. The checkpoint's folders
    lie beside `bundle`."""
    base = Bundle(bundle, use_packed=False)
    names = {graph.part for graph in base.manifest.graphs} if parts is None else set(parts)
    written = {f"{part}/{name}" for part in names for name in (NAME, STORED, WEIGHTS)}
    for name in base.manifest.files.keys() | written:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name not in written:
            os.link(bundle / name, place)
    for part in names:
        kind = "decoder" if PARTS[part] == "movq" else PARTS[part]
        tensors = Checkpoint(bundle.parent / kind, kind).tensors(component(part))
        found = weights(part, {name: place.shape for name, place in base.places(part).items()}, tensors)
        write_weights(folder / part, found, type_of_part(part, choice, found))
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): FileInfo(path.stat().st_size, sha256_of(path)) for path in paths}
    narrow = any(name.endswith(f"/{STORED}") for name in files)
    manifest = replace(base.manifest, files=files, format=STORED_FORMAT if narrow else FORMAT)
    (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
    return folder
