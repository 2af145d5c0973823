"""Reading a sentencepiece `.model` file, which is one protocol buffer message, without the sentencepiece package.

The fields and their numbers are those of sentencepiece_model.proto in google/sentencepiece; the wire format is that of
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import MOST_LINES, read_bytes

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# What merges are made from. The largest published vocabulary (256,000 pieces) has 1.7 million characters and 0.6
# million merges; pieces are 16 characters long unless the trainer was told otherwise.
LONGEST_PIECE = 512
MOST_LETTERS = 4_000_000
MOST_MERGES = 1_000_000


@dataclass
class SentencePieceModel:
    """The parts of a sentencepiece model that a tokenizer needs.

    Attributes:
        pieces: (piece, score), in the order of their ids.
        kinds: one of NORMAL ... BYTE for each piece.
        algorithm: 1 unigram, 2 byte pairs, 3 word, 4 character.
        unk_id: the id of the unknown piece.
        charsmap: the compiled normalization rules, empty where there are none.
    """

    pieces: list[tuple[str, float]] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    algorithm: int = 1
    unk_id: int = 0
    charsmap: bytes = b""

    @property
    def added(self) -> list[tuple[str, bool]]:
        """The pieces that are matched whole, and whether each is a control piece (and so special)."""
        return [
            (piece, kind == CONTROL)
            for (piece, _), kind in zip(self.pieces, self.kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]


def added_token(piece: str, special: bool) -> AddedToken:
    """A piece that is matched whole, as it is written."""
    return AddedToken(piece, normalized=False, special=special)


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a `.model` file.

    Raises:
        TokenizerError: the file is no sentencepiece model, or is cut off.
    """
    content = read_bytes(path)
    model = SentencePieceModel()
    try:
        for number, value in _fields(content):
            if number == 1 and isinstance(value, bytes):
                _add_piece(model, value)
            elif number == 2 and isinstance(value, bytes):
                trainer = dict(_fields(value))
                model.algorithm = _integer(trainer.get(3), 1)
                model.unk_id = _integer(trainer.get(40), 0)
            elif number == 3 and isinstance(value, bytes):
                rules = dict(_fields(value)).get(2, b"")
                model.charsmap = rules if isinstance(rules, bytes) else b""
            if len(model.pieces) > MOST_LINES:
                raise ValueError(f"more than {MOST_LINES:,} pieces")
    except (ValueError, IndexError, struct.error) as error:
        raise TokenizerError(f"{path.name} is not a sentencepiece model, or it is cut off: {error}.") from None
    if not model.pieces:
        raise TokenizerError(f"{path.name} is not a sentencepiece model: it holds no pieces.")
    if not 0 <= model.unk_id < len(model.pieces):
        raise TokenizerError(f"{path.name}: unk_id is {model.unk_id}, but there are {len(model.pieces)} pieces.")
    return model


def merges_from(vocab: dict[str, int], scores: dict[str, float] | None = None) -> list[tuple[str, str]]:
    """The merges that a vocabulary of byte pairs implies: every cut of a piece into two known pieces.

    They are tried in the order of the pieces' ids, or by falling score where scores are given; ties go by the lengths
    of the two parts (rising with ids, falling with scores), which is the order Transformers gives them.

    Raises:
        TokenizerError: a piece, all of them together, or their merges are larger than any vocabulary's.
    """
    longest = max(vocab, key=len, default="")
    letters = sum(map(len, vocab))
    if len(longest) > LONGEST_PIECE or letters > MOST_LETTERS:
        what = f"the piece {longest[:20]!r}... has {len(longest):,} characters; at most {LONGEST_PIECE:,}"
        if len(longest) <= LONGEST_PIECE:
            what = f"the vocabulary has {letters:,} characters; at most {MOST_LETTERS:,}"
        raise _too_large(what)
    merges: list[tuple[float, int, str]] = []
    for piece, index in vocab.items():
        rank = scores[piece] if scores is not None else index
        merges += [(rank, cut, piece) for cut in range(1, len(piece)) if piece[:cut] in vocab and piece[cut:] in vocab]
        if len(merges) > MOST_MERGES:
            raise _too_large(f"there are more than {MOST_MERGES:,} of them; at most that many")
    merges.sort(key=lambda merge: (merge[0], merge[1], len(merge[2]) - merge[1]), reverse=scores is not None)
    return [(piece[:cut], piece[cut:]) for _, cut, piece in merges]


def _too_large(what: str) -> TokenizerError:
    return TokenizerError(
        f"The merges of this vocabulary cannot be found: {what} can be used. Load the tokenizer from its "
        "tokenizer.json."
    )


def _add_piece(model: SentencePieceModel, message: bytes) -> None:
    piece, score, kind = "", 0.0, NORMAL
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            piece = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3:
            kind = _integer(value, NORMAL)
    model.pieces.append((piece, score))
    model.kinds.append(kind)


def _integer(value: int | bytes | None, default: int) -> int:
    return value if isinstance(value, int) else default


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of each field: an int for a varint, the raw bytes for everything else."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field {number} has the unknown wire type {kind}")
        if at + size > end:
            raise ValueError(f"field {number} goes on beyond the end of the file")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in base 128, low digits first, and where the next thing starts."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
