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


def nearest(value: str, known: Iterable[str], most: int = 3) -> str:
    """A clause that lists the known names nearest to `value`, or all of them where they are few."""
    names = sorted(set(known))
    close = difflib.get_close_matches(value, names, n=most, cutoff=0.5) or (names if len(names) <= 12 else [])
    return f" Did you mean {', '.join(repr(n) for n in close)}?" if close else ""
