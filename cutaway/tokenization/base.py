"""The tokenizer: text to ids and back, on the Rust `tokenizers` library, with the calls of the Transformers tutorials.

Nothing is cut silently: without `truncation` every token of the text is there, with it `encoding.cut` says how many
were removed. torch is imported only when `return_tensors="pt"` is asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack, cast

from tokenizers import AddedToken, Tokenizer

from cutaway.errors import TokenizerError, nearest
from cutaway.hub.argument_names import also_called
from cutaway.hub.upload import Publishing
from cutaway.hub.upstream_types import KnownUpstream
from cutaway.tokenization.backend import (
    OwnedBackend,
    backend_from_text,
    check_token_id,
    framed,
    guarded,
    load_backend,
    retrained,
)
from cutaway.tokenization.batch_encoding import BatchEncoding, collect
from cutaway.tokenization.chat_template import ChatTemplates
from cutaway.tokenization.decoding import Decoding
from cutaway.tokenization.encoding import TextEncoding
from cutaway.tokenization.inputs import CallOptions, TextInput, text_rows
from cutaway.tokenization.loading import load_as
from cutaway.tokenization.padding import RowPadding, ask, check_side, to_python
from cutaway.tokenization.settings_files import NO_LENGTH, TokenizerSaving, check_settings
from cutaway.tokenization.special_tokens import TOKEN_NAMES, SpecialTokens, token_as

log = logging.getLogger("cutaway")


class PreTrainedTokenizerFast(
    TextEncoding, Decoding, RowPadding, ChatTemplates, TokenizerSaving, SpecialTokens, Publishing, KnownUpstream
):
    """A tokenizer of any family, from a tokenizer.json or a Rust tokenizer.

    Args:
        vocabulary: the vocabulary files of the family, such as vocab.json and merges.txt.
        tokenizer_object: a `tokenizers.Tokenizer`; it is copied, unless it comes as an `OwnedBackend`.
        tokenizer_file: the path of a tokenizer.json.
        name_or_path: where it comes from, for `repr`.
        added_tokens_decoder: id -> token, tokens that are never split.
        settings: special tokens (`pad_token="[PAD]"`), `model_max_length`, `padding_side`, `truncation_side`,
            `model_input_names`, `clean_up_tokenization_spaces`, `chat_template`, and what else a
            tokenizer_config.json holds.

    Raises:
        TokenizerError: the tokenizer is damaged, or a setting cannot be used.
    """

    upstream = (
        "transformers.tokenization_utils_tokenizers:TokenizersBackend",
        "transformers.tokenization_utils_fast:PreTrainedTokenizerFast",
    )
    defaults: ClassVar[Mapping[str, Any]] = {}
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # the same of files that not every such tokenizer has
    more_files: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # whether the vocabulary follows from the class and its settings
    needs_no_files: ClassVar[bool] = False
    SPECIAL_TOKENS_ATTRIBUTES: ClassVar[tuple[str, ...]] = TOKEN_NAMES

    def __init__(
        self,
        *vocabulary: str | Path | None,
        tokenizer_object: Tokenizer | OwnedBackend | None = None,
        tokenizer_file: str | Path | None = None,
        name_or_path: str = "",
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        **settings: Any,
    ) -> None:
        if len(vocabulary) > len(self.vocabulary_files):
            raise TokenizerError(
                f"{type(self).__name__} takes {' and '.join(self.vocabulary_files) or 'no vocabulary files'} by "
                f"position, and got {len(vocabulary)}."
            )
        files = zip(self.vocabulary_files, vocabulary, strict=False)
        settings = {**settings, **{key: path for key, path in files if path is not None}}
        self._said_long = False
        self._lock = threading.Lock()
        self.name_or_path = name_or_path
        self.init_kwargs = dict(settings)
        settings = {**self.defaults, **settings}
        check_settings(settings)
        from_file = tokenizer_object is not None or tokenizer_file is not None
        if isinstance(tokenizer_object, OwnedBackend):
            self._backend = tokenizer_object.backend
        elif tokenizer_object is not None:
            self._backend = backend_from_text(tokenizer_object.to_str())
        elif tokenizer_file is not None:
            self._backend = load_backend(Path(tokenizer_file))
        else:
            self._backend = self._build(settings)
        if from_file:
            self._adapt(settings)
        # Padding and truncation are asked for in each call; what the file has of them only gives defaults.
        padding, truncation = self._backend.padding or {}, self._backend.truncation or {}
        self._backend.no_padding()
        self._backend.no_truncation()
        length = settings.get("model_max_length", settings.get("max_len"))
        self.model_max_length: int = NO_LENGTH if length is None else int(min(length, NO_LENGTH))
        self.padding_side = settings.get("padding_side") or padding.get("direction") or type(self).padding_side
        self.truncation_side = (
            settings.get("truncation_side") or truncation.get("direction") or type(self).truncation_side
        )
        self.model_input_names = list(settings.get("model_input_names") or type(self).model_input_names)
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces"))
        self.split_special_tokens = bool(settings.get("split_special_tokens"))
        self.pad_token_type_id: int = settings.get("pad_token_type_id") or 0
        self.chat_template = settings.get("chat_template")
        if "pad_token" not in settings and padding:
            settings["pad_token"] = padding["pad_token"]
        self._set_special(settings)
        self._adopt(added_tokens_decoder or {})
        for index, token in (added_tokens_decoder or {}).items():
            check_token_id(self._backend, "added_tokens", token.content, index)
        self._add_bos = bool(settings.get("add_bos_token"))
        self._add_eos = bool(settings.get("add_eos_token"))
        with guarded("The special tokens cannot be put around texts"):
            self._frame(from_file and self._backend.post_processor is not None, settings)

    @classmethod
    @also_called(pretrained_model_name_or_path="name")
    def from_pretrained(cls, name: str | Path, **arguments: Any) -> Self:
        """The tokenizer of a checkpoint: a folder, a built-in name, a name on the hub, or a single vocabulary file.

        Args:
            name: the checkpoint.
            arguments: `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder`, `gguf_file`, and settings of
                the tokenizer such as `model_max_length=512`, which go before the checkpoint's.

        Raises:
            HubError: the checkpoint cannot be found.
            TokenizerError: it holds no tokenizer of this class, or a damaged one.
        """
        return cast(Self, load_as(cls, PreTrainedTokenizerFast, name, **arguments))

    # -- what a family changes -----------------------------------------------------------------------------------

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        """The Rust tokenizer from vocabulary files."""
        raise TokenizerError(
            f"{type(self).__name__} needs tokenizer_file= (a tokenizer.json) or tokenizer_object= (a "
            "tokenizers.Tokenizer)."
        )

    def _adapt(self, settings: dict[str, Any]) -> None:
        """Apply settings to a pipeline that came from a tokenizer.json."""

    def _facts(self) -> dict[str, Any]:
        """What tokenizer_config.json says about the pipeline. The class is a family's only where the pipeline is that
        family's own: Transformers builds a family's pipeline from its name, and takes the file's for the general one.
        """
        return {"tokenizer_class": "PreTrainedTokenizerFast"}

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        """Put special tokens around texts; `complete`: the file already says how."""
        if not complete or "add_bos_token" in settings or "add_eos_token" in settings:
            self._frame_with_bos_and_eos()

    def _frame_with_bos_and_eos(self) -> None:
        special = []
        single, pair = "$A:0", "$B:1"
        if self._add_bos and self.bos_token is not None:
            single, pair = f"{self.bos_token}:0 {single}", f"{self.bos_token}:1 {pair}"
            special.append((self.bos_token, self.bos_token_id))
        if self._add_eos and self.eos_token is not None:
            single, pair = f"{single} {self.eos_token}:0", f"{pair} {self.eos_token}:1"
            special.append((self.eos_token, self.eos_token_id))
        self._backend.post_processor = framed(single, f"{single} {pair}", special)

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def add_bos_token(self) -> bool:
        """Whether each text starts with `bos_token`."""
        return self._add_bos

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        self._add_bos = value
        self._frame_with_bos_and_eos()

    @property
    def add_eos_token(self) -> bool:
        """Whether each text ends with `eos_token`."""
        return self._add_eos

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._add_eos = value
        self._frame_with_bos_and_eos()

    @property
    def is_fast(self) -> bool:
        return True

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` that does the work."""
        return self._backend

    @property
    def _tokenizer(self) -> Tokenizer:
        return self._backend  # as the course of upstream calls it

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text (or a pair) gets."""
        return self._backend.num_special_tokens_to_add(pair)

    @property
    def max_len_single_sentence(self) -> int:
        return self.model_max_length - self.num_special_tokens_to_add(False)

    @property
    def max_len_sentences_pair(self) -> int:
        return self.model_max_length - self.num_special_tokens_to_add(True)

    def get_special_tokens_mask(
        self, token_ids_0: object, token_ids_1: object = None, already_has_special_tokens: bool = True
    ) -> list[int]:
        """1 for each special token of a finished row of ids, 0 for the others."""
        if token_ids_1 is not None or not already_has_special_tokens:
            raise TokenizerError(
                "get_special_tokens_mask takes one finished row of ids: already_has_special_tokens=True."
            )
        special = set(self.all_special_ids)
        return [int(index in special) for index in to_python(token_ids_0)]

    def __repr__(self) -> str:
        added = "".join(f"\n\t{index}: {token!r}," for index, token in self.added_tokens_decoder.items())
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map}, "
            f"added_tokens_decoder={{{added + chr(10) if added else ''}}})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # The Rust tokenizer keeps the last call's padding and truncation. Without them the pickled bytes, which data
        # sets take as the key of their cache, stay the same from call to call.
        with self._lock:
            self._backend.no_padding()
            self._backend.no_truncation()
            self._backend.encode_special_tokens = False
            return {**{k: v for k, v in self.__dict__.items() if k != "_lock"}, "_backend": self._backend.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._backend = backend_from_text(state["_backend"])
        self._lock = threading.Lock()

    # -- text to ids ---------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: TextInput = None,
        text_pair: TextInput = None,
        text_target: TextInput = None,
        text_pair_target: TextInput = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        split_special_tokens: bool | None = None,
        verbose: bool = True,
        **unknown: object,
    ) -> BatchEncoding:
        """Turn texts into what a model takes.

        Args:
            text: a text, a list of texts, or with `is_split_into_words` a list of words or of lists of words.
            text_pair: the second text(s) of pairs.
            text_target: text(s) whose ids become "labels".
            text_pair_target: the second text(s) of those.
            add_special_tokens: put the model's special tokens around the text.
            padding: True or "longest", "max_length", or False.
            truncation: True or "longest_first", "only_first", "only_second", or False. `encoding.cut` says how many
                tokens went.
            max_length: the length in tokens for both; the model's own where it is not given.
            stride: how many tokens overflowing rows share.
            is_split_into_words: the text is already a list of words.
            pad_to_multiple_of: pad on to a multiple of this.
            padding_side: "right" or "left" instead of the tokenizer's own.
            return_tensors: "pt" (torch) or "np" (numpy): tensors [rows, length].
            return_overflowing_tokens: what is cut off comes in further rows; "overflow_to_sample_mapping" says whose.
            return_offsets_mapping: "offset_mapping", (start, end) in characters for each token.
            return_special_tokens_mask: "special_tokens_mask", 1 for special tokens.
            return_length: "length", the length of each row.
            split_special_tokens: treat special tokens in the text as plain text.
            verbose: say once, in the log of "cutaway", that a text is longer than the model takes.

        Raises:
            TokenizerError: the text is no text, the arguments contradict each other, or an argument is unknown.
        """
        if unknown:
            self._refuse(unknown)
        if text is None and text_target is None:
            raise TokenizerError("The tokenizer needs text=, or text_target= for labels.")
        check_side("padding_side", padding_side or self.padding_side)
        fit = ask(
            padding,
            truncation,
            max_length,
            model_max_length=self.model_max_length,
            multiple=pad_to_multiple_of,
            stride=stride,
            has_pad_token=padding is False or self.pad_token_id is not None,
        )
        wanted = {
            "token_type_ids": self._wants("token_type_ids", return_token_type_ids),
            "attention_mask": self._wants("attention_mask", return_attention_mask),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
        }

        def run(first: TextInput, second: TextInput) -> BatchEncoding:
            rows = text_rows(first, second, is_split_into_words)
            plain = self.split_special_tokens if split_special_tokens is None else split_special_tokens
            encodings = self._encode_rows(
                rows.inputs, fit, add_special_tokens, is_split_into_words, plain, padding_side or self.padding_side
            )
            if verbose and fit.truncation == "do_not_truncate":
                self._say_if_long(encodings)
            cut = self._cut(rows.inputs, encodings, fit, add_special_tokens, is_split_into_words, plain)
            return collect(encodings, rows.batched, wanted, return_overflowing_tokens, return_tensors, cut)

        if text is None:
            return run(text_target, text_pair_target)
        encoding = run(text, text_pair)
        if text_target is not None:
            encoding["labels"] = run(text_target, text_pair_target)["input_ids"]
        return encoding

    def _say_if_long(self, encodings: Sequence[Any]) -> None:
        limit = self.model_max_length
        if self._said_long or limit >= NO_LENGTH:
            return
        longest = max(map(len, encodings), default=0)
        if longest > limit:
            self._said_long = True
            log.warning("A text has %d tokens, and the model takes %d: it must be cut (truncation=True) or the model "
                        "will fail.", longest, limit)  # fmt: skip

    def _refuse(self, unknown: Mapping[str, Any]) -> None:
        name = next(iter(unknown))
        known = [k for k in PreTrainedTokenizerFast.__call__.__annotations__ if k not in ("unknown", "return")]
        raise TokenizerError(f"The tokenizer does not know the argument {name!r}.{nearest(name, known)}")

    def encode(
        self, text: TextInput, text_pair: TextInput = None, add_special_tokens: bool = True, **call: Unpack[CallOptions]
    ) -> Any:
        """The ids alone: a list, a list of lists for a batch, or a tensor with `return_tensors`."""
        return self(text, text_pair, add_special_tokens=add_special_tokens, **call)["input_ids"]

    def tokenize(
        self, text: TextInput, pair: TextInput = None, add_special_tokens: bool = False, **call: Unpack[CallOptions]
    ) -> list[str]:
        """The tokens of one text, as the vocabulary spells them."""
        return self(text, pair, add_special_tokens=add_special_tokens, **call).tokens()

    # -- learning ------------------------------------------------------------------------------------------------

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str] | Iterable[Iterable[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: list[Any] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **kwargs: object,
    ) -> Self:
        """A tokenizer of the same pipeline and settings whose vocabulary is learned from texts.

        Args:
            text_iterator: texts, or lists of them.
            vocab_size: of the new vocabulary, special tokens included.
            length: how many there are, for the progress bar.
            new_special_tokens: special tokens beside those of this tokenizer.
            special_tokens_map: special tokens that are called otherwise from now on, old name -> new.
            kwargs: for the trainer of the `tokenizers` library, such as min_frequency=2.
        """
        renamed = dict(special_tokens_map or {})
        fresh = list(new_special_tokens or ())
        made = retrained(self._backend, text_iterator, vocab_size, length, fresh, renamed, **kwargs)
        settings = {
            k: v
            for k, v in self.init_kwargs.items()
            if k not in ("vocab", "merges", *self.vocabulary_files, *self.more_files)
        }
        for name, token in self._named.items():
            if token is not None:
                settings[name] = token_as(token, renamed.get(str(token), str(token)))
        extra = [*(renamed.get(t, t) for t in self.extra_special_tokens), *map(str, fresh)]
        settings |= {"extra_special_tokens": list(dict.fromkeys(extra))} if extra else {}
        settings.pop("additional_special_tokens", None)
        return type(self)(tokenizer_object=made, chat_template=self.chat_template, **{
            k: v for k, v in settings.items() if k not in ("chat_template", "add_bos_token", "add_eos_token")
        })  # fmt: skip


# Every tokenizer here is a fast one, so upstream's bases are one class.
PreTrainedTokenizer = PreTrainedTokenizerBase = TokenizersBackend = PreTrainedTokenizerFast
