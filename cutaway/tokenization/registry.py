"""The tokenizers of the families, and `load_tokenizer`, which finds the right one for a checkpoint.

A tokenizer.json is a complete description and is followed to the letter. Where there is none, each family builds its
pipeline from its vocabulary files. Which class a checkpoint names is looked up in a table; nothing it names is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import (
    bert_normalizer,
    byte_level_backend,
    framed,
    metaspace_backend,
    read_byte_pairs,
    read_wordpiece,
    unigram_backend,
    use_metaspace,
    wordpiece_backend,
)
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.batch_encoding import BatchEncoding, CharSpan, TokenSpan
from cutaway.tokenization.decoder_tokenizers import GemmaTokenizer, GPTNeoXTokenizer, PegasusTokenizer, Qwen2Tokenizer
from cutaway.tokenization.loading import load
from cutaway.tokenization.sentencepiece_model import merges_from, read_sentencepiece
from cutaway.tokenization.translation import MarianTokenizer, MBartTokenizer, MBartTokenizerFast
from cutaway.tokenization.unigram import AlbertTokenizer, XLMRobertaTokenizer, added

__all__ = [
    "AlbertTokenizer",
    "AlbertTokenizerFast",
    "BartTokenizer",
    "BartTokenizerFast",
    "BatchEncoding",
    "BertTokenizer",
    "BertTokenizerFast",
    "CharSpan",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "MBartTokenizer",
    "MBartTokenizerFast",
    "MPNetTokenizer",
    "MPNetTokenizerFast",
    "MarianTokenizer",
    "PreTrainedTokenizerFast",
    "RobertaTokenizer",
    "RobertaTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "TokenSpan",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "load_tokenizer",
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
                _first(settings.get("do_lower_case"), current.lowercase),
                settings.get("strip_accents", current.strip_accents),
                _first(settings.get("tokenize_chinese_chars"), current.handle_chinese_chars),
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
        vocab, merges = settings.pop("vocab", None) or {}, settings.pop("merges", None) or []
        path, merges_path = settings.pop("vocab_file", None), settings.pop("merges_file", None)
        if path is not None:
            vocab, merges = read_byte_pairs(Path(path), None if merges_path is None else Path(merges_path))
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

    defaults: ClassVar[Mapping[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }

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
            trim_offsets=_first(asked[1], True),
            add_prefix_space=bool(asked[0]),
        )


class BartTokenizer(RobertaTokenizer):
    """BART's tokenizer is RoBERTa's."""


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
            settings.setdefault("extra_special_tokens", [added(*one) for one in model.added])
        elif vocab is None:
            special = [str(settings[name]) for name in ("unk_token", "bos_token", "eos_token")]
            vocab = {token: index for index, token in enumerate(special)}
        return metaspace_backend(
            vocab,
            merges or [],
            add_prefix_space=_first(settings.get("add_prefix_space"), True),
            legacy=bool(settings.get("legacy")),
        )

    def _adapt(self, settings: dict[str, Any]) -> None:
        current, wanted = self._backend.pre_tokenizer, settings.get("add_prefix_space")
        if isinstance(current, pre_tokenizers.Metaspace) and wanted is not None:
            legacy = _first(settings.get("legacy"), current.prepend_scheme == "always")
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
        own: list[str | AddedToken] = []
        if (path := settings.pop("vocab_file", None)) is not None:
            model = read_sentencepiece(Path(path))
            pieces, charsmap, unk_id = model.pieces, model.charsmap, model.unk_id
            own = [added(*one) for one in model.added]
            pieces = [*pieces, *((blank, 0.0) for blank in reversed(blanks))]
        elif pieces is None:
            first = [str(settings[name]) for name in ("pad_token", "eos_token", "unk_token")]
            pieces = [*((token, 0.0) for token in first), ("▁", -2.0), *((blank, 0.0) for blank in reversed(blanks))]
        if not settings.get("extra_special_tokens") and not settings.get("additional_special_tokens"):
            settings["extra_special_tokens"] = [*own, *blanks]
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


def _first(value: bool | None, other: bool) -> bool:
    return other if value is None else value


BertTokenizerFast = BertTokenizer
DistilBertTokenizerFast = DistilBertTokenizer
GPT2TokenizerFast = GPT2Tokenizer
RobertaTokenizerFast = RobertaTokenizer
BartTokenizerFast = BartTokenizer
LlamaTokenizerFast = LlamaTokenizer
T5TokenizerFast = T5Tokenizer
ElectraTokenizerFast = ElectraTokenizer
AlbertTokenizerFast = AlbertTokenizer
MPNetTokenizerFast = MPNetTokenizer
XLMRobertaTokenizerFast = XLMRobertaTokenizer

_CLASSES: dict[str, type[PreTrainedTokenizerFast]] = {
    "BertTokenizer": BertTokenizer,
    "DistilBertTokenizer": DistilBertTokenizer,
    "RobertaTokenizer": RobertaTokenizer,
    "BartTokenizer": BartTokenizer,
    "GPT2Tokenizer": GPT2Tokenizer,
    "LlamaTokenizer": LlamaTokenizer,
    "T5Tokenizer": T5Tokenizer,
    "ElectraTokenizer": ElectraTokenizer,
    "AlbertTokenizer": AlbertTokenizer,
    "MPNetTokenizer": MPNetTokenizer,
    "XLMRobertaTokenizer": XLMRobertaTokenizer,
    "MarianTokenizer": MarianTokenizer,
    "Qwen2Tokenizer": Qwen2Tokenizer,
    "GPTNeoXTokenizer": GPTNeoXTokenizer,
    "GemmaTokenizer": GemmaTokenizer,
    "PegasusTokenizer": PegasusTokenizer,
    "MBartTokenizer": MBartTokenizer,
}
_MODEL_TYPES: dict[str, type[PreTrainedTokenizerFast]] = {
    "bert": BertTokenizer,
    "distilbert": DistilBertTokenizer,
    "roberta": RobertaTokenizer,
    "bart": BartTokenizer,
    "gpt2": GPT2Tokenizer,
    "llama": LlamaTokenizer,
    "t5": T5Tokenizer,
    "electra": ElectraTokenizer,
    "albert": AlbertTokenizer,
    "mpnet": MPNetTokenizer,
    "xlm-roberta": XLMRobertaTokenizer,
    "marian": MarianTokenizer,
    "mbart": MBartTokenizer,
    "mistral": LlamaTokenizer,
    "phi3": LlamaTokenizer,
    "opt": GPT2Tokenizer,
    "qwen2": Qwen2Tokenizer,
    "qwen3": Qwen2Tokenizer,
    "gpt_neox": GPTNeoXTokenizer,
    "gemma": GemmaTokenizer,
    "pegasus": PegasusTokenizer,
}


def load_tokenizer(name: str | Path, *, config: Any = None, **arguments: Any) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, as the class that its tokenizer_config.json or config.json names.

    Args:
        name: a folder, a built-in name or a name on the hub.
        config: the model's configuration, where it is already loaded.
        arguments: `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder`, `gguf_file`, and settings of the
            tokenizer such as `model_max_length=512`.

    Raises:
        HubError: the checkpoint cannot be found.
        TokenizerError: it holds no tokenizer, or a damaged one.
    """
    return load(name, PreTrainedTokenizerFast, _CLASSES, _MODEL_TYPES, config=config, **arguments)
