"""Steps that run the UNet's outermost layers alone, over what its other layers made in a step before.

Ma, Fang & Wang, "DeepCache: Accelerating Diffusion Models for Free" (2024), with whole steps evenly spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class DeepFeatures:
    """What whole steps keep for those after them. interval: every step of that number, from the first one on, is whole; 1: all.

    Steps are calls of the UNet: samplers of second order have two of them.
    """

    def __init__(self, interval: int):
        self._interval, self._kept = interval, [np.zeros((0,), np.float32)]

    def whole(self, number: int, batch: int) -> bool:
        """Whether call `number` of a run is whole; also where guidance sets in, with rows that nothing is kept of."""
        return number % self._interval == 0 or len(self._kept[0]) < batch

    def keep(self, features: Sequence[np.ndarray]) -> None:
        """features: of each picture (batch, channels, height, width)."""
        if self._interval > 1:
            self._kept = list(features)

    def given(self, context: Mapping[str, np.ndarray], picture: int) -> dict[str, np.ndarray]:
        """What the outermost layers take for a picture, from what the whole UNet does for the same rows."""
        rows = len(context["time_addition"])  # the last of those that are kept: the conditional one is the last
        rest = {name: array for name, array in context.items() if name != "added_kv"}  # of attentions, which they have not
        return {**rest, "deep_features": self._kept[picture][-rows:]}
