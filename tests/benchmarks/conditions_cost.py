"""What pictures as input cost at the real configuration, with random weights: the MoVQ's encoder beside diffusers on torch and,
where it is installed, OpenVINO; and a step of the inpainting UNet beside one of the UNet for texts, both loaded, in turns.

    python tests/benchmarks/conditions_cost.py encoder                    512x512: two minutes, 3 GB of memory
    python tests/benchmarks/conditions_cost.py steps --size 256           16 GB of disk, both UNets in memory
    python tests/benchmarks/conditions_cost.py steps --size 256 --divide 4      two minutes, a sixteenth of both
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from full_size import MOVQ, UNET, write_part
from full_size import PARTS as MODULES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

# isort: split
import diffusers
import references
from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles
from kandinsky_mindir.export.checkpoint.tensor_names import weights
from kandinsky_mindir.export.draft import Draft
from kandinsky_mindir.export.graphs.graph_specs import part_specs
from kandinsky_mindir.export.parts import Part, write_parts
from kandinsky_mindir.export.staging import NOTES
from kandinsky_mindir.models.config import MoVQConfig, UNetConfig
from kandinsky_mindir.runner import engine as engines
from kandinsky_mindir.runner.bundle.manifest import Manifest
from kandinsky_mindir.runner.loading.models import Models

RUNS = 3  # the median counts; one more goes before, unmeasured
TURNS = 20  # of two steps, now the one first, now the other: what else the machine does meets both
WIDTHS = ("block_out_channels", "attention_head_dim", "cross_attention_dim")  # of the UNet, that --divide divides
STEM = "diffusion_pytorch_model"


def compiled(folder, part, config, tensors, side, name, batch, engine):
    """The graph `name` of a part at side x side pixels, as models."""
    size, latents = (side, side), (side // 8, side // 8)
    cells = [(spec, spec.cell()) for spec in part_specs(part, config, {size: latents})]
    shapes = {parameter.name: parameter.shape for _, cell in cells for parameter in cell.get_parameters()}
    cells = [(spec, cell) for spec, cell in cells if (spec.name, spec.batch) == (name, batch)]
    made = Part(cells, weights(part, shapes, TensorFiles(tensors, STEM)), "benchmark", 0, "float32", 0)
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    graphs = tuple(write_parts(folder, {part: made}, engine, progress=True))
    return Models(Draft(folder, Manifest((size,), graphs, {}, {}, {}, {}, None, {})), engine, keep_loaded=True)


def seconds(run):
    run()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def runner(models, name, batch, size, stack):
    """A function that runs a graph on random inputs, loaded until `stack` ends."""
    run = stack.enter_context(models.lease(name, batch, size))
    random = np.random.default_rng(0)
    graph = models.bundle.manifest.find(name, batch, size)
    inputs = {tensor.name: random.standard_normal(tensor.shape).astype(np.float32) for tensor in graph.inputs}
    return lambda: run(**inputs)


def time_graph(models, name, batch, size):
    with ExitStack() as stack:
        return seconds(runner(models, name, batch, size, stack))


def in_turns(runs):
    """Seconds of each of `runs` in each of TURNS turns, one list a run; a turn more goes before, unmeasured."""
    times = [[] for _ in runs]
    for turn in range(-1, TURNS):
        order = list(enumerate(runs))
        for i, run in order if turn % 2 else reversed(order):
            start = time.perf_counter()
            run()
            if turn >= 0:
                times[i].append(time.perf_counter() - start)
    return times


def encoder(side, folder, engine):
    half = torch.autocast("cpu", torch.bfloat16, enabled=engine.precision == "bfloat16")
    module = diffusers.VQModel(**MOVQ)
    references.randomize(module, 0)
    module = module.eval().requires_grad_(False)
    module.save_pretrained(folder / "movq")
    models = compiled(folder / "bundle", "movq", MoVQConfig.from_dict(references.config_of(module)), folder / "movq", side,
                      "movq_encoder", 1, engine)
    ours = time_graph(models, "movq_encoder", 1, (side, side))
    image = torch.rand(1, 3, side, side) * 2 - 1
    with torch.no_grad(), half:
        theirs = {"diffusers on torch": seconds(lambda: module.encode(image)),
                  "the same, channels last": seconds(lambda: module.to(memory_format=torch.channels_last).encode(image))}
    if find_spec("openvino"):
        theirs["OpenVINO"] = seconds(openvino_encoder(module, image, engine.precision))
    rows = {"this project": ours, **theirs}
    print(f"| MoVQ encoder, {side}x{side}, {engine.precision} | seconds |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} |")


def openvino_encoder(module, image, precision):
    """A function that runs the encoder there, as in peers.py."""
    import openvino

    class Encoder(torch.nn.Module):
        def forward(self, image):
            return module.quant_conv(module.encoder(image))

    with torch.no_grad():
        model = openvino.convert_model(Encoder(), example_input=image, input=[image.shape])
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    run = openvino.Core().compile_model(model, "CPU", options)
    return lambda: run([image.numpy()])


def divided(option, by):
    return tuple(width // by for width in option) if isinstance(option, tuple) else option // by


def steps(side, folder, engine, by):
    unet, runs = {**UNET, **{name: divided(UNET[name], by) for name in WIDTHS}}, {}
    with ExitStack() as stack:
        for part, name, channels in (("unet", "text to image", 4), ("inpaint_unet", "inpainting", 9)):
            options = {**unet, "in_channels": channels}
            MODULES["unet"] = (part, STEM, lambda options=options: diffusers.UNet2DConditionModel(**options))
            write_part(folder / part, "unet", "float16")
            config = UNetConfig.from_dict({**options, "_class_name": "UNet2DConditionModel"})
            models = compiled(folder / part / "bundle", part, config, folder / part / part / "unet", side, part, 2, engine)
            shutil.rmtree(folder / part / part)
            runs[name] = runner(models, part, 2, (side, side), stack)
        text, inpainting = times = in_turns(runs.values())
    print(f"| step with guidance, {side}x{side}, {engine.precision} | seconds, median | least |\n| --- | --- | --- |")
    for name, found in zip(runs, times):
        print(f"| {name} | {statistics.median(found):.3f} | {min(found):.3f} |")
    ratios = sorted(second / first for first, second in zip(text, inpainting))
    print(f"\ninpainting / text to image: {min(inpainting) / min(text):.3f} of the least, "
          f"{statistics.median(ratios):.3f} in the median turn")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("encoder", "steps"))
    parser.add_argument("--size", type=int, default=512, metavar="N", help="pixels of a side (default 512)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of all")
    parser.add_argument("--divide", type=int, default=1, metavar="N", help="steps: divide the UNets' widths by N (default 1)")
    arguments = parser.parse_args()
    engine = engines.create(precision=arguments.precision)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "encoder":
            encoder(arguments.size, Path(folder), engine)
        else:
            steps(arguments.size, Path(folder), engine, arguments.divide)


if __name__ == "__main__":
    main()
