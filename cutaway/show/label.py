"""Text as it may be shown: every character visible, none of them a command.

Tokens and texts come from users and models. A terminal, a picture and a page show them through `printable`, which
leaves letters of every script alone and spells out what would act instead of show: control characters, escapes,
bidirectional overrides, lone surrogates.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike

SPACE = "·"


def printable(text: str) -> str:
    """`text` with line breaks as ⏎, tabs as ⇥, NUL as ␀, and every other invisible control character as <U+202E>."""
    return "".join(_visible(character) for character in text)


def visible_lines(text: str) -> str:
    """`printable`, but line breaks and tabs still act: for text that is printed as it is written."""
    return "".join(character if character in "\n\t" else _visible(character) for character in text)


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    if character == "\t":
        return "⇥"
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ␀ ␁ ...
    # Cc control, Cf format (bidi overrides, zero width), Cs surrogate, Co private, Cn unassigned, Zl and Zp separators
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"<U+{code:04X}>"
    return character


def token_label(tokenizer: TokenizerLike, token: str, id: int, special: bool) -> str:
    """What a reader should see for one token: WordPiece as it is, byte-level and sentencepiece tokens as their text.

    A space that belongs to the token is shown as `·`. A token that holds only a part of a character keeps the name it
    has in the vocabulary.
    """
    if special:
        return printable(token)
    text = tokenizer.decode([id], skip_special_tokens=False)
    if token[:1] in ("Ġ", "▁"):  # the marks for "a space comes first" of byte-level BPE and of sentencepiece
        text = " " + text.lstrip(" ")
    if not text or "\ufffd" in text:
        return printable(token) or "∅"
    return printable(text).replace(" ", SPACE)


def numbered_masks(labels: Sequence[str], ids: Sequence[int], mask: int | None) -> list[str]:
    """The labels of a text's tokens, where the text has several mask tokens with a number after each of them.

    Masks are places to be filled: a report that speaks of one must say which. Other tokens that are equal stay so.
    """
    if mask is None or list(ids).count(mask) < 2:
        return list(labels)
    number = count(1)
    return [f"{label} {next(number)}" if id == mask else label for label, id in zip(labels, ids, strict=True)]


def clipped(text: str, width: int) -> str:
    """`text`, or its beginning with … where it is longer than `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"
