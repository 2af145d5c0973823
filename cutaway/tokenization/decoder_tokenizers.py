"""Tokenizers of decoders beside GPT-2's and Llama's: Qwen2's, GPT-NeoX's and Gemma's; and PEGASUS's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from cutaway.tokenization.backend import byte_level_backend, framed, guarded, read_byte_pairs, unigram_backend
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.gguf import QWEN2_SPLIT
from cutaway.tokenization.sentencepiece_model import read_sentencepiece


class _ByteLevel(PreTrainedTokenizerFast):
    """Byte pairs over letters for bytes, from vocab.json and merges.txt; the text is composed (NFC) first."""

    split: ClassVar[str | None] = None
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vocab_file": ("vocab.json",),
        "merges_file": ("merges.txt",),
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        vocab, merges = settings.pop("vocab", None) or {}, settings.pop("merges", None) or []
        path, merges_path = settings.pop("vocab_file", None), settings.pop("merges_file", None)
        if path is not None:
            vocab, merges = read_byte_pairs(Path(path), None if merges_path is None else Path(merges_path))
        backend = byte_level_backend(
            vocab, merges, add_prefix_space=bool(settings.get("add_prefix_space")), split=self.split
        )
        backend.normalizer = normalizers.NFC()
        return backend


class Qwen2Tokenizer(_ByteLevel):
    """Qwen2's and Qwen3's: digits one by one."""

    split = QWEN2_SPLIT
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }


class GPTNeoXTokenizer(_ByteLevel):
    """GPT-NeoX's and Pythia's. Setting: `add_prefix_space`."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|padding|>",
    }


class GemmaTokenizer(PreTrainedTokenizerFast):
    """Byte pairs with ▁ for spaces, none before the text. Settings: `add_bos_token`, `add_eos_token`."""

    padding_side = "left"
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<unk>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        special = [str(settings[name]) for name in ("pad_token", "eos_token", "bos_token", "unk_token", "mask_token")]
        vocab = settings.pop("vocab", None) or {token: index for index, token in enumerate(special)}
        with guarded("The byte-pair tokenizer cannot be built"):
            unknown, merges = str(settings["unk_token"]), settings.pop("merges", None) or []
            backend = Tokenizer(BPE(vocab=vocab, merges=merges, fuse_unk=True, unk_token=unknown, byte_fallback=True))
            backend.normalizer = normalizers.Replace(" ", "▁")
            backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
            steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
            backend.decoder = decoders.Sequence(steps)
        return backend


class PegasusTokenizer(PreTrainedTokenizerFast):
    """Unigram pieces from spiece.model, behind 105 tokens that only training used. Setting: `offset`, their count."""

    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("spiece.model",)}
    defaults: ClassVar[Mapping[str, Any]] = {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask_2>",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        first = [(str(settings[name]), 0.0) for name in ("pad_token", "eos_token")]
        masks = ["<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103))]
        settings.setdefault("extra_special_tokens", [mask for mask in masks if mask != settings["mask_token"]])
        first += [(mask, 0.0) for mask in masks]
        pieces, charsmap = [(str(settings["unk_token"]), 0.0)], b""
        if (path := settings.pop("vocab_file", None)) is not None:
            model = read_sentencepiece(Path(path))
            pieces, charsmap = model.pieces[model.unk_id :], model.charsmap
        backend = unigram_backend([*first, *pieces], len(first), charsmap)
        spaces = normalizers.Replace(Regex(r" {2,}"), " ")
        backend.normalizer = normalizers.Sequence(
            [normalizers.Precompiled(charsmap) if charsmap else normalizers.Replace(Regex(r"\n"), " "), spaces]
        )
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        return backend

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            end = str(self.eos_token)
            self._backend.post_processor = framed(f"$A {end}", f"$A $B {end}", [(end, self.eos_token_id)])


Qwen2TokenizerFast = Qwen2Tokenizer
GPTNeoXTokenizerFast = GPTNeoXTokenizer
GemmaTokenizerFast = GemmaTokenizer
PegasusTokenizerFast = PegasusTokenizer
