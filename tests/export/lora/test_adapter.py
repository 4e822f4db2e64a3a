"""LoRA files in every spelling that trainers use: the weights are those of a merge by hand; what cannot be right is refused."""

import json
import re

import numpy as np
import pytest
import torch
from damage import assert_one_line
from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles
from kandinsky_mindir.export.lora.adapter import Given
from kandinsky_mindir.export.lora.tensors import MergedTensors, read_adapters, record, summary
from loras import LAYERS, RANK, SPELLINGS, by_hand, lora, modules, save
from references import build
from safetensors.torch import load_file, save_file

STEM = "diffusion_pytorch_model"
# Both sums are in float64 and rounded once: they differ in the order of the sums, by 1e-16, and so by one float32 step at most.
NEAR = 1.2e-7


@pytest.fixture(scope="module")
def references():
    return {part: build(part, "dummy") for part in ("prior", "unet")}


@pytest.fixture(scope="module")
def tensors(references, tmp_path_factory):
    """part -> the TensorFiles of its checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for part, reference in references.items():
        (folder / part).mkdir()
        save_file(reference.state_dict(), folder / part / f"{STEM}.safetensors")
    return {part: TensorFiles(folder / part, STEM) for part in references}


def merged(part, tensors, *loras):
    """name -> array of the part's tensors with the LoRA files added."""
    found = MergedTensors(part, tensors[part], read_adapters(loras, tensors))
    return {name: found.read(name) for name in found.shapes}


def assert_merged(found, reference, pairs, factor):
    """Weights of `pairs` are those of a merge by hand, all others as they were."""
    for name, parameter in reference.state_dict().items():
        module = name.removesuffix(".weight")
        if module in pairs and name != module:
            expected = by_hand(parameter, *pairs[module], factor)
            assert np.abs(found[name] - expected).max() <= NEAR * np.abs(expected).max(), name
            assert not np.array_equal(found[name], parameter.numpy())
        else:
            assert np.array_equal(found[name], parameter.numpy()), name


@pytest.mark.parametrize("part", ("prior", "unet"))
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_merge_by_hand(spelling, part, references, tensors, tmp_path):
    """All layers that Kandinsky's trainers train; of the UNet add_k_proj and add_v_proj are among them, in old names, too."""
    pairs = lora(references[part], modules(references[part], part))
    assert len(pairs) == {"prior": 4, "unet": 24}[part]
    path = save(tmp_path / "lora.safetensors", SPELLINGS[spelling](part, pairs))
    assert_merged(merged(part, tensors, Given(path, 0.7)), references[part], pairs, 0.7)
    (adapter,) = read_adapters([Given(path, 0.7)], tensors)
    assert summary(adapter) == f"{len(pairs)} modules of the {part}"
    assert "lora.safetensors (sha256 " in record([adapter]) and "scale 0.7" in record([adapter])


def test_loras_add_up(references, tensors, tmp_path):
    """Two of one part, and one of both parts; the order does not matter but for the last bit."""
    reference = references["unet"]
    one, other = (lora(reference, modules(reference, "unet"), rank, seed) for rank, seed in ((3, 0), (5, 1)))
    both = SPELLINGS["peft, of diffusers"]("unet", other) | SPELLINGS["peft, of diffusers"](
        "prior", lora(references["prior"], modules(references["prior"], "prior")))
    files = [Given(save(tmp_path / "one.safetensors", SPELLINGS["old"]("unet", one)), 0.5),
             Given(save(tmp_path / "other.safetensors", both), -2.0)]
    found = merged("unet", tensors, *files)
    for module in one:
        weight = reference.state_dict()[f"{module}.weight"].double().numpy()
        sums = [factor * (up.double() @ down.double()).numpy() for factor, (down, up) in ((0.5, one[module]), (-2, other[module]))]
        expected = (weight + sums[0] + sums[1]).astype(np.float32)
        assert np.abs(found[f"{module}.weight"] - expected).max() <= NEAR * np.abs(expected).max()
    again = merged("unet", tensors, *reversed(files))
    assert all(np.allclose(found[name], again[name], rtol=NEAR, atol=1e-7) for name in found)
    assert not np.array_equal(merged("prior", tensors, *files)["transformer_blocks.0.attn1.to_q.weight"],
                              references["prior"].state_dict()["transformer_blocks.0.attn1.to_q.weight"].numpy())


CONVOLUTIONS = ["conv_in", "down_blocks.0.resnets.0.conv1", "up_blocks.0.resnets.0.conv_shortcut", "conv_out",
                "down_blocks.0.resnets.0.time_emb_proj", "encoder_hid_proj.image_embeds"]


def test_convolutions_and_other_layers(references, tensors, tmp_path):
    """What peft's target_modules may name: a kernel's product is that of its window, too."""
    pairs = lora(references["unet"], CONVOLUTIONS)
    path = save(tmp_path / "lora.safetensors", SPELLINGS["peft"]("unet", pairs))
    assert_merged(merged("unet", tensors, Given(path)), references["unet"], pairs, 1.0)


# What diffusers 0.42.1 and peft make of files, where they are right: names of old added keys they drop, kohya's they refuse.
DIFFUSERS = [
    ("dotted", {}, 1.0), ("peft", {}, 1.0), ("peft", {"r": RANK, "lora_alpha": 8, "target_modules": LAYERS["unet"]}, 8 / RANK),
    ("peft", {"r": RANK, "lora_alpha": 8, "use_rslora": True, "target_modules": LAYERS["unet"]}, 8 / RANK**0.5),
    ("peft", {"r": RANK, "lora_alpha": 3, "alpha_pattern": {"to_k": 12, r"down_blocks\..*to_q": 6}, "target_modules": LAYERS["unet"]}, None),
]


@pytest.mark.parametrize("spelling, config, factor", DIFFUSERS)
def test_diffusers_fuses_the_same_weights(spelling, config, factor, references, tensors, tmp_path):
    """Its products are in float32: sums of RANK numbers below 1, each off by half a step, and the sum with the weight by one more."""
    names = modules(references["unet"], "unet")
    pairs = lora(references["unet"], names)
    path = save(tmp_path / "lora.safetensors", SPELLINGS[spelling]("unet", pairs), config or None)
    reference = build("unet", "dummy")
    reference.load_lora_adapter(str(tmp_path), prefix=None, weight_name=path.name)
    reference.fuse_lora(lora_scale=0.7)
    reference.unload_lora()
    found, expected = merged("unet", tensors, Given(path, 0.7)), reference.state_dict()
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert np.abs(array - expected[name].numpy()).max() <= 1e-6, name
    if factor is not None:
        assert_merged(found, references["unet"], pairs, 0.7 * factor)


def test_the_alpha_that_diffusers_saves(references, tensors, tmp_path):
    """Through add_adapter and save_lora_adapter: alpha 8 of rank 4 travels in the metadata."""
    from peft import LoraConfig

    reference = build("unet", "dummy")
    reference.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "add_k_proj"]), adapter_name="x")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in reference.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    reference.save_lora_adapter(str(tmp_path), adapter_name="x")
    saved = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    pairs = {name.removesuffix(".lora_A.weight"): (tensor, saved[name.replace("lora_A", "lora_B")])
             for name, tensor in saved.items() if "lora_A" in name}
    assert len(pairs) == 8
    assert_merged(merged("unet", tensors, Given(tmp_path)), references["unet"], pairs, 2.0)


@pytest.mark.parametrize("alpha, spelling, suffix", [
    (7.0, "kohya", None), (7.0, "old", ".alpha"), (7.0, "dotted", ".alpha"), (torch.tensor([7.0]), "peft", ".alpha"),
])  # fmt: skip
def test_alphas_among_the_tensors(alpha, spelling, suffix, references, tensors, tmp_path):
    pairs = lora(references["prior"], modules(references["prior"], "prior"))
    spelled = SPELLINGS[spelling]("prior", pairs)
    names = [name for name in spelled if name.endswith(".alpha")]
    if suffix:
        ends = (".down.weight", ".lora_A.weight")
        names = [name.removesuffix(end) + suffix for name in spelled for end in ends if name.endswith(end)]
    spelled |= {name: torch.as_tensor(alpha).clone() for name in names}
    assert_merged(merged("prior", tensors, Given(save(tmp_path / "lora.safetensors", spelled))), references["prior"], pairs, 7 / RANK)


def test_options_beside_peft_s_own_file(references, tensors, tmp_path):
    """peft writes no metadata: without its adapter_config.json the scale would be another one."""
    pairs = lora(references["prior"], modules(references["prior"], "prior"))
    path = save(tmp_path / "adapter_model.safetensors", SPELLINGS["peft, of peft"]("prior", pairs))
    assert_one_line("adapter_config.json cannot be read", lambda: read_adapters([Given(path)], tensors))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 12}))
    assert_merged(merged("prior", tensors, Given(tmp_path)), references["prior"], pairs, 4.0)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64))
def test_types_of_numbers(dtype, references, tensors, tmp_path):
    pairs = {name: (down.to(dtype), up.to(dtype)) for name, (down, up) in
             lora(references["prior"], modules(references["prior"], "prior")).items()}
    path = save(tmp_path / "lora.safetensors", SPELLINGS["peft"]("prior", pairs))
    found = merged("prior", tensors, Given(path))
    exact = {name: (down.float(), up.float()) for name, (down, up) in pairs.items()}  # as tensors of checkpoints are read
    assert_merged(found, references["prior"], exact, 1.0)


TO_Q = "down_blocks.1.attentions.0.to_q"
MATRIX = torch.ones(2, 2)


def _change(changes):
    """A function that makes a LoRA of the UNet with tensors added, or removed where they are None."""
    def make(pairs):
        found = {**SPELLINGS["peft"]("unet", pairs), **changes}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    return make


REFUSED = {
    "DoRA": (_change({f"{TO_Q}.lora_magnitude_vector": MATRIX}), "is of DoRA, which scales whole weights"),
    "DoRA of kohya": (_change({"lora_unet_x.dora_scale": MATRIX}), "is of DoRA"),
    "bias": (_change({f"{TO_Q}.lora_B.bias": MATRIX}), "lora_B.bias' is of a bias"),
    "bias of an adapter": (_change({f"{TO_Q}.lora_B.default.bias": MATRIX}), "is of a bias"),
    "bias of kohya": (_change({"lora_unet_x.diff_b": MATRIX}), "is of a bias"),
    "LoHa": (_change({"lora_unet_x.hada_w1_a": MATRIX}), "is of LoHa"),
    "LoKr": (_change({"lora_unet_x.lokr_w1": MATRIX}), "is of LoKr"),
    "Tucker": (_change({"lora_unet_x.lora_mid.weight": MATRIX}), "is of a Tucker decomposition"),
    "difference": (_change({"lora_unet_x.diff": MATRIX}), "is of a whole difference"),
    "unknown": (_change({"step": MATRIX}), "tensor 'step' is no LoRA's that is known here"),
    "text encoder": (_change({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": MATRIX}),
                     "tensor 'lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight' finds no module in the prior or the unet"),
    "another level": (_change({"down_blocks.7.attentions.0.to_q.lora_A.weight": MATRIX}),
                      "tensor 'down_blocks.7.attentions.0.to_q.lora_A.weight' finds no module"),
    "wrong part": (_change({"prior.down_blocks.1.attentions.0.to_q.lora_A.weight": MATRIX}), "finds no module in the prior:"),
    "one half": (_change({f"{TO_Q}.lora_A.weight": None}), f"tensor '{TO_Q}.lora_B.weight' has no counterpart down"),
    "the other half": (_change({f"{TO_Q}.lora_B.weight": None}), f"tensor '{TO_Q}.lora_A.weight' has no counterpart up"),
    "alpha alone": (_change({f"{TO_Q}.lora_A.weight": None, f"{TO_Q}.lora_B.weight": None, f"{TO_Q}.alpha": torch.ones(())}),
                    f"tensor '{TO_Q}.alpha' has no counterpart"),
    "shape": (_change({f"{TO_Q}.lora_A.weight": torch.ones(RANK, 5)}), "has [64, 64]: it is a LoRA for another model"),
    "rank": (_change({f"{TO_Q}.lora_A.weight": torch.ones(RANK + 1, 64)}), "have shapes [64, 3] and [4, 64]"),
    "rank zero": (_change({f"{TO_Q}.lora_A.weight": torch.ones(0, 64), f"{TO_Q}.lora_B.weight": torch.ones(64, 0)}), "have shapes"),
    "two names": (_change({f"{TO_Q}.lora.down.weight": torch.ones(RANK, 64)}), "are two names for one"),
    "alphas": (_change({f"{TO_Q}.alpha": torch.ones(2)}), "has shape [2]: an alpha is one number"),
    "integers": (_change({f"{TO_Q}.lora_A.weight": torch.ones(RANK, 64, dtype=torch.int32)}), "is of type I32"),
    "NaN": (_change({f"{TO_Q}.lora_A.weight": torch.full((RANK, 64), torch.nan)}), "holds NaN or infinite values"),
    "too large": (_change({f"{TO_Q}.lora_A.weight": torch.full((RANK, 64), 3e38)}), "is not finite with the LoRAs added"),
    "nothing": (lambda pairs: {}, "holds no LoRA"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, references, tensors, tmp_path):
    make, words = REFUSED[name]
    path = save(tmp_path / "lora.safetensors", make(lora(references["unet"], [TO_Q])))
    assert_one_line(re.escape(words), lambda: merged("unet", tensors, Given(path, 100.0)))


def test_a_path_that_both_parts_have(references, tensors, tmp_path):
    """time_embedding.linear_1 is a layer of both: the others of the file say whose it is, or its prefix does."""
    pairs = lora(references["unet"], ["time_embedding.linear_1"])
    path = save(tmp_path / "lora.safetensors", SPELLINGS["peft"]("unet", pairs))
    assert_one_line("may be the prior's or the unet's: put prior. or unet. before", lambda: read_adapters([Given(path)], tensors))
    pairs |= lora(references["unet"], [TO_Q])
    save(path, SPELLINGS["peft"]("unet", pairs))
    assert_merged(merged("unet", tensors, Given(path)), references["unet"], pairs, 1.0)
    save(path, SPELLINGS["peft, of diffusers"]("unet", pairs))
    assert_merged(merged("unet", tensors, Given(path)), references["unet"], pairs, 1.0)


@pytest.mark.parametrize("config, words", [
    ({"use_dora": True}, "use_dora is set: DoRA, which cannot be added"),
    ({"lora_bias": True}, "lora_bias is set"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
    ({"lora_alpha": "much"}, "lora_alpha of .* is 'much': it must be a number"),
    ({"alpha_pattern": {"(": 3}}, "alpha_pattern is .* must map patterns"),
    ([], None),
])  # fmt: skip
def test_options_that_are_refused(config, words, references, tensors, tmp_path):
    path = save(tmp_path / "lora.safetensors", SPELLINGS["peft"]("unet", lora(references["unet"], [TO_Q])), config)
    assert_one_line(words or "cannot be read .it is no JSON object", lambda: read_adapters([Given(path)], tensors))


def test_files_that_are_refused(tensors, tmp_path):
    (tmp_path / "lora.bin").write_bytes(b"\x80")
    (tmp_path / "lora.safetensors").write_bytes(b"123")
    for path, words in ((tmp_path / "missing", "missing is not there: give a LoRA's file, or FILE:SCALE"),
                        (tmp_path / "lora.bin", "is a pickle, which can run code"),
                        (tmp_path / "lora.safetensors", "is not a safetensors file, or is cut"),
                        (tmp_path, "is a folder with none of pytorch_lora_weights.safetensors and adapter_model.safetensors")):
        assert_one_line(words, lambda: read_adapters([Given(path)], tensors))


def test_files_and_scales(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:2").touch()
    assert [Given.parse(text) for text in ("x.safetensors", "x.safetensors:0.5", "x:-1e-3", "c:/x", "a:2", "a:2:3")] == [
        Given(tmp_path.__class__(name), scale)
        for name, scale in (("x.safetensors", 1), ("x.safetensors", 0.5), ("x", -1e-3), ("c:/x", 1), ("a:2", 1), ("a:2", 3))
    ]
    for text in ("x:0", "x:nan", "x:inf"):
        assert_one_line("the scale must be a number other than 0", lambda: Given.parse(text))
