"""The tokens with a name (`pad_token`, `eos_token`, ...), the extra ones, and the vocabulary they live in."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from tokenizers import AddedToken, Tokenizer

from cutaway.errors import TokenizerError, nearest
from cutaway.tokenization.backend import MOST_IDS, check_text, guarded

# RoBERTa's, which the multilingual models took over
ROBERTA_TOKENS: Mapping[str, Any] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_log = logging.getLogger("cutaway")


class NamedToken:
    """The attribute `pad_token` and its like: a string, or None. Setting it changes only which token has the name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type) -> NamedToken: ...
    @overload
    def __get__(self, obj: SpecialTokens, owner: type) -> str | None: ...
    def __get__(self, obj: SpecialTokens | None, owner: type) -> NamedToken | str | None:
        if obj is None:
            return self
        token = obj._named.get(self.name)
        return None if token is None else str(token)

    def __set__(self, obj: SpecialTokens, value: str | AddedToken | None) -> None:
        if value is not None and not isinstance(value, (str, AddedToken)):
            raise TokenizerError(f"{self.name} must be a string or None, not {value!r}; set {self.name}_id to an id.")
        check_text(self.name, value)
        obj._named[self.name] = value


class NamedTokenId:
    """The attribute `pad_token_id` and its like: the id of the named token, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    @overload
    def __get__(self, obj: None, owner: type) -> NamedTokenId: ...
    @overload
    def __get__(self, obj: SpecialTokens, owner: type) -> int | None: ...
    def __get__(self, obj: SpecialTokens | None, owner: type) -> NamedTokenId | int | None:
        if obj is None:
            return self
        token = obj._named.get(self.name)
        return None if token is None else obj._token_id(str(token))

    def __set__(self, obj: SpecialTokens, value: int | None) -> None:
        known = value is not None and 0 <= int(value) < MOST_IDS
        token = obj._backend.id_to_token(int(value)) if known and value is not None else None
        if value is not None and token is None:
            raise TokenizerError(f"{self.name}_id={value}: the vocabulary ends at {len(obj) - 1}.")
        obj._named[self.name] = token


class SpecialTokens:
    """Named and extra special tokens on top of a Rust tokenizer, and the vocabulary as a whole."""

    _backend: Tokenizer
    _named: dict[str, str | AddedToken | None]
    _extra: list[str | AddedToken]

    bos_token = NamedToken()
    eos_token = NamedToken()
    unk_token = NamedToken()
    sep_token = NamedToken()
    pad_token = NamedToken()
    cls_token = NamedToken()
    mask_token = NamedToken()
    bos_token_id = NamedTokenId()
    eos_token_id = NamedTokenId()
    unk_token_id = NamedTokenId()
    sep_token_id = NamedTokenId()
    pad_token_id = NamedTokenId()
    cls_token_id = NamedTokenId()
    mask_token_id = NamedTokenId()

    def _set_special(self, settings: Mapping[str, Any]) -> None:
        """Take the named and extra tokens from `settings`, and mark each as special in the Rust tokenizer."""
        self._named = dict.fromkeys(TOKEN_NAMES)
        for name in [*TOKEN_NAMES, *(n for n in settings if n.endswith("_token") and n not in TOKEN_NAMES)]:
            value = settings.get(name)
            if value is not None and not isinstance(value, (str, AddedToken)):
                if name in TOKEN_NAMES:
                    raise TokenizerError(f"{name} is {value!r}; a special token is a string.")
                continue  # a setting that only looks like a token, such as add_bos_token
            if value is not None:
                check_text(name, value)
                self._named[name] = value
        extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
        if isinstance(extra, Mapping):  # names of its own, such as image_token
            if not all(isinstance(token, (str, AddedToken)) for token in extra.values()):
                raise TokenizerError("extra_special_tokens: each name must stand for a string.")
            self._named.update({str(k): v for k, v in extra.items()})
            extra = []
        if not isinstance(extra, (list, tuple)) or not all(isinstance(t, (str, AddedToken)) for t in extra):
            raise TokenizerError("extra_special_tokens (additional_special_tokens) must be a list of strings.")
        for token in [*extra, *self._named.values()]:
            check_text("A special token", token)
        self._extra = list(extra)

    def _token_id(self, token: str) -> int | None:
        check_text("A token", token)
        found = self._backend.token_to_id(token)
        if found is not None:
            return found
        unk = self._named.get("unk_token")
        return None if unk is None else self._backend.token_to_id(str(unk))

    def _adopt(self, declared: Mapping[int, AddedToken]) -> None:
        """Add the tokens that the files declare, by rising id, then those special tokens that are still unmarked."""
        known = {token.content for token in self._backend.get_added_tokens_decoder().values()}
        wanted = [token for _, token in sorted(declared.items()) if token.content not in known]
        known.update(token.content for token in wanted)
        named = [token for token in self._named.values() if token is not None]
        for token in [*named, *self._extra]:
            if str(token) not in known:
                known.add(str(token))
                wanted.append(token if isinstance(token, AddedToken) else AddedToken(token, special=True))
        names = {str(token) for token in named}
        for token in wanted:
            if token.content in names:
                token.special = True
        if wanted:
            with guarded("The added tokens cannot be used"):
                self._backend.add_tokens(wanted)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The named special tokens that are set."""
        return {name: str(token) for name, token in self._named.items() if token is not None}

    @property
    def extra_special_tokens(self) -> list[str]:
        """Special tokens without a name of their own."""
        return [str(token) for token in self._extra]

    @extra_special_tokens.setter
    def extra_special_tokens(self, tokens: Sequence[str | AddedToken] | None) -> None:
        self._extra = list(tokens or [])

    @property
    def additional_special_tokens(self) -> list[str]:
        return self.extra_special_tokens

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[str | AddedToken] | None) -> None:
        self._extra = list(tokens or [])

    @property
    def additional_special_tokens_ids(self) -> list[int | None]:
        return [self._token_id(token) for token in self.extra_special_tokens]

    @property
    def all_special_tokens(self) -> list[str]:
        """Named, then extra special tokens, each once."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int | None]:
        return [self._token_id(token) for token in self.all_special_tokens]

    @property
    def vocab_size(self) -> int:
        """The size of the model's own vocabulary, without added tokens; `len(tokenizer)` counts those too."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """token -> id, added tokens included."""
        return self._backend.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """id -> added token, by rising id."""
        return dict(sorted(self._backend.get_added_tokens_decoder().items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """The added tokens, token -> id."""
        return self.added_tokens_encoder

    # -- adding --------------------------------------------------------------------------------------------------

    def add_tokens(
        self, new_tokens: str | AddedToken | Iterable[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens that are never split. Resize the model's embeddings to `len(tokenizer)` afterwards.

        Returns:
            How many of them are new.
        """
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens or [])
        if not tokens:
            return 0
        with guarded("The tokens cannot be added"):
            return (self._backend.add_special_tokens if special_tokens else self._backend.add_tokens)(tokens)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Give tokens a name (`{"pad_token": "[PAD]"}`), adding those that the vocabulary lacks.

        Args:
            special_tokens_dict: name -> token; "additional_special_tokens" -> a list of tokens.
            replace_extra_special_tokens: whether that list replaces the one there is, or extends it.

        Returns:
            How many tokens are new.
        """
        new: list[str | AddedToken] = []
        for name, value in special_tokens_dict.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                if not isinstance(value, (list, tuple)) or not all(isinstance(t, (str, AddedToken)) for t in value):
                    raise TokenizerError(f"{name} must be a list of tokens, not {value!r}.")
                old = [] if replace_extra_special_tokens else self.extra_special_tokens
                tokens = [_special(token) for token in value if str(token) not in old]
                kept = [] if replace_extra_special_tokens and tokens else self._extra
                self._extra = [*kept, *tokens]
                new.extend(tokens)
            elif name in self._named:
                if not isinstance(value, (str, AddedToken)):
                    raise TokenizerError(f"{name} must be a token, not {value!r}.")
                token = _special(value)
                self._named[name] = token
                new.append(token)
            else:
                known_names = [*self._named, "additional_special_tokens"]
                raise TokenizerError(f"{name!r} is not the name of a special token.{nearest(name, known_names)}")
        return self.add_tokens(new, special_tokens=True)


def token_as(token: str | AddedToken, content: str) -> str | AddedToken:
    """The token under another spelling, with all else the same."""
    if not isinstance(token, AddedToken):
        return content
    same = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized")}
    return AddedToken(content, special=True, **same)


def _special(token: str | AddedToken) -> AddedToken:
    check_text("A special token", token)
    return token if isinstance(token, AddedToken) else AddedToken(token, normalized=False, special=True)
