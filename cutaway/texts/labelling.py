"""Labelling texts by hand: a journal that loses nothing, a model's proposals, and what to ask next.

Each answer is a line of JSON at the end of `NAME.labels.jsonl`, on the disk before the page is told so. A line says of
which text it is by the text's digest, so rows may move; the last line about a text counts.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cutaway.errors import InputError, OutputError, nearest
from cutaway.jsonfile import require_folder, sync_folder
from cutaway.locks.output_lock import OutputLock
from cutaway.texts.table import TextTable

ENDING = ".labels.jsonl"
LABELS = 100  # more than fit a page
LONGEST_LABEL = 200  # characters
AT_ONCE = 32  # texts that are scored together


@dataclass(frozen=True)
class Proposal:
    """What a model says of a text: its label, and the probability of each."""

    label: str
    scores: Mapping[str, float]

    @property
    def margin(self) -> float:
        """The probability of the first label less that of the second: small where the model is unsure."""
        best = sorted(self.scores.values(), reverse=True)
        return best[0] - best[1] if len(best) > 1 else best[0]


class Journal:
    """Answers by text, the newest first to count. A context manager: one process at a time writes it.

    Raises:
        InputError: the file holds something else.
        OutputError: another process labels there; the disk is full (what was there stays).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, str | None] = {}
        require_folder(path)
        self._lock = OutputLock(path).acquire()
        try:
            self._file = path.open("a+b")
            sync_folder(path.absolute().parent)
            self._read()
        except BaseException:
            self._lock.release()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole, mark, half = content.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if mark else [], start=1):
            entry = _entry(line)
            if entry is None:
                raise self._foreign(number)
            self.answers[entry[0]] = entry[1]
        if not half:
            return
        # a kill came between: nobody was told that this answer was kept; but no other file is ever cut
        if _TORN.fullmatch(half) is None:
            raise self._foreign(content.count(b"\n") + 1)
        if (entry := _entry(half)) is not None:  # only its end is missing
            self.answers[entry[0]] = entry[1]
            self._file.write(b"\n")
            self._file.flush()
        else:
            self._file.truncate(len(content) - len(half))

    def _foreign(self, number: int) -> InputError:
        self._file.close()
        return InputError(
            f"{self.path}, line {number}: this is no answer of `cutaway label`. Name another file with --journal, or "
            "mend the line."
        )

    def add(self, digest: str, row: int, label: str | None, by: str = "") -> None:
        """Append an answer; when this returns, neither a kill nor a power cut takes it."""
        entry = {"text": digest, "row": row, "label": label, "time": round(time.time(), 3)}
        line = json.dumps(entry | ({"by": by} if by else {})).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.close()  # what its buffer holds must not come later
            self._file = self.path.open("a+b")
            os.truncate(self.path, end)
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}. This answer is not kept; all before it are."
            ) from error
        self.answers[digest] = label

    def close(self) -> None:
        """Let others label."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()


# What a kill can leave of a line: it begins as `Journal.add` writes it.
_TORN = re.compile(rb'\{("(t(e(x(t("(:( ("([0-9a-f]{0,32}|[0-9a-f]{32}".*))?)?)?)?)?)?)?)?)?')


def _entry(line: bytes) -> tuple[str, str | None] | None:
    """(digest, label) of a line; None where it is no answer."""
    try:
        entry = json.loads(line)
        digest, label = entry["text"], entry["label"]
    except (ValueError, KeyError, TypeError):
        return None
    return (digest, label) if isinstance(digest, str) and (label is None or isinstance(label, str)) else None


class Labelling:
    """A table that is being labelled.

    Args:
        table: the texts. labels: those that may be given. journal: where answers are kept.
        given: labels that the table has already, by row; they are shown, and stay unless they are corrected.
        by: the annotator's name, noted with each answer.
    """

    def __init__(
        self,
        table: TextTable,
        labels: Sequence[str],
        journal: Journal,
        *,
        given: Mapping[int, str] | None = None,
        by: str = "",
    ) -> None:
        self.labels = list(dict.fromkeys(labels))
        if not 1 < len(self.labels) <= LABELS:
            raise InputError(
                f"There are {len(self.labels)} labels; give 2 to {LABELS}, for example --label yes --label no."
            )
        long = next((label for label in self.labels if not label.strip() or len(label) > LONGEST_LABEL), None)
        if long is not None:
            raise InputError(f"The label {long!r:.60} is empty or longer than {LONGEST_LABEL} characters.")
        self.table, self.journal, self.by = table, journal, by
        whole = table.digests().tobytes().hex()
        self.digests = [whole[i * 32 : i * 32 + 32] for i in range(len(table))]
        self.given = dict(given or {})
        self.proposals: dict[int, Proposal] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.failure = ""

    def __len__(self) -> int:
        return len(self.table)

    def label_of(self, place: int) -> str | None:
        """The label of a text: what was answered, else what the table had."""
        if (digest := self.digests[place]) in self.journal.answers:
            return self.journal.answers[digest]
        return self.given.get(self.table.rows[place])

    def answered(self, place: int) -> bool:
        """Whether somebody has looked at this text here, or at an equal one."""
        return self.digests[place] in self.journal.answers

    def next(self, after: int | None = None) -> int | None:
        """The place of the text to ask next; None where all have labels.

        Of those that nobody has answered it is the one of which the model is least sure, then those that it has not
        scored yet, in order, then what was skipped.

        after: a place that comes last, since it was just left.
        """
        open_ = [place for place in range(len(self)) if not self.answered(place) and place != after]
        scored = [place for place in open_ if place in self.proposals]
        if scored:
            return min(scored, key=lambda place: (self.proposals[place].margin, place))
        if open_:
            return open_[0]
        skipped = [place for place in range(len(self)) if self.label_of(place) is None and place != after]
        return skipped[0] if skipped else None

    def answer(self, place: int, label: str | None) -> None:
        """Keep an answer; None skips the text for now.

        Raises:
            InputError: no such text or label. OutputError: it could not be kept.
        """
        if not 0 <= place < len(self):
            raise InputError(f"There is no text {place}; there are {len(self):,}.")
        if label is not None and label not in self.labels:
            raise InputError(
                f"The label {label!r:.60} is none of {', '.join(self.labels)}.{nearest(label, self.labels)}"
            )
        with self._lock:
            self.journal.add(self.digests[place], self.table.rows[place], label, self.by)

    def progress(self) -> dict[str, int]:
        """How many texts have an answer, were skipped, are scored, and are there."""
        done = [self.journal.answers[d] for d in self.digests if d in self.journal.answers]
        skipped = sum(label is None for label in done)
        return {"labelled": len(done) - skipped, "skipped": skipped, "scored": len(self.proposals), "texts": len(self)}

    def agreement(self) -> tuple[int, int]:
        """(on how many answered texts the model's proposal is right, how many answered texts have one)."""
        both = [
            (self.proposals[place].label, self.label_of(place))
            for place in list(self.proposals)
            if self.answered(place) and self.label_of(place) is not None
        ]
        return sum(said == right for said, right in both), len(both)

    def score(self, pipe: Callable[..., Any]) -> None:
        """Let a classifier propose a label for each text; it stops when `stop` is called.

        pipe: a pipeline of text-classification that has the labels.
        """
        for start in range(0, len(self), AT_ONCE):
            if self._stopped.is_set():
                return
            places = range(start, min(start + AT_ONCE, len(self)))
            answers = pipe([self.table.texts[place] for place in places], top_k=None, truncation=True)
            for place, entries in zip(places, answers, strict=True):
                scores = {str(entry["label"]): float(entry["score"]) for entry in entries}
                scores = {label: share for label, share in scores.items() if label in self.labels}
                if scores and all(math.isfinite(share) for share in scores.values()):
                    self.proposals[place] = Proposal(max(scores, key=scores.__getitem__), scores)

    def start_scoring(self, pipe: Callable[..., Any]) -> threading.Thread:
        """`score` in a thread of its own; what goes wrong there is in `failure`."""

        def run() -> None:
            try:
                self.score(pipe)
            except Exception as error:
                self.failure = " ".join(str(error).split()) or type(error).__name__

        thread = threading.Thread(target=run, daemon=True, name="proposals")
        thread.start()
        return thread

    def stop(self) -> None:
        """End the scoring."""
        self._stopped.set()

    def labels_by_row(self) -> dict[int, str | None]:
        """Row -> its label now."""
        return {row: self.label_of(place) for place, row in enumerate(self.table.rows)}
