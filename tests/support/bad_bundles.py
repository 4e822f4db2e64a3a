"""Bundles that are damaged, from another time, or that lack what is asked of them."""

import shutil

from bad_inputs import Case, drop, edit_json, put, rewrite, short

CUTS = 24  # places at which the manifest is cut

# What is done to the parsed manifest. All must be found when the bundle is opened.
MANIFEST = [
    (lambda m: [], "expected 'object', got 'array'"),
    (lambda m: "bundle", "expected 'object', got 'str'"),
    (lambda m: 7, "expected 'object', got 'int'"),
    (drop("format"), "object missing required field 'format'"),
    (put("format", 3), "has format 3, this version reads formats 4 to 6: use a matching version"),
    (put("format", 0), "has format 0"),
    (put("format", 7), "has format 7, this version reads formats 4 to 6: use a matching version"),
    (put("format", 10**40), "has format 1000"),
    (put("format", "3"), "format: expected 'int', got 'str'"),
    (put("format", 3.0), "format: expected 'int', got 'float'"),
    (put("format", True), "format: expected 'int', got 'bool'"),
    (put("format", None), "format: expected 'int', got 'null'"),
    (drop("sizes"), "object missing required field 'sizes'"),
    (put("sizes", {}), "sizes: expected 'array', got 'object'"),
    (put("sizes", []), "sizes: expected 'array' of length >= 1"),
    (put("sizes", [16]), "sizes[0]: expected 'array', got 'int'"),
    (put("sizes", [[16]]), "sizes[0]: expected 'array' of length 2, got 1"),
    (put("sizes", [[16, 0]]), "sizes[0][1]: expected 'int' >= 1"),
    (put("sizes", [[16, -16]]), "sizes[0][1]: expected 'int' >= 1"),
    (put("sizes", [[16, 2**60]]), "sizes[0][1]: expected 'int' <= 16777216"),
    (put("sizes", [["16", "16"]]), "sizes[0][0]: expected 'int', got 'str'"),
    (put("sizes", [[True, True]]), "sizes[0][0]: expected 'int', got 'bool'"),
    (drop("files"), "object missing required field 'files'"),
    (put("files", []), "files: expected 'object', got 'array'"),
    (put("files", {}), "files does not list"),
    (put("files", "/etc/passwd", {"size": 1, "sha256": "0" * 64}), "the path '/etc/passwd' leaves the bundle"),
    (put("files", "../x", {"size": 1, "sha256": "0" * 64}), "the path '../x' leaves the bundle"),
    (put("files", "unet/../../x", {"size": 1, "sha256": "0" * 64}), "leaves the bundle; do not use"),
    (put("files", "..\\x", {"size": 1, "sha256": "0" * 64}), "leaves the bundle"),
    (put("files", "a\0b", {"size": 1, "sha256": "0" * 64}), "leaves the bundle"),
    (put("files", "", {"size": 1, "sha256": "0" * 64}), "leaves the bundle"),
    (put("files", "new", {"size": 1, "sha256": "0" * 64}), "new is missing from the bundle"),
    (put("files", "unet", {"size": 1, "sha256": "0" * 64}), "unet"),
    (put("files", "tokenizer.json", 7), "files['tokenizer.json']: expected 'object', got 'int'"),
    (put("files", "tokenizer.json", "size", -1), "files['tokenizer.json'].size: expected 'int' >= 0"),
    (put("files", "tokenizer.json", "size", "12"), "files['tokenizer.json'].size: expected 'int', got 'str'"),
    (put("files", "tokenizer.json", "size", True), "files['tokenizer.json'].size: expected 'int', got 'bool'"),
    (put("files", "tokenizer.json", "size", 7), "the manifest says 7"),
    (put("files", "tokenizer.json", "sha256", "00"), "files['tokenizer.json'].sha256: expected 'str' matching regex '^[0-9a-f]{64}$'"),
    (put("files", "tokenizer.json", "sha256", "x" * 64), "files['tokenizer.json'].sha256: expected 'str' matching regex '^[0-9a-f]{64}$'"),
    (put("files", "tokenizer.json", "sha256", 0), "files['tokenizer.json'].sha256: expected 'str', got 'int'"),
    (drop("files", "tokenizer.json"), "tokenizer.json"),
    (drop("files", "constants.npz"), "constants.npz"),
    (drop("files", "unet/weights.bin"), "unet/weights.bin"),
    (drop("graphs"), "object missing required field 'graphs'"),
    (put("graphs", {}), "graphs: expected 'array', got 'object'"),
    (put("graphs", [7]), "graphs[0]"),
    (put("graphs", [[]]), "graphs[0]"),
    (put("graphs", []), "no "),
    (drop("graphs", 0, "name"), "graphs[0]: object missing required field 'name'"),
    (put("graphs", 0, "name", 7), "graphs[0].name: expected 'str', got 'int'"),
    (put("graphs", 0, "part", None), "graphs[0].part: expected 'str', got 'null'"),
    (put("graphs", 0, "part", "../.."), "'../..' leaves the bundle"),
    (put("graphs", 0, "batch", 0), "graphs[0].batch: expected 'int' >= 1"),
    (put("graphs", 0, "batch", -1), "graphs[0].batch: expected 'int' >= 1"),
    (put("graphs", 0, "batch", "1"), "graphs[0].batch: expected 'int', got 'str'"),
    (put("graphs", 0, "batch", True), "graphs[0].batch: expected 'int', got 'bool'"),
    (put("graphs", 0, "batch", 2**70), "graphs[0].batch: expected 'int' <= 16777216"),
    (put("graphs", 0, "size", "16x16"), "graphs[0].size: expected 'array | null', got 'str'"),
    (put("graphs", 0, "size", [16]), "graphs[0].size: expected 'array' of length 2, got 1"),
    (put("graphs", 0, "size", [0, 0]), "graphs[0].size[0]: expected 'int' >= 1"),
    (put("graphs", 0, "mindir", "/etc/passwd"), "graphs[0].mindir: the path '/etc/passwd' leaves the bundle"),
    (put("graphs", 0, "lite", "../x"), "graphs[0].lite: the path '../x' leaves the bundle"),
    (put("graphs", 0, "lite", "other"), "uses mindir.zip, which files does not list"),
    (put("graphs", 0, "lite", 7), "graphs[0].lite: expected 'str', got 'int'"),
    (put("graphs", 0, "inputs", {}), "graphs[0].inputs: expected 'array', got 'object'"),
    (put("graphs", 0, "inputs", [7]), "graphs[0].inputs[0]"),
    (put("graphs", 0, "inputs", 0, "shape", [-1]), "graphs[0].inputs[0].shape[0]: expected 'int' >= 1"),
    (put("graphs", 0, "inputs", 0, "shape", [2**40]), "graphs[0].inputs[0].shape[0]: expected 'int' <= 16777216"),
    (put("graphs", 0, "inputs", 0, "shape", ["a"]), "graphs[0].inputs[0].shape[0]: expected 'int', got 'str'"),
    (put("graphs", 0, "inputs", 0, "shape", [1.5]), "graphs[0].inputs[0].shape[0]: expected 'int', got 'float'"),
    (put("graphs", 0, "inputs", 0, "shape", [True]), "graphs[0].inputs[0].shape[0]: expected 'int', got 'bool'"),
    (put("graphs", 0, "inputs", 0, "shape", [2**20] * 40), "inputs[0].shape is"),
    (put("graphs", 0, "inputs", 0, "shape", None), "graphs[0].inputs[0].shape: expected 'array', got 'null'"),
    (put("graphs", 0, "inputs", 0, "dtype", "float64"), "graphs[0].inputs[0].dtype: invalid enum value 'float64'"),
    (put("graphs", 0, "inputs", 0, "dtype", None), "graphs[0].inputs[0].dtype: expected 'str', got 'null'"),
    (drop("graphs", 0, "outputs", 0, "name"), "graphs[0].outputs[0]: object missing required field 'name'"),
    (drop("settings"), "object missing required field 'settings'"),
    (put("settings", {}), "settings: object missing required field 'movq_scale_factor'"),
    (put("settings", "movq_scale_factor", 0), "movq_scale_factor"),
    (put("settings", "movq_scale_factor", "2"), "movq_scale_factor"),
    (put("settings", "movq_scale_factor", 2**90), "movq_scale_factor"),
    (put("settings", "prior_time_proj", {}), "prior_time_proj"),
    (put("settings", "prior_time_proj", "surprise", 1), "prior_time_proj"),
    (put("settings", "unet_time_proj", 7), "unet_time_proj"),
    (put("settings", "unet_time_proj", "freq_shift", "x"), "unet_time_proj"),
    (put("settings", "unet_time_proj", "flip_sin_to_cos", "x"), "unet_time_proj"),
    (drop("schedulers"), "object missing required field 'schedulers'"),
    (put("schedulers", {}), "schedulers: object missing required field 'prior'"),
    (drop("schedulers", "decoder"), "schedulers: object missing required field 'decoder'"),
    (put("schedulers", "prior", 7), "schedulers.prior: expected 'object', got 'int'"),
    (put("schedulers", "prior", "_class_name", "MagicScheduler"), "'MagicScheduler' is not known"),
    (put("schedulers", "decoder", "surprise", 1), "has no option surprise"),
    (put("schedulers", "decoder", "num_train_timesteps", "x"), "num_train_timesteps is 'x'"),
    (drop("tokenizer"), "object missing required field 'tokenizer'"),
    (put("tokenizer", {}), "tokenizer"),
    (put("tokenizer", "max_length", 0), "max_length"),
    (put("tokenizer", "max_length", "77"), "max_length"),
    (put("tokenizer", "pad_token_id", None), "pad_token_id"),
    (put("tokenizer", "eos_token_id", -1), "eos_token_id"),
    (drop("defaults"), "object missing required field 'defaults'"),
    (put("defaults", {}), "defaults: object missing required field 'prior'"),
    (drop("defaults", "decoder", "height"), "defaults.decoder: object missing required field 'height'"),
    (put("defaults", "prior", "num_inference_steps", 0), "num_inference_steps"),
    (put("defaults", "prior", "num_inference_steps", "25"), "num_inference_steps"),
    (put("defaults", "decoder", "guidance_scale", "4"), "guidance_scale"),
    (put("defaults", "decoder", "guidance_scale", float("nan")), "is not JSON"),
    (put("defaults", "decoder", "width", -16), "width"),
    (put("defaults", "decoder", "scheduler", 7), "defaults.decoder.scheduler: expected 'str', got 'int'"),
    (put("defaults", "decoder", "scheduler", "magic"), "scheduler 'magic' is not known"),
    (put("image_processor", 7), "image_processor"),
    (put("image_processor", "sharpen", 2), "sharpen is 2"),
    (put("source", 7), "source"),
    (put("versions", [7]), "versions"),
]

# What is in the place of the manifest
TEXTS = [b"", b"\xff\xfe\x00", b"{", b"null", b"[" * 100_000, b'{"format": 4}', b'{"format": 1e999}', b"NaN", b"\x00" * 100]

# What is replaced in its text: it is still a manifest, only the seal tells
EDITS = [(b'"beta_end": 0.012', b'"beta_end": 0.022'), (b"\n}", b"\n }"), (b'"seal": "', b'"seal": "0')]

FILES = ["constants.npz", "tokenizer.json", "text_encoder/weights.bin", "image_encoder/weights.bin", "prior/weights.bin",
         "unet/weights.bin", "movq/weights.bin", "unet/mindir.zip", "unet/unet_b2_16x16.ms.layout",
         "prior/prior_context_b1.ms.layout", "movq/movq_decoder_b1_16x24.golden.npz"]


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, bytes(data))


def _folder_instead(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "one bit flipped": (_flip, "does not match its sha256 in the manifest: it is damaged"),
    "cut by a byte": (lambda path: rewrite(path, path.read_bytes()[:-1]), "bytes, the manifest says"),
    "a byte longer": (lambda path: rewrite(path, path.read_bytes() + b"x"), "bytes, the manifest says"),
    "emptied": (lambda path: rewrite(path, b""), "has 0 bytes, the manifest says"),
    "missing": (lambda path: path.unlink(), "is missing from the bundle: export"),
    "a folder in its place": (_folder_instead, ""),
}

# Flipped files that a request uses: they must be found before the model is loaded.
USED = [
    ("text_encoder/weights.bin", ["generate", "{copy}", "a cat"]),
    ("tokenizer.json", ["generate", "{copy}", "a cat"]),
    ("constants.npz", ["generate", "{copy}", ""]),
    ("prior/weights.bin", ["generate", "{copy}", ""]),
    ("image_encoder/weights.bin", ["interpolate", "{copy}", "--image", "{copy}/../red.png", 1]),
]

# A graph that is taken out of the bundle, and what cannot be done then.
LACKING = [
    ("text_encoder", ["generate", "{copy}", "a cat"], "this bundle has no text_encoder"),
    ("prior", ["generate", "{copy}", "a cat"], "this bundle has no prior"),
    ("prior_context", ["generate", "{copy}", "a cat"], "this bundle has no prior_context"),
    ("unet", ["generate", "{copy}", "a cat"], "this bundle has no unet"),
    ("unet_context", ["generate", "{copy}", "a cat"], "this bundle has no unet_context"),
    ("movq_decoder", ["generate", "{copy}", "a cat"], "this bundle has no movq_decoder"),
    ("image_encoder", ["interpolate", "{copy}", "--image", "{copy}/../red.png", 1], "this bundle has no image_encoder"),
    ("image_encoder", ["interpolate", "{copy}", "--text", "a cat", 1, "--image", "{copy}/../red.png", 1],
     "this bundle has no image_encoder: export it again"),
]


def cases():
    for i in range(CUTS):
        yield Case(f"manifest cut after {i}/{CUTS}", "manifest.json is not JSON ... it is cut or damaged", _cut(i / CUTS))
    for text in TEXTS:
        yield Case(f"manifest holds {short(text)}", "manifest.json", _text(text))
    for old, new in EDITS:
        yield Case(f"manifest, {short(old)} is {short(new)}", "manifest.json is not as export wrote it", _edit(old, new))
    for change, words in MANIFEST:
        yield Case(f"manifest: {shown(change)}", words, _manifest(change))
    for name in FILES:
        for damage, (function, words) in DAMAGE.items():
            yield Case(f"{name} {damage}", f"{name} ... {words}" if words else name, _file(name, function))
    for name, command in USED:
        yield Case(f"{name} flipped, {' '.join(map(str, command))}", f"{name} does not match", _used(name, command))
    for graph, command, words in LACKING:
        yield Case(f"no {graph}, {' '.join(map(str, command))}", words, _lacking(graph, command))


def shown(change):
    if not change.__closure__:
        return f"is {short(change({}))}"
    cells = dict(zip(change.__code__.co_freevars, (cell.cell_contents for cell in change.__closure__)))
    path = ".".join(map(str, [*cells["keys"], cells["last"]]))
    return f"{path} = {short(cells['value'])}" if "value" in cells else f"without {path}"


def _text(content):
    def act(place):
        copy = place.copy("bundle")
        rewrite(copy / "manifest.json", content)
        return place.command("inspect", copy)

    return act


def _edit(old, new):
    def act(place):
        content = (place.bundle / "manifest.json").read_bytes()
        assert old in content
        return _text(content.replace(old, new))(place)

    return act


def _cut(share):
    def act(place):
        content = (place.bundle / "manifest.json").read_bytes()
        return _text(content[: int(len(content) * share)])(place)

    return act


def _manifest(change):
    def act(place):
        copy = place.copy("bundle")
        edit_json(copy / "manifest.json", change)
        return place.command("generate", copy, "a cat", "--steps", 2, "--prior-steps", 2)

    return act


def _file(name, damage):
    def act(place):
        copy = place.copy("bundle")
        damage(copy / name)
        return place.command("inspect", copy, "--files")

    return act


def _used(name, command):
    def act(place):
        copy = place.copy("bundle")
        _flip(copy / name)
        return _run(place, copy, command)

    return act


def _lacking(graph, command):
    def act(place):
        copy = place.copy("bundle")

        def change(manifest):
            manifest["graphs"] = [info for info in manifest["graphs"] if info["name"] != graph]
            if graph == "image_encoder":  # as `export --no-image-encoder` leaves it
                manifest["image_processor"] = None
                manifest["files"] = {k: v for k, v in manifest["files"].items() if not k.startswith("image_encoder")}
                shutil.rmtree(copy / "image_encoder")

        edit_json(copy / "manifest.json", change)
        return _run(place, copy, command)

    return act


def _run(place, copy, command):
    from PIL import Image

    Image.new("RGB", (24, 24), "red").save(place.folder / "red.png")
    return place.command(*(str(word).format(copy=copy) for word in command))
