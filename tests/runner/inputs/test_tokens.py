"""Tokens equal transformers' CLIPTokenizer: ids, mask, end position, and the text that a long prompt loses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.inputs.tokens import Tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizerFast

MICRO = Path(__file__).parents[3] / "artifacts" / "micro" / "prior" / "tokenizer"
FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
CORPUS = ["a photograph of an astronaut riding a horse on the moon, it's naïve", "the cat isn't here; we'll see 2 dogs",
          "red car, 4k, высокое качество, 猫と犬, ночь", "don't we've they're I'd <b> </w> !!! ... 🙂🐱🐈‍⬛"] * 4

WORDS = st.sampled_from(["a", "red", "CAT", "cat's", "don't", "we'll", "naïve", "nai\u0308ve", "猫",
                         "Ночь", "İ", "ß", "ﬁ", "🙂", "🐈‍⬛", "2024", "3.5", "!!!", "<b>", "</w>", FIRST, LAST, "<|endoftext|", "\u00a0",
                         "\u200b", "\t", "\n", "  ", "\x00", "\x07", "\u3000", "\ufeff", "é" * 9,
                         "supercalifragilistic"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=120).map(" ".join),
                  st.lists(WORDS, max_size=60).map("".join))


@pytest.fixture(scope="module")
def micro():
    return CLIPTokenizerFast.from_pretrained(MICRO)


@pytest.fixture(scope="module")
def openai_like(tmp_path_factory):
    """As OpenAI's: all bytes alone and at the end of a word, then the merges, then the two special tokens; saved as
    transformers 4 saved it (vocab.json and merges.txt alone). The padding is
    not the end token here, as in OpenCLIP's."""
    backend = Backend(models.BPE(end_of_word_suffix="</w>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False))
    merges = [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges] + [FIRST, LAST]
    folder = tmp_path_factory.mktemp("openai_like")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(dict.fromkeys(tokens))}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2"] + [" ".join(merge) for merge in merges]) + "\n")
    return CLIPTokenizerFast.from_pretrained(folder, model_max_length=77, pad_token="!")


@pytest.fixture(scope="module", params=["micro", "openai_like"])
def pair(request, tmp_path_factory):
    """transformers' tokenizer and ours of one file."""
    theirs = request.getfixturevalue(request.param)
    theirs.save_pretrained(folder := tmp_path_factory.mktemp(request.param))
    ours = Tokenizer(folder / "tokenizer.json", pad_token_id=theirs.pad_token_id, eos_token_id=theirs.eos_token_id)
    return theirs, ours


def reference(theirs, text):
    tokens = theirs(text, padding="max_length", max_length=77, truncation=True, return_tensors="np")
    whole = theirs(text, padding="longest", return_tensors="np").input_ids  # as KandinskyV22PriorPipeline asks
    lost = theirs.batch_decode(whole[:, 76:-1])[0] if whole.shape[1] > 77 else None
    return tokens.input_ids[0], tokens.attention_mask[0], lost


def assert_equal(theirs, ours, text):
    ids, mask, lost = reference(theirs, text)
    tokens = ours.encode(text)
    assert tokens.input_ids.tolist() == ids.tolist()
    assert tokens.mask.tolist() == mask.tolist()
    assert tokens.truncated == lost
    assert tokens.end_position == ids.tolist().index(theirs.eos_token_id)
    assert (tokens.input_ids.dtype, tokens.mask.dtype) == (np.int32, np.float32)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_equal_to_transformers(pair, text):
    assert_equal(*pair, text)


@pytest.mark.parametrize("text", [
    "", " ", "a cat", "  a   cat  ", "A CAT", "naïve café", "ＦＵＬＬ　ｗｉｄｔｈ", "🐈‍⬛ 👩‍👩‍👧", "a" * 500, "word " * 75,
    "word " * 76, LAST, f"cat {LAST} dog", f"{FIRST}cat{LAST}", "\ufffd\ue000",
])
def test_equal_to_transformers_at_the_edges(pair, text):
    assert_equal(*pair, text)


def test_the_synthetic_tokenizer_says_something(openai_like):
    """Its comparison would be empty if every text were unknown tokens."""
    tokens = openai_like.tokenize("a photograph of the cat")
    assert "".join(tokens) == "a</w>photograph</w>of</w>the</w>cat</w>" and "the</w>" in tokens and len(tokens) < 12


def test_the_length_that_just_fits(pair):
    theirs, ours = pair
    count = next(n for n in range(1, 100) if len(theirs("a " * n).input_ids) == 77)
    assert ours.encode("a " * count).truncated is None
    assert ours.encode("a " * count + "cat").truncated == "cat"


@pytest.mark.parametrize("eos_in_config", [2, "the tokenizer's"])
@pytest.mark.parametrize("text", ["", "a cat", f"a {LAST} cat", "cat " * 100])
def test_end_position_is_where_clip_pools(micro, eos_in_config, text):
    """The text encoder's embedding is its projection of the last hidden state at `end_position`, for both rules."""
    eos = micro.eos_token_id if eos_in_config != 2 else 2
    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(micro), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=8, eos_token_id=eos, bos_token_id=0, pad_token_id=1)).eval()
    tokens = Tokenizer(MICRO / "tokenizer.json", pad_token_id=micro.pad_token_id, eos_token_id=eos).encode(text)
    with torch.no_grad():
        output = model(torch.from_numpy(tokens.input_ids[None]).long())
        projected = model.text_projection(output.last_hidden_state[0])
    # One row of a matrix product against the whole of it: the sums may run in another order. The rows themselves
    # differ by about 1.
    distances = (projected - output.text_embeds[0]).abs().amax(dim=1)
    assert distances[tokens.end_position] < 1e-5
    assert distances.argmin() == tokens.end_position


@pytest.mark.parametrize("text", [None, 3, b"a cat", ["a cat"], "\ud83d alone"])
def test_what_is_not_text_is_refused(pair, text):
    with pytest.raises(UserError, match="must be Unicode text"):
        pair[1].encode(text)


@pytest.mark.parametrize("content", [None, "", "{}", '{"version": "1.0"', "\x00\xff"])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="tokenizer.json is not a tokenizer") as caught:
        Tokenizer(path, pad_token_id=0, eos_token_id=1)
    assert "\n" not in str(caught.value)


def test_another_models_tokenizer_is_refused(tmp_path):
    Backend(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="not CLIP's tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json", pad_token_id=0, eos_token_id=1)


def test_an_end_token_that_the_tokenizer_does_not_write_is_refused(micro):
    """transformers would pool at the first token, without a word."""
    with pytest.raises(UserError, match="eos_token_id is 7"):
        Tokenizer(MICRO / "tokenizer.json", pad_token_id=micro.pad_token_id, eos_token_id=7)


def test_tokens_that_the_text_encoder_has_no_row_for(tmp_path, micro):
    """A bundle made elsewhere; Lite computes something for any token."""
    tokenizer = CLIPTokenizerFast.from_pretrained(MICRO)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<my-dog>"])
    tokenizer.save_pretrained(tmp_path)
    options = dict(pad_token_id=micro.pad_token_id, eos_token_id=micro.eos_token_id)
    ours = Tokenizer(tmp_path / "tokenizer.json", **options, vocab_size=rows)
    assert ours.encode("a dog").input_ids.max() < rows
    with pytest.raises(UserError, match=f"token '<my-dog>' has the id {rows}, but the text encoder knows {rows} tokens: do not"):
        ours.encode("a photo of <my-dog>")
    for wrong in (dict(options, pad_token_id=rows), options):
        with pytest.raises(UserError, match="the text encoder knows"):
            Tokenizer(tmp_path / "tokenizer.json", **wrong, vocab_size=rows if wrong is not options else micro.eos_token_id)
