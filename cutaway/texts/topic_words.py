"""The words that tell a group of texts from the others (class-based tf-idf), and how well they go together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import MissingExtraError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SPACELESS = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
MANY = 50  # of fewer texts a share says little
OFTEN = 0.5  # words in more of the texts than this share name no topic
RARE = 100  # words in fewer texts than the root of texts / RARE name no topic: of two, chance says how often they meet
NEAR = 0.95  # of its largest weight: a word names the topics where it has so much, and no others
POOL = 2  # times as many words as are shown: of these, the ones that stand together are
SMOOTHING = 1e-12


def require_sklearn() -> None:
    """MissingExtraError where scikit-learn is not installed."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise MissingExtraError("Topics need scikit-learn: pip install 'cutaway[texts]'.")


class WordCounts:
    """How often each word stands in each text.

    Words are runs of two letters or digits and more, in lower case; where a good part of the letters belongs to scripts
    without spaces (Chinese, Japanese, Thai), pairs of letters. English function words name no topic, nor, from
    `MANY` texts on, do words of more than half of them.

    Attributes:
        words: the words. places: the column of each. counts: [texts, words], sparse.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        require_sklearn()
        from sklearn.feature_extraction.text import CountVectorizer

        sample = "".join(texts[:1000])
        spaceless = len(SPACELESS.findall(sample)) * 4 > len(sample)
        how = {"analyzer": "char", "ngram_range": (2, 2)} if spaceless else {"stop_words": "english"}
        often = OFTEN if len(texts) >= MANY else 1.0
        try:
            counter = CountVectorizer(min_df=2 if len(texts) >= 500 else 1, max_df=often, **how)
            self.counts: csr_matrix = counter.fit_transform(texts)
            self.words: list[str] = counter.get_feature_names_out().tolist()
        except ValueError:  # no word is left
            from scipy.sparse import csr_matrix as matrix

            self.counts, self.words = matrix((len(texts), 0), dtype=np.int64), []
        self.places = {word: i for i, word in enumerate(self.words)}

    def of_topics(self, topics: NDArray[np.int64], n_topics: int, n_words: int) -> list[list[tuple[str, float]]]:
        """(word, weight) of each topic, largest first: tf x log(1 + A / f) (Grootendorst 2022, "BERTopic", section 3).

        tf: the word's share of the topic's words; f: how often it stands in all; A: the mean words of a topic. Words in
        fewer texts than the root of texts / `RARE` have no weight.

        A word names the topic where it weighs most, and others where it weighs nearly as much. Of the heaviest `POOL` *
        n_words of a topic, those are left out, one after another, that stand with the rest least often (`coherence`);
        where too few are left, the heaviest words of other topics are taken too.

        Args:
            topics: each text's topic [texts], -1 for none.
        """
        from scipy.sparse import csr_matrix as matrix

        inside = np.flatnonzero(topics >= 0)
        member = matrix((np.ones(len(inside)), (topics[inside], inside)), shape=(n_topics, len(topics)))
        joined = np.asarray((member @ self.counts).todense(), dtype=np.float64)  # [topics, words]
        if not joined.size:
            return [[] for _ in range(n_topics)]
        sizes = joined.sum(axis=1, keepdims=True)
        weights = joined / np.maximum(sizes, 1) * np.log1p(sizes.mean() / np.maximum(joined.sum(axis=0), 1))
        weights[:, np.diff(self.counts.tocsc().indptr) < int((len(topics) / RARE) ** 0.5)] = 0
        own = np.where(weights >= NEAR * weights.max(axis=0), weights, 0)
        found = []
        for every, row in zip(weights, own, strict=True):
            chosen = self._together(_heaviest(row, POOL * n_words), n_words)
            others = [i for i in _heaviest(every, n_words + len(chosen)) if i not in set(chosen)]
            both = np.sort([*chosen, *others[: n_words - len(chosen)]]).astype(np.int64)
            chosen = both[np.argsort(-every[both], kind="stable")].tolist()
            found.append([(self.words[i], float(every[i])) for i in chosen])
        return found

    def _together(self, columns: list[int], n: int) -> list[int]:
        """The n of these words that stand together most, in the same order."""
        if len(columns) <= n:
            return columns
        mutual = self._mutual(columns)
        np.fill_diagonal(mutual, 0)
        kept = list(range(len(columns)))
        while len(kept) > n:
            kept.pop(int(mutual[np.ix_(kept, kept)].sum(axis=1).argmin()))
        return [columns[i] for i in kept]

    def _mutual(self, columns: list[int]) -> NDArray[np.float64]:
        """How often each two of these words stand in one text, beyond chance: their NPMI [words, words]."""
        there = (self.counts[:, columns] > 0).astype(np.float64)
        both = np.asarray((there.T @ there).todense()) / self.counts.shape[0]  # [words, words]
        own = np.diag(both)
        found: NDArray[np.float64] = np.log((both + SMOOTHING) / np.outer(own, own)) / -np.log(both + SMOOTHING)
        return found

    def coherence(self, words: Sequence[str]) -> float:
        """How often the words of a topic stand in one text, beyond chance: the mean NPMI of each two (Bouma 2009).

        From -1 (never together) to 1 (always together); probabilities are shares of texts. NaN below two words.
        """
        columns = [self.places[word] for word in words if word in self.places]
        if len(columns) < 2:
            return float("nan")
        return float(self._mutual(columns)[np.triu_indices(len(columns), 1)].mean())


def _heaviest(weights: NDArray[np.float64], n: int) -> list[int]:
    """The places of the n largest weights above 0, the largest first."""
    return [i for i in np.argsort(-weights, kind="stable")[:n].tolist() if weights[i] > 0]
