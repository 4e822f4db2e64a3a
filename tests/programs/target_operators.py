"""How many operators each graph has for each target, of a small random configuration.

  python tests/programs/target_operators.py [NAME]      NAME: of tests/support/references.py (default dummy)

Counted are nodes that compute something, in float32: casts of float16 come on top, of weights as of values.
"""

import sys

import support_path  # noqa: F401
from references import build, config_of

SIDE = 8  # of the latents


def counts(part, name="dummy"):
    """Yields (graph, batch, {target: operators}) of a part's graphs."""
    from kandinsky_mindir.export.checkpoint.folder import PARTS
    from kandinsky_mindir.export.graphs.graph_specs import part_specs
    from kandinsky_mindir.export.graphs.mindir import compile_graph
    from kandinsky_mindir.export.graphs.node_layers import STRUCTURE, operator_of
    from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor

    config = PARTS[part].config.from_dict(config_of(build(part, name)))
    factor = getattr(config, "scale_factor", 1)
    for spec in part_specs(part, config, {(factor * SIDE, factor * SIDE): (SIDE, SIDE)}):
        found = {}
        for target in ("cpu", "ascend"):
            cell = spec.cell_for(target)
            place = {parameter.name: StoredTensor("weights.bin", 0, parameter.shape) for parameter in cell.get_parameters()}
            inputs = [(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]
            nodes = compile_graph(cell, inputs, spec.outputs, place, "weights.bin").graph.node
            found[target] = sum(operator_of(node) not in STRUCTURE for node in nodes)
        yield spec.name, spec.batch, found


def main(name="dummy"):
    print(f"{'graph':16}{'batch':6}{'cpu':>6}{'ascend':>8}")
    for part in ("text_encoder", "image_encoder", "prior", "unet", "movq"):
        for graph, batch, found in counts(part, name):
            print(f"{graph:16}{batch:<6}{found['cpu']:6}{found['ascend']:8}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
