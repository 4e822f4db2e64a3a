"""Prints sampler x options x worst relative error against diffusers, over 1 to 100 steps.

    python tests/programs/samplers_table.py [--every 1] > samplers.txt

Model outputs are random and independent of one another, the hardest case for a multistep solver. Two references:
diffusers as it is, and diffusers with float64 noise levels and samples, which shows whose rounding a difference is.
"""

import argparse
import sys
import warnings

import support_path  # noqa: F401

# isort: split
import diffusers
import torch
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError
from scheduler_reference import KANDINSKY, worst_error

KARRAS, EXPONENTIAL = dict(use_karras_sigmas=True), dict(use_exponential_sigmas=True)
SPACINGS = [dict(timestep_spacing=spacing) for spacing in ("linspace", "leading", "trailing")]
ORDERS = [dict(solver_order=order) for order in (1, 2, 3)]
VELOCITY, THRESHOLD = dict(prediction_type="v_prediction"), dict(thresholding=True, sample_max_value=2.0)
SDE = dict(algorithm_type="sde-dpmsolver++")
NOISE = dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min")
BH1 = dict(solver_type="bh1", final_sigmas_type="sigma_min")
HIGH = dict(predictor_order=3, corrector_order=4)
GRIDS = [KARRAS, EXPONENTIAL]
COMMON = [*GRIDS, VELOCITY, THRESHOLD]
# Sampler -> the variations of its options, on top of the decoder's own; arguments of diffusers' step among them.
TABLE = {
    "DDPMScheduler": [{}, dict(variance_type="fixed_small"), dict(variance_type="fixed_large"), VELOCITY, THRESHOLD],
    "UnCLIPScheduler": [{}, dict(variance_type="learned_range"), dict(prediction_type="sample", clip_sample_range=5.0)],
    "DDIMScheduler": [{}, dict(eta=1.0), dict(clip_sample=True), *SPACINGS, VELOCITY, THRESHOLD],
    "DPMSolverMultistepScheduler": [*ORDERS, dict(solver_type="heun"), SDE, NOISE, *SPACINGS, *COMMON],
    "DPMSolverSinglestepScheduler": [*ORDERS, dict(solver_type="heun"), SDE, NOISE, *COMMON],
    "UniPCMultistepScheduler": [*ORDERS, BH1, *SPACINGS, *COMMON],
    "DEISMultistepScheduler": [*ORDERS, *SPACINGS, *COMMON],
    "PNDMScheduler": [{}, dict(skip_prk_steps=True), *SPACINGS, VELOCITY],
    "EulerDiscreteScheduler": [{}, dict(s_churn=10.0), *SPACINGS, *GRIDS, VELOCITY],
    "EulerAncestralDiscreteScheduler": [{}, *SPACINGS, VELOCITY],
    "HeunDiscreteScheduler": [{}, *SPACINGS, *GRIDS, VELOCITY],
    "LCMScheduler": [{}, VELOCITY, THRESHOLD],
    "TCDScheduler": [{}, dict(eta=0.0), dict(eta=1.0), VELOCITY],
    "SASolverScheduler": [{}, HIGH, dict(algorithm_type="noise_prediction"), *SPACINGS, *COMMON],
}
STEP_ARGUMENTS = ("eta", "s_churn")


def worst(name, variation, counts, dtype):
    """(the greatest error, the number of steps it is at) over `counts` that the sampler takes."""
    known = set(schedulers.SCHEDULERS[name].OPTIONS)
    if not schedulers.SCHEDULERS[name].TAKES_VARIANCE:
        known.discard("variance_type")  # diffusers cuts the latents' 4 channels to 3 for it
    if name == "UnCLIPScheduler":
        base = {}
    else:
        base = dict(KANDINSKY, original_inference_steps=100)
    options = {key: value for key, value in {**base, **variation}.items() if key in known}
    arguments = {key: options.pop(key) for key in STEP_ARGUMENTS if key in options}
    errors = [(0.0, 0)]
    for steps in counts:
        try:
            schedulers.SCHEDULERS[name](**options).schedule(steps)
        except UserError:
            continue
        if name == "UnCLIPScheduler" and steps == 1:
            continue  # diffusers divides by zero
        errors.append((worst_error(name, options, steps, dtype=dtype, **arguments), steps))
    return max(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every n-th number of steps (default: 1)")
    parser.add_argument("samplers", nargs="*", default=list(TABLE), help="class names (default: all)")
    args = parser.parse_args()
    counts = range(1, 101, args.every)
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    print(f"{'sampler':32} {'options':58} {'diffusers':>15} {'in float64':>15}")
    for name in args.samplers:
        for variation in TABLE[name]:
            text = ", ".join(f"{key}={value}" for key, value in variation.items()) or "the decoder's own"
            columns = [worst(name, variation, counts, dtype) for dtype in (torch.float32, torch.float64)]
            print(f"{name:32} {text:58}", *(f"{error:9.1e} at {steps:3}" for error, steps in columns))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
