"""Topics of a table's texts: groups of near vectors, with their words, typical texts and a map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import InputError, counted
from cutaway.texts.table import TextTable, read_texts
from cutaway.texts.topic_words import WordCounts, require_sklearn
from cutaway.texts.vectors import Floats, TextEncoder, TextVectors, text_vectors

METHODS = ("kmeans", "hdbscan")
MAPS = ("auto", "pca", "umap")
LOOSE = ("keep", "leave")
SAME = 1e-6  # of two cosines: rounding
WIDTH = 50  # numbers of a vector that are grouped by, of largest variance
SEED = 0
EACH = 50  # texts to a topic, where nobody says how many topics
MOST = 20  # topics that are made by themselves
PER_RUN = 4096  # texts of one step of k-means on large tables


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        number: from 1, the largest topic first. size: how many texts.
        words: (word, weight), the most telling first. coherence: how often its first ten words stand together, -1 to 1.
        typical: (row, text) of the texts nearest to its middle, no text twice.
        middle: where it lies on the map.
        nearness: the mean cosine of its texts and its middle: how close together they are.
    """

    number: int
    size: int
    words: list[tuple[str, float]]
    coherence: float
    typical: list[tuple[int, str]]
    middle: tuple[float, float]
    nearness: float

    @property
    def name(self) -> str:
        """Its first three words."""
        return ", ".join(word for word, _ in self.words[:3]) or f"topic {self.number}"


@dataclass(frozen=True)
class Topics:
    """All topics of a table.

    Attributes:
        topics: the largest first.
        of: each text's topic [texts], from 1; 0 for texts of none.
        nearness: the cosine of each text and its topic's middle [texts]; 0 for texts of none.
        places: [texts, 2], the map. how: what the map is, in a sentence.
        method: "kmeans" or "hdbscan".
        loose: whether a text fits no topic well [texts]: it lies nearer to the middle of all texts than to the nearest
            topic's, so the topic says nothing about it. False for texts that density leaves in no topic.
    """

    topics: list[Topic]
    of: NDArray[np.int64]
    nearness: Floats
    places: Floats
    how: str
    method: str
    loose: NDArray[np.bool_]

    @property
    def coherence(self) -> float:
        """The mean coherence of the topics that have one."""
        found = [topic.coherence for topic in self.topics if math.isfinite(topic.coherence)]
        return sum(found) / len(found) if found else math.nan

    def loose_note(self) -> str:
        """A sentence about texts that fit no topic well; "" where all do."""
        count = int(self.loose.sum())
        if not count:
            return ""
        where = "in none" if not self.of[self.loose].any() else "in the nearest all the same"
        fit, they, lie = ("fits", "it", "lies") if count == 1 else ("fit", "they", "lie")
        return (
            f"{counted(count, 'text')} {fit} no topic well ({they} {lie} nearer to the middle of all texts), and "
            f"{'is' if count == 1 else 'are'} {where}."
        )


def cluster(
    table: Path | str | Sequence[str] | Sequence[Mapping[str, object]] | TextTable,
    *,
    model: TextEncoder | None = None,
    vectors: TextVectors | None = None,
    column: str = "text",
    n_topics: int | None = None,
    method: str = "kmeans",
    n_words: int = 10,
    map: str = "auto",
    loose: str = "keep",
) -> Topics:
    """Group the texts of a table by meaning.

    Vectors are turned to their 50 directions of largest variance, and grouped there.

    Args:
        table: as in `read_texts`, or read already. model, vectors: what makes vectors, or the texts' vectors.
        n_topics: how many ("kmeans"): one for 50 texts, at most 20, unless given.
        method: "kmeans": every text has a topic; "hdbscan": finds how many by itself, and texts between have none.
        n_words: words of each topic.
        map: "pca" (the two directions of largest variance), "umap" (neighbours stay neighbours; needs umap-learn), or
            "auto": umap where it is installed.
        loose: what becomes of texts that fit no topic well: "keep" them in the nearest, or "leave" them in none, so
            that neither sizes nor words nor middles count them.

    Raises:
        InputError: fewer texts than topics, a method or a map that there is not, neither model nor vectors.
        MissingExtraError: scikit-learn, or for its map umap-learn, is not installed.
    """
    check_how(method, map, n_topics, loose)
    if isinstance(n_words, bool) or not isinstance(n_words, int) or n_words < 1:
        raise InputError(f"n_words={n_words!r}: give a whole number from 1 up.")
    require_sklearn()
    texts = table if isinstance(table, TextTable) else read_texts(table, column)
    wanted = how_many(len(texts), method, n_topics)
    if vectors is None:
        if model is None:
            raise InputError("Topics are made of vectors: pass model= or vectors=.")
        vectors = text_vectors(texts, model)
    whole = vectors.floats()  # [texts, width]
    narrow = _narrow(whole)
    raw = _kmeans(narrow, wanted) if method == "kmeans" else _hdbscan(narrow)
    far = _loose(whole, raw)
    if loose == "leave":
        raw = np.where(far, -1, raw)
        there = np.unique(raw[raw >= 0])
        raw = np.where(raw >= 0, np.searchsorted(there, raw), -1)  # a topic of loose texts alone is none
    order = (
        np.argsort(-np.bincount(raw[raw >= 0], minlength=1), kind="stable") if (raw >= 0).any() else np.array([], int)
    )
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    topic = np.where(raw >= 0, rank[raw] if len(rank) else 0, -1)  # [texts], the largest topic 0
    count = len(order)
    places, how = _map(narrow, map)
    middles = np.stack([_unit(whole[topic == i].mean(axis=0)) for i in range(count)]) if count else whole[:0]
    nearness = np.zeros(len(texts), dtype=np.float32)
    inside = topic >= 0
    nearness[inside] = (whole[inside] * middles[topic[inside]]).sum(axis=1).clip(-1, 1)
    counts = WordCounts(texts.texts)
    words = counts.of_topics(topic, count, n_words)
    made = []
    for i in range(count):
        members = np.flatnonzero(topic == i)
        members = members[np.argsort(-nearness[members], kind="stable")]
        x, y = np.median(places[members], axis=0).tolist()
        coherence = counts.coherence([word for word, _ in words[i][:10]])
        typical, close = _typical(texts, members), float(nearness[members].mean())
        made.append(Topic(i + 1, len(members), words[i], coherence, typical, (x, y), close))
    return Topics(made, topic + 1, nearness, places, how, method, far)


def _loose(whole: Floats, raw: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which texts lie nearer to the middle of all than to their topic's [texts]."""
    inside = np.flatnonzero(raw >= 0)
    found = np.zeros(len(raw), dtype=bool)
    if len(inside):
        count = int(raw.max()) + 1
        middles = np.stack([_unit(whole[raw == topic].sum(axis=0)) for topic in range(count)])
        own = (whole[inside] * middles[raw[inside]]).sum(axis=1)
        found[inside] = own < whole[inside] @ _unit(whole.mean(axis=0)) - SAME
    return found


def check_how(method: str, map: str, n_topics: int | None, loose: str = "keep") -> None:
    """InputError for a method or a map that there is not, before vectors are computed."""
    if method not in METHODS:
        raise InputError(f"method={method!r}: it can be {' or '.join(METHODS)}.")
    if loose not in LOOSE:
        raise InputError(f"loose={loose!r}: it can be {' or '.join(LOOSE)}.")
    if map not in MAPS:
        raise InputError(f"map={map!r}: it can be {', '.join(MAPS)}.")
    if n_topics is not None and (isinstance(n_topics, bool) or not isinstance(n_topics, int)):
        raise InputError(f"n_topics={n_topics!r}: give a whole number.")
    if n_topics is not None and (method == "hdbscan" or n_topics < 2):
        why = "hdbscan finds the number by itself" if method == "hdbscan" else "give 2 or more"
        raise InputError(f"n_topics={n_topics}: {why}.")
    if map == "umap":
        _umap()


def how_many(texts: int, method: str, n_topics: int | None) -> int:
    """The number of topics of so many texts. InputError where these are too few, before vectors are computed."""
    wanted = n_topics or max(2, min(MOST, texts // EACH))
    if texts < max(wanted if method == "kmeans" else 5, 4):
        few = f"{counted(texts, 'text')} {'is' if texts == 1 else 'are'} too few"
        if n_topics is None or texts < 4:
            raise InputError(f"{few} to be grouped; give {'4' if method == 'kmeans' else '5'} or more.")
        raise InputError(f"{few} for {counted(wanted, 'topic')}; give more texts, or fewer topics.")
    return wanted


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _narrow(whole: Floats) -> Floats:
    """The directions of largest variance [texts, at most 50]."""
    from sklearn.decomposition import PCA

    width = min(WIDTH, *whole.shape)
    if np.ptp(whole, axis=0).max() < 1e-6:  # equal texts lie at one place, and differ in no direction
        return np.zeros((len(whole), width), dtype=np.float32)
    # of many texts by their covariance (exact, one product), of few or wide ones as scikit-learn thinks best
    found: Floats = PCA(width, svd_solver="auto", random_state=SEED).fit_transform(whole).astype(np.float32)
    return found


def _kmeans(narrow: Floats, count: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(np.unique(narrow.round(6), axis=0)))  # equal texts are one place
    large = len(narrow) > 4 * PER_RUN
    made = (
        MiniBatchKMeans(count, batch_size=PER_RUN, n_init=3, random_state=SEED)
        if large
        else KMeans(count, n_init=4, random_state=SEED)
    )
    found: NDArray[np.int64] = made.fit_predict(narrow).astype(np.int64)
    return np.unique(found, return_inverse=True)[1].astype(np.int64)  # a middle can be left without a text


def _hdbscan(narrow: Floats) -> NDArray[np.int64]:
    from sklearn.cluster import HDBSCAN

    few = narrow[:, : min(10, narrow.shape[1])]  # density means little in many dimensions
    size = max(5, len(few) // 200)
    found: NDArray[np.int64] = HDBSCAN(min_cluster_size=size, copy=True).fit_predict(few).astype(np.int64)
    return np.where(found < 0, -1, found)


def _map(narrow: Floats, map: str) -> tuple[Floats, str]:
    from importlib.util import find_spec

    if map == "umap" or (map == "auto" and find_spec("umap") is not None):
        made: Floats = _umap()(n_components=2, metric="cosine", random_state=SEED, n_jobs=1).fit_transform(narrow)
        return made, "UMAP: texts that are near in meaning are near here; far distances say nothing."
    flat = narrow[:, :2] if narrow.shape[1] > 1 else np.repeat(narrow, 2, axis=1)
    share = float(flat.var(axis=0).sum() / max(float(narrow.var(axis=0).sum()), 1e-12))
    return np.ascontiguousarray(flat), (
        f"The two directions of largest variance, {share:.0%} of that of the {narrow.shape[1]} that texts are grouped "
        "by: topics that lie on each other here may be far apart."
    )


def _umap() -> type:
    """The class UMAP. MissingExtraError where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError as error:
        from cutaway.errors import MissingExtraError

        raise MissingExtraError("This map needs umap-learn: pip install umap-learn; or take --map pca.") from error
    made: type = UMAP
    return made


def _typical(texts: TextTable, nearest: NDArray[np.int64], most: int = 3) -> list[tuple[int, str]]:
    """The first three different texts of these places."""
    found: dict[str, int] = {}
    for i in nearest.tolist():
        found.setdefault(" ".join(texts.texts[i].split()).casefold(), i)
        if len(found) == most:
            break
    return [(texts.rows[i], texts.texts[i]) for i in found.values()]
