"""Every error that cutaway raises on purpose.

Each message names the field, the value it had, and what to do next. The classes also inherit the built-in exception
that Transformers users already catch in the same place, so `except OSError` or `except ValueError` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CutawayError(Exception):
    """Base of all errors that cutaway raises on purpose."""

    def __str__(self) -> str:  # KeyError would otherwise show the repr of its message
        return " ".join(str(a) for a in self.args)


class HubError(CutawayError, OSError):
    """A name could not be turned into local files."""


class CheckpointError(CutawayError, ValueError, RuntimeError):
    """A file of weights is damaged, unsafe, or does not fit the model."""


class ConfigError(CutawayError, ValueError):
    """A field of a configuration has a value that cutaway cannot build."""


class TokenizerError(CutawayError, ValueError):
    """A tokenizer file or a tokenizer call cannot be used."""


class InputError(CutawayError, ValueError):
    """An input to a model or pipeline has the wrong shape, size or value."""


class ArgumentError(InputError, TypeError):
    """A model was called with an argument that it does not take."""


class OutputError(CutawayError, OSError):
    """An output cannot be written: another process is at work on it, or the disk is full."""


class GenerationError(CutawayError, ValueError):
    """Generation settings contradict each other or the model."""


class UnfinishedError(GenerationError):
    """An answer was cut before it had the form that was asked for.

    rows: the sequences that were cut. sequences: the ids of all of them, cut ones included.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = (), sequences: object = None) -> None:
        super().__init__(message)
        self.rows, self.sequences = rows, sequences


class AddressError(CutawayError, KeyError):
    """An activation address does not exist in this model."""


class MissingOutputError(CutawayError, AttributeError, KeyError):
    """A field of an output was not computed."""


class MissingExtraError(CutawayError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


def counted(n: int, what: str, plural: str = "") -> str:
    """A number with its noun: "1 row", "1,200 rows"; plural: where it is not made with an s."""
    return f"{n:,} {what if n == 1 else plural or what + 's'}"


def nearest(value: str, known: Iterable[str], most: int = 3, *, few: int = 12) -> str:
    """A clause that asks for the known names like `value` (in any case), or lists all of up to `few` where none is."""
    names = sorted(set(known))
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(name.casefold(), []).append(name)
    close = difflib.get_close_matches(value.strip().casefold(), by_case, n=most, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(repr(name) for key in close for name in by_case[key])}?"
    return f" There is {', '.join(map(repr, names))}." if 0 < len(names) <= few else ""
