"""Sealed examples of a bundle's graphs: a forward pass of the checkpoint, computed by the interpreter."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from mindspore.train.mind_ir_pb2 import ModelProto
from tqdm import tqdm

from ..runner.bundle.opened import Bundle
from ..runner.common.errors import UserError
from ..runner.bundle.sealed_examples import LAYER_VALUES, OUTPUT_VALUES, Golden, Sample, file_name
from ..runner.bundle.manifest import GraphInfo
from ..runner.diffusion.sinusoid import timestep_embedding
from .interpreter import evaluate, outputs
from .node_layers import seams
from .reader import read_model

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
        golden = examples.make(graph)
        for name, sample in zip((tensor.name for tensor in graph.outputs), golden.outputs, strict=True):
            if not np.isfinite(sample.rms):
                raise UserError(f"{graph.name}: its {name} is not finite everywhere: check the checkpoint's weights")
        golden.write(path.with_name(f".{path.name}"))
        path.with_name(f".{path.name}").replace(path)


def example(model: ModelProto, folder: Path, inputs: dict[str, np.ndarray]) -> tuple[Golden, list[np.ndarray]]:
    """The sealed example of a graph on `inputs`, and its whole outputs in float64."""
    kept, layers, result = set(seams(model)), {}, ((), ())
    passes = (evaluate(model, folder, inputs, dtype) for dtype in (np.float64, np.float32))
    for (node, exact), (_, rounded) in zip(*passes):
        if node.name in kept:
            layers[node.name] = Sample.of(exact, rounded, LAYER_VALUES)
        if node.name == model.graph.output[0].name:
            result = tuple(value if isinstance(value, tuple) else (value,) for value in (exact, rounded))
    return Golden(inputs, [Sample.of(*pair, OUTPUT_VALUES) for pair in zip(*result)], layers), list(result[0])


class _ForwardPass:
    """From a prompt to a picture, one step of each diffusion: each graph is given what the graphs before it made."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self._results: dict[str, list[np.ndarray]] = {}  # of the graphs of batch 1

    def make(self, graph: GraphInfo) -> Golden:
        """The example of a graph; those that it depends on must be sealed."""
        given = getattr(self, graph.name, lambda graph: {})(graph)
        shapes = {tensor.name: tensor.shape for tensor in graph.inputs if tensor.name not in given}
        random = np.random.default_rng(zlib.crc32(graph.mindir.encode()))
        noise = {name: random.standard_normal(shape) for name, shape in shapes.items()}
        inputs = {name: short(array) for name, array in {**given, **noise}.items()}
        golden, result = example(self._model(graph), self.bundle.path / graph.part, inputs)
        if (graph.batch, graph.size) == (1, None):
            self._results[graph.name] = result
        return golden

    def result(self, name: str) -> list[np.ndarray]:
        """The whole outputs of a graph of batch 1 in its example."""
        if name not in self._results:
            graph = self.bundle.manifest.find(name)
            self._results[name] = self._run(name, Golden.read(self.bundle.path / file_name(graph)).inputs)
        return self._results[name]

    # What is not noise among the inputs of the graph of that name. The guidance pair is (unconditional, conditional).

    def text_encoder(self, graph: GraphInfo) -> dict:
        tokens = self.bundle.tokenizer.encode(PROMPT)
        return {"input_ids": tokens.input_ids[None], "end_position": np.array([tokens.end_position], np.int32)}

    def prior_context(self, graph: GraphInfo) -> dict:
        text_embeds, hidden_states = self.result("text_encoder")
        mask = self.bundle.tokenizer.encode(PROMPT).mask[None]
        return {"text_embeds": text_embeds, "text_hidden_states": hidden_states, "text_mask": mask}

    def prior(self, graph: GraphInfo) -> dict:
        names = ("text_embeds", "text_hidden_states", "text_mask")
        empty = {name: self.bundle.constants[f"empty_{name}"] for name in names}
        sides = [(self._run("prior_context", empty), empty), (self.result("prior_context"), self.prior_context(graph))]
        contexts, texts = zip(*sides[-graph.batch :])
        return {
            "context": np.concatenate([context for (context,) in contexts], axis=1),
            "text_mask": np.concatenate([text["text_mask"] for text in texts]),
            "time_proj": self._time_proj(graph),
        }

    def unet_context(self, graph: GraphInfo) -> dict:
        (embeds,) = self.result("prior")
        return {"image_embeds": embeds * self.bundle.constants["clip_std"] + self.bundle.constants["clip_mean"]}

    def unet(self, graph: GraphInfo) -> dict:
        empty = {"image_embeds": self.bundle.constants["zero_image_embeds"]}
        sides = [self._run("unet_context", empty), self.result("unet_context")]
        names = ("time_addition", "added_kv")
        context = {name: np.concatenate(rows) for name, rows in zip(names, zip(*sides[-graph.batch :]))}
        return {**context, "time_proj": self._time_proj(graph)}

    def _time_proj(self, graph: GraphInfo) -> np.ndarray:
        width, options = graph.input("time_proj").shape[1], self.bundle.manifest.settings[f"{graph.name}_time_proj"]
        return timestep_embedding(TIMESTEP, width, **options)

    def _run(self, name: str, inputs: dict) -> list[np.ndarray]:
        graph = self.bundle.manifest.find(name)
        return outputs(self._model(graph), self.bundle.path / graph.part, inputs)

    def _model(self, graph: GraphInfo) -> ModelProto:
        return read_model(self.bundle.mindir(graph.mindir), graph.mindir)


def short(array: np.ndarray) -> np.ndarray:
    """Real numbers with four significant bits: exact as stored, and a byte each when packed."""
    if np.issubdtype(array.dtype, np.integer):
        return array
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) & np.uint32(0xFFF00000)).view(np.float32)
