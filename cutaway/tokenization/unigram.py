"""The tokenizers of unigram pieces from a sentencepiece model: of T5, ALBERT, XLM-RoBERTa, CamemBERT, PEGASUS,
DeBERTa and XLNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from cutaway.tokenization.backend import framed, guarded, unigram_backend
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.sentencepiece_model import added_token, read_sentencepiece
from cutaway.tokenization.special_tokens import ROBERTA_TOKENS

__all__ = [
    "AlbertTokenizer",
    "AlbertTokenizerFast",
    "CamembertTokenizer",
    "CamembertTokenizerFast",
    "DebertaV2Tokenizer",
    "DebertaV2TokenizerFast",
    "PegasusTokenizer",
    "PegasusTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "XLNetTokenizer",
    "XLNetTokenizerFast",
]


class T5Tokenizer(PreTrainedTokenizerFast):
    """Unigram pieces from a sentencepiece model. Setting: `extra_ids`, the number of `<extra_id_0>` ... tokens."""

    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("spiece.model", "tokenizer.model")}
    defaults: ClassVar[Mapping[str, Any]] = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 100,
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        count = settings.get("extra_ids") or 0
        blanks = [f"<extra_id_{i}>" for i in range(count)]
        pieces, charsmap, unk_id = settings.pop("vocab", None), b"", 2
        added: list[str | AddedToken] = []
        if (path := settings.pop("vocab_file", None)) is not None:
            model = read_sentencepiece(Path(path))
            pieces, charsmap, unk_id = model.pieces, model.charsmap, model.unk_id
            added = [added_token(*one) for one in model.added]
            pieces = [*pieces, *((blank, 0.0) for blank in reversed(blanks))]
        elif pieces is None:
            first = [str(settings[name]) for name in ("pad_token", "eos_token", "unk_token")]
            pieces = [*((token, 0.0) for token in first), ("▁", -2.0), *((blank, 0.0) for blank in reversed(blanks))]
        if not settings.get("extra_special_tokens") and not settings.get("additional_special_tokens"):
            settings["extra_special_tokens"] = [*added, *blanks]
        return unigram_backend(pieces, unk_id, charsmap)

    def _adapt(self, settings: dict[str, Any]) -> None:
        if not settings.get("extra_special_tokens") and not settings.get("additional_special_tokens"):
            blanks = [f"<extra_id_{i}>" for i in range(settings.get("extra_ids") or 0)]
            settings["extra_special_tokens"] = [t for t in blanks if self._backend.token_to_id(t) is not None]

    def _facts(self) -> dict[str, Any]:
        blanks = sum(token.startswith("<extra_id_") for token in self.extra_special_tokens)
        return {"tokenizer_class": type(self).__name__, "extra_ids": blanks}

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            end = str(self.eos_token)
            self._backend.post_processor = framed(f"$A {end}", f"$A {end} $B {end}", [(end, self.eos_token_id)])


class _BetweenClsAndSep(PreTrainedTokenizerFast):
    """Unigram pieces between `[CLS]` and `[SEP]`."""

    def _pieces(self, settings: dict[str, Any]) -> tuple[list[tuple[str, float]], int, bytes]:
        """(pieces with their scores, the id of the unknown one, the model's rules of normalization)."""
        if (path := settings.pop("vocab_file", None)) is not None:
            settings.pop("vocab", None)
            model = read_sentencepiece(Path(path))
            settings.setdefault("extra_special_tokens", [added_token(*one) for one in model.added])
            return model.pieces, model.unk_id, model.charsmap
        pieces = settings.pop("vocab", None)
        if pieces is None:
            names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
            pieces = [(str(settings[name]), 0.0) for name in names]
        return pieces, 1, b""

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            first, last = str(self.cls_token), str(self.sep_token)
            self._backend.post_processor = framed(
                f"{first}:0 $A:0 {last}:0",
                f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
                [(first, self.cls_token_id), (last, self.sep_token_id)],
            )


class AlbertTokenizer(_BetweenClsAndSep):
    """Unigram pieces between `[CLS]` and `[SEP]`. Settings: `do_lower_case`, `keep_accents`."""

    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("spiece.model",)}
    defaults: ClassVar[Mapping[str, Any]] = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "<unk>",
        "sep_token": "[SEP]",
        "pad_token": "<pad>",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        pieces, unk_id, charsmap = self._pieces(settings)
        backend = unigram_backend(pieces, unk_id, b"")
        steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if not settings.get("keep_accents"):
            steps += [normalizers.NFKD(), normalizers.StripAccents()]
        if settings.get("do_lower_case") is not False:
            steps.append(normalizers.Lowercase())
        with guarded("The sentencepiece model's rules of normalization cannot be used"):
            if charsmap:
                steps.append(normalizers.Precompiled(charsmap))
            backend.normalizer = normalizers.Sequence(steps)
        return backend

    def _facts(self) -> dict[str, Any]:
        steps = str(self._backend.normalizer)
        return {
            "tokenizer_class": type(self).__name__,
            "do_lower_case": "Lowercase" in steps,
            "keep_accents": "StripAccents" not in steps,
        }


class DebertaV2Tokenizer(_BetweenClsAndSep):
    """Unigram pieces between `[CLS]` and `[SEP]`. Settings: `do_lower_case`, `split_by_punct`.

    Texts are normalized by the rules in spm.model, as in the model's training.
    """

    model_input_names: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids")
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("spm.model",)}
    defaults: ClassVar[Mapping[str, Any]] = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        pieces, unk_id, charsmap = self._pieces(settings)
        backend = unigram_backend(pieces, unk_id, b"")
        steps: list[Any] = [normalizers.Lowercase()] if settings.get("do_lower_case") else []
        words: list[Any] = [pre_tokenizers.Punctuation("isolated")] if settings.get("split_by_punct") else []
        with guarded("The sentencepiece model's rules of normalization cannot be used"):
            steps += [normalizers.Strip(), *([normalizers.Precompiled(charsmap)] if charsmap else [])]
            backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(r" {2,}"), " ")])
        words.append(pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True))
        backend.pre_tokenizer = pre_tokenizers.Sequence(words)
        return backend

    def _facts(self) -> dict[str, Any]:
        return {
            "tokenizer_class": type(self).__name__,
            "do_lower_case": "Lowercase" in str(self._backend.normalizer),
            "split_by_punct": "Punctuation" in str(self._backend.pre_tokenizer),
        }


class XLNetTokenizer(AlbertTokenizer):
    """Unigram pieces before `<sep>` and `<cls>`, padding on the left. Settings: `do_lower_case`, `keep_accents`."""

    padding_side = "left"
    defaults: ClassVar[Mapping[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "<sep>",
        "pad_token": "<pad>",
        "cls_token": "<cls>",
        "mask_token": "<mask>",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        settings["do_lower_case"] = bool(settings.get("do_lower_case"))
        backend = super()._build(settings)
        if not settings.get("extra_special_tokens") and not settings.get("additional_special_tokens"):
            settings["extra_special_tokens"] = ["<eop>", "<eod>"]
        return backend

    def _pieces(self, settings: dict[str, Any]) -> tuple[list[tuple[str, float]], int, bytes]:
        if settings.get("vocab") is None and settings.get("vocab_file") is None:
            return [(str(settings["unk_token"]), 0.0)], 0, b""
        return super()._pieces(settings)

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            last, whole = str(self.sep_token), str(self.cls_token)
            self._backend.post_processor = framed(
                f"$A:0 {last}:0 {whole}:2",
                f"$A:0 {last}:0 $B:1 {last}:1 {whole}:2",
                [(last, self.sep_token_id), (whole, self.cls_token_id)],
            )


class XLMRobertaTokenizer(PreTrainedTokenizerFast):
    """Unigram pieces between `<s>` and `</s>`; four tokens of its own stand before the model's pieces."""

    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("sentencepiece.bpe.model",)}
    defaults: ClassVar[Mapping[str, Any]] = ROBERTA_TOKENS

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        pieces, charsmap = settings.pop("vocab", None), b""
        if pieces is None:
            names = ("bos_token", "pad_token", "eos_token", "unk_token")
            pieces = [(str(settings[name]), 0.0) for name in names]
            if (path := settings.pop("vocab_file", None)) is not None:
                model = read_sentencepiece(Path(path))
                charsmap = model.charsmap
                pieces += model.pieces[3:]  # the model's own <unk>, <s> and </s> stand first
                settings.setdefault("extra_special_tokens", [added_token(*one) for one in model.added])
            pieces.append((str(settings["mask_token"]), 0.0))
        return unigram_backend(pieces, 3, charsmap)

    def _facts(self) -> dict[str, Any]:
        return {"tokenizer_class": type(self).__name__}

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            first, last = str(self.bos_token), str(self.eos_token)
            self._backend.post_processor = framed(
                f"{first} $A {last}",
                f"{first} $A {last} {last} $B {last}",
                [(first, self.bos_token_id), (last, self.eos_token_id)],
            )


class CamembertTokenizer(XLMRobertaTokenizer):
    """As XLM-RoBERTa's; before the model's pieces stand other tokens, some of them never used."""

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        pieces, charsmap = settings.pop("vocab", None), b""
        unused = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]
        if pieces is None:
            named = (unused[0], str(settings["pad_token"]), unused[1], str(settings["unk_token"]))
            pieces = [*((token, 0.0) for token in named), (unused[2], -100.0)]
            if (path := settings.pop("vocab_file", None)) is not None:
                model = read_sentencepiece(Path(path))
                charsmap = model.charsmap
                pieces += model.pieces[1:]  # the model's own <unk> stands first
                settings.setdefault("extra_special_tokens", [added_token(*one) for one in model.added])
            pieces.append((str(settings["mask_token"]), 0.0))
        mask = settings["mask_token"]
        if isinstance(mask, str):  # a mask takes the space before it in
            settings["mask_token"] = AddedToken(mask, lstrip=True, special=True, normalized=False)
        return unigram_backend(pieces, 3, charsmap)


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


T5TokenizerFast = T5Tokenizer
AlbertTokenizerFast = AlbertTokenizer
CamembertTokenizerFast = CamembertTokenizer
DebertaV2TokenizerFast = DebertaV2Tokenizer
XLMRobertaTokenizerFast = XLMRobertaTokenizer
PegasusTokenizerFast = PegasusTokenizer
XLNetTokenizerFast = XLNetTokenizer
