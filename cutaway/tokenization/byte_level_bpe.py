"""The tokenizers of byte-level byte pairs: GPT-2's and what is made like it, from vocab.json and merges.txt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import QWEN2_SPLIT, byte_level_backend, read_byte_pairs
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.settings_files import flag_or
from cutaway.tokenization.special_tokens import ROBERTA_TOKENS

__all__ = [
    "BartTokenizer",
    "BartTokenizerFast",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GPTNeoXTokenizer",
    "GPTNeoXTokenizerFast",
    "Qwen2Tokenizer",
    "Qwen2TokenizerFast",
    "RobertaTokenizer",
    "RobertaTokenizerFast",
]


def _byte_pairs(settings: dict[str, Any]) -> tuple[Any, Any]:
    """The vocabulary and the merges of a tokenizer's settings, which give them, name their files, or say nothing."""
    vocab, merges = settings.pop("vocab", None) or {}, settings.pop("merges", None) or []
    path, merges_path = settings.pop("vocab_file", None), settings.pop("merges_file", None)
    if path is not None:
        vocab, merges = read_byte_pairs(Path(path), None if merges_path is None else Path(merges_path))
    return vocab, merges


class GPT2Tokenizer(PreTrainedTokenizerFast):
    """Byte-level byte pairs, from vocab.json and merges.txt. Setting: `add_prefix_space`."""

    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vocab_file": ("vocab.json",),
        "merges_file": ("merges.txt",),
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        vocab, merges = _byte_pairs(settings)
        return byte_level_backend(vocab, merges, add_prefix_space=bool(settings.get("add_prefix_space")))

    def _adapt(self, settings: dict[str, Any]) -> None:
        current, wanted = self._backend.pre_tokenizer, settings.get("add_prefix_space")
        if isinstance(current, pre_tokenizers.ByteLevel) and wanted is not None:
            self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(
                add_prefix_space=wanted, use_regex=current.use_regex, trim_offsets=current.trim_offsets
            )

    def _facts(self) -> dict[str, Any]:
        current = self._backend.pre_tokenizer
        if not isinstance(current, pre_tokenizers.ByteLevel) or not current.use_regex:
            return super()._facts()
        return {"tokenizer_class": type(self).__name__, "add_prefix_space": current.add_prefix_space}


class RobertaTokenizer(GPT2Tokenizer):
    """Byte-level byte pairs between `<s>` and `</s>`. Settings: `add_prefix_space`, `trim_offsets`."""

    defaults: ClassVar[Mapping[str, Any]] = ROBERTA_TOKENS

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        if not settings.get("vocab") and settings.get("vocab_file") is None:
            special = [
                str(settings[name]) for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
            ]
            settings["vocab"] = {token: index for index, token in enumerate(special)}
        return super()._build(settings)

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        asked = [settings.get("add_prefix_space"), settings.get("trim_offsets")]
        if complete and not (
            isinstance(self._backend.post_processor, processors.RobertaProcessing) and any(v is not None for v in asked)
        ):
            return
        if self.sep_token_id is None or self.cls_token_id is None:
            raise TokenizerError("sep_token and cls_token must be in the vocabulary of this tokenizer.")
        self._backend.post_processor = processors.RobertaProcessing(
            (str(self.sep_token), self.sep_token_id),
            (str(self.cls_token), self.cls_token_id),
            trim_offsets=flag_or(asked[1], True),
            add_prefix_space=bool(asked[0]),
        )


class BartTokenizer(RobertaTokenizer):
    """BART's tokenizer is RoBERTa's."""


class _ComposedByteLevel(PreTrainedTokenizerFast):
    """Byte pairs over letters for bytes, from vocab.json and merges.txt; the text is composed (NFC) first."""

    split: ClassVar[str | None] = None
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vocab_file": ("vocab.json",),
        "merges_file": ("merges.txt",),
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        vocab, merges = _byte_pairs(settings)
        backend = byte_level_backend(
            vocab, merges, add_prefix_space=bool(settings.get("add_prefix_space")), split=self.split
        )
        backend.normalizer = normalizers.NFC()
        return backend


class Qwen2Tokenizer(_ComposedByteLevel):
    """Qwen2's and Qwen3's: digits one by one."""

    split = QWEN2_SPLIT
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }


class GPTNeoXTokenizer(_ComposedByteLevel):
    """GPT-NeoX's and Pythia's. Setting: `add_prefix_space`."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|padding|>",
    }


GPT2TokenizerFast = GPT2Tokenizer
RobertaTokenizerFast = RobertaTokenizer
BartTokenizerFast = BartTokenizer
Qwen2TokenizerFast = Qwen2Tokenizer
GPTNeoXTokenizerFast = GPTNeoXTokenizer
