"""A graph of a bundle, loaded: from Lite's own format, in pieces if need be, or from MindIR."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

from ..bundle.manifest import GraphInfo, TensorInfo
from ..bundle.opened import Bundle
from ..common.errors import UserError
from ..engine import Engine, LiteModel, ModelFileEngine, TensorSpec
from ..engine.chain import Chain

LOADING = 2  # pieces of a graph that load at once: Lite packs weights on one thread


def loadable(bundle: Bundle, engine: Engine, device: str, threads: int | None) -> Bundle:
    """The bundle as that engine loads it: what is packed serves where Lite's own format is loaded, on a CPU; graphs for Ascend,
    where the bundle has them, serve an engine on Ascend that reads them as MindSpore wrote them."""
    if takes_model_files(engine, device):
        return bundle.for_engine(threads, engine.precision, cast(ModelFileEngine, engine).kernels)
    name = device.partition(":")[0]
    return bundle.as_exported().for_target(name) if engine.reads == "mindir" and name != "cpu" else bundle.as_exported()


def takes_model_files(engine: Engine, device: str) -> bool:
    """Whether graphs load from Lite's own format there, and not from MindIR."""
    return device == "cpu" and engine.takes_model_files


def load(
    bundle: Bundle, graph: GraphInfo, engine: Engine, device: str, threads: int | None, resident: int | None
) -> LiteModel:
    """The model of a graph. UserError if a file is damaged, or if the graph is not what the manifest says.

    resident: how many of the graph's pieces stay in memory, while each other one is loaded when its turn comes in a run;
    None to load it from MindIR.
    """
    load_any = _load_mindir if resident is None else partial(_load_pieces, resident=resident)
    model = load_any(bundle, graph, engine, device, threads)
    try:
        _check_tensors(graph, model, bundle.path / (_mindir(graph, engine) if resident is None else graph.ms[-1]))
    except BaseException:
        model.close()
        raise
    return model


def _load_pieces(
    bundle: Bundle, graph: GraphInfo, engine: Engine, device: str, threads: int | None, resident: int
) -> LiteModel:
    loaders = [partial(_load_piece, bundle, path, engine, device, threads) for path in graph.ms]
    models = _load_all(loaders[:resident])
    if len(graph.ms) == 1:
        return models[0]
    inputs, outputs = ([TensorSpec(*dataclasses.astuple(tensor)) for tensor in side] for side in (graph.inputs, graph.outputs))
    return Chain([*models, *loaders[resident:]], inputs, outputs)


def _load_all(loaders: Sequence[Callable[[], LiteModel]]) -> list[LiteModel]:
    """What the loaders load. All of it is closed again if one fails, or if any exception comes meanwhile."""
    loading: list[Future[LiteModel]] = []
    with ThreadPoolExecutor(LOADING) as pool:
        try:
            loading += [pool.submit(loader) for loader in loaders]
            return [future.result() for future in loading]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            for future in loading:
                if not future.cancelled() and not future.exception():
                    with suppress(Exception):
                        future.result().close()
            raise


def _load_piece(bundle: Bundle, path: str, engine: Engine, device: str, threads: int | None) -> LiteModel:
    with bundle.model(path).assembled() as file:
        return engine.load(file, device=device, threads=threads)


def _load_mindir(bundle: Bundle, graph: GraphInfo, engine: Engine, device: str, threads: int | None) -> LiteModel:
    with bundle.reading(*bundle.weights_of(graph.part)), bundle.unpacked(graph, _mindir(graph, engine)) as path:
        return engine.load(path, device=device, threads=threads)


def _mindir(graph: GraphInfo, engine: Engine) -> str:
    """The MindIR file that the engine reads."""
    return graph.lite if engine.reads == "lite" else graph.mindir


def _check_tensors(graph: GraphInfo, model: LiteModel, path: Path) -> None:
    """UserError unless `model` has the inputs that the manifest says, in any order, and the outputs, in its order."""
    inputs = [sorted(map(_describe, side.inputs)) for side in (graph, model)]
    outputs = [list(map(_describe, side.outputs)) for side in (graph, model)]
    for kind, (expected, found) in (("inputs", inputs), ("outputs", outputs)):
        if found != expected:
            raise UserError(f"{path}: the graph has the {kind} {', '.join(found)}; the manifest says "
                            f"{', '.join(expected)}: export the bundle again")


def _describe(tensor: TensorInfo | TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} {'x'.join(map(str, tensor.shape))}"
