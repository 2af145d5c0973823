"""The tokenizer of ByT5 (Xue et al., 2022): each byte of a text in UTF-8 is a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tokenizers import AddedToken, Encoding, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from cutaway.hub.folder_save import folder_save
from cutaway.tokenization.backend import framed
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.padding import Fit
from cutaway.tokenization.settings_files import TOKENIZER_FILE

if TYPE_CHECKING:
    from cutaway.tokenization.inputs import CallOptions, TextInput

__all__ = ["ByT5Tokenizer"]

_SPECIAL = ("pad_token", "eos_token", "unk_token")
BYTES = 256


def _printable() -> dict[int, str]:
    """{byte: the character that stands for it inside the `tokenizers` library} (Radford et al., 2019)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(BYTES) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(BYTES + i) for i, byte in enumerate(hidden)}


_CHARACTERS = _printable()
_BYTE_OF = {character: byte for byte, character in _CHARACTERS.items()}


class ByT5Tokenizer(PreTrainedTokenizerFast):
    """The bytes of a text, and `</s>` at its end. Setting: `extra_ids`, the number of `<extra_id_0>` ... tokens.

    It needs no files. A token is the character with the byte's number (`chr(byte)`), as it is published.
    """

    needs_no_files: ClassVar[bool] = True
    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    defaults: ClassVar[Mapping[str, Any]] = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 125,
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        special = [str(settings[name]) for name in _SPECIAL]
        tokens = [*special, *(_CHARACTERS[byte] for byte in range(BYTES))]
        backend = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(token, lstrip=True, rstrip=True, normalized=False) for token in special])
        if not settings.get("extra_special_tokens") and not settings.get("additional_special_tokens"):
            settings["extra_special_tokens"] = [f"<extra_id_{i}>" for i in range(settings.get("extra_ids") or 0)]
        return backend

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        end = str(self.eos_token)
        self._backend.post_processor = framed(f"$A {end}", f"$A {end} $B {end}", [(end, self.eos_token_id)])

    def _encode_rows(
        self, inputs: list[Any], fit: Fit, special: bool, words: bool, plain: bool, side: str
    ) -> list[Encoding]:
        if special and not plain:  # a text that has its end gets no other one, as upstream
            inputs = [self._without_end(row) for row in inputs]
        return super()._encode_rows(inputs, fit, special, words, plain, side)

    def _without_end(self, row: object) -> object:
        """A text, a list of words, or a pair of either, without an end token that stands last."""
        if isinstance(row, tuple):
            return tuple(self._without_end(part) for part in row)
        if isinstance(row, list):
            return [*row[:-1], self._without_end(row[-1])] if row else row
        text = row.rstrip() if isinstance(row, str) else ""
        end = str(self.eos_token)
        return text.removesuffix(end).rstrip() if text.endswith(end) else row

    def _facts(self) -> dict[str, Any]:
        return {"tokenizer_class": "ByT5Tokenizer"}

    def _bytes_of(self, token: str) -> bytes:
        """What a token of the `tokenizers` library spells: a byte, or the name of a special token."""
        return bytes([_BYTE_OF[token]]) if token in _BYTE_OF else token.encode()

    def _decode(self, ids: Iterable[int], skip: bool, clean: bool | None) -> str:
        skipped = set(self.all_special_ids) if skip else set()
        tokens = (self._backend.id_to_token(int(index)) for index in ids if index not in skipped)
        # a byte that is no part of a character is left out, as upstream does
        return b"".join(self._bytes_of(token) for token in tokens if token is not None).decode(errors="ignore")

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """As every tokenizer's; a byte is the character with its number."""
        found = super().convert_ids_to_tokens(ids, skip_special_tokens)
        return _shown(found) if isinstance(found, str) or found is None else [_shown(token) for token in found]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int] | None:
        """As every tokenizer's; a byte is the character with its number."""
        bytes_or_names = _held(tokens) if isinstance(tokens, str) else [_held(token) for token in tokens]
        ids: int | list[int] | None = super().convert_tokens_to_ids(bytes_or_names)
        return ids

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that tokens spell."""
        return b"".join(self._bytes_of(_held(token)) for token in tokens).decode(errors="ignore")

    def tokenize(
        self, text: TextInput, pair: TextInput = None, add_special_tokens: bool = False, **call: Unpack[CallOptions]
    ) -> list[str]:
        """As every tokenizer's; a byte is the character with its number."""
        return self.convert_ids_to_tokens(self(text, pair, add_special_tokens=add_special_tokens, **call)["input_ids"])  # type: ignore[no-any-return]

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write the settings, which are all that there is."""
        with folder_save(save_directory) as save:
            written = super().save_pretrained(save_directory)
            (save.aside / TOKENIZER_FILE).unlink()
            save.remove(TOKENIZER_FILE)
        return written[1:]


def _shown(token: str | None) -> str | None:
    """A token of the `tokenizers` library as it is published."""
    return chr(_BYTE_OF[token]) if token in _BYTE_OF else token


def _held(token: str) -> str:
    """A published token as the `tokenizers` library has it."""
    return _CHARACTERS[ord(token)] if len(token) == 1 and ord(token) < BYTES else token
