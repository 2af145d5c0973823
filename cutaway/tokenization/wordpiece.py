"""The tokenizers of WordPiece (BERT and its relatives): the longest known piece first, from vocab.txt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, normalizers, processors

from cutaway.tokenization.backend import bert_normalizer, framed, read_wordpiece, wordpiece_backend
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.settings_files import flag_or

__all__ = [
    "BertTokenizer",
    "BertTokenizerFast",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
    "MPNetTokenizer",
    "MPNetTokenizerFast",
]


class BertTokenizer(PreTrainedTokenizerFast):
    """WordPiece, from vocab.txt. Settings: `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`."""

    model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask")
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("vocab.txt",)}
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        special = [str(settings[name]) for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")]
        vocab = settings.pop("vocab", None) or {token: index for index, token in enumerate(special)}
        if (path := settings.pop("vocab_file", None)) is not None:
            vocab = read_wordpiece(Path(path))
        return wordpiece_backend(
            vocab,
            str(settings["unk_token"]),
            lower=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
            chinese=settings.get("tokenize_chinese_chars", True),
        )

    def _adapt(self, settings: dict[str, Any]) -> None:
        current = self._backend.normalizer
        if isinstance(current, normalizers.BertNormalizer):
            self._backend.normalizer = bert_normalizer(
                flag_or(settings.get("do_lower_case"), current.lowercase),
                settings.get("strip_accents", current.strip_accents),
                flag_or(settings.get("tokenize_chinese_chars"), current.handle_chinese_chars),
            )

    def _facts(self) -> dict[str, Any]:
        current = self._backend.normalizer
        if not isinstance(current, normalizers.BertNormalizer):
            return super()._facts()
        return {
            "tokenizer_class": type(self).__name__,
            "do_lower_case": current.lowercase,
            "strip_accents": current.strip_accents,
            "tokenize_chinese_chars": current.handle_chinese_chars,
        }

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            first, last = self.cls_token, self.sep_token
            self._backend.post_processor = framed(
                f"{first}:0 $A:0 {last}:0",
                f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
                [(str(first), self.cls_token_id), (str(last), self.sep_token_id)],
            )


class DistilBertTokenizer(BertTokenizer):
    """BERT's tokenizer for a model that takes no token types."""

    model_input_names: Sequence[str] = ("input_ids", "attention_mask")


class ElectraTokenizer(BertTokenizer):
    """ELECTRA's tokenizer is BERT's."""


class MPNetTokenizer(BertTokenizer):
    """BERT's pieces between RoBERTa's `<s>` and `</s>`."""

    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    defaults: ClassVar[Mapping[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "[UNK]",
        "pad_token": "<pad>",
        "mask_token": AddedToken("<mask>", lstrip=True, normalized=False, special=True),
    }

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete and self.sep_token_id is not None and self.cls_token_id is not None:
            self._backend.post_processor = processors.RobertaProcessing(
                (str(self.sep_token), self.sep_token_id),
                (str(self.cls_token), self.cls_token_id),
                trim_offsets=True,
                add_prefix_space=False,
            )


BertTokenizerFast = BertTokenizer
DistilBertTokenizerFast = DistilBertTokenizer
ElectraTokenizerFast = ElectraTokenizer
MPNetTokenizerFast = MPNetTokenizer
