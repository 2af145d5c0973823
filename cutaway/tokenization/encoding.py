"""Rows of text through the Rust library: set to fit, encoded, and counted."""

from __future__ import annotations

import threading
from typing import Any

from tokenizers import Encoding

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import guarded
from cutaway.tokenization.inputs import why_no_text
from cutaway.tokenization.padding import Fit
from cutaway.tokenization.special_tokens import SpecialTokens


class TextEncoding(SpecialTokens):
    """The part of a tokenizer that runs the Rust library on texts."""

    truncation_side: str = "right"
    pad_token_type_id: int
    _lock: threading.Lock

    def _encode_rows(
        self, inputs: list[Any], fit: Fit, special: bool, words: bool, plain: bool, side: str
    ) -> list[Encoding]:
        backend = self._backend
        if fit.truncation != "do_not_truncate":
            pairs = any(isinstance(row, tuple) for row in inputs)
            frame = backend.num_special_tokens_to_add(pairs) if special else 0
            self._check_room(fit, frame)
        # The Rust tokenizer holds padding and truncation as its own state, so two threads must not mix theirs.
        with self._lock, guarded("The text cannot be tokenized"):
            if fit.truncation == "do_not_truncate":
                backend.no_truncation()
            else:
                backend.enable_truncation(
                    max_length=fit.max_length or 0,
                    stride=fit.stride,
                    strategy=fit.truncation,
                    direction=self.truncation_side,
                )
            if fit.padding == "do_not_pad":
                backend.no_padding()
            else:
                backend.enable_padding(
                    length=fit.max_length if fit.padding == "max_length" else None,
                    direction=side,
                    pad_id=self.pad_token_id,
                    pad_token=self.pad_token,
                    pad_type_id=self.pad_token_type_id,
                    pad_to_multiple_of=fit.multiple,
                )
            if backend.encode_special_tokens != plain:
                backend.encode_special_tokens = plain
            try:
                if len(inputs) == 1 and isinstance(inputs[0], str):  # a batch would wake another thread for it
                    return [backend.encode(inputs[0], is_pretokenized=words, add_special_tokens=special)]
                return backend.encode_batch(inputs, is_pretokenized=words, add_special_tokens=special)
            except TypeError:
                raise TokenizerError(why_no_text(inputs, words)) from None

    def _check_room(self, fit: Fit, frame: int) -> None:
        length = fit.max_length or 0
        if length < frame:
            raise TokenizerError(
                f"max_length={length} has no room for the {frame} special tokens; use at least {frame + 1}, or "
                "add_special_tokens=False."
            )
        if fit.stride and fit.stride >= length - frame:
            raise TokenizerError(
                f"stride={fit.stride} must be smaller than the {length - frame} tokens of text that fit into "
                f"max_length={length} beside {frame} special tokens."
            )

    def _cut(
        self, inputs: list[Any], encodings: list[Encoding], fit: Fit, special: bool, words: bool, plain: bool
    ) -> list[int]:
        """How many tokens each text lost."""
        cut = [0] * len(encodings)
        if fit.truncation == "do_not_truncate":
            return cut
        pairs = []
        for i, encoding in enumerate(encodings):
            parts = encoding.overflowing
            if parts and isinstance(inputs[i], tuple):
                pairs.append(i)
            elif parts:
                # The text is cut into windows; the last one holds the rest.
                frame = self._backend.num_special_tokens_to_add(False) if special else 0
                window, rest = (fit.max_length or 0) - frame, sum(parts[-1].attention_mask) - frame
                cut[i] = len(parts) * (window - fit.stride) + rest - window if window else rest
        if pairs:  # the windows of two texts are combined with each other, so they cannot be counted
            uncut = self._encode_rows(
                [inputs[i] for i in pairs], Fit("do_not_pad", "do_not_truncate"), special, words, plain, "right"
            )
            for i, full in zip(pairs, uncut, strict=True):
                cut[i] = len(full) - sum(encodings[i].attention_mask)
        return cut
