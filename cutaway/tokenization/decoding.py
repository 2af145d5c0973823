"""Ids and tokens back to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import guarded
from cutaway.tokenization.padding import to_python
from cutaway.tokenization.special_tokens import SpecialTokens

# English punctuation and contractions, as BERT's own tools join them.
_CLEAN = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


class Decoding(SpecialTokens):
    """The part of a tokenizer that turns ids and tokens into text, and into each other."""

    clean_up_tokenization_spaces: bool

    def decode(
        self,
        token_ids: object,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of an id, a row of ids, or (as a list of texts) of several rows; tensors too.

        Args:
            token_ids: int, list, tensor of up to two dimensions, or an encoding.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: remove the spaces before punctuation that WordPiece puts there.
        """
        if isinstance(token_ids, Mapping):
            if "input_ids" not in token_ids:
                raise TokenizerError(f"An encoding to decode has input_ids; this one has {list(token_ids)!r:.80}.")
            token_ids = token_ids["input_ids"]
        ids = to_python(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self._decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        return self._decode([ids] if isinstance(ids, int) else ids, skip_special_tokens, clean_up_tokenization_spaces)

    def batch_decode(
        self,
        sequences: object,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The texts of several rows of ids; always a list."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts

    def _decode(self, ids: Any, skip: bool, clean: bool | None) -> str:
        try:
            with guarded("The ids cannot be decoded"):
                text = self._backend.decode(ids, skip_special_tokens=skip)
        except TokenizerError as error:
            raise TokenizerError(f"{error} Ids are whole numbers from 0 to {len(self) - 1}; got {ids!r:.80}.") from None
        clean = self.clean_up_tokenization_spaces if clean is None else clean
        # In a BPE vocabulary the spaces before punctuation are the text's own, so Transformers never removes them.
        if clean and type(self._backend.model).__name__ != "BPE":
            for before, after in _CLEAN:
                text = text.replace(before, after)
        return text

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of a row of ids; tensors too. None for an id that does not exist."""
        ids = to_python(ids)
        with guarded("The ids cannot be converted"):
            if isinstance(ids, int):
                return self._backend.id_to_token(ids)
            skipped = set(self.all_special_ids) if skip_special_tokens else set()
            return [self._backend.id_to_token(int(index)) for index in ids if index not in skipped]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of tokens; the unknown token's for those the vocabulary lacks."""
        if isinstance(tokens, str):
            return self._token_id(tokens)
        return [self._token_id(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that tokens spell."""
        decoder = self._backend.decoder
        with guarded("The tokens cannot be decoded"):
            return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))
