"""What a picture looks like before it is finished, from its latents, without running a model."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

MEMORY = 0.9  # of what was learned from earlier pictures, when one more comes
RIDGE = 1e-6  # of the mean square of the latents, so that the equations always have one solution


class Preview:
    """A linear map from latents to colours, fitted by least squares to pictures that were finished.

    A cell of the latents shows mostly as one colour in the picture's cell of 8x8 pixels. Decoding with the MoVQ is exact,
    and costs as much as a step. The map costs nothing, and grows better with each picture.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._products: np.ndarray | None = None  # (C + 1, C + 1): sums over cells of inputs times inputs
        self._targets: np.ndarray | None = None  # (C + 1, 3): of inputs times colours

    def learn(self, latents: np.ndarray, picture: Image.Image) -> None:
        """latents (1, C, h, w): after the last step of `picture`."""
        inputs = _cells(latents)
        small = picture.resize((latents.shape[3], latents.shape[2]), Image.Resampling.BOX)
        colours = np.asarray(small, np.float64).reshape(-1, 3)
        products, targets = inputs.T @ inputs, inputs.T @ colours
        with self._lock:
            if self._products is not None and self._targets is not None:
                products, targets = products + MEMORY * self._products, targets + MEMORY * self._targets
            self._products, self._targets = products, targets

    def show(self, latents: np.ndarray, size: tuple[int, int]) -> Image.Image | None:
        """The preview of latents (1, C, h, w) in `size` (height, width); None before anything was learned."""
        with self._lock:
            products, targets = self._products, self._targets
        if products is None or targets is None:
            return None
        ridge = RIDGE * np.trace(products) / len(products) * np.eye(len(products))
        colours = _cells(latents) @ np.linalg.solve(products + ridge, targets)
        pixels = np.clip(colours, 0, 255).round().astype(np.uint8).reshape(*latents.shape[2:], 3)
        return Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _cells(latents: np.ndarray) -> np.ndarray:
    """(h * w, C + 1): each cell's latents and a 1."""
    cells = latents[0].reshape(latents.shape[1], -1).T.astype(np.float64)
    return np.concatenate([cells, np.ones((len(cells), 1))], axis=1)
