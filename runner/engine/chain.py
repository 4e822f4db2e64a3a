"""A graph in pieces: models that run one after another, joined by the names of their tensors, as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .interface import EngineError, LiteModel, TensorSpec, check_arrays


class Chain:
    """Models in order of execution, as one LiteModel (see interface.py), which owns them.

    inputs, outputs: what the whole takes and gives. An output of a model is known by its name to those after it.
    EngineError if a model takes, or the whole gives, what no model before gives.
    """

    def __init__(self, models: Sequence[LiteModel], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]):
        self._models = tuple(models)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        known = {tensor.name: tensor for tensor in self.inputs}
        for model in self._models:
            _require(model.inputs, known)
            known |= {tensor.name: tensor for tensor in model.outputs}
        _require(self.outputs, known)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        check_arrays(self.inputs, arrays)
        known = {tensor.name: array for tensor, array in zip(self.inputs, arrays)}
        needed = [{tensor.name for tensor in tensors} for tensors in (*(model.inputs for model in self._models), self.outputs)]
        for index, model in enumerate(self._models, 1):
            outputs = model.run([known[tensor.name] for tensor in model.inputs])
            known |= {tensor.name: array for tensor, array in zip(model.outputs, outputs)}
            later = set().union(*needed[index:])
            known = {name: array for name, array in known.items() if name in later}
        return [known[tensor.name] for tensor in self.outputs]

    def close(self) -> None:
        for model in self._models:
            model.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _require(tensors: Sequence[TensorSpec], known: dict[str, TensorSpec]) -> None:
    for tensor in tensors:
        if known.get(tensor.name) != tensor:
            raise EngineError(f"a piece of a graph takes {tensor}, which no piece before it gives: export again")
