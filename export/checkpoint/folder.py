"""A checkpoint folder in the diffusers layout: what it must hold, and its parts as this project uses them."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...models import config as model_config
from ...runner import schedulers
from ...runner.common.errors import UserError
from ...runner.inputs.preprocessing import CLASSES as IMAGE_PROCESSORS
from .json_files import read_json
from .safetensors_reader import TensorFiles
from .tokenizer_files import CLIP_LENGTH, TokenizerData, read_tokenizer

INDEX_FILE, SCHEDULER_FILE, PREPROCESSOR_FILE = "model_index.json", "scheduler_config.json", "preprocessor_config.json"

LIBRARIES = ("diffusers", "transformers", "mindone")  # whose classes the parts are ports of; others are a folder's own code
CLASSES = {
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "image_processor": IMAGE_PROCESSORS,
    "scheduler": tuple(schedulers.SCHEDULERS),
}
# Both halves in one folder, the prior's components under "prior_..."
COMBINED = tuple(f"KandinskyV22{task}CombinedPipeline" for task in ("", "Img2Img", "Inpaint"))


class Kind(NamedTuple):
    """What a folder of this kind is: the pipelines that save it, the parts it must hold, and Kandinsky's defaults."""

    pipelines: tuple
    parts: tuple
    files: dict  # other components and the file that each must have, if one name fits all versions
    defaults: dict


KINDS = {
    "prior": Kind(
        pipelines=("KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline"),
        parts=("text_encoder", "image_encoder", "prior"),
        files={"scheduler": SCHEDULER_FILE, "image_processor": PREPROCESSOR_FILE, "tokenizer": ""},
        defaults={"num_inference_steps": 25, "guidance_scale": 4.0},
    ),
    "decoder": Kind(
        pipelines=("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22InpaintPipeline",
                   "KandinskyV22ControlnetPipeline", "KandinskyV22ControlnetImg2ImgPipeline"),
        parts=("unet", "movq"),
        files={"scheduler": SCHEDULER_FILE},
        defaults={"num_inference_steps": 100, "guidance_scale": 4.0, "height": 512, "width": 512,
                  "scheduler": schedulers.CHECKPOINT},
    ),
}
# What takes the place of a hundred steps of the sampler that Kandinsky comes with: no worse, in a fifth of the steps
# (tests/programs/sampler_choice.py counts, tests/programs/samplers_plot.py draws why). Of its grids the Karras one: after 20
# steps neither its error nor that of the exponential one can be seen, and the small checkpoint cannot say which suits a real one.
FASTER: dict[str, Any] = {"scheduler": "dpmpp-2m-karras", "num_inference_steps": 20}
SLOWER = ("DDPMScheduler", "DDIMScheduler")


class Part(NamedTuple):
    """A component with weights: its class in diffusers or transformers, its weight files' stem, its configuration."""

    class_name: str
    stem: str
    config: Any


PARTS = {
    "text_encoder": Part("CLIPTextModelWithProjection", "model", model_config.TextEncoderConfig),
    "image_encoder": Part("CLIPVisionModelWithProjection", "model", model_config.ImageEncoderConfig),
    "prior": Part("PriorTransformer", "diffusion_pytorch_model", model_config.PriorConfig),
    "unet": Part("UNet2DConditionModel", "diffusion_pytorch_model", model_config.UNetConfig),
    "movq": Part("VQModel", "diffusion_pytorch_model", model_config.MoVQConfig),
}


class Checkpoint:
    """One of the two folders of Kandinsky 2.2; `kind` is "prior" or "decoder".

    Making one checks that everything is there and whole, by the files' headers; it reads no weights. Every method
    raises UserError, naming the file, for what it cannot use.
    """

    def __init__(self, path, kind):
        self.path, self.kind = Path(path), kind
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a folder: download the {kind} checkpoint and give the folder it is in")
        index_path = self.path / INDEX_FILE
        if not index_path.is_file():
            raise UserError(f"{self.path} has no {INDEX_FILE}: give the folder of the whole {kind} pipeline")
        self._index = read_json(index_path)
        self.class_name = self._index.get("_class_name")
        self._check_pipeline(index_path)
        self._prefix = "prior_" if kind == "prior" and self.class_name in COMBINED else ""
        for name in KINDS[kind].parts:
            self._check_component(name, "config.json", (PARTS[name].class_name,))
            self.tensors(name)
        for name, file in KINDS[kind].files.items():
            self._check_component(name, file, CLASSES[name])

    def folder(self, component) -> Path:
        return self.path / (self._prefix + component)

    def config(self, part):
        """The part's configuration, of the class in models/config.py that describes it."""
        path = self.folder(part) / "config.json"
        try:
            return PARTS[part].config.from_dict(read_json(path))
        except model_config.ConfigError as error:
            raise UserError(f"{path}: {error}") from None

    def tensors(self, part) -> TensorFiles:
        return TensorFiles(self.folder(part), PARTS[part].stem)

    @cached_property
    def scheduler(self) -> dict:
        """scheduler_config.json with the class that model_index.json names, which is the one that diffusers loads.

        The runner's schedulers check the options, and leave out those of other classes, as diffusers does
        (configuration_utils.py: ConfigMixin.extract_init_dict).
        """
        path = self.folder("scheduler") / SCHEDULER_FILE
        config = read_json(path)
        own = config.get("_class_name", "")
        if not isinstance(own, str):
            raise UserError(f"{path}: _class_name is {own!r}: it must be the name of a scheduler")
        return {**config, "_class_name": self._class_of("scheduler")}

    @cached_property
    def image_processor(self) -> dict:
        """preprocessor_config.json of a prior checkpoint, as it is: the runner's preprocessing checks it."""
        return read_json(self.folder("image_processor") / PREPROCESSOR_FILE)

    @cached_property
    def tokenizer(self) -> TokenizerData:
        """The tokenizer of a prior checkpoint, all of whose tokens the text encoder knows."""
        config, folder = self.config("text_encoder"), self.folder("tokenizer")
        tokenizer = read_tokenizer(folder, config.vocab_size)
        if tokenizer.model_max_length not in (CLIP_LENGTH, config.max_position_embeddings):  # CLIP's may not be said at all
            raise UserError(f"{folder} makes {tokenizer.model_max_length} tokens of a text and the text_encoder takes "
                            f"{config.max_position_embeddings}: these do not belong together")
        return tokenizer

    @cached_property
    def generation_defaults(self) -> dict:
        """Steps, guidance scale and (decoder) picture size in pixels and sampler that suit this checkpoint: Kandinsky's
        own, overridden by the file generation_defaults.json beside model_index.json where there is one.

        The sampler is a short name. Where the file names neither it nor the steps, a faster one takes the place of DDPM
        and DDIM, if it takes the checkpoint's options.
        """
        defaults = KINDS[self.kind].defaults
        path = self.path / "generation_defaults.json"
        given = read_json(path) if path.is_file() else {}
        for name, value in given.items():
            if name not in defaults:
                raise UserError(f"{path}: {name!r} is none of {', '.join(defaults)}")
            if name == "scheduler":
                self._check_sampler(path, value)
                continue
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                raise UserError(f"{path}: {name} must be a number of at least 0, not {value!r}")
            if isinstance(defaults[name], int) and (type(value) is not int or value == 0):
                raise UserError(f"{path}: {name} must be a whole number above zero, not {value!r}")
        if self._may_be_faster(given):
            defaults = {**defaults, **FASTER}
        return {name: type(default)(given.get(name, default)) for name, default in defaults.items()}

    def _check_sampler(self, path, name):
        if not isinstance(name, str):
            raise UserError(f"{path}: scheduler must be the name of a sampler, not {name!r}")
        try:
            schedulers.create_by_name(name, self.scheduler)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _may_be_faster(self, given):
        own = self.scheduler.get("_class_name")
        if self.kind != "decoder" or FASTER.keys() & given.keys() or own not in SLOWER:
            return False
        try:
            schedulers.create_by_name(FASTER["scheduler"], self.scheduler).schedule(FASTER["num_inference_steps"])
        except UserError:  # it has betas or a prediction type that the faster one does not know
            return False
        return True

    def _check_pipeline(self, index_path):
        """The folder must be of this kind; the usual mistake, two folders swapped, is called by its name."""
        other = "decoder" if self.kind == "prior" else "prior"
        if self.class_name in KINDS[other].pipelines:
            raise UserError(f"{self.path} is a {other} checkpoint ({self.class_name}), given as the {self.kind}: "
                            "are the two folders swapped?")
        known = KINDS[self.kind].pipelines + COMBINED
        if self.class_name not in known:
            raise UserError(f"{index_path}: {self.class_name!r} is no Kandinsky 2.2 {self.kind}, as one of "
                            f"{', '.join(known)} is")

    def _check_component(self, name, file, classes):
        """The component must be in the index, of one of `classes`, and have its file (or just its folder, without one)."""
        index_path, stored = self.path / INDEX_FILE, self._prefix + name
        entry, path = self._index.get(stored), self.folder(name) / file
        if stored in self._index and (entry is None or entry == [None, None]):
            raise UserError(f"{index_path} has null for {stored}: load the pipeline with a {stored} and save it again")
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(item, str) for item in entry)):
            raise UserError(f"{index_path} names no {stored}: a {self.kind} checkpoint must have one")
        if entry[0].partition(".")[0] not in LIBRARIES:
            raise UserError(f"{index_path}: {stored} is of the library {entry[0]!r}, which is not known; known are "
                            f"{', '.join(LIBRARIES)}")
        if self._class_of(name) not in classes:
            known = f"known are {', '.join(classes)}" if len(classes) > 1 else f"expected {classes[0]}"
            raise UserError(f"{index_path}: {stored} is a {entry[1]}, {known}")
        if not path.exists():
            raise UserError(f"{path} is missing: download the checkpoint again, with all its folders")

    def _class_of(self, name):
        """A component's class in model_index.json; diffusers takes Flax's names for its own."""
        return self._index[self._prefix + name][1].removeprefix("Flax")
