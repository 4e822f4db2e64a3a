"""The MindIR files of a bundle as files, with weights that MindSpore reads."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..bundle.opened import Bundle
from ..bundle.stored.wide_file import WideWeights, open_weights
from ..common.errors import UserError
from ..common.memory import as_text
from ..common.publishing import publish


def unpack(bundle: Bundle, target: Path) -> None:
    """Write the folder `target`: for each part its MindIR files and the weight files they name, float32. It appears whole or
    not at all.

    UserError if it is there, if there is no room for it, or if the bundle is damaged.
    """
    parts = list(dict.fromkeys(graph.part for graph in bundle.manifest.graphs))
    if target.exists() or not target.parent.is_dir():
        raise UserError(f"{target} exists: choose another --output" if target.exists() else
                        f"the folder {target.parent} does not exist: make it first")
    need, free = sum(map(bundle.weight_bytes_of, parts)), shutil.disk_usage(target.parent).free
    if free < need:
        raise UserError(f"unpacking {bundle.path} takes about {as_text(need)} of disk, {as_text(free)} is left: free some")
    folder = target.with_name(f".{target.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        for part in parts:
            (folder / part).mkdir()
            for name in bundle.weights_of(part):
                bundle.file(name)
            for name in sorted({place.file for place in bundle.places(part).values()}):
                weights = open_weights(bundle.path / part / name)
                if isinstance(weights, WideWeights):
                    with open(folder / part / name, "wb") as file:
                        weights.write(file)
                else:
                    shutil.copyfile(bundle.path / part / name, folder / part / name)
        for graph in bundle.manifest.graphs:
            for name in (graph.mindir, graph.lite):
                (folder / name).write_bytes(bundle.mindir(name))
        publish(folder, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error}): free disk space there, or choose another --output") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
