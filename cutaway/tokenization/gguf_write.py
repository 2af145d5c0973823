"""A tokenizer as GGUF metadata, in the fields that llama.cpp defines (gguf-py/gguf/constants.py).

The way back of `tokenization/gguf.py`. GGUF names the way in which text is split before it is merged, and has no place
for any other: so what was written is read again and must cut a number of texts as the tokenizer itself does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import LLAMA3_SPLIT, QWEN2_SPLIT
from cutaway.tokenization.gguf import DIGITS, GPT2, from_gguf
from cutaway.tokenization.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cutaway.tokenization.base import PreTrainedTokenizerFast

# a name of llama.cpp's for each way to split, the one most widely read
_NAMES = {GPT2: "gpt-2", DIGITS: "smollm", LLAMA3_SPLIT: "llama-bpe", QWEN2_SPLIT: "qwen2"}
_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_LOWEST = -1e6  # the score of a piece that no merge makes
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    " Leading and trailing spaces  ",
    "It's 1234567 o'clock; we'LL pay $3.50 (or 4%), they've said.",
    "def f(x):\n    return x ** 2  # squared\n\n\tprint(f(10))\n",
    "Ça coûte déjà trente-deux œufs. Größe: 12 µm, naïve façade.",
    "Привет, мир! Καλημέρα κόσμε. שלום עולם. مرحبا بالعالم",
    "日本語の文章です。中文句子。한국어 문장입니다.",
    "a  b   c    d\t\te\r\n\r\nf",
    "https://example.org/a_b-c?d=1&e=two#three ... 1,000,000.00 3rd 0x1F",
    "½ ² ① Ⅻ ﬁ e\u0301 …—“quoted”",
)


def to_gguf(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> dict[str, object]:
    """The fields `tokenizer.ggml.*` and `tokenizer.chat_template` of a tokenizer.

    Args:
        vocab_size: rows of the model's table of tokens; those without a token are written as unused ones.

    Raises:
        TokenizerError: the tokenizer is of no kind that GGUF has, or would cut text otherwise when read from it.
    """
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    model = state["model"]
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"The tokenizer is of the kind {model.get('type')}; GGUF is written of byte-pair tokenizers (BPE)."
        )
    byte_level = "ByteLevel" in json.dumps([state["pre_tokenizer"], state["decoder"]])
    tokens, kinds = _vocabulary(backend, state, vocab_size)
    merges = [merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"]]
    fields: dict[str, object] = {"model": "gpt2" if byte_level else "llama", "tokens": tokens, "token_type": kinds}
    if byte_level:
        fields["merges"] = [" ".join(merge) for merge in merges]
    else:
        fields["scores"] = _scores(tokens, merges)
    fields |= _special(tokenizer)
    ways: list[dict[str, object]] = (
        [{"pre": name} for name in _NAMES.values()] if byte_level else [{"add_space_prefix": s} for s in (True, False)]
    )
    for way in ways:
        if _same_cuts(backend, fields | way, tokenizer.all_special_tokens):
            named = {f"tokenizer.ggml.{key}": value for key, value in (fields | way).items()}
            return named | _templates(tokenizer)
    raise TokenizerError(
        "GGUF has no form for the way in which this tokenizer cuts text (its normalizer or pre-tokenizer): none of "
        f"{', '.join(map(str, (way for one in ways for way in one.items())))} gives the same tokens."
    )


def _vocabulary(backend: Tokenizer, state: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Tokens by id, and ggml's kind of each."""
    by_id = {index: token for token, index in backend.get_vocab(with_added_tokens=True).items()}
    most = max(by_id, default=-1) + 1
    if most > vocab_size:
        raise TokenizerError(
            f"The tokenizer has {most:,} tokens, and the model has rows for {vocab_size:,}: "
            f"model.resize_token_embeddings({most}) makes room for them."
        )
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(vocab_size)]
    kinds = [NORMAL if index in by_id else UNUSED for index in range(vocab_size)]
    for index, token in by_id.items():
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token) and state["model"].get("byte_fallback"):
            kinds[index] = BYTE
    for added in state.get("added_tokens") or []:
        kinds[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
    unknown = state["model"].get("unk_token")
    place = None if unknown is None else backend.token_to_id(unknown)
    if place is not None and kinds[place] == NORMAL:
        kinds[place] = UNKNOWN
    return tokens, kinds


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """A score for each piece so that better ones are merged first: minus the rank of the merge that makes it."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    return [-float(ranks[token]) if token in ranks else _LOWEST for token in tokens]


def _special(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    fields: dict[str, object] = {}
    for attribute, name in _IDS.items():
        index = getattr(tokenizer, f"{attribute}_id", None)
        if index is not None:
            fields[f"{name}_token_id"] = int(index)
    ids = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = len(ids) > len(plain) and ids[0] == tokenizer.bos_token_id
    ends = len(ids) > len(plain) and ids[-1] == tokenizer.eos_token_id
    if len(ids) != len(plain) + starts + ends:
        raise TokenizerError("The tokenizer puts other tokens around a text than bos and eos, which GGUF cannot say.")
    return fields | {"add_bos_token": starts, "add_eos_token": ends}


def _templates(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    found = tokenizer.chat_template
    if isinstance(found, str):
        return {"tokenizer.chat_template": found}
    if not found:
        return {}
    named = {f"tokenizer.chat_template.{name}": text for name, text in found.items() if name != "default"}
    default = {"tokenizer.chat_template": found["default"]} if "default" in found else {}
    return {**default, **named, "tokenizer.chat_templates": sorted(found)}


def _same_cuts(backend: Tokenizer, fields: Mapping[str, object], special: list[str]) -> bool:
    """Whether the tokenizer that the fields describe cuts every probe as `backend` does."""
    try:
        again, _ = from_gguf(fields)
    except TokenizerError:
        return False
    probes = [*PROBES, "".join(f"{token}word" for token in special[:64])]
    return all(
        backend.encode(text, add_special_tokens=False).ids == again.encode(text, add_special_tokens=False).ids
        for text in probes
    )
