"""The tokenizers of byte pairs over characters, with ▁ for spaces: Llama's and Gemma's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from cutaway.tokenization.backend import guarded, metaspace_backend, use_metaspace
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.sentencepiece_model import added_token, merges_from, read_sentencepiece
from cutaway.tokenization.settings_files import flag_or

__all__ = [
    "GemmaTokenizer",
    "GemmaTokenizerFast",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
]


class LlamaTokenizer(PreTrainedTokenizerFast):
    """Byte pairs over characters with ▁ for spaces, from a sentencepiece model.

    Settings: `add_prefix_space`, `legacy` (a space before every piece of text, not only the first), `add_bos_token`,
    `add_eos_token`.
    """

    padding_side = "left"
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("tokenizer.model",)}
    defaults: ClassVar[Mapping[str, Any]] = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        vocab = settings.pop("vocab", None)
        merges = settings.pop("merges", None)
        if (path := settings.pop("vocab_file", None)) is not None:
            model = read_sentencepiece(Path(path))
            vocab = {piece: index for index, (piece, _) in enumerate(model.pieces)}
            merges = merges_from(vocab)
            settings.setdefault("extra_special_tokens", [added_token(*one) for one in model.added])
        elif vocab is None:
            special = [str(settings[name]) for name in ("unk_token", "bos_token", "eos_token")]
            vocab = {token: index for index, token in enumerate(special)}
        return metaspace_backend(
            vocab,
            merges or [],
            add_prefix_space=flag_or(settings.get("add_prefix_space"), True),
            legacy=bool(settings.get("legacy")),
        )

    def _adapt(self, settings: dict[str, Any]) -> None:
        current, wanted = self._backend.pre_tokenizer, settings.get("add_prefix_space")
        if isinstance(current, pre_tokenizers.Metaspace) and wanted is not None:
            legacy = flag_or(settings.get("legacy"), current.prepend_scheme == "always")
            use_metaspace(self._backend, add_prefix_space=wanted, legacy=legacy)

    def _facts(self) -> dict[str, Any]:
        current = self._backend.pre_tokenizer
        if not isinstance(current, pre_tokenizers.Metaspace) or self._backend.normalizer is not None or current.split:
            return super()._facts()
        return {
            "tokenizer_class": type(self).__name__,
            "add_prefix_space": current.prepend_scheme != "never",
            "legacy": current.prepend_scheme == "always",
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


LlamaTokenizerFast = LlamaTokenizer
GemmaTokenizerFast = GemmaTokenizer
