"""A MindSpore cell to MindIR: compiled in graph mode by MindSpore's own export, its weights left in a shared file."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import mindspore
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from ...runner.bundle.tensor_index import StoredTensor
from ...runner.common.errors import UserError
from ...runner.common.scratch import scratch_folder
from ...runner.engine.framework.mindir import output_nodes
from ..isolation import interrupt_after

DTYPES = {"float32": mindspore.float32, "int32": mindspore.int32}
REPORTS = "MS_OM_PATH"  # the variable that says where MindSpore puts them
GRAPH = "graph"  # what we call every graph: MindSpore's own name counts the graphs of the process


def compile_graph(
    cell: mindspore.nn.Cell,
    inputs: Sequence[tuple[str, tuple[int, ...], str]],
    outputs: Sequence[str],
    weights: Mapping[str, StoredTensor],
    weights_location: str,
) -> ModelProto:
    """The MindIR of `cell` for static shapes, as MindSpore writes it, with parameters that point into a weight file.

    inputs: (name, shape, dtype) in the order of the cell's ``construct``. outputs: names, in order. weights: where each
    parameter lies; weights_location: the weight file's path, relative to the graph's file. The cell's own parameter
    values are neither made nor read. Equal cells give equal bytes. UserError names a parameter that `weights` lacks
    or holds in another shape.
    """
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    captured = ModelProto()

    def capture(model: ModelProto) -> None:
        """Called by mindspore.export before it adds the weights, of which none are left to add."""
        captured.CopyFrom(model)
        del model.graph.parameter[:]

    tensors = [mindspore.Tensor(shape=shape, dtype=DTYPES[dtype]) for _, shape, dtype in inputs]
    # Ctrl-C inside its compiler MindSpore reports as a fault of the cell, with pages of trace and files in the working
    # folder, or loses and hangs.
    with _compiler_folder() as folder, interrupt_after(), _no_collections():
        name = f"{folder}/{GRAPH}"
        mindspore.export(cell.set_train(False), *tensors, file_name=name, file_format="MINDIR", custom_func=capture)
    _rename(captured, [name for name, *_ in inputs], outputs)
    for parameter in captured.graph.parameter:
        _point(parameter, weights, weights_location)
    return captured


@contextmanager
def _compiler_folder() -> Iterator[str]:
    """A temporary folder for what MindSpore writes, the report of a failed compilation too, which else would stay in the
    working folder (unless MS_OM_PATH says where). It takes no path with a space in it, or a letter with an accent: this is
    a plain one, whatever the folder's name is."""
    with scratch_folder() as folder:
        opened, reports = os.open(folder, os.O_RDONLY | os.O_DIRECTORY), os.environ.get(REPORTS)
        path = f"/proc/self/fd/{opened}"
        os.environ.setdefault(REPORTS, path)
        try:
            yield path
        finally:
            if reports is None:
                del os.environ[REPORTS]
            os.close(opened)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Python looks for no cycles in the block: MindSpore makes so many objects that it would look again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def give_back_memory() -> None:
    """Return to the system what compiling has left: a gigabyte after a large graph, which glibc would keep."""
    getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)


def weight_bytes(model: ModelProto) -> int:
    """Bytes of all weights that a graph uses."""
    return sum(parameter.external_data.length for parameter in model.graph.parameter)


def _point(parameter: TensorProto, weights: Mapping[str, StoredTensor], location: str) -> None:
    """Make `parameter` refer to its place in the weight file."""
    name, shape = parameter.ref_key, tuple(parameter.dims)
    if name not in weights:
        raise UserError(f"weight {name} of shape {shape} is not in {location}")
    place = weights[name]
    if place.shape != shape or parameter.data_type != TensorProto.FLOAT:
        raise UserError(f"weight {name} must be float32 of shape {shape}; {location} holds float32 of {place.shape}")
    parameter.external_data.location = location
    parameter.external_data.offset = place.offset
    parameter.external_data.length = place.length


def _rename(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs our names, and all other names without what differs from one export to the next."""
    graph = model.graph
    graph.name = GRAPH
    names = {value.name: f"{GRAPH}:{name}" for value, name in zip(graph.input, inputs, strict=True)}
    names |= {parameter.name: f"{GRAPH}:{parameter.ref_key}" for parameter in graph.parameter}
    names |= {node.name: f"{GRAPH}:{index}" for index, node in enumerate(graph.node)}
    for node in graph.node:
        node.name = names[node.name]
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [node.name]
    for value in (*graph.input, *graph.output, *graph.parameter):
        value.name = names[value.name]
    for attribute in [attribute for attribute in graph.attribute if attribute.name == "compile_phase"]:
        graph.attribute.remove(attribute)  # the time of day
    graph.attribute.sort(key=lambda attribute: attribute.name)
    model.primitives.sort(key=lambda primitive: primitive.name)
    for node, name in zip(output_nodes(model), outputs, strict=True):
        if node:
            # Lite calls an output by the scope of the node that computes it; lowering.py still wants the scope.
            node.doc_string, node.domain = node.domain, name
