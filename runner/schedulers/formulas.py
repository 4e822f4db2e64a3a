"""What the samplers share: noise schedules, spacing of timesteps, dynamic thresholding.

Schedule constants are float32 to the bit as diffusers computes them with torch: a solver subtracts neighboring
values of them, so that one rounding more would be visible after a hundred steps.
"""

import math

import numpy as np

ONE = np.float32(1)  # float32 scalars meet float32 scalars only: NumPy 1 promotes a Python number to float64 there


def linspace(start, stop, count):
    """`count` float32 numbers from `start` to `stop`, as torch.linspace: from both ends, one rounding a number."""
    start, stop = np.float32(start), np.float32(stop)
    if count == 1:
        return np.array([start])
    step = np.float64((stop - start) / np.float32(count - 1))  # float32 quotient; the product below is exact in float64
    index = np.arange(count)
    return np.where(index < count // 2, start + step * index, stop - step * (count - 1 - index)).astype(np.float32)


def exp(x):
    """Exponential, correctly rounded: NumPy's float32 one is up to two bits off, and torch's is not."""
    return np.exp(x.astype(np.float64)).astype(x.dtype)


def log(x):
    """Natural logarithm, correctly rounded, as `exp`."""
    return np.log(x.astype(np.float64)).astype(x.dtype)


def betas(config):
    """The float32 betas of the forward process, one a training timestep.

    linear (DDPM, arXiv 2006.11239), scaled_linear (latent diffusion), squaredcos_cap_v2 (arXiv 2102.09672, eq. 17),
    sigmoid (GeoDiff, arXiv 2203.02923), laplace (arXiv 2407.03297), exp (k-diffusion); or `trained_betas` as they are.
    """
    if config.get("trained_betas") is not None:
        values = np.asarray(config["trained_betas"], np.float32)
    else:
        start, end = config.get("beta_start"), config.get("beta_end")
        values = _BETAS[config["beta_schedule"]](start, end, config["num_train_timesteps"])
    return zero_terminal_snr(values) if config.get("rescale_betas_zero_snr") else values


def _scaled_linear(start, end, count):
    root = linspace(start**0.5, end**0.5, count)
    return root * root


def _sigmoid(start, end, count):
    return ONE / (ONE + exp(-linspace(-6, 6, count))) * np.float32(end - start) + np.float32(start)


def _cosine(t):
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(t):
    snr = math.exp(-0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * abs(0.5 - t) + 1e-6))
    return math.sqrt(snr / (1 + snr))


def _from_alpha_bar(alpha_bar):
    """Betas whose cumulative product of 1 - beta follows `alpha_bar` on [0, 1], each at most 0.999."""

    def values(start, end, count):
        ratios = (alpha_bar((i + 1) / count) / alpha_bar(i / count) for i in range(count))
        return np.array([min(1 - ratio, 0.999) for ratio in ratios], np.float32)

    return values


_BETAS = {
    "linear": linspace,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _from_alpha_bar(_cosine),
    "sigmoid": _sigmoid,
    "laplace": _from_alpha_bar(_laplace),
    "exp": _from_alpha_bar(lambda t: math.exp(-12 * t)),
}


def cumulative_alphas(betas):
    """Cumulative product of 1 - beta: accumulated in float64 and stored in float32, as torch.cumprod does on a CPU."""
    return np.cumprod(ONE - betas, dtype=np.float64).astype(np.float32)


def zero_terminal_snr(betas):
    """Betas shifted and scaled so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(cumulative_alphas(betas))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    alpha_bar = root * root
    return ONE - np.concatenate([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


def spaced_timesteps(config, count):
    """`count` timesteps, falling, spaced as table 2 of arXiv 2305.08891 says; int64."""
    train, spacing = config["num_train_timesteps"], config["timestep_spacing"]
    if spacing == "linspace":
        rising = np.linspace(0, train - 1, count).round()
    elif spacing == "leading":
        rising = np.arange(count) * (train // count) + config["steps_offset"]
    else:
        return trailing_timesteps(train, train / count)
    return rising[::-1].astype(np.int64)


def trailing_timesteps(last, stride):
    """Timesteps from `last` - 1 down, `stride` apart, rounded; without the -1 that diffusers' rounding can add."""
    timesteps = np.round(np.arange(last, 0, -stride)).astype(np.int64) - 1
    return timesteps[timesteps >= 0]


def threshold(sample, ratio, maximum):
    """Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3) of each item of the batch.

    The bound is the `ratio` quantile of the item's absolute values, at least 1 and at most `maximum`; the item is
    clipped to it and divided by it. The quantile interpolates in float32 as torch.quantile does.
    """
    flat = np.sort(np.abs(sample.reshape(len(sample), -1)), axis=1)
    rank = np.float32(ratio) * np.float32(flat.shape[1] - 1)
    below = int(rank)
    weight = rank - np.float32(below)
    low, high = flat[:, below], flat[:, min(below + 1, flat.shape[1] - 1)]
    quantile = low + weight * (high - low) if weight < 0.5 else high - (ONE - weight) * (high - low)
    bound = np.clip(quantile, 1, None).clip(None, maximum).reshape((-1,) + (1,) * (sample.ndim - 1))
    return np.clip(sample, -bound, bound) / bound
