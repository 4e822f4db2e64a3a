"""Sealed examples of a bundle's graphs: a forward pass of the checkpoint, computed by the interpreter."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore.train.mind_ir_pb2 import ModelProto
from tqdm import tqdm

from ...runner.bundle.manifest import GraphInfo, TensorInfo
from ...runner.bundle.opened import Bundle
from ...runner.bundle.sealed_examples import LAYER_VALUES, OUTPUT_VALUES, Sample, SealedExample, file_name
from ...runner.bundle.stages import Size, stage
from ...runner.bundle.stages.feeds import Constant, Feed, GuidancePair, Output, Scaled, TimeProj, Tokens
from ...runner.common.errors import UserError
from ...runner.diffusion.sinusoid import timestep_embedding
from ...runner.inputs.tokens import tokenizer_of
from ..graphs.interpreter import evaluate, outputs
from ..graphs.node_layers import STRUCTURE, layers_of, operator_of, seams
from ..graphs.reader import read_model

PROMPT = "a portrait of a young woman with a red cat, oil on canvas"
TIMESTEP = 500  # noise and picture are about as strong


def seal(bundle: Bundle, progress: bool = True) -> None:
    """Write the example of each graph of a bundle beside it, but those that are there.

    UserError names an operator that the interpreter does not know, or the graph that computes values that are not
    finite.
    """
    examples = _ForwardPass(bundle)
    for graph in tqdm(bundle.manifest.graphs, desc="seal", disable=None if progress else True, leave=False):
        path = bundle.path / file_name(graph)
        if path.exists():
            continue
        made = examples.make(graph)
        _require_finite(graph, made)
        made.write(path.with_name(f".{path.name}"))
        path.with_name(f".{path.name}").replace(path)


def seal_again(folder: Path, graph: GraphInfo, model: ModelProto, inputs: dict[str, np.ndarray]) -> None:
    """Write the example of a graph of the bundle `folder` on the inputs of an earlier one, which it has under `inputs_name`.

    UserError as of `seal`.
    """
    made, _ = example(model, folder / graph.part, inputs)
    _require_finite(graph, made)
    made.write(folder / file_name(graph), inputs=False)


def _require_finite(graph: GraphInfo, made: SealedExample) -> None:
    for name, sample in zip((tensor.name for tensor in graph.outputs), made.outputs, strict=True):
        if not np.isfinite(sample.rms):
            raise UserError(f"{graph.name}: its {name} is not finite everywhere: check the checkpoint's weights")


def example(model: ModelProto, folder: Path, inputs: dict[str, np.ndarray]) -> tuple[SealedExample, list[np.ndarray]]:
    """The sealed example of a graph on `inputs`, and its whole outputs in float64."""
    kept, names = set(seams(model)), layers_of(model)
    layers: dict[str, Sample] = {}
    largest: dict[str, float] = {}
    result: list[tuple] = [(), ()]
    passes = (evaluate(model, folder, inputs, dtype) for dtype in (np.float64, np.float32))
    for (node, exact), (_, rounded) in zip(*passes):
        if operator_of(node) not in STRUCTURE and np.size(exact):
            largest[names[node.name]] = max(largest.get(names[node.name], 0.0), _largest(exact))
        if node.name in kept:
            layers[node.name] = Sample.of(exact, rounded, LAYER_VALUES)
        if node.name == model.graph.output[0].name:
            result = [value if isinstance(value, tuple) else (value,) for value in (exact, rounded)]
    outputs = [Sample.of(exact, rounded, OUTPUT_VALUES) for exact, rounded in zip(*result, strict=True)]
    return SealedExample(inputs, outputs, layers, {name: value for name, value in largest.items() if name}), list(result[0])


def _largest(value: np.ndarray) -> float:
    """The largest absolute value of a tensor; 0 of whole numbers."""
    return max(float(value.max()), -float(value.min())) if np.issubdtype(value.dtype, np.floating) else 0.0


class _ForwardPass:
    """From a prompt to a picture, one step of each diffusion: each graph is given what its stage's `feeds` say."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self._tokens = tokenizer_of(bundle).encode(PROMPT)
        self._results: dict[tuple[str, Size | None], list[np.ndarray]] = {}  # of the graphs of batch 1

    def make(self, graph: GraphInfo) -> SealedExample:
        """The example of a graph; those that it depends on must be sealed."""
        feeds = stage(graph.name).feeds
        given = self._values(feeds, graph)
        shapes = {tensor.name: tensor.shape for tensor in graph.inputs if tensor.name not in given}
        random = np.random.default_rng(zlib.crc32(graph.mindir.encode()))
        noise = {name: random.standard_normal(shape) for name, shape in shapes.items()}
        inputs = {name: short(array) for name, array in {**given, **noise}.items()}
        made, result = example(self._model(graph), self.bundle.path / graph.part, inputs)
        if graph.batch == 1:
            self._results[graph.name, graph.size] = result
        return made

    def _values(self, feeds: Mapping[str, Feed], graph: GraphInfo) -> dict[str, np.ndarray]:
        """The inputs of `graph` that `feeds` gives."""
        fed = [tensor for tensor in graph.inputs if tensor.name in feeds]
        return {tensor.name: self._value(feeds[tensor.name], graph, tensor) for tensor in fed}

    def _value(self, feed: Feed, graph: GraphInfo, tensor: TensorInfo) -> np.ndarray:
        """What `feed` makes of the input `tensor` of `graph`."""
        match feed:
            case Tokens(field):
                return np.asarray(getattr(self._tokens, field), tensor.dtype)[None]
            case Constant(name):
                return self.bundle.constants[name]
            case Output(name, output, given):
                return self._output(self._source(name, graph), output, given)
            case Scaled(inner, mean, std):
                return self._value(inner, graph, tensor) * self.bundle.constants[std] + self.bundle.constants[mean]
            case GuidancePair(unconditional, conditional, axis):
                pair = (unconditional, conditional)[-graph.batch :]
                return np.concatenate([self._value(side, graph, tensor) for side in pair], axis)
            case TimeProj():
                options = self.bundle.manifest.settings[f"{graph.part}_time_proj"]
                return timestep_embedding(TIMESTEP, tensor.shape[1], **options)
        raise TypeError(f"{feed!r} feeds nothing")

    def _source(self, name: str, graph: GraphInfo) -> GraphInfo:
        """The graph for batch 1 of the stage `name`, for the size of `graph` where it is made for each."""
        return self.bundle.manifest.find(name, 1, graph.size if stage(name).per_size else None)

    def _output(self, graph: GraphInfo, output: str, given: Mapping[str, Feed] | None) -> np.ndarray:
        if given is not None:
            result = self._run(graph, self._values(given, graph))
        else:
            key = graph.name, graph.size
            if key not in self._results:  # sealed by an earlier run
                self._results[key] = self._run(graph, SealedExample.read(self.bundle.path / file_name(graph)).inputs)
            result = self._results[key]
        return result[[tensor.name for tensor in graph.outputs].index(output)]

    def _run(self, graph: GraphInfo, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return outputs(self._model(graph), self.bundle.path / graph.part, inputs)

    def _model(self, graph: GraphInfo) -> ModelProto:
        return read_model(self.bundle.mindir(graph.mindir), graph.mindir)


def short(array: np.ndarray) -> np.ndarray:
    """Real numbers with four significant bits: exact as stored, and a byte each when packed."""
    if np.issubdtype(array.dtype, np.integer):
        return array
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) & np.uint32(0xFFF00000)).view(np.float32)
