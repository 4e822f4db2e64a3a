"""Tokens of the C++ library are those of the tokenizers library: ids, mask, end position, and the text that does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.inputs.tokens import Tokenizer
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

MICRO = Path(__file__).parents[3] / "artifacts" / "micro" / "prior" / "tokenizer" / "tokenizer.json"
OPTIONS = dict(max_length=77, pad_token_id=1913, eos_token_id=1913)
FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
WORDS = ["a", "red", "CAT", "cat's", "don't", "we'll", "naïve", "nai\u0308ve", "猫", "猫と犬", "Ночь", "высокое", "İ", "ß", "ﬁ", "Σας",
         "🙂", "🐈\u200d⬛", "👩\u200d👩\u200d👧", "2024", "3.5", "٣٤", "Ⅷ", "½", "!!!", "<b>", "</w>", FIRST, LAST, LAST.upper(), "<|endoftext|",
         "\u00a0", "\u200b", "\t", "\n", "  ", "\x00", "\x07", "\x1c", "\x85", "\u3000", "\ufeff", "é" * 9, "e\u0301\u0323", "한국어",
         "\u1112\u1161\u11ab", "กำลัง", "हिन्दी", "שָׁלוֹם", "العَرَبِيَّة", "\U00011380\U000113c9", "\U000105d2\u0307", "\u0344", "Å", "Ω", "\U0001d15e",
         "'''s", "'S", "l'été", "rock'n'roll", "supercalifragilistic", "\ufffd\ue000", "\U0010ffff"]  # fmt: skip
BLOCKS = [(0x20, 0x7f), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xe00), (0x1100, 0x1200), (0x1e00, 0x2100),
          (0x2150, 0x2190), (0x3040, 0x3100), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xa640, 0xa800), (0xf900, 0xfb50),
          (0xff00, 0xffef), (0x10400, 0x10600), (0x11000, 0x11400), (0x1d100, 0x1d200), (0x1d400, 0x1d800), (0x1f300, 0x1fb00),
          (0x2f800, 0x2fa20), (1, 0xd800), (0xe000, 0x110000)]  # fmt: skip


LOWER, COMPOSED = normalizers.Lowercase().normalize_str, normalizers.NFC().normalize_str


def made_texts(count, seed):
    """Texts of words with and without blanks between, and of characters of one block and of all."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        kind, length = random.integers(4), int(random.integers(1, 40))
        if kind < 2:
            yield ("" if kind else " ").join(random.choice(WORDS, length))
        else:
            low, high = BLOCKS[random.integers(len(BLOCKS))]
            characters = [chr(code) for code in random.integers(low, high, length)]
            if kind == 3:
                characters[::3] = random.choice(WORDS, len(characters[::3]))
            yield "".join(character for character in characters if not "\ud800" <= character < "\ue000")


TEXTS = [*made_texts(2000, 20), *WORDS, "", " ", "a" * 500, "word " * 75, "word " * 76, "a " * 100, f"{FIRST}cat{LAST}" * 30,
         "猫" * 60, "x" * 20000]  # fmt: skip


def variant(change):
    """The micro checkpoint's tokenizer file, changed."""
    file = json.loads(MICRO.read_text())
    change(file)
    return json.dumps(file)


def older(file):
    """As transformers 4 wrote files: merges as text, the pattern without special tokens, the start token normalized."""
    file["model"]["merges"] = [" ".join(merge) for merge in file["model"]["merges"]]
    file["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {
        "Regex": r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"}
    file["added_tokens"][0]["normalized"] = True


def with_template(file):
    """Another post-processor, GPT-2's words alone, and tokens that somebody added."""
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": FIRST, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": LAST, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in ((FIRST, 1912), (LAST, 1913))}}
    file["pre_tokenizer"] = file["pre_tokenizer"]["pretokenizers"][1]
    plain = dict(single_word=False, lstrip=False, rstrip=False, special=False)
    file["added_tokens"] += [dict(plain, id=1914, content="CAT", normalized=True), dict(plain, id=1915, content="cat's", normalized=False),
                             dict(plain, id=1916, content="naïve", normalized=True)]  # fmt: skip


def trained():
    """A vocabulary with letters that it lacks, without a token for what is unknown."""
    backend = Backend(models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(WORDS * 5, trainers.BpeTrainer(vocab_size=300, end_of_word_suffix="</w>", show_progress=False,
                                                               special_tokens=[FIRST, LAST]))
    file = json.loads(backend.to_str())
    file["post_processor"] = {"type": "RobertaProcessing", "sep": [LAST, 1], "cls": [FIRST, 0], "trim_offsets": False,
                              "add_prefix_space": False}
    return json.dumps(file)


CASES = {
    "micro": (lambda: MICRO.read_text(), OPTIONS),
    "legacy_eos": (lambda: MICRO.read_text(), dict(OPTIONS, eos_token_id=2, pad_token_id=0)),
    "older": (lambda: variant(older), OPTIONS),
    "template": (lambda: variant(with_template), OPTIONS),
    "trained": (trained, dict(max_length=77, pad_token_id=0, eos_token_id=1)),
}


def tokens(leaves, name, text_of_file, options, texts):
    parts = leaves.call("tokenize", name, text_of_file, options["max_length"], options["pad_token_id"], options["eos_token_id"],
                        options.get("vocab_size", ""), *texts)
    return [parts[i:i + 5] for i in range(0, len(parts), 5)]


@pytest.mark.parametrize("case", CASES)
def test_equal_to_python(leaves, tmp_path, case):
    """Micro: all texts, 2,000 of them made. Others: every third."""
    make, options = CASES[case]
    path = tmp_path / "tokenizer.json"
    path.write_text(make())
    python = Tokenizer(path, **options)
    texts = TEXTS if case == "micro" else TEXTS[::3]
    for text, (ids, mask, end, truncated, is_truncated) in zip(texts, tokens(leaves, path, path.read_text(), options, texts)):
        expected = python.encode(text)
        assert np.frombuffer(ids, np.int32).tolist() == expected.input_ids.tolist(), ascii(text)
        assert np.frombuffer(mask, np.float32).tolist() == expected.mask.tolist()
        assert int(end) == expected.end_position
        assert (truncated.decode() if is_truncated else None) == expected.truncated, ascii(text)


def test_the_texts_say_something():
    """A comparison of unknown tokens alone would be empty."""
    python = Tokenizer(MICRO, **OPTIONS)
    ids = {id for text in TEXTS for id in python.encode(text).input_ids.tolist()}
    assert len(ids) > 300 and sum(python.encode(text).truncated is not None for text in TEXTS) > 100


def test_every_character(leaves):
    """Classes of all characters, lower case and composition of those that may have any. If it fails for a newer tokenizers
    library, make the tables anew: tests/programs/unicode_tables.py."""
    codes = np.array([code for code in range(0x110000) if not 0xD800 <= code < 0xE000])
    text = "".join(map(chr, codes))
    classes, lower, composed = (part.decode() for part in leaves.call("unicode"))
    found = np.full(0x110000, "-")
    for letter, regex in (("L", r"\p{L}+"), ("N", r"\p{N}+"), ("s", r"\s+")):
        split = pre_tokenizers.Split(Regex(regex), behavior="removed", invert=True)
        for piece, (start, end) in split.pre_tokenize_str(text):
            assert len(piece) == end - start
            found[codes[start:end]] = letter
    assert classes == "".join(found[codes])
    for code, ours, ours_composed in zip(codes[1:], lower[2:].split("\0"), composed[2:].split("\0")):  # behind the zero itself
        if code < 0x3400 or 0xA000 <= code < 0xAC00 or 0xF900 <= code < 0x20000 or 0x2F800 <= code < 0x2FA20:
            character = chr(code)
            assert ours == LOWER(character) and ours_composed == COMPOSED(character), hex(code)


@pytest.mark.parametrize("part, change", [
    ("the normalizer NFKC", lambda file: file.update(normalizer={"type": "NFKC"})),
    ("the pre-tokenizer Whitespace", lambda file: file.update(pre_tokenizer={"type": "Whitespace"})),
    ("a tokenizer without the pre-tokenizer ByteLevel", lambda file: file.update(pre_tokenizer=None)),
    ("the regular expression a\\|b\\|\\(c\\)", lambda file: file["normalizer"]["normalizers"][1].update(pattern={"Regex": "a|b|(c)"})),
    ("is not implemented from its character 6 on",
     lambda file: file["normalizer"]["normalizers"][1].update(pattern={"Regex": "a?b+c+"})),
    ("matches an empty text", lambda file: file["normalizer"]["normalizers"][1].update(pattern={"Regex": "a?"})),
    ("the pre-tokenizer Split with the behavior MergedWithNext",
     lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(behavior="MergedWithNext")),
    ("add_prefix_space", lambda file: file["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True)),
    ("the post-processor Sequence", lambda file: file.update(post_processor={"type": "Sequence", "processors": []})),
    ("the decoder WordPiece", lambda file: file.update(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})),
    ("the model Unigram", lambda file: file.update(model={"type": "Unigram", "vocab": []})),
    ("dropout", lambda file: file["model"].update(dropout=0.1)),
    ("byte_fallback", lambda file: file["model"].update(byte_fallback=True)),
    ("with lstrip", lambda file: file["added_tokens"][0].update(lstrip=True)),
    ("with single_word", lambda file: file["added_tokens"][1].update(single_word=True)),
    ("unk_token", lambda file: file["model"].update(unk_token="<unk>")),
    ("of a merge is not in its vocabulary", lambda file: file["model"]["merges"].append(["zq", "qz"])),
])  # fmt: skip
def test_what_is_not_implemented_is_named(leaves, part, change):
    with pytest.raises(UserError, match=f"tokenizer.json is not a tokenizer that this program knows: .*{part}") as caught:
        tokens(leaves, "tokenizer.json", variant(change), OPTIONS, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0"', b"\x00\xff", "[]", '{"model": 3}', '{"model": {"vocab": {"a": -1}}}',
                                     "[" * 100_000, '{"model": ' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_a_damaged_file_is_refused_by_name(leaves, content):
    with pytest.raises(UserError, match="^tokenizer.json is not a tokenizer") as caught:
        tokens(leaves, "tokenizer.json", content, OPTIONS, [])
    assert "\n" not in str(caught.value)


def refusals(leaves, tmp_path, content, options, text=""):
    """What both say of a file or of a text."""
    (path := tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as theirs:
        Tokenizer(path, **options).encode(text)
    try:
        ids, error, *_ = tokens(leaves, path, content, options, [text])[0]
    except UserError as ours:
        return str(ours), str(theirs.value)
    assert ids == b""
    return error.decode(), str(theirs.value)


def without_suffix(file):
    file["model"]["end_of_word_suffix"] = None


@pytest.mark.parametrize("change, options, text", [
    (lambda file: file.update(post_processor=None), OPTIONS, ""),
    (without_suffix, OPTIONS, ""),
    (lambda file: None, dict(OPTIONS, eos_token_id=7), ""),
    (lambda file: None, dict(OPTIONS, vocab_size=1913), ""),
    (lambda file: None, dict(OPTIONS, vocab_size=2000, pad_token_id=2000), ""),
    (with_template, dict(OPTIONS, vocab_size=1914), "a photo of a CAT"),
])  # fmt: skip
def test_refused_as_in_python(leaves, tmp_path, change, options, text):
    ours, theirs = refusals(leaves, tmp_path, variant(change), options, text)
    assert ours == theirs


@pytest.mark.parametrize("text", [b"\xff", b"a \xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_what_is_not_unicode_is_refused(leaves, text):
    error = tokens(leaves, "tokenizer.json", MICRO.read_text(), OPTIONS, [text])[0][1].decode()
    assert error.startswith("the prompt must be Unicode text, not '") and "\\x" in error
