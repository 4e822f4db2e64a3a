"""What peers.py measures: parts of the checkpoint as modules that take and give tensors, and a whole picture."""

from dataclasses import dataclass
from pathlib import Path

PROMPT = "a red cat, 4k photo"
PARTS = ("text_encoder", "image_encoder", "prior", "unet", "movq")
FOLDERS = {"text_encoder": "prior", "image_encoder": "prior", "prior": "prior", "unet": "decoder", "movq": "decoder"}
TOKENS = 77


@dataclass(frozen=True)
class Case:
    """A part, or "picture", at a size (height, width) in pixels where it has one. Steps are of batch 2: with guidance.

    busy: how many other processes compute beside it.
    """

    part: str
    size: tuple
    busy: int = 0

    @property
    def title(self):
        sized = self.part in ("unet", "movq", "picture")
        size = " {}x{}".format(*self.size) if sized else ""
        return self.part + size + (" batch 2" if self.batch == 2 else "") + (f" beside {self.busy} busy" if self.busy else "")

    @property
    def batch(self):
        return 2 if self.part in ("prior", "unet") else 1

    @property
    def graph(self):
        """The name of our graph."""
        return {"movq": "movq_decoder"}.get(self.part, self.part)


def load(part, checkpoint, weightless=False):
    """The reference's own module in float32; without weights if only its configuration is wanted."""
    import diffusers
    import torch
    import transformers

    cls = {
        "text_encoder": transformers.CLIPTextModelWithProjection,
        "image_encoder": transformers.CLIPVisionModelWithProjection,
        "prior": diffusers.PriorTransformer,
        "unet": diffusers.UNet2DConditionModel,
        "movq": diffusers.VQModel,
    }[part]
    folder = str(Path(checkpoint) / FOLDERS[part] / part)
    if not weightless:
        module = cls.from_pretrained(folder, torch_dtype=torch.float32)
    elif hasattr(cls, "load_config"):
        with torch.device("meta"):
            module = cls.from_config(cls.load_config(folder))
    else:
        with torch.device("meta"):
            module = cls(cls.config_class.from_pretrained(folder))
    module = module.eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last) if part in ("unet", "movq") and not weightless else module


def module(part, checkpoint):
    """The part as a module from tensors to a tuple of tensors."""
    return positional(part, load(part, checkpoint))


def positional(part, reference):
    import torch

    class Positional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.reference = reference

        def forward(self, *inputs):
            if part == "text_encoder":
                output = self.reference(inputs[0])
                return output.text_embeds, output.last_hidden_state
            if part == "image_encoder":
                return (self.reference(inputs[0]).image_embeds,)
            if part == "prior":
                return (self.reference(*inputs).predicted_image_embedding,)
            if part == "unet":
                conditions = {"image_embeds": inputs[2]}
                return (self.reference(inputs[0], inputs[1], None, added_cond_kwargs=conditions).sample,)
            return (self.reference.decode(inputs[0], force_not_quantize=True).sample,)

    return Positional().eval()


def inputs(case, checkpoint):
    """Random inputs of the module, a tuple of tensors."""
    import torch

    torch.manual_seed(0)
    reference = load(case.part, checkpoint, weightless=True)
    config = reference.config
    factor = 2 ** (len(load("movq", checkpoint, weightless=True).config.block_out_channels) - 1)
    latents = [side // factor for side in case.size]
    if case.part == "text_encoder":
        return (torch.ones(1, TOKENS, dtype=torch.int64),)
    if case.part == "image_encoder":
        return (torch.randn(1, 3, config.image_size, config.image_size),)
    if case.part == "prior":
        width = config.embedding_dim
        return (torch.randn(2, width), torch.tensor(500), torch.randn(2, width), torch.randn(2, TOKENS, width),
                torch.ones(2, TOKENS, dtype=torch.bool))
    if case.part == "unet":
        return torch.randn(2, config.in_channels, *latents), torch.tensor(500), torch.randn(2, config.encoder_hid_dim)
    return (torch.randn(1, config.latent_channels, *latents),)


def operations(case, checkpoint):
    """Floating-point operations of the reference, counted without running it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if case.part == "picture":
        return None
    tensors = [tensor.to("meta") for tensor in inputs(case, checkpoint)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        positional(case.part, load(case.part, checkpoint, weightless=True))(*tensors)
    return counter.get_total_flops()


def pipeline(stage, checkpoint, prepare, weightless):
    """diffusers' pipeline of "prior" or "decoder"; prepare(part, module) makes what runs in the modules' place."""
    import diffusers
    import torch
    from safetensors import safe_open

    cls = {"prior": diffusers.KandinskyV22PriorPipeline, "decoder": diffusers.KandinskyV22Pipeline}[stage]
    folder = Path(checkpoint) / stage
    parts = {part: load(part, checkpoint, weightless) for part in PARTS if FOLDERS[part] == stage}
    if weightless and stage == "prior":
        for file in (folder / "prior").glob("*.safetensors"):
            with safe_open(str(file), "pt") as tensors:
                for name in {"clip_mean", "clip_std"} & set(tensors.keys()):
                    setattr(parts["prior"], name, torch.nn.Parameter(tensors.get_tensor(name).float(), False))

    class OnCPU(cls):
        _execution_device = torch.device("cpu")  # weightless modules say "meta"

    made = OnCPU.from_pretrained(str(folder), **parts)
    made.set_progress_bar_config(disable=True)
    for part, reference in parts.items():
        replace(part, reference, prepare(part, positional(part, reference)))
    return made


def replace(part, reference, run):
    """Make the module's own entry point call `run`, from tensors to a tuple of tensors."""
    from types import SimpleNamespace

    original = reference.forward

    def forward(*args, **kwargs):
        reference.forward = original  # `run` may be the module itself, compiled
        try:
            if part == "text_encoder":
                embeds, states = run(*args)
                return SimpleNamespace(text_embeds=embeds, last_hidden_state=states)
            if part == "image_encoder":
                return {"image_embeds": run(*args)[0]}
            if part == "prior":
                given = [args[0], kwargs["timestep"], kwargs["proj_embedding"], kwargs["encoder_hidden_states"],
                         kwargs["attention_mask"]]
                return SimpleNamespace(predicted_image_embedding=run(*given)[0])
            if part == "unet":
                return run(kwargs["sample"], kwargs["timestep"], kwargs["added_cond_kwargs"]["image_embeds"])
        finally:
            reference.forward = forward

    if part == "movq":
        decode = reference.decode

        def decoded(latents, **_):
            reference.decode = decode
            try:
                return {"sample": run(latents)[0]}
            finally:
                reference.decode = decoded

        reference.decode = decoded
    else:
        reference.forward = forward
