"""Each part of a bundle on MindSpore Lite against diffusers and transformers on torch: ``fidelity.py BUNDLE CHECKPOINT``.

CHECKPOINT holds the folders prior and decoder that the bundle was exported from. A part and its reference run one after
the other, each in a process of its own, on the same random inputs, in float32; the table gives the relative L2 error of
each output, and the time and peak memory of the two processes. Ends with status 1 if an error is above 1e-4.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

# Float32 rounds each operation to 6e-8 of its result. Errors of some thousand operations in sequence, the depth of the real
# parts, add like a random walk to 2e-6, and norms and softmaxes amplify them up to ten times. A wrong constant shows at 1e-3.
LIMIT = 1e-4
TIMESTEP = 421
PROMPT = "a portrait of a young woman with a red cat, oil on canvas"


def make_inputs(part, bundle, size):
    """What both sides take: pipelines' inputs, before anything that only one of them computes."""
    random, find = np.random.default_rng(0), bundle.manifest.find

    def normal(graph, name, batch):
        return random.standard_normal((batch, *graph.input(name).shape[1:])).astype(np.float32)

    if part == "text_encoder":
        from kandinsky_mindir.runner.inputs.tokens import tokenizer_of

        tokens = tokenizer_of(bundle).encode(PROMPT)
        return {"input_ids": tokens.input_ids[None], "end_position": np.array([tokens.end_position], np.int32)}
    if part == "image_encoder":
        return {"pixel_values": normal(find("image_encoder"), "pixel_values", 1)}
    if part == "prior":
        context = find("prior_context")
        mask = np.stack([np.arange(context.input("text_mask").shape[1]) < kept for kept in (2, 15)]).astype(np.float32)
        return {"latents": normal(find("prior"), "latents", 2), "text_embeds": normal(context, "text_embeds", 2),
                "text_hidden_states": normal(context, "text_hidden_states", 2), "text_mask": mask}
    if part == "unet":
        return {"sample": normal(find("unet", 1, size), "sample", 2),
                "image_embeds": normal(find("unet_context"), "image_embeds", 2)}
    return {"latents": normal(find("movq_decoder", 1, size), "latents", 1)}


def reference(part, folder, given):
    """The outputs of the reference's own module."""
    import diffusers
    import torch
    import transformers

    cls = {"text_encoder": transformers.CLIPTextModelWithProjection, "image_encoder": transformers.CLIPVisionModelWithProjection,
           "prior": diffusers.PriorTransformer, "unet": diffusers.UNet2DConditionModel, "movq": diffusers.VQModel}[part]
    module = cls.from_pretrained(str(folder), torch_dtype=torch.float32, low_cpu_mem_usage=True).eval()
    given = {name: torch.from_numpy(array) for name, array in given.items()}
    with torch.inference_mode():
        if part == "text_encoder":
            output = module(given["input_ids"].long())
            outputs = output.text_embeds, output.last_hidden_state
        elif part == "image_encoder":
            outputs = (module(given["pixel_values"]).image_embeds,)
        elif part == "prior":
            names = ("text_embeds", "text_hidden_states")
            outputs = (module(given["latents"], TIMESTEP, *(given[name] for name in names), given["text_mask"] > 0)[0],)
        elif part == "unet":
            outputs = (module(given["sample"], TIMESTEP, None, added_cond_kwargs={"image_embeds": given["image_embeds"]})[0],)
        else:
            outputs = (module.decode(given["latents"], force_not_quantize=True)[0],)
    return [output.numpy() for output in outputs]


def ours(part, open_bundle, given, size):
    """The outputs of the bundle's graphs."""
    from kandinsky_mindir.runner import engine
    from kandinsky_mindir.runner.diffusion.sinusoid import timestep_embedding
    from kandinsky_mindir.runner.loading.models import Models

    bundle = open_bundle()
    models = Models(bundle, engine.create(), keep_loaded=False)

    def run(name, batch=1, size=None, **inputs):
        with models.lease(name, batch, size) as function:
            return function(**inputs)

    def rows(name, *names):
        """A context graph on each row of the inputs, which takes one at a time."""
        with models.lease(name) as function:
            return list(zip(*(function(**{key: given[key][i : i + 1] for key in names}) for i in range(2))))

    def time_proj(name, *where):
        width = bundle.manifest.find(name, *where).input("time_proj").shape[1]
        return timestep_embedding(TIMESTEP, width, **bundle.manifest.settings[f"{name}_time_proj"])

    if part == "prior":
        (contexts,) = rows("prior_context", "text_embeds", "text_hidden_states", "text_mask")
        return run("prior", 2, latents=given["latents"], text_mask=given["text_mask"], time_proj=time_proj("prior", 2),
                   context=np.concatenate(contexts, axis=1))
    if part == "unet":
        time_addition, added_kv = map(np.concatenate, rows("unet_context", "image_embeds"))
        return run("unet", 2, size, sample=given["sample"], time_proj=time_proj("unet", 2, size),
                   time_addition=time_addition, added_kv=added_kv)
    return run(*{"movq": ("movq_decoder", 1, size)}.get(part, (part,)), **given)


def alone(function, *arguments):
    """(what the function returns, seconds, peak memory in GB) from a fresh process; its children's memory counts."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, arguments).result()


def _measured(function, arguments):
    started = time.monotonic()
    result = function(*arguments)
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return result, time.monotonic() - started, peak * 1024 / 1e9


def compare(part, open_bundle, checkpoint, size=None):
    """The errors of the outputs, and seconds and peak memory of both sides. open_bundle: makes the Bundle."""
    bundle = open_bundle()
    size = size or bundle.manifest.sizes[0]
    given = make_inputs(part, bundle, size)
    folder = next(folder for kind in ("prior", "decoder") if (folder := Path(checkpoint) / kind / part).is_dir())
    expected, *costs = alone(reference, part, folder, given)
    found, *our_costs = alone(ours, part, open_bundle, given, size)
    errors = [np.linalg.norm(np.float64(output) - right) / np.linalg.norm(np.float64(right))
              for output, right in zip(found, expected, strict=True)]
    return errors, our_costs, costs


def main():
    from kandinsky_mindir.runner.bundle.opened import Bundle
    from kandinsky_mindir.runner.commands.arguments import size

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parts = ("text_encoder", "image_encoder", "prior", "unet", "movq")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--size", type=size, metavar="HxW", help="picture size (default: the bundle's first)")
    arguments = parser.parse_args()
    print("part            relative L2 error      ours: s   GB    torch: s   GB", flush=True)
    worst = 0.0
    for part in arguments.parts:
        errors, costs, reference_costs = compare(part, partial(Bundle, arguments.bundle), arguments.checkpoint, arguments.size)
        print(f"{part:16}{' '.join(f'{error:.1e}' for error in errors):20}{costs[0]:10.1f}{costs[1]:6.1f}"
              f"{reference_costs[0]:10.1f}{reference_costs[1]:6.1f}", flush=True)
        worst = max(worst, *errors)
    sys.exit(int(worst > LIMIT))


if __name__ == "__main__":
    main()
