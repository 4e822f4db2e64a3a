"""The sinusoidal embedding of a timestep, in NumPy (Lite's own Sin and Cos are 2e-4 off)."""

import math

import numpy as np

MAX_PERIOD = 10000


def timestep_embedding(timestep: float, dim: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0) -> np.ndarray:
    """The embedding of one timestep, (1, dim) float32.

    Ho et al., "Denoising Diffusion Probabilistic Models" (2020), section 3.3, with the options of diffusers'
    ``models/embeddings.py: get_timestep_embedding``. Frequencies and angles are rounded to float32 as there (at timestep
    1000 the rounding of a frequency is worth 6e-5 radian); functions in between are evaluated in float64.
    """
    half = dim // 2
    exponent = np.float32(-math.log(MAX_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half - freq_shift)
    frequencies = np.exp(exponent, dtype=np.float64).astype(np.float32)
    angles = (np.float32(timestep) * frequencies).astype(np.float64)
    halves = (np.cos(angles), np.sin(angles)) if flip_sin_to_cos else (np.sin(angles), np.cos(angles))
    embedding = np.concatenate(halves).astype(np.float32)
    return np.pad(embedding, (0, dim % 2))[None]
