"""Bad arguments of the Python interface: pipelines, pictures, noise, schedulers."""

import io
import struct
import zlib

import numpy as np
from bad_inputs import Case, short
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, load_image, make_image_grid, schedulers
from kandinsky_mindir.runner.diffusion import noise
from kandinsky_mindir.runner.engine import create
from kandinsky_mindir.runner.pictures.contact_sheet import labelled_sheet
from kandinsky_mindir.runner.pictures.images import to_pil
from kandinsky_mindir.runner.pictures.saving import save_image
from PIL import Image

E = 32  # width of the image embedding of the bundle, and its latents at 16x16
LATENTS = (1, 4, 8, 8)
NAN = float("nan")
PICTURE = Image.new("RGB", (24, 24), "red")


class Deaf:
    """A source of noise that does not listen to the size."""

    def standard_normal(self, size):
        return np.zeros(3)


class Whole(Deaf):
    def standard_normal(self, size):
        return np.zeros(size, int)


SAMPLING = [
    (dict(num_inference_steps=0), "num_inference_steps is 0"),
    (dict(num_inference_steps=-5), "num_inference_steps is -5"),
    (dict(num_inference_steps=1001), "num_inference_steps is 1001 ... to 1000"),
    (dict(num_inference_steps=2.5), "num_inference_steps is 2.5: it must be a whole number"),
    (dict(num_inference_steps="25"), "num_inference_steps is '25'"),
    (dict(num_inference_steps=True), "num_inference_steps is True"),
    (dict(num_inference_steps=10**400), "num_inference_steps is"),
    (dict(guidance_scale=NAN), "guidance_scale is nan: it must be a finite number"),
    (dict(guidance_scale=float("inf")), "guidance_scale is inf"),
    (dict(guidance_scale=-0.1), "guidance_scale is -0.1: it must not be negative"),
    (dict(guidance_scale="4"), "guidance_scale is '4'"),
    (dict(guidance_scale=True), "guidance_scale is True"),
    (dict(guidance_scale=10**400), "guidance_scale is 1000"),
    (dict(guidance_scale=[4.0]), "guidance_scale is [4.0]"),
    (dict(guidance_scale=1e39), "guidance_scale is 1e+39"),
    (dict(num_images_per_prompt=0), "num_images_per_prompt is 0"),
    (dict(num_images_per_prompt=-1), "num_images_per_prompt is -1"),
    (dict(num_images_per_prompt=1.0), "num_images_per_prompt is 1.0"),
    (dict(num_images_per_prompt=None), "num_images_per_prompt is None"),
    (dict(num_images_per_prompt=10**9), "num_images_per_prompt is 1000000000"),
    (dict(generator=-1), "seed -1 does not suit the generator"),
    (dict(generator=True), "seed must be an integer, not True"),
    (dict(generator=1.5), "generator must be an integer seed or have standard_normal(size), not 1.5"),
    (dict(generator="7"), "generator must be an integer seed"),
    (dict(generator=[]), "generator is an empty list"),
    (dict(generator=[1, "x"]), "generator must be an integer seed"),
    (dict(generator=[1, 2, 3]), "3 generators for a batch of 1"),
    (dict(generator=Deaf()), "generator Deaf answered standard_normal ... of shape (3,)"),
    (dict(generator=Whole()), "generator Whole answered standard_normal ... with int64"),
    (dict(latents="noise"), "latents must be an array of numbers, not a str"),
    (dict(latents=np.zeros((1, 3))), "latents have shape (1, 3): this request needs"),
    (dict(output_type="pt"), "output_type is 'pt': choose one of"),
    (dict(output_type=None), "output_type is None: choose one of"),
    (dict(callback_on_step_end=print, callback_on_step_end_tensor_inputs=["noise"]),
     "callback_on_step_end_tensor_inputs has noise: known are latents"),
    (dict(callback_on_step_end_tensor_inputs="latents"), "callback_on_step_end_tensor_inputs"),
    (dict(callback_on_step_end=7), "callback_on_step_end"),
]

PRIOR = SAMPLING + [
    (dict(prompt=[]), "prompt is an empty list: give at least one text"),
    (dict(prompt=()), "prompt is an empty list"),
    (dict(prompt=None), "prompt must be a text or a list of texts, not a NoneType"),
    (dict(prompt=7), "prompt must be a text or a list of texts, not a int"),
    (dict(prompt=["", 7]), "prompt must be a text or a list of texts, not a list that holds a int"),
    (dict(prompt=b"cat"), "not a bytes"),
    (dict(prompt="cat\ud800"), "prompt must be Unicode text"),
    (dict(prompt={"cat"}), "not a set"),
    (dict(negative_prompt=[]), "negative_prompt is an empty list"),
    (dict(negative_prompt=["", ""]), "negative_prompt has 2 texts and prompt has 1"),
    (dict(prompt=["", ""], negative_prompt=""), "negative_prompt has 1 texts and prompt has 2"),
    (dict(negative_prompt=7), "negative_prompt must be a text"),
    (dict(output_type="pil"), "output_type is 'pil'"),
    (dict(latents=np.zeros((2, E))), "latents have shape (2, 32): this request needs (1, 32)"),
    (dict(prompt="a cat", latents=np.zeros((2, E))), "latents have shape (2, 32): this request needs (1, 32)"),
    (dict(latents=np.zeros(E)), "latents have shape (32,)"),
    (dict(latents=np.full((1, E), NAN)), "latents holds values that are not finite"),
    (dict(latents=np.full((1, E), 1e300)), "latents holds values that are not finite"),
    (dict(negative_prompt="", latents=np.zeros((1, E))), "latents have shape (1, 32): this request needs (2, 32)"),
]

DECODER = SAMPLING + [
    (dict(image_embeds=None), "image_embeds must be an array of numbers, not a NoneType"),
    (dict(image_embeds="cat"), "image_embeds must be an array of numbers"),
    (dict(image_embeds=[]), "image_embeds"),
    (dict(image_embeds=np.zeros((0, E))), "image_embeds has shape (0, 32)"),
    (dict(image_embeds=np.zeros(E)), "image_embeds has shape (32,): this bundle needs (rows, 32)"),
    (dict(image_embeds=np.zeros((1, E + 1))), "image_embeds has shape (1, 33): this bundle needs (rows, 32)"),
    (dict(image_embeds=np.zeros((1, 1, E))), "image_embeds has shape (1, 1, 32)"),
    (dict(image_embeds=[np.zeros((1, E)), np.zeros((1, E + 1))]), "image_embeds must be an array of numbers"),
    (dict(image_embeds=np.full((1, E), NAN)), "image_embeds holds values that are not finite"),
    (dict(image_embeds=np.full((1, E), 1e39)), "image_embeds holds values that are not finite"),
    (dict(image_embeds=np.full((1, E), 1j)), "image_embeds must be an array of numbers"),
    (dict(negative_image_embeds=np.zeros((1, E - 1))), "negative_image_embeds has shape (1, 31)"),
    (dict(negative_image_embeds=np.ones((2, E))), "negative_image_embeds has 2 rows and image_embeds has 1"),
    (dict(negative_image_embeds=np.full((1, E), NAN)), "negative_image_embeds holds values that are not finite"),
    (dict(negative_image_embeds="dog"), "negative_image_embeds must be an array of numbers"),
    (dict(height=0), "height is 0: it must be a positive whole number of pixels"),
    (dict(height=-16), "height is -16"),
    (dict(width=16.0), "width is 16.0"),
    (dict(width="16"), "width is '16'"),
    (dict(width=True), "width is True"),
    (dict(width=2**40), "width is 1099511627776"),
    (dict(height=24, width=24), "this bundle has no size 24x24 (it has 16x16, 16x24)"),
    (dict(height=24), "this bundle has no size 24x16"),
    (dict(latents=np.zeros((1, 4, 16, 16))), "latents have shape (1, 4, 16, 16): this request needs (1, 4, 8, 8)"),
    (dict(latents=np.zeros((2, 4, 8, 8))), "latents have shape (2, 4, 8, 8): this request needs (1, 4, 8, 8)"),
    (dict(latents=np.full(LATENTS, NAN)), "latents holds values that are not finite"),
    (dict(output_type="PIL"), "output_type is 'PIL': choose one of pil, np, latent"),
]

# What the second stage would refuse must be refused before the first has run.
COMBINED = [
    (dict(num_inference_steps=0), "num_inference_steps is 0"),
    (dict(num_inference_steps=1001), "num_inference_steps is 1001"),
    (dict(prior_num_inference_steps=1001), "num_inference_steps is 1001"),
    (dict(guidance_scale=NAN), "guidance_scale is nan"),
    (dict(prior_guidance_scale=NAN), "guidance_scale is nan"),
    (dict(height=24), "this bundle has no size 24x16"),
    (dict(width=-1), "width is -1"),
    (dict(output_type="pt"), "output_type is 'pt'"),
    (dict(prompt=[]), "prompt is an empty list"),
    (dict(prompt=["a cat", None]), "not a list that holds a NoneType"),
    (dict(negative_prompt=["", ""]), "negative_prompt has 2 texts"),
    (dict(generator="7"), "generator must be an integer seed"),
    (dict(latents=np.zeros(LATENTS)), "latents have shape (1, 4, 8, 8): this request needs (1, 32)"),
    (dict(num_images_per_prompt=0), "num_images_per_prompt is 0"),
    (dict(callback_on_step_end=print, callback_on_step_end_tensor_inputs=["x"]), "tensor_inputs has x"),
    (dict(prior_callback_on_step_end=print, prior_callback_on_step_end_tensor_inputs=["x"]), "tensor_inputs has x"),
]

INTERPOLATE = [
    (dict(images_and_prompts=[], weights=[]), "images_and_prompts must be a list with at least one text or picture"),
    (dict(images_and_prompts="a cat", weights=[1.0]), "images_and_prompts must be a list"),
    (dict(images_and_prompts=None, weights=[1.0]), "images_and_prompts must be a list"),
    (dict(weights=[0.5]), "images_and_prompts has 2 items and weights has 1: give one weight an item"),
    (dict(weights=[0.5, 0.3, 0.2]), "images_and_prompts has 2 items and weights has 3"),
    (dict(weights=[]), "weights has 0"),
    (dict(weights=None), "weights must be a list of numbers, not a NoneType"),
    (dict(weights=0.5), "weights must be a list of numbers, not a float"),
    (dict(weights="11"), "weights must be a list of numbers, not a str"),
    (dict(weights=[0.5, "0.5"]), "weights[1] is '0.5': it must be a finite number"),
    (dict(weights=[0.5, None]), "weights[1] is None"),
    (dict(weights=[True, 0.5]), "weights[0] is True"),
    (dict(weights=[NAN, 0.5]), "weights[0] is nan"),
    (dict(weights=[0.5, float("inf")]), "weights[1] is inf"),
    (dict(weights=[0.5, 1e39]), "weights[1] is 1e+39"),
    (dict(weights=[0.5, 10**400]), "weights[1] is 1000"),
    (dict(weights=[0, 0.0]), "weights are all zero"),
    (dict(weights=np.zeros(2)), "weights are all zero"),
    (dict(weights=np.zeros((2, 2))), "weights[0] is"),
    (dict(images_and_prompts=["", 7]), "texts, PIL pictures and pixel values ... not int"),
    (dict(images_and_prompts=["", None]), "texts, PIL pictures and pixel values ... not NoneType"),
    (dict(images_and_prompts=["a cat", b"x"]), "not bytes"),
    (dict(images_and_prompts=["", np.zeros((3, 24, 24))]), "pixel values of shape (1, 3, 24, 24), not (3, 24, 24)"),
    (dict(images_and_prompts=["", np.full((1, 3, 24, 24), NAN)]), "not finite"),
    (dict(images_and_prompts=["", np.full((1, 3, 24, 24), "x")]), "a picture in images_and_prompts must be an array of numbers"),
    (dict(images_and_prompts=["", Image.new("RGB", (1, 5000))]), "a picture of 1x5000 pixels cannot be used"),
    (dict(images_and_prompts=["", Image.new("F", (8, 8))]), "pixels of mode F have no white"),
    (dict(negative_prior_prompt=["", ""]), "negative_prior_prompt is ['', '']: it must be one text"),
    (dict(negative_prompt=7), "negative_prompt is 7: it must be one text"),
    (dict(negative_prompt=["a", "b"]), "negative_prompt is ['a', 'b']: it must be one text"),
    (dict(num_inference_steps=0), "num_inference_steps is 0"),
    (dict(guidance_scale=-1), "guidance_scale is -1"),
    (dict(num_images_per_prompt=0), "num_images_per_prompt is 0"),
    (dict(generator="x"), "generator must be an integer seed"),
    (dict(latents=np.zeros((3, E))), "latents have shape (3, 32)"),
]

OPENING = [
    (dict(engine="cuda"), "unknown engine 'cuda': use one of auto, bridge, mindspore, vendor"),
    (dict(engine=None), "unknown engine None"),
    (dict(engine="vendor"), "the engine 'vendor' needs the mindspore_lite package"),
    (dict(device="gpu"), "unknown device 'gpu': use cpu, ascend or ascend:ID"),
    (dict(device="cpu:0"), "unknown device 'cpu:0'"),
    (dict(device="ascend:x"), "unknown device 'ascend:x'"),
    (dict(device=None), "unknown device None"),
    (dict(threads=0), "threads is 0"),
    (dict(threads=-2), "threads is -2"),
    (dict(threads=1.5), "threads is 1.5"),
    (dict(threads="two"), "threads is 'two'"),
    (dict(threads=True), "threads is True"),
]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of that size, and holds no pixels."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _encoded(format: str) -> bytes:
    file = io.BytesIO()
    noise_picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise_picture).save(file, format)
    return file.getvalue()


# Content of a file that is given as a picture.
PICTURES = [
    (b"", "is not a picture in a known format"),
    (b"not a picture", "is not a picture in a known format"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not a picture in a known format"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture in a known format"),
    (png_header(9000, 9000), "9000x9000 pixels; the limit is 67108864"),
    (png_header(20000, 20000), "400000000 pixels"),
    (png_header(100000, 100000), "cannot be used"),
    (png_header(0, 5), "cannot be used"),
    (png_header(40, 40), "cannot be used"),
    *[(_encoded(format)[: int(len(_encoded(format)) * part)], "cannot be used")
      for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF") for part in (0.3, 0.7)],
]

CALLS = [
    ("load_image(None)", lambda: load_image(None), "must be a path, an http(s) address or a PIL picture, not NoneType"),
    ("load_image(b'x.png')", lambda: load_image(b"x.png"), "not bytes"),
    ("load_image(array)", lambda: load_image(np.zeros((8, 8, 3))), "not ndarray"),
    ("load_image('')", lambda: load_image(""), "it is not a file"),
    ("load_image('a\\0b')", lambda: load_image("a\0b.png"), "cannot be read"),
    ("load_image of a name of 5000 letters", lambda: load_image("x" * 5000), "cannot be read"),
    ("load_image of an empty picture", lambda: load_image(Image.new("RGB", (0, 0))), "0x0 pixels"),
    ("load_image over max_pixels", lambda: load_image(PICTURE, max_pixels=100), "24x24 pixels; the limit is 100"),
    ("make_image_grid of nothing", lambda: make_image_grid([], 0, 0), "a grid of 0 rows"),
    ("make_image_grid of too few", lambda: make_image_grid([PICTURE], 1, 2), "needs 2 pictures, not 1"),
    ("labelled_sheet of nothing", lambda: labelled_sheet([]), "a sheet needs rows"),
    ("to_pil of another shape", lambda: to_pil(np.zeros((8, 8, 3))), "must have the shape (N, H, W, 3), not (8, 8, 3)"),
    ("to_pil of NaN", lambda: to_pil(np.full((1, 8, 8, 3), NAN)), "not between 0 and 1, or not numbers"),
    ("to_pil over 1", lambda: to_pil(np.full((1, 8, 8, 3), 2.0)), "not between 0 and 1"),
    ("save_image to x.xyz", lambda: save_image(PICTURE, "x.xyz"), "x.xyz ends in no known picture format"),
    ("save_image to no/x.png", lambda: save_image(PICTURE, "no/x.png"), "no/x.png cannot be written: No such file"),
    ("save_image of an empty picture", lambda: save_image(Image.new("RGB", (0, 0)), "x.png"), "cannot be written"),
    ("save_image of mode F as JPEG", lambda: save_image(Image.new("F", (8, 8)), "x.jpg"), "cannot be written"),
    ("save_image of text as JPEG", lambda: save_image(PICTURE, "x.jpg", text={"a": "b"}), "cannot hold text"),
    ("save_image to a full disk", lambda: save_image(PICTURE, "/proc/x.png"), "/proc/x.png cannot be written"),
    ("noise.from_seed of another kind", lambda: noise.from_seed(1, "jax"), "unknown random generator 'jax'"),
    ("noise.from_seed of a word", lambda: noise.from_seed("x"), "seed must be an integer, not 'x'"),
    ("noise.from_seed over 32 bits, legacy", lambda: noise.from_seed(2**40, "numpy-legacy"), "does not suit"),
    ("noise.from_seed below 0, torch", lambda: noise.from_seed(-(2**70), "torch"), "seed"),
    ("engine.create('')", lambda: create(""), "unknown engine ''"),
    ("from_pretrained(None)", lambda: KandinskyV22CombinedPipeline.from_pretrained(None), "must be"),
]

# Short name and options of a sampler
SCHEDULERS = [
    ({}, "scheduler class None is not known; known are"),
    ({"_class_name": "MagicScheduler"}, "scheduler class 'MagicScheduler' is not known"),
    ({"_class_name": ["DDPMScheduler"]}, "scheduler class ['DDPMScheduler'] is not known"),
    *[({"_class_name": "DDPMScheduler", key: value}, f"DDPMScheduler ... {key}") for key, value in [
        ("surprise", 1), ("num_train_timesteps", 0), ("num_train_timesteps", "1000"), ("num_train_timesteps", None),
        ("beta_start", "x"), ("beta_end", None), ("beta_schedule", "quadratic"), ("beta_schedule", None),
        ("trained_betas", [0.1, NAN]), ("trained_betas", "x"), ("trained_betas", []), ("variance_type", "guessed"),
        ("clip_sample", "yes"), ("prediction_type", "noise"), ("thresholding", 1), ("steps_offset", -1),
        ("timestep_spacing", "even"), ("clip_sample_range", NAN), ("sample_max_value", "1"),
        ("dynamic_thresholding_ratio", NAN), ("rescale_betas_zero_snr", None),
    ]],
    *[({"_class_name": "UnCLIPScheduler", key: value}, f"UnCLIPScheduler ... {key}") for key, value in [
        ("beta_schedule", "linear"), ("variance_type", "fixed_large"), ("prediction_type", "v_prediction"),
        ("clip_sample_range", True), ("num_train_timesteps", -1),
    ]],
]


def cases():
    for name, defaults, rows in (
        ("prior", {"prompt": ""}, PRIOR),
        ("decoder", {"image_embeds": np.zeros((1, E))}, DECODER),
        ("combined", {"prompt": ""}, COMBINED),
    ):
        for options, words in rows:
            yield Case(f"{name} pipeline: {_shown(options)}", words, _pipeline(name, defaults | options))
    for options, words in INTERPOLATE:
        options = {"images_and_prompts": ["", ""], "weights": [0.5, 0.5]} | options
        yield Case(f"interpolate: {_shown(options)}", words,
                   lambda place, options=options: place.call(place.pipelines["prior"].interpolate, **options))
    for options, words in OPENING:
        yield Case(f"from_pretrained: {_shown(options)}", words, _opening(options))
    for i, (content, words) in enumerate(PICTURES):
        yield Case(f"picture file {i}: {short(content)}", words, _picture(content))
    for name, function, words in CALLS:
        yield Case(name, words, lambda place, function=function: place.call(function))
    for config, words in SCHEDULERS:
        yield Case(f"scheduler: {short(config)}", words, lambda place, c=config: place.call(schedulers.create, c))


def _shown(options):
    return ", ".join(f"{key}={' '.join(short(value).split())}" for key, value in options.items())


def _pipeline(name, options):
    return lambda place: place.call(place.pipelines[name], **options)


def _opening(options):
    return lambda place: place.call(KandinskyV22CombinedPipeline.from_pretrained, place.bundle, **options)


def _picture(content):
    def act(place):
        path = place.folder / "picture.png"
        path.write_bytes(content)
        return place.command("interpolate", place.bundle, "--image", path, 1)

    return act
