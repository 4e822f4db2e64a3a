"""The systems that peers.py compares, each as a function from a case to something that runs it again and again.

What a case is, its reference module and its inputs stand in cases.py. Nothing of a system is imported before it is used.
"""

import math
import platform
from contextlib import ExitStack
from pathlib import Path

import cases
import numpy as np

SETUP = {
    "ours": "this project: the bundle as export wrote it, on MindSpore Lite 2.0.0, default settings",
    "packed": "this project: the same after kandinsky-mindir pack; disk is what pack added",
    "eager": "torch {torch} and diffusers {diffusers}: eager, float32 weights, inference mode, channels last for UNet and MoVQ; "
    "under torch.autocast where the precision is bfloat16",
    "compiled": "the same under torch.compile (inductor, freezing); its load holds the compilation",
    "openvino": "OpenVINO {openvino}: converted from the same modules, static shapes, saved as float32 and read from disk; "
    "INFERENCE_PRECISION_HINT of the precision, PERFORMANCE_HINT LATENCY, NUM_STREAMS 1, SNIPPETS_MODE DISABLE (with snippets its "
    "compiler ends in a segmentation fault on this UNet); its load compiles",
}


def ours(case, options, packed=False):
    """A function that runs the case on a bundle's graph, or makes a picture. packed: with what `pack` has made of it."""
    from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, engine
    from kandinsky_mindir.runner.bundle.opened import Bundle
    from kandinsky_mindir.runner.loading.models import Models

    bundle = Bundle(options.bundle, use_packed=packed).for_engine(options.threads, options.precision)
    if packed and bundle.packed is None:
        raise ValueError(f"{bundle.path} could not be packed")
    if case.part == "picture":
        pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, threads=options.threads, precision=options.precision)
        pipeline.scheduler = "checkpoint"
        pipeline.set_progress_bar_config(disable=True)
        height, width = case.size
        return lambda: pipeline(
            cases.PROMPT, prior_num_inference_steps=options.prior_steps, num_inference_steps=options.steps, generator=0,
            height=height, width=width, output_type="np",
        ).images  # fmt: skip
    models = Models(bundle, engine.create(precision=options.precision), threads=options.threads, keep_loaded=True)
    graph = models.bundle.manifest.find(case.graph, case.batch, case.size if case.part in ("unet", "movq") else None)
    run = ExitStack().enter_context(models.lease(case.graph, graph.batch, graph.size))
    random = np.random.default_rng(0)
    inputs = {tensor.name: random.standard_normal(tensor.shape).astype(np.float32) if tensor.dtype == "float32"
              else np.ones(tensor.shape, np.int32) for tensor in graph.inputs}
    return lambda: run(**inputs)


def packed(case, options):
    return ours(case, options, packed=True)


def pack(options):
    """Pack the bundle, unless it is."""
    from kandinsky_mindir.runner import engine
    from kandinsky_mindir.runner.bundle.opened import Bundle
    from kandinsky_mindir.runner.upkeep import packing

    bundle = Bundle(options.bundle).for_engine(options.threads, options.precision)
    if bundle.packed is None:
        list(packing.pack(bundle, engine.create(precision=options.precision), options.threads))


def eager(case, options, compiled=False):
    """A function that runs the case in torch."""
    import torch

    torch.set_num_threads(options.threads)
    if compiled:
        import torch._inductor.config

        torch._inductor.config.freezing = True
    prepare = torch.compile if compiled else lambda module: module
    if case.part == "picture":
        return _pictures(case, options, lambda part, module: prepare(module))
    module, inputs = prepare(cases.module(case.part, options.checkpoint)), cases.inputs(case, options.checkpoint)

    def run():
        with torch.inference_mode() if not compiled else torch.no_grad(), half(options):
            return module(*inputs)

    return run


def half(options):
    """What torch computes under: autocast to bfloat16, or nothing."""
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16")


def compiled(case, options):
    return eager(case, options, compiled=True)


def openvino(case, options):
    """A function that runs the case in OpenVINO; `convert` has saved the models."""
    import openvino

    core = openvino.Core()
    hint = {"float32": "f32", "bfloat16": "bf16"}[options.precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                "SNIPPETS_MODE": "DISABLE", "INFERENCE_NUM_THREADS": options.threads}

    def load(case):
        return core.compile_model(openvino_file(case, options), "CPU", settings).create_infer_request()

    if case.part == "picture":
        import torch

        torch.set_num_threads(options.threads)

        def replaced(part, module):
            request = load(cases.Case(part, case.size))

            def call(*tensors):
                found = request.infer([tensor.numpy() for tensor in tensors])
                return tuple(torch.from_numpy(found[i].copy()) for i in range(len(found)))

            return call

        return _pictures(case, options, replaced, weightless=True)
    request, inputs = load(case), [tensor.numpy() for tensor in cases.inputs(case, options.checkpoint)]
    return lambda: request.infer(inputs)


def convert(case, options):
    """Save the case's module for OpenVINO; a process of its own, since torch's copy of the weights lies in it."""
    import openvino
    import torch

    path = openvino_file(case, options)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = cases.inputs(case, options.checkpoint)
    with torch.no_grad():
        model = openvino.convert_model(cases.module(case.part, options.checkpoint), example_input=inputs,
                                       input=[tuple(tensor.shape) for tensor in inputs])
    openvino.save_model(model, path, compress_to_fp16=False)


def openvino_file(case, options):
    title = cases.Case(case.part, case.size).title
    return options.cache / "openvino" / f"{title.replace(' ', '_')}.xml"


def _pictures(case, options, prepare, weightless=False):
    """diffusers' two pipelines, one after the other in memory as people without 40 GB run them, on `prepare`d modules."""
    import torch

    def make():
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode(), half(options):
            prior = cases.pipeline("prior", options.checkpoint, prepare, weightless)
            embeds = prior(cases.PROMPT, num_inference_steps=options.prior_steps, generator=generator)
            del prior
            decoder = cases.pipeline("decoder", options.checkpoint, prepare, weightless)
            height, width = case.size
            return decoder(**embeds, height=height, width=width, num_inference_steps=options.steps,
                           generator=generator, output_type="np").images

    return make


def disk(system, case, options):
    """Bytes of what the system reads for the case."""
    parts = cases.PARTS if case.part == "picture" else [case.part]
    if system in ("ours", "packed"):
        folder = options.bundle / system if system == "packed" else options.bundle
        folders = [folder / part for part in parts]
    elif system == "openvino":
        files = [openvino_file(cases.Case(part, case.size), options) for part in parts]
        return sum(file.stat().st_size + file.with_suffix(".bin").stat().st_size for file in files)
    else:
        folders = [options.checkpoint / cases.FOLDERS[part] / part for part in parts]
    return sum(path.stat().st_size for folder in folders for path in Path(folder).rglob("*") if path.is_file())


def matrix_rate(threads, precision="float32"):
    """Operations a second of the machine's best matrix product: of NumPy's BLAS, torch's, oneDNN, which torch calls for a
    convolution of one pixel, and in float32 the newer oneDNN that this project brings."""
    import time

    import torch

    torch.set_num_threads(threads)
    side, best = 3072, math.inf
    a, b = (np.random.default_rng(i).standard_normal((side, side)).astype(np.float32) for i in range(2))
    first, second = (torch.from_numpy(matrix).to(getattr(torch, precision)) for matrix in (a, b))
    pixels = first.T.reshape(1, side, side // 64, 64).contiguous(memory_format=torch.channels_last)
    kernel = second.reshape(side, side, 1, 1)
    products = [lambda: first @ second, lambda: torch.nn.functional.conv2d(pixels, kernel)]
    if precision == "float32":
        products += [lambda: a @ b, *([onednn_product(a, b)] if platform.machine() == "x86_64" else [])]
    with torch.inference_mode():
        for product in products:
            for _ in range(5):
                started = time.perf_counter()
                product()
                best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def onednn_product(a, b):
    """A function that multiplies two square matrices by oneDNN's own sgemm, with the threads that OMP_NUM_THREADS names."""
    import ctypes

    from kandinsky_mindir.runner.engine import onednn, runtime

    runtime.ensure_onednn()
    library = ctypes.CDLL(str(runtime.ensure().root / "lib" / onednn.LIBRARY))
    side, one, zero, plain = ctypes.c_int64(len(a)), ctypes.c_float(1), ctypes.c_float(0), ctypes.c_char(b"N")
    product = np.empty_like(a)
    left, right, result = (ctypes.c_void_p(matrix.ctypes.data) for matrix in (a, b, product))

    def multiply():
        if library.dnnl_sgemm(plain, plain, side, side, side, one, left, side, right, side, zero, result, side):
            raise RuntimeError("oneDNN's sgemm failed")
        return product

    return multiply
