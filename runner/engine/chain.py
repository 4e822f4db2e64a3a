"""A graph in pieces: models that run one after another, joined by the names of their tensors, as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .interface import EngineError, LiteModel, TensorSpec, check_arrays


class Chain:
    """Models in order of execution, as one LiteModel (see interface.py), which owns them.

    inputs: what the whole takes. An output of a model is known by its name to those after it; the outputs of the last
    are the whole's. EngineError if a model takes what none before it gives.
    """

    def __init__(self, models: Sequence[LiteModel], inputs: Sequence[TensorSpec]):
        self._models = tuple(models)
        self.inputs, self.outputs = tuple(inputs), self._models[-1].outputs
        known = {tensor.name: tensor for tensor in self.inputs}
        for model in self._models:
            for tensor in model.inputs:
                if known.get(tensor.name) != tensor:
                    raise EngineError(f"a piece of a graph takes {tensor}, which no piece before it gives: export again")
            known |= {tensor.name: tensor for tensor in model.outputs}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        check_arrays(self.inputs, arrays)
        known = {tensor.name: array for tensor, array in zip(self.inputs, arrays)}
        needed = [{tensor.name for tensor in model.inputs} for model in self._models]
        for index, model in enumerate(self._models):
            outputs = model.run([known[tensor.name] for tensor in model.inputs])
            known |= {tensor.name: array for tensor, array in zip(model.outputs, outputs)}
            later = set().union(*needed[index + 1 :])
            known = {name: array for name, array in known.items() if name in later}
        return outputs

    def close(self) -> None:
        for model in self._models:
            model.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_) -> None:
        self.close()
