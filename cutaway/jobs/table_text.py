"""The letters of a table: which encoding its bytes are in, and its lines, each read as it was written."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, Self

from cutaway.errors import InputError

# The marks that a file may begin with; UTF-32's little-endian one begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KEPT = re.compile("[\udc80-\udcff]")  # how Python keeps a byte that it cannot decode


def _beginning(stream: IO[bytes]) -> bytes:
    """The first bytes, only as many as can still be a mark: more might have to be typed first."""
    first = b""
    while any(mark.startswith(first) and mark != first for mark, _ in _MARKS):
        piece = stream.read(1)
        if not piece:
            break
        first += piece
    return first


class TableText:
    """Lines of text from the bytes of `stream`, with their ends.

    Args:
        encoding: a name that Python knows (`latin-1`, `cp1252`, `utf-16`), with ":replace" behind it to read what is
            not in it as U+FFFD. Unless given, a mark at the beginning says it, and UTF-8 is read where there is none.
        where: what is read, for messages.
        newline: as of `open`. way: what an error says there is to do; --encoding unless given.

    Attributes:
        rows: the rows that the caller has taken so far, by which an error names the next; -1 before a header.

    Raises InputError: an encoding that there is not, or that the mark contradicts.
    """

    def __init__(self, stream: IO[bytes], encoding: str | None, where: str, newline: str | None, way: str = "") -> None:
        self.where, self.rows, self._way = where, 0, way
        try:
            first = _beginning(stream)
            marked = next((name for mark, name in _MARKS if first.startswith(mark)), None)
            self.encoding, self.replaces = _chosen(encoding, marked, where)
        except BaseException:
            stream.close()
            raise
        # what is held back is the whole character where one is cut, so the codec decides; kept bytes are found below
        errors = "replace" if self.replaces else "surrogateescape"
        raw: Any = _Joined(first, stream)
        whole = io.BufferedReader(raw)
        self._text = io.TextIOWrapper(whole, encoding=self.encoding, errors=errors, newline=newline)

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                line = self._text.readline()
            except UnicodeError as error:  # UTF-16 or UTF-32 that is cut, or is none
                raise self._wrong(str(error)) from None
            if not line:
                return
            if not line.isascii() and not self.replaces and (found := _KEPT.search(line)):
                byte = ord(found[0]) - 0xDC00
                guess = bytes([byte]).decode("cp1252", "replace")
                raise self._wrong(
                    f"the byte 0x{byte:02x} after {line[max(0, found.start() - 20) : found.start()]!r}", guess
                )
            yield line

    def close(self) -> None:
        """Close the stream."""
        self._text.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _wrong(self, what: str, guess: str = "") -> InputError:
        name = "UTF-8" if self.encoding.startswith("utf-8") else self.encoding
        known = guess and guess.isprintable() and guess != "\ufffd"
        like = f" (in cp1252, as Windows and Excel write it: {guess!r})" if known else ""
        row = f"row {self.rows + 1:,}" if self.rows >= 0 else "the header"
        way = self._way or (
            "Say what it is written in, for example with --encoding cp1252, or with --encoding "
            f"{self.encoding.removesuffix('-sig')}:replace read such bytes as U+FFFD."
        )
        return InputError(f"{self.where}, {row}: {what} is not {name}{like}. {way}")


def _chosen(encoding: str | None, marked: str | None, where: str) -> tuple[str, bool]:
    """(the codec, whether what is not in it is replaced)."""
    name, _, errors = (encoding or marked or "utf-8").partition(":")
    try:
        found = codecs.lookup(name)
        b"".decode(name)  # codecs from bytes to bytes (hex, zip) have names too
    except (LookupError, UnicodeError, ValueError):
        raise InputError(
            f"--encoding {name[:40]}: there is no such encoding; for example utf-8, utf-16, latin-1, cp1252, shift_jis."
        ) from None
    if errors not in ("", "strict", "replace"):
        raise InputError(f"--encoding {encoding}: after the colon stands replace, or nothing.")
    if marked is not None and encoding is not None:
        kind = marked.removesuffix("-sig")
        if not found.name.startswith(kind):
            raise InputError(f"{where} begins with the mark of {kind.upper()}, not of {name}; leave out --encoding.")
        return marked, errors == "replace"
    return found.name, errors == "replace"


class _Joined(io.RawIOBase):
    """Bytes that were already read, and then the rest of their stream."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # whatever can be written into
        content, self._first = (self._first or self._rest.read1(len(buffer))), b""  # type: ignore[attr-defined]
        n = min(len(content), len(buffer))
        buffer[:n] = content[:n]
        self._first = content[n:]
        return n

    def close(self) -> None:
        self._rest.close()
        super().close()
