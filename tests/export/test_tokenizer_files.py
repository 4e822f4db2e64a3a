"""Tokenizer folders of every age give the ids that transformers gives, for any text."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tokenizers
import transformers
from damage import assert_one_line, cut, edit_json
from hypothesis import given, settings, strategies
from kandinsky_mindir.export.checkpoint.tokenizer_files import read_tokenizer

MICRO = Path(__file__).parents[2] / "artifacts" / "micro"
START, END = "<|startoftext|>", "<|endoftext|>"


def added_token(content, **fields):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **fields}


def typed(content):
    return added_token(content, __type="AddedToken")


OLD_FILES = ("vocab.json", "merges.txt")
STYLES = {  # files of the micro tokenizer, tokenizer_config.json, special_tokens_map.json
    "transformers 5": (("tokenizer.json",), {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END,
                                             "backend": "tokenizers", "model_max_length": 77}, None),
    "transformers 4": (OLD_FILES + ("tokenizer.json",), {
        "added_tokens_decoder": {"1912": added_token(START, special=True), "1913": added_token(END, special=True)},
        "bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END, "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer"}, {"bos_token": added_token(START), "pad_token": END}),
    "before tokenizer.json": (OLD_FILES, {
        "bos_token": typed(START), "eos_token": typed(END), "pad_token": END, "unk_token": typed(END),
        "do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"},
        {"bos_token": added_token(START), "eos_token": added_token(END), "pad_token": END,
         "unk_token": added_token(END)}),
    "nothing but the vocabulary": (OLD_FILES, None, None),
    "padded with !": (OLD_FILES, {"pad_token": "!", "model_max_length": 77}, None),
}


def tokenizer_folder(folder, files, config, special):
    for name in files:
        shutil.copyfile(MICRO / "prior" / "tokenizer" / name, folder / name)
    for name, content in (("tokenizer_config", config), ("special_tokens_map", special)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("style", STYLES)
def test_tokenizers_of_every_age(tmp_path, style):
    """Ids of the micro tokenizer: its vocabulary is printable, so some are known by heart ("a" is 320)."""
    tokenizer_folder(tmp_path, *STYLES[style])
    data = read_tokenizer(tmp_path)
    reference = transformers.CLIPTokenizer.from_pretrained(str(tmp_path))
    ours = tokenizers.Tokenizer.from_str(data.json)
    assert (data.bos_token_id, data.eos_token_id, data.model_max_length) == (1912, 1913, 77)
    assert data.pad_token_id == reference.pad_token_id == (0 if style == "padded with !" else 1913)
    assert ours.encode("A").ids == [1912, 320, 1913]
    assert ours.padding is None and ours.truncation is None

    @settings(max_examples=100, deadline=None)
    @given(strategies.text(max_size=40) | strategies.lists(
        strategies.sampled_from(["a", " red", START, END, END.upper(), "!", "'s", "\t\n", "é", "７", "\U0001f600"]),
        max_size=12).map("".join))
    def same_ids(text):
        assert ours.encode(text).ids == reference(text).input_ids

    same_ids()


def test_padding_and_truncation_of_a_tokenizer_file_do_not_stick(tmp_path):
    tokenizer_folder(tmp_path, *STYLES["transformers 5"])
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    saved.enable_truncation(4)
    saved.enable_padding(length=8)
    saved.save(str(tmp_path / "tokenizer.json"))
    assert len(tokenizers.Tokenizer.from_str(read_tokenizer(tmp_path).json).encode("a a a a a").ids) == 7


TOKENIZER_DAMAGE = {
    "no files": (lambda f: [os.remove(path) for path in f.iterdir()], "has no tokenizer"),
    "merges missing": (lambda f: os.remove(f / "merges.txt"), r"or vocab\.json and merges\.txt"),
    "vocabulary cut": (lambda f: cut(f / "vocab.json", 100), r"vocab\.json is not valid JSON"),
    "vocabulary without a merged token": (
        lambda f: edit_json(f / "vocab.json", lambda c: c.pop("in")), "is not a CLIP tokenizer"),
}


@pytest.mark.parametrize("damage, message", TOKENIZER_DAMAGE.values(), ids=TOKENIZER_DAMAGE)
def test_damaged_tokenizer_is_refused(tmp_path, damage, message):
    tokenizer_folder(tmp_path, *STYLES["before tokenizer.json"])
    damage(tmp_path)
    assert_one_line(message, lambda: read_tokenizer(tmp_path))
