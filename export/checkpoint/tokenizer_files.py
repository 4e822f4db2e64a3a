"""The tokenizer folder of a prior checkpoint, as old and new versions of transformers save it."""

from pathlib import Path
from typing import NamedTuple

from ...runner.common.errors import UserError
from .json_files import one_line, read_json

CLIP_LENGTH = 77  # tokens; what CLIP's tokenizer means where a folder does not say
STYLES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # transformers 5; transformers 4 and before


class TokenizerData(NamedTuple):
    """`json` is a whole `tokenizers` file, without padding and truncation; the ids are those of its special tokens."""

    json: str
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    model_max_length: int


def read_tokenizer(folder, vocab_size=None) -> TokenizerData:
    """The tokenizer that transformers makes of `folder`. vocab_size: rows of the text encoder's embedding of tokens.

    How the pieces of the several styles override one another (tokens as strings or as objects, in
    tokenizer_config.json, special_tokens_map.json or added_tokens.json) is transformers' own affair, so transformers
    reads them. Raises UserError if files are missing or unreadable, if a special token is not in the vocabulary, or if
    the tokenizer can make an id that the text encoder has no row for.
    """
    folder = Path(folder)
    if not any(all((folder / name).is_file() for name in style) for style in STYLES):
        raise UserError(f"{folder} has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt")
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]  # seconds to import: only where a tokenizer is read

    try:
        tokenizer = CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises Exception itself
        raise UserError(f"{folder} is not a CLIP tokenizer: {one_line(error)}") from None
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    length = tokenizer.model_max_length
    ids = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        ids[f"{name}_id"] = getattr(tokenizer, f"{name}_id")
        if ids[f"{name}_id"] is None:
            raise UserError(f"{folder}: the tokenizer has no {name}")
    if vocab_size is not None:
        _check_ids(folder, {**backend.get_vocab(True), **ids}, vocab_size)
    # transformers writes 1e30 for "no limit known"
    return TokenizerData(backend.to_str(), **ids, model_max_length=length if length < 1e9 else CLIP_LENGTH)


def _check_ids(folder, ids, vocab_size):
    """Lite computes something for a token without a row, and says nothing."""
    outside = sorted((number, name) for name, number in ids.items() if not 0 <= number < vocab_size)
    if outside:
        number, name = outside[0]
        more = f", and so have {len(outside) - 1} more" if outside[1:] else ""
        raise UserError(f"{folder}: {name!r} has the id {number}{more}, but the text encoder's vocab_size is {vocab_size}: "
                        "resize its embeddings to the tokenizer (resize_token_embeddings) or take these tokens out")
