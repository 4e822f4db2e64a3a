"""Graphs in pieces: the chain of them computes on MindSpore Lite what the whole does."""

import itertools
from dataclasses import astuple, replace

import numpy as np
import pytest
import references
from kandinsky_mindir.export import parts
from kandinsky_mindir.export.checkpoint.folder import PARTS as CHECKPOINT_PARTS
from kandinsky_mindir.export.checkpoint.folder import Checkpoint
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.draft import Draft
from kandinsky_mindir.export.graphs.cutting import _bounds, cut
from kandinsky_mindir.export.graphs.graph_specs import part_specs
from kandinsky_mindir.export.graphs.lowering import lower
from kandinsky_mindir.export.graphs.mindir import compile_graph, weight_bytes
from kandinsky_mindir.export.staging import NOTES
from kandinsky_mindir.runner.bundle.manifest import TensorInfo
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.engine import EngineError, TensorSpec
from kandinsky_mindir.runner.engine.chain import Chain
from kandinsky_mindir.runner.inputs.tokens import tokenizer_of
from kandinsky_mindir.runner.loading.loader import load as load_graph

# The arithmetic is the same; Lite merges neighboring scales and products, fewer of them where a cut is between: that
# moves a few roundings of 6e-8 each.
TOLERANCE = 1e-6


def specs(tensors):
    return [TensorSpec(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors]


def random_arrays(tensors):
    random = np.random.default_rng(0)
    draw = {"float32": lambda shape: random.standard_normal(shape).astype(np.float32),
            "int32": lambda shape: random.integers(0, 77, shape).astype(np.int32)}  # token ids, or a position
    return [draw[tensor.dtype](tensor.shape) for tensor in tensors]


@pytest.mark.parametrize("part, name, parts", [
    ("text_encoder", "text_encoder", 3), ("prior", "prior_context", 3), *(pytest.param(*row, marks=pytest.mark.slow) for row in (
        ("image_encoder", "image_encoder", 3), ("prior", "prior", 4), ("unet", "unet", 4), ("movq", "movq_decoder", 2))),
])  # fmt: skip
def test_a_chain_of_pieces(part, name, parts, engine, tmp_path):
    module = references.build(part, "wide" if part == "prior" else "dummy")
    config = CHECKPOINT_PARTS[part].config.from_dict(references.config_of(module))
    spec = [spec for spec in part_specs(part, config, {(0, 0): (8, 4)}) if spec.name == name][-1]
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for tensor, array in references.parameters_of(module).items():
            writer.write(tensor, array)
    model = compile_graph(spec.cell(), [astuple(tensor) for tensor in spec.inputs], spec.outputs, writer.index, "weights.bin")

    def load(graph, file):
        (tmp_path / file).write_bytes(lower(graph).SerializeToString())
        return engine.load(tmp_path / file, threads=1)

    limit = weight_bytes(model) // parts
    graphs = cut(model, limit)
    assert len(graphs) >= parts
    arrays = random_arrays(spec.inputs)
    with load(model, "whole.mindir") as whole:
        given = dict(zip((tensor.name for tensor in spec.inputs), arrays))
        expected = whole.run([given[tensor.name] for tensor in whole.inputs])
        pieces = [load(graph, f"{number}.mindir") for number, graph in enumerate(graphs)]
        with Chain(pieces, specs(spec.inputs), whole.outputs) as chain:
            found = chain.run(arrays)
    for right, output in zip(expected, found, strict=True):
        assert references.relative_error(output, right) <= TOLERANCE


def test_a_part_in_pieces(bundles, engine, tmp_path, monkeypatch):
    """As a bundle has it: recipes of pieces over one weight file, which run as one graph."""
    whole = Bundle(bundles("narrow"))
    checkpoint = Checkpoint(whole.path.parent / "prior", "prior")
    monkeypatch.setattr(parts, "PARTS", {"text_encoder": "prior"})
    matched = parts.match_parts(list(part_specs("text_encoder", checkpoint.config("text_encoder"), {})), {"prior": checkpoint})
    ((_, cell),) = matched["text_encoder"].cells
    largest = max(4 * parameter.size for parameter in cell.get_parameters())
    monkeypatch.setattr(parts, "LARGEST_WEIGHTS", largest)
    (tmp_path / NOTES).mkdir()
    (graph,) = parts.write_parts(tmp_path, matched, engine, False)
    assert len(graph.ms) > 1
    tokens = tokenizer_of(whole).encode("a cat")
    inputs = {"input_ids": tokens.input_ids[None], "end_position": np.array([tokens.end_position], np.int32)}
    cut, results = Draft(tmp_path, replace(whole.manifest, graphs=(graph,))), []
    for bundle, resident in ((whole, 1), (cut, len(graph.ms)), (cut, 0)):  # with 0, no piece stays in memory
        with load_graph(bundle, bundle.manifest.find("text_encoder"), engine, "cpu", 1, resident) as model:
            arrays = [inputs[tensor.name] for tensor in model.inputs]
            results += [model.run(arrays), model.run(arrays)]  # the second run frees what it has learned that nobody takes
    for output in results[1:]:
        for right, found in zip(results[0], output, strict=True):
            np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("large, others", [(parts.LARGE_WEIGHTS, {0, 1, 2}), pytest.param(0, {0}, marks=pytest.mark.slow)])
def test_conversions_while_a_graph_compiles(large, others, bundles, engine, tmp_path, monkeypatch):
    """None of a large part: its memory and the compiler's would add up."""
    write, count = parts._write_graph, tmp_path / "count"

    def write_graph(folder, spec, cell, index, ms_writer):
        with count.open("a") as file:
            print(len(ms_writer._started), file=file)
        return write(folder, spec, cell, index, ms_writer)

    checkpoint = Checkpoint(bundles("narrow").parent / "prior", "prior")
    monkeypatch.setattr(parts, "PARTS", {"prior": "prior"})
    monkeypatch.setattr(parts, "LARGE_WEIGHTS", large)
    monkeypatch.setattr(parts, "_write_graph", write_graph)
    (tmp_path / NOTES).mkdir()
    matched = parts.match_parts(list(part_specs("prior", checkpoint.config("prior"), {})), {"prior": checkpoint})
    assert len(list(parts.write_parts(tmp_path, matched, engine, False))) == 3
    assert set(map(int, count.read_text().split())) == others


def test_where_to_cut():
    """Against all the ways to cut ten nodes."""
    random = np.random.default_rng(0)
    for _ in range(20):
        weights, crossing = random.integers(0, 10, 10), np.append(random.integers(1, 4, 10), 0)
        limit = int(random.integers(10, 40))
        ways = [(0, *inner, 10) for count in range(10) for inner in itertools.combinations(range(1, 10), count)]

        def price(bounds):
            sizes = [weights[start:end].sum() for start, end in itertools.pairwise(bounds)]
            return max(sizes) > limit, len(sizes), crossing[list(bounds[1:-1])].sum(), np.square(sizes).sum()

        assert price(_bounds(weights, crossing, limit)) == min(map(price, ways))


def test_a_node_that_is_larger_than_the_limit():
    weights, crossing = np.array([1, 9, 1, 1]), np.array([0, 5, 5, 5, 0])
    assert _bounds(weights, crossing, 3) == [0, 1, 2, 4]


class Echo:
    """A model with one input and one output that only has a description."""

    def __init__(self, taken, given):
        self.inputs, self.outputs = specs([TensorInfo(taken, (1,), "float32")]), specs([TensorInfo(given, (1,), "float32")])

    def run(self, arrays):
        return [array + 1 for array in arrays]

    def close(self):
        pass


def test_pieces_that_do_not_fit_together():
    a, b, c = specs(TensorInfo(name, (1,), "float32") for name in "abc")
    chain = Chain([Echo("a", "b"), Echo("b", "c")], [a], [c, b])  # an output that a later piece takes, too
    assert [float(output[0]) for output in chain.run([np.zeros(1, np.float32)])] == [2, 1]
    for models, outputs in (([Echo("a", "b"), Echo("x", "c")], [c]), ([Echo("a", "x")], [TensorSpec("x", (2,), "float32")])):
        with pytest.raises(EngineError, match="takes .*'x'.* which no piece before it gives"):
            Chain(models, [a], outputs).run([np.zeros(1, np.float32)])
