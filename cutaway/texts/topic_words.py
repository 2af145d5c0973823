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
RARE = 400  # words in fewer than one text of so many name no topic: of two rare words, chance says how often they meet
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
        words: the words. counts: [texts, words], sparse.
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

    def of_topics(self, topics: NDArray[np.int64], n_topics: int, n_words: int) -> list[list[tuple[str, float]]]:
        """(word, weight) of each topic, largest first: tf x log(1 + A / f) (Grootendorst 2022, "BERTopic", section 3).

        tf: the word's share of the topic's words; f: how often it stands in all; A: the mean words of a topic. Words in
        fewer than one text of `RARE` have no weight.

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
        weights[:, np.diff(self.counts.tocsc().indptr) < len(topics) // RARE] = 0
        found = []
        for row in weights:
            best = np.argsort(-row, kind="stable")[:n_words]
            found.append([(self.words[i], float(row[i])) for i in best if row[i] > 0])
        return found

    def coherence(self, words: Sequence[str]) -> float:
        """How often the words of a topic stand in one text, beyond chance: the mean NPMI of each two (Bouma 2009).

        From -1 (never together) to 1 (always together); probabilities are shares of texts. NaN below two words.
        """
        place = {word: i for i, word in enumerate(self.words)}
        columns = [place[word] for word in words if word in place]
        if len(columns) < 2:
            return float("nan")
        there = (self.counts[:, columns] > 0).astype(np.float64)
        both = np.asarray((there.T @ there).todense()) / self.counts.shape[0]  # [words, words]
        own = np.diag(both)
        first, second = np.triu_indices(len(columns), 1)
        together = both[first, second]
        mutual = np.log((together + SMOOTHING) / (own[first] * own[second]))
        return float((mutual / -np.log(together + SMOOTHING)).mean())
