"""Prompts to CLIP's token ids."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from ..bundle.opened import Bundle
from ..common.errors import UserError

LEGACY_EOS_TOKEN_ID = 2  # what old text encoder configurations say, whatever the vocabulary


class Tokens(NamedTuple):
    """A prompt of `max_length` tokens; `truncated` is the text that did not fit, None if all of it did."""

    input_ids: np.ndarray  # (max_length,) int32
    mask: np.ndarray  # (max_length,) float32: 1 for the tokens of the text, first and last one included, 0 for padding
    end_position: int  # where CLIP's text encoder pools
    truncated: str | None


class Tokenizer:
    """transformers' CLIPTokenizer with padding="max_length" and truncation=True, from a `tokenizer.json`.

    `pad_token_id` is the tokenizer's; `eos_token_id` is the text encoder's, which decides where it pools. vocab_size: rows
    of the text encoder's embedding of tokens, None where it is not known.
    """

    def __init__(self, path: str | Path, *, max_length: int = 77, pad_token_id: int, eos_token_id: int,
                 vocab_size: int | None = None):
        self.max_length = max_length
        self._path, self._pad, self._eos, self._vocab_size = path, pad_token_id, eos_token_id, vocab_size
        try:
            self._backend = tokenizers.Tokenizer.from_buffer(Path(path).read_bytes())  # a path need not be UTF-8
        except Exception as error:  # what the library raises, for a missing file too
            raise UserError(f"{path} is not a tokenizer: {error}".splitlines()[0]) from None
        self._backend.no_padding()
        self._backend.no_truncation()
        self._suffix = getattr(self._backend.model, "end_of_word_suffix", None) or ""
        empty = self._backend.encode("").ids
        if not self._suffix or len(empty) != 2:
            raise UserError(f"{path} is not CLIP's tokenizer: that ends words with </w> and puts two tokens around")
        self._check_ids([*empty, pad_token_id])
        if eos_token_id not in (empty[-1], LEGACY_EOS_TOKEN_ID):
            raise UserError(f"{path} ends a text with token {empty[-1]}, "
                            f"but the text encoder's eos_token_id is {eos_token_id}: they do not belong together")

    def encode(self, text: str) -> Tokens:
        """The tokens of `text`, cut or padded to `max_length`; UserError if it is not text."""
        try:
            ids = self._backend.encode(text).ids
        except (TypeError, UnicodeEncodeError):  # not a str; a surrogate without its other half
            raise UserError(f"the prompt must be Unicode text, not {text!r}") from None
        self._check_ids(ids)
        truncated = None
        if len(ids) > self.max_length:
            truncated = self._decode(ids[self.max_length - 1:-1])
            ids = ids[:self.max_length - 1] + ids[-1:]
        input_ids = np.full(self.max_length, self._pad, np.int32)
        input_ids[:len(ids)] = ids
        mask = (np.arange(self.max_length) < len(ids)).astype(np.float32)
        return Tokens(input_ids, mask, self._end_position(input_ids), truncated)

    def _check_ids(self, ids: list[int]) -> None:
        """UserError for an id that the text encoder has no row for: Lite computes something there, and says nothing."""
        if self._vocab_size is not None and not 0 <= max(ids) < self._vocab_size:
            token = self._backend.id_to_token(max(ids))
            raise UserError(f"{self._path}: token {token!r} has the id {max(ids)}, but the text encoder knows "
                            f"{self._vocab_size} tokens: do not use that token, or export a checkpoint that knows it")

    def _end_position(self, input_ids: np.ndarray) -> int:
        """transformers, CLIPTextTransformer.forward: with old configurations the largest id, which CLIP's own end
        token is; else the first end token."""
        if self._eos == LEGACY_EOS_TOKEN_ID:
            return int(input_ids.argmax())
        return int((input_ids == self._eos).argmax())

    def _decode(self, ids: list[int]) -> str:
        """Text of the tokens, in lower case and with single spaces, as CLIP's normalizer left it."""
        text = self._backend.decode(ids, skip_special_tokens=False)
        return text.replace(self._suffix, " ").strip()


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """The tokenizer of an opened bundle, made once. UserError if its file is damaged."""
    if bundle not in _TOKENIZERS:
        names = ("max_length", "pad_token_id", "eos_token_id", "vocab_size")
        options = {name: bundle.manifest.tokenizer[name] for name in names if name in bundle.manifest.tokenizer}
        _TOKENIZERS[bundle] = Tokenizer(bundle.file("tokenizer.json"), **options)
    return _TOKENIZERS[bundle]


_TOKENIZERS: weakref.WeakKeyDictionary[Bundle, Tokenizer] = weakref.WeakKeyDictionary()
