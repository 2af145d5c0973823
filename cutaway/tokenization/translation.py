"""Tokenizers of translators, which treat the language that is read and the one that is written differently."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tokenizers import AddedToken, Tokenizer

from cutaway.errors import TokenizerError
from cutaway.hub.folder_save import folder_save
from cutaway.tokenization.backend import framed, read_byte_pairs, read_bytes, unigram_backend
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.batch_encoding import BatchEncoding
from cutaway.tokenization.sentencepiece_model import read_sentencepiece
from cutaway.tokenization.settings_files import TOKENIZER_FILE
from cutaway.tokenization.special_tokens import ROBERTA_TOKENS

if TYPE_CHECKING:
    from tokenizers.processors import TemplateProcessing

    from cutaway.tokenization.inputs import CallOptions, TextInput

# The languages of mBART (Liu et al., 2020), in the order of their ids.
_CODES = [
    "ar_AR",
    "cs_CZ",
    "de_DE",
    "en_XX",
    "es_XX",
    "et_EE",
    "fi_FI",
    "fr_XX",
    "gu_IN",
    "hi_IN",
    "it_IT",
    "ja_XX",
    "kk_KZ",
    "ko_KR",
    "lt_LT",
    "lv_LV",
    "my_MM",
    "ne_NP",
    "nl_XX",
    "ro_RO",
    "ru_RU",
    "si_LK",
    "tr_TR",
    "vi_VN",
    "zh_CN",
]
_NEVER = -1e4  # the score of a piece of the other language: taken only where a character has no other


class LanguageTokenizer(PreTrainedTokenizerFast):
    """Gives `text_target` to the tokenizer of the written language."""

    _files: dict[str, bytes]

    def _written(self) -> PreTrainedTokenizerFast:
        raise NotImplementedError

    def _save_published(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write the settings, and the files that the tokenizer was read from in the place of a tokenizer.json."""
        with folder_save(save_directory) as save:
            written = super().save_pretrained(save_directory)
            (save.aside / TOKENIZER_FILE).unlink()
            save.remove(TOKENIZER_FILE)
            for name, content in self._files.items():
                (save.aside / name).write_bytes(content)
        return (*written[1:], *(str(Path(save_directory) / name) for name in self._files))

    def __call__(  # type: ignore[override]
        self,
        text: TextInput = None,
        text_pair: TextInput = None,
        text_target: TextInput = None,
        text_pair_target: TextInput = None,
        **call: Unpack[CallOptions],
    ) -> BatchEncoding:
        """As every tokenizer's; `text_target` is cut and framed as the language that is written."""
        if text_target is None:
            return super().__call__(text, text_pair, **call)
        labels = self._written()(text_target, text_pair_target, **call)
        if text is None:
            return labels
        encoding = super().__call__(text, text_pair, **call)
        encoding["labels"] = labels["input_ids"]
        return encoding


class MarianTokenizer(LanguageTokenizer):
    """Two unigram models, source.spm and target.spm, over one vocab.json; a code such as `>>fr<<` may begin a text.

    With the setting `separate_vocabs` what is written has a vocabulary of its own, target_vocab.json: labels are its
    ids, and `decode` reads them.
    """

    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vocab_file": ("vocab.json",),
        "source_spm": ("source.spm",),
        "target_spm": ("target.spm",),
    }
    more_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"target_vocab_file": ("target_vocab.json",)}
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 512,
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        paths = {key: settings.pop(key, None) for key in self.vocabulary_files}
        if None in paths.values():
            raise TokenizerError(f"MarianTokenizer needs vocab.json, source.spm and target.spm; it has {paths}.")
        target_vocab_file = settings.pop("target_vocab_file", None)
        self._separate = bool(settings.get("separate_vocabs"))
        if self._separate and target_vocab_file is None:
            raise TokenizerError(
                "separate_vocabs is True, and target_vocab.json is missing: MarianTokenizer needs both."
            )
        if self._separate:
            paths["target_vocab_file"] = target_vocab_file
        files = {**self.vocabulary_files, **self.more_files}
        for key in files:
            self.init_kwargs.pop(key, None)
        self._files = {files[key][0]: read_bytes(Path(path)) for key, path in paths.items()}
        vocab = _vocabulary(Path(paths["vocab_file"]))
        written_vocab = _vocabulary(Path(target_vocab_file)) if self._separate else vocab
        written = _one_language(written_vocab, Path(paths["target_spm"]), settings)
        written.post_processor = self._end(written_vocab, settings)
        names = {key: settings[key] for key in ("unk_token", "eos_token", "pad_token", "model_max_length")}
        self._target = PreTrainedTokenizerFast(
            tokenizer_object=written, model_input_names=list(self.model_input_names), **names
        )
        return _one_language(vocab, Path(paths["source_spm"]), settings)

    def _written(self) -> PreTrainedTokenizerFast:
        return self._target

    @staticmethod
    def _end(vocab: Mapping[str, int], settings: Mapping[str, Any]) -> TemplateProcessing:
        end = str(settings["eos_token"])
        return framed(f"$A {end}", f"$A $B {end}", [(end, vocab.get(end))])

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        if not complete:
            self._backend.post_processor = self._end(self._backend.get_vocab(), settings)

    def _decode(self, ids: object, skip: bool, clean: bool | None) -> str:
        if self._separate:
            return self._target._decode(ids, skip, clean).strip()
        return super()._decode(ids, skip, clean).strip()

    def _facts(self) -> dict[str, Any]:
        return {"tokenizer_class": "MarianTokenizer", "separate_vocabs": self._separate}

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write vocab.json, source.spm and target.spm, which one tokenizer.json cannot hold, and the settings."""
        return self._save_published(save_directory)


def _vocabulary(path: Path) -> dict[str, int]:
    vocab, _ = read_byte_pairs(path, None)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise TokenizerError(f"{path.name}: the ids of its tokens are not 0, 1, 2 ... without gaps.")
    return vocab


def _one_language(vocab: Mapping[str, int], spm: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """The unigram model of one language, with the ids of the vocabulary that both share."""
    model = read_sentencepiece(spm)
    scores = dict(model.pieces)
    unknown = vocab.get(str(settings["unk_token"]))
    if unknown is None:
        raise TokenizerError(f"vocab.json has no {settings['unk_token']!r}; it is no vocabulary of a Marian model.")
    pieces = [(token, scores.get(token, _NEVER)) for token in sorted(vocab, key=lambda token: vocab[token])]
    backend = unigram_backend(pieces, unknown, model.charsmap)
    codes = [token for token in vocab if token.startswith(">>") and token.endswith("<<")]
    backend.add_tokens([AddedToken(code, normalized=False, special=False) for code in codes])
    return backend


class CodedTokenizer(LanguageTokenizer):
    """A tokenizer whose texts name their language by a token. Settings: `src_lang`, `tgt_lang`."""

    usual: ClassVar[str] = ""  # the language that is read where none is given

    def code_token(self, code: str) -> str:
        """The token of a language."""
        return code

    def _frames(self, code: str, end: str) -> tuple[str, str]:
        """Where the code's token and the end-of-text token stand in a text, and in a pair of texts."""
        raise NotImplementedError

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        self.tgt_lang: str | None = settings.get("tgt_lang")
        self._twin: CodedTokenizer | None = None
        self.src_lang = settings.get("src_lang") or self.usual

    @property
    def src_lang(self) -> str:
        """The code of the language that is read. Setting it changes how texts are framed."""
        return self._src_lang

    @src_lang.setter
    def src_lang(self, code: str) -> None:
        token = self.code_token(str(code))
        index = self._backend.token_to_id(token)
        if index is None:
            raise TokenizerError(f"{code!r:.40} is no language of this tokenizer; its codes look like {self.usual!r}.")
        self._src_lang, end = str(code), str(self.eos_token)
        special = [(end, self.eos_token_id), (token, index)]
        self._backend.post_processor = framed(*self._frames(token, end), special)

    def _written(self) -> PreTrainedTokenizerFast:
        code = self.tgt_lang or self.src_lang
        if self._twin is None:
            self._twin = copy.deepcopy(self)
        if self._twin.src_lang != code:
            self._twin.src_lang = code
        return self._twin

    def _facts(self) -> dict[str, Any]:
        return {"tokenizer_class": type(self).__name__, "src_lang": self.src_lang, "tgt_lang": self.tgt_lang}


class MBartTokenizer(CodedTokenizer):
    """Unigram pieces; a text ends with `</s>` and the code of its language. Settings: `src_lang`, `tgt_lang`."""

    usual: ClassVar[str] = "en_XX"
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("sentencepiece.bpe.model",)}
    defaults: ClassVar[Mapping[str, Any]] = ROBERTA_TOKENS

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        first = [(str(settings[name]), 0.0) for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
        pieces, charsmap = [("▁", -2.0)], b""
        if (path := settings.pop("vocab_file", None)) is not None:
            model = read_sentencepiece(Path(path))
            pieces, charsmap = model.pieces[3:], model.charsmap  # without the model's own <unk>, <s>, </s>
        last = [(code, 0.0) for code in _CODES] + [(str(settings["mask_token"]), 0.0)]
        settings.setdefault("extra_special_tokens", list(_CODES))
        return unigram_backend([*first, *pieces, *last], 3, charsmap)

    def _frames(self, code: str, end: str) -> tuple[str, str]:
        return f"$A {end} {code}", f"$A $B {end} {code}"


MBartTokenizerFast = MBartTokenizer
