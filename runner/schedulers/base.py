"""A sampler is two things: a Scheduler, which holds a checkpoint's options, and the Schedule of one run.

Neither changes once made: steps are pure functions, and what a multistep solver remembers travels through `state`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..common.errors import UserError
from ..common.options import plain, without_meaning
from . import formulas
from .checks import check_option
from .config import Config, read_config
from .formulas import ONE

BETA_OPTIONS = dict(
    num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear", trained_betas=None
)
THRESHOLDING_OPTIONS = dict(thresholding=False, dynamic_thresholding_ratio=0.995, sample_max_value=1.0)
CLIP_OPTIONS = dict(clip_sample=True, clip_sample_range=1.0)


class Scheduler:
    """Options of a sampler, under diffusers' names and defaults (`OPTIONS`); `CHOICES` lists the values of words.

    Raises UserError for an unknown option, a value of the wrong kind, or one outside its range or choices.
    """

    OPTIONS: ClassVar[Mapping[str, Any]] = {}
    CHOICES: ClassVar[Mapping[str, tuple]] = {}
    REFUSED: ClassVar[Mapping[str, str]] = {}  # options that only their default is implemented of, and the reason
    every_option: ClassVar[set[str]] = set()  # of all classes together
    kinds_of_solver: ClassVar[dict[str, set[str]]] = {"algorithm_type": set(), "solver_type": set()}  # also of all
    TAKES_VARIANCE: ClassVar[bool] = False  # whether steps can make use of a variance that the model predicts

    def __init__(self, **options):
        unknown = sorted(set(options) - set(self.OPTIONS))
        if unknown:
            raise UserError(f"{self.name} has no option {', '.join(unknown)}; it has {', '.join(self.OPTIONS)}")
        options = {option: plain(value) for option, value in options.items()}
        self.config = Config({**self.OPTIONS, **options})
        for option, value in options.items():
            check_option(type(self), option, value)
        self.betas = formulas.betas(self.config)
        if not np.all((self.betas >= 0) & (self.betas <= 1)):
            raise UserError(
                f"{self.name}: betas run from {self.betas.min():g} to {self.betas.max():g}; they must be from 0 to 1: "
                "check beta_start, beta_end or trained_betas"
            )
        self.alphas_cumprod = formulas.cumulative_alphas(self.betas)

    @classmethod
    def from_config(cls, config, **options):
        """The scheduler of a scheduler_config.json dict, or of another scheduler's `config`, with `options` instead of its.

        As in diffusers, keys that start with an underscore are not options, and what belongs to other classes is left
        out: options that only they have, their kinds of solver, and defaults of theirs that nobody chose
        (`_use_default_values` of a diffusers object). UserError for a key that no scheduler has.
        """
        if not isinstance(config, Mapping):
            raise UserError(f"{cls.__name__}: a configuration is a mapping of options, not a {type(config).__name__}: give the "
                            "config of a scheduler, or a folder to from_pretrained")
        elsewhere = Scheduler.every_option - set(cls.OPTIONS) | set(config.get("_use_default_values", ()))
        kept = {
            key: value for key, value in config.items()
            if key[:1] != "_" and key not in elsewhere and not cls.is_foreign(key, value)
        }
        return cls(**{**kept, **options})

    @classmethod
    def from_pretrained(cls, path, subfolder=None, **options):
        """The scheduler whose options are in a bundle or in a checkpoint's folder: see `read_config`, and `from_config`."""
        chosen = {name: value for name, value in options.items() if name in cls.OPTIONS}
        without_meaning([name for name in options if name not in chosen], cls.OPTIONS, f"{cls.__name__}.from_pretrained")
        return cls.from_config(read_config(path, subfolder), **chosen)

    @classmethod
    def is_foreign(cls, option, value) -> bool:
        """Whether `value` names a kind of solver that other classes have, such as UniPC's "bh2", and this one lacks."""
        kinds = Scheduler.kinds_of_solver.get(option, ())
        return isinstance(value, str) and value in kinds and value not in cls.CHOICES.get(option, kinds)

    def __init_subclass__(cls):
        Scheduler.every_option |= set(cls.OPTIONS)
        for option, kinds in Scheduler.kinds_of_solver.items():
            kinds |= set(cls.CHOICES.get(option, ()))

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def learned_variance(self) -> bool:
        """Whether steps want the variance half of the model output; it is dropped before the step otherwise."""
        return self.TAKES_VARIANCE and self.config["variance_type"] in ("learned", "learned_range")

    def schedule(self, num_inference_steps: int) -> "Schedule":
        """The plan of a run of `num_inference_steps` steps; UserError where the options allow no such run."""
        raise NotImplementedError

    def _check_steps(self, count):
        """`count` as an int, if it can be a number of steps."""
        count = plain(count)
        whole = isinstance(count, int) and not isinstance(count, bool)
        if not whole or not 1 <= count <= self.config["num_train_timesteps"]:
            raise UserError(
                f"num_inference_steps is {count!r}; {self.name} takes a whole number from 1 to "
                f"{self.config['num_train_timesteps']}, the timesteps that the model was trained on"
            )
        return count

    def _check_timesteps(self, timesteps):
        """`timesteps`, if the forward process has them all and the model's prediction means something at each."""
        first, known = int(timesteps[0]), len(self.alphas_cumprod)
        if first >= known:
            raise UserError(
                f"{self.name}: the first timestep is {first}, but the model was trained on 0 to {known - 1}; "
                "lower steps_offset or take one step less"
            )
        if self.alphas_cumprod[first] == 0 and self.config["prediction_type"] == "epsilon":
            raise UserError(
                f"{self.name}: with rescale_betas_zero_snr nothing of the picture is left at timestep {first}, and a "
                'predicted noise cannot tell it; set timestep_spacing to "leading" or prediction_type to v_prediction'
            )
        return timesteps


@dataclass(frozen=True, eq=False)
class Schedule:
    """The plan of one run.

    timesteps: in the order of the model's calls (a second-order solver names some twice).
    init_noise_sigma: what the first standard normal sample is multiplied by.
    calls_per_step: of the model; a run may start at a multiple of it.
    """

    config: Mapping[str, Any]
    alphas_cumprod: np.ndarray
    timesteps: np.ndarray
    init_noise_sigma: ClassVar[float] = 1.0
    calls_per_step: ClassVar[int] = 1

    def __post_init__(self):
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def scale_model_input(self, sample: np.ndarray, index: int) -> np.ndarray:
        """What the model is shown at call `index` for the current `sample`."""
        return sample

    def step(self, model_output: np.ndarray, index: int, sample: np.ndarray, noise: Callable[[], np.ndarray],
             state=None) -> tuple[np.ndarray, Any]:
        """(the next sample, the state for the next step) from the model's output at call `index`.

        noise() draws a standard normal float32 array of the sample's shape; it is called only if the step uses it.
        A run may start at any index with state None, as picture-to-picture does.
        """
        raise NotImplementedError

    def add_noise(self, original: np.ndarray, noise: np.ndarray, timestep: int) -> np.ndarray:
        """`original` as the forward process leaves it at `timestep` (DDPM, arXiv 2006.11239, eq. 4)."""
        alpha = self.alphas_cumprod[timestep]
        return np.sqrt(alpha) * original + np.sqrt(ONE - alpha) * noise

    def noised(self, original: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        """`original` as noisy as the sample is before call `index`; float32."""
        return self.add_noise(original, noise, int(self.timesteps[index]))

    def _next_timestep(self, index):
        """The timestep that step `index` leads to, -1 after the last: the picture itself."""
        return int(self.timesteps[index + 1]) if index + 1 < len(self.timesteps) else -1

    def _predict_original(self, model_output, sample, signal, noise_level):
        """The predicted picture, where the sample is `signal` times the picture plus `noise_level` times noise; it is
        clipped or thresholded as the options say."""
        original, config = self._predict_unlimited(model_output, sample, signal, noise_level), self.config
        if config.get("thresholding"):
            return formulas.threshold(original, config["dynamic_thresholding_ratio"], config["sample_max_value"])
        if config.get("clip_sample"):
            return np.clip(original, -config["clip_sample_range"], config["clip_sample_range"])
        return original

    def _predict_unlimited(self, model_output, sample, signal, noise_level):
        """epsilon: arXiv 2006.11239, eq. 15. v_prediction: arXiv 2202.00512, appendix D."""
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return (sample - noise_level * model_output) / signal
        if kind == "sample":
            return model_output
        return signal * sample - noise_level * model_output

    def _predict_noise(self, model_output, sample, signal, noise_level):
        """The predicted noise, from the same model output; never clipped."""
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return model_output
        if kind == "sample":
            return (sample - signal * model_output) / noise_level
        return signal * model_output + noise_level * sample


class PreciseSchedule(Schedule):
    """Steps in float64, rounded once: for samplers that subtract large parts of the sample from one another."""

    def step(self, model_output, index, sample, noise, state=None):
        following, state = self._step(
            model_output.astype(np.float64), index, sample.astype(np.float64), noise, state
        )
        return following.astype(sample.dtype), state

    def _step(self, model_output, index, sample, noise, state):
        """As `step`, in float64, of which `state` may hold arrays."""
        raise NotImplementedError


def split_variance(model_output, sample):
    """(prediction, variance half) of a model output with twice the sample's channels."""
    if model_output.shape[1] != 2 * sample.shape[1]:
        raise UserError(
            f"the model gives {model_output.shape[1]} channels, but variance_type learned or learned_range needs "
            f"{2 * sample.shape[1]}: set variance_type to fixed_small"
        )
    return np.split(model_output, 2, axis=1)
