"""Topics, their words, their page and their map."""

from __future__ import annotations

import json
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch

from cutaway.errors import InputError
from cutaway.jobs import TableReader
from cutaway.texts import TextVectors, cluster, read_texts, topic_page
from cutaway.texts.topic_words import WordCounts

KINDS = {
    "cats": ["cat purrs sofa", "kitten sleeps sofa", "cat chases kitten"],
    "trains": ["train late station", "station platform train", "platform crowded train"],
    "bread": ["oven bread flour", "flour dough oven", "dough rises bread"],
}


@pytest.fixture
def texts():
    return [f"{text} {'<b>' if i == 0 else ''}" for kind in KINDS.values() for i, text in enumerate(kind * 6)]


def grouped(texts, noise=0.05):
    """Vectors [texts, 12] that lie about three directions, one for each kind."""
    draw = np.random.default_rng(0)
    middles = np.eye(12, dtype=np.float32)[:3]
    each = len(texts) // 3
    rows = np.repeat(middles, each, axis=0) + noise * draw.normal(size=(len(texts), 12)).astype(np.float32)
    return TextVectors(torch.from_numpy(rows), 0)


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_groups_are_found_with_their_words_and_typical_texts(texts, method):
    n_topics = 3 if method == "kmeans" else None
    found = cluster(texts, vectors=grouped(texts), n_topics=n_topics, method=method, map="pca")
    assert [topic.size for topic in found.topics] == [18, 18, 18]
    for topic, kind in zip(found.topics, found_kinds(found, texts), strict=True):
        own = {word for text in KINDS[kind] for word in text.split()}
        assert {word for word, _ in topic.words[:5]} <= own
        assert len(topic.typical) == 3
        assert len({text.strip("<b> ") for _, text in topic.typical}) >= 2
        assert all(texts[row - 1] == text for row, text in topic.typical)
        assert topic.coherence > 0
    assert found.nearness.min() > 0.8


def found_kinds(found, texts):
    for topic in found.topics:
        places = np.flatnonzero(found.of == topic.number)
        assert len({i // 18 for i in places.tolist()}) == 1
        yield list(KINDS)[places[0] // 18]


def test_the_weights_of_words_are_their_formula(texts):
    topics = np.repeat(np.arange(3), 18)
    counts = WordCounts(texts)
    words = counts.of_topics(topics, 3, 50)
    joined = [Counter(w for t in texts[i * 18 : i * 18 + 18] for w in re.findall(r"\w\w+", t)) for i in range(3)]
    whole = sum(joined, Counter())
    mean = sum(whole.values()) / 3
    for topic, counted in zip(words, joined, strict=True):
        total = sum(counted.values())
        for word, weight in topic:
            assert weight == pytest.approx(counted[word] / total * math.log(1 + mean / whole[word]))
        assert [weight for _, weight in topic] == sorted((weight for _, weight in topic), reverse=True)


def test_coherence_is_the_mean_npmi():
    texts = ["aa bb", "aa bb", "cc", "aa cc"]
    counts = WordCounts(texts)
    both, a, b = 2 / 4, 3 / 4, 2 / 4
    assert counts.coherence(["aa", "bb"]) == pytest.approx(math.log(both / (a * b)) / -math.log(both), abs=1e-6)
    assert counts.coherence(["bb", "cc"]) == pytest.approx(-1, abs=0.1)
    assert math.isnan(counts.coherence(["aa"]))


def test_scripts_without_spaces_have_words():
    texts = ["猫在沙发上睡觉", "小猫在沙发上", "火车晚点了", "火车到站晚点"] * 3
    words = WordCounts(texts).words
    assert {"火车", "沙发"} <= set(words)


def test_the_same_texts_give_the_same_topics(texts):
    one, two = (cluster(texts, vectors=grouped(texts), n_topics=3, map="pca") for _ in range(2))
    assert np.array_equal(one.of, two.of)
    assert [t.words for t in one.topics] == [t.words for t in two.topics]


def test_mistakes(texts):
    vectors = grouped(texts)
    for how, said in (
        ({"method": "dbscan"}, "kmeans or hdbscan"),
        ({"map": "globe"}, "auto, pca, umap"),
        ({"n_topics": 1}, "2 or more"),
        ({"n_topics": 100}, "too few for 100 topics"),
        ({"method": "hdbscan", "n_topics": 3}, "by itself"),
        ({"loose": "drop"}, "keep or leave"),
    ):
        with pytest.raises(InputError, match=said):
            cluster(texts, vectors=vectors, **how)
    with pytest.raises(InputError, match="model= or vectors="):
        cluster(texts)


def test_equal_texts_leave_no_topic_empty():
    texts = ["same words here"] * 10 + ["other words there"] * 10
    vectors = TextVectors(torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10), 0)
    found = cluster(texts, vectors=vectors, n_topics=4)
    assert [topic.size for topic in found.topics] == [10, 10]
    assert [len(topic.typical) for topic in found.topics] == [1, 1]


@pytest.mark.filterwarnings("error")
def test_texts_that_are_all_equal_are_one_topic_and_three_are_too_few():
    vectors = TextVectors(torch.full((4, 8), 8**-0.5), 0)
    found = cluster(["same words here"] * 4, vectors=vectors, map="pca")
    assert [topic.size for topic in found.topics] == [4] and found.nearness.max() <= 1
    with pytest.raises(InputError, match="3 texts are too few to be grouped; give 4 or more"):
        cluster(["a", "b", "c"], vectors=TextVectors(torch.eye(3), 0))


def test_texts_that_fit_no_topic_well_are_said_and_can_be_left_in_none(texts):
    made = grouped(texts).matrix
    middle = torch.nn.functional.normalize(made, dim=-1).mean(dim=0)
    vectors = TextVectors(torch.cat([made, middle[None].repeat(2, 1)]), 0)  # two texts between all topics
    more = [*texts, "nothing of these", "none of those"]
    kept, left = (cluster(more, vectors=vectors, n_topics=3, map="pca", loose=how) for how in ("keep", "leave"))
    assert np.flatnonzero(kept.loose).tolist() == np.flatnonzero(left.loose).tolist() == [54, 55]
    assert sum(topic.size for topic in kept.topics) == 56 and kept.of.min() == 1
    assert [topic.size for topic in left.topics] == [18, 18, 18] and left.of[54:].tolist() == [0, 0]
    assert "2 texts fit no topic well" in kept.loose_note() and "are in the nearest" in kept.loose_note()
    assert "are in none" in left.loose_note()
    whole = torch.nn.functional.normalize(vectors.matrix, dim=-1).numpy()
    for topic in left.topics:
        own = whole[left.of == topic.number]
        middle = own.mean(axis=0) / np.linalg.norm(own.mean(axis=0))
        assert topic.nearness == pytest.approx(float((own @ middle).mean()), abs=1e-5)
    assert cluster(texts, vectors=grouped(texts), n_topics=3, map="pca").loose_note() == ""


def test_words_of_few_texts_name_no_topic():
    def words_of(whistles):
        texts = ["cat sofa"] * 800 + ["train station"] * (800 - whistles) + ["train whistle"] * whistles
        found = WordCounts(texts).of_topics(np.repeat([0, 1], 800), 2, 10)
        return {word for word, _ in found[1]}

    assert words_of(4) == {"train", "station", "whistle"}  # the root of 16
    assert words_of(3) == {"train", "station"}


def test_the_page_runs_and_loads_nothing_and_texts_are_data(texts, tmp_path):
    evil = ["<script>alert(1)</script> cat sofa", *texts[1:]]
    read = read_texts(evil)
    found = cluster(read, vectors=grouped(evil), n_topics=3, map="pca")
    topic_page.write_page(tmp_path / "t.html", found, read, "a <model>", "Topics of </title><b>")
    page = (tmp_path / "t.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")
    assert "Topics of &lt;/title&gt;&lt;b&gt;" in page and "<title>Topics of &lt;/title" in page
    assert page.count("<circle") == len(evil)
    assert 'style="' not in page  # the policy takes styles by their hash alone


def test_the_command_writes_everything(call, tmp_path, texts, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "notes.csv"
    path.write_text("text\n" + "\n".join(texts) + '\n""\n')
    names = ("t.html", "t.svg", "t.csv")
    outputs = [word for name in names for word in ("-o", str(tmp_path / name))]
    code, out, err = call("cluster", str(path), "-m", "cutaway/minilm", "--topics", "3", "--json", *outputs)
    assert code == 0, err
    found = json.loads(out)
    assert sum(topic["size"] for topic in found["topics"]) == 54
    rows = [row.values for row in TableReader(tmp_path / "t.csv").rows()]
    assert Counter(row["topic"] for row in rows) == {**{str(t["number"]): t["size"] for t in found["topics"]}, "": 1}
    assert (tmp_path / "t.svg").stat().st_size > 5000
    assert "row 55" in err


def test_a_word_names_the_topic_where_it_weighs_most():
    texts = ["cat sofa film"] * 30 + ["train station film"] * 20 + ["train film film"] * 10
    first, second = WordCounts(texts).of_topics(np.repeat([0, 1], 30), 2, 2)
    assert {word for word, _ in first} == {"cat", "sofa"}
    assert {word for word, _ in second} == {"train", "station"}


def test_a_word_names_two_topics_where_it_weighs_the_same():
    texts = ["cat sofa"] * 30 + ["cat station"] * 30 + ["rain"] * 90
    first, second, _ = WordCounts(texts).of_topics(np.array([0] * 30 + [1] * 30 + [2] * 90), 3, 2)
    assert {word for word, _ in first} == {"cat", "sofa"} and {word for word, _ in second} == {"cat", "station"}


def test_a_topic_with_too_few_words_of_its_own_takes_others():
    texts = ["cat sofa"] * 30 + ["cat cat sofa sofa train"] * 20 + ["rain"] * 60
    first, second, _ = WordCounts(texts).of_topics(np.array([0] * 30 + [1] * 20 + [2] * 60), 3, 3)
    assert [{word for word, _ in topic} for topic in (first, second)] == [{"cat", "sofa"}, {"cat", "sofa", "train"}]


def test_words_of_a_topic_stand_together():
    """Of four words that weigh about the same, the two that stand in the same texts name it."""
    texts = ["cat sofa"] * 29 + ["dog"] * 30 + ["bird"] * 31 + ["train station"] * 90
    found, _ = WordCounts(texts).of_topics(np.repeat([0, 1], 90), 2, 2)
    assert {word for word, _ in found} == {"cat", "sofa"}
    assert WordCounts(texts).coherence([word for word, _ in found]) > 0.9


def test_what_is_no_table_model_or_number_is_said_at_once(texts):
    for call, message in (
        ({"table": 2.5}, "The table is a float"),
        ({"table": ["a", 3]}, "Row 2 is a int"),
        ({"model": "cutaway/minilm"}, "model is a str .*cutaway.Embedder"),
        ({"n_words": 0}, "n_words=0"),
        ({"n_topics": 2.5}, "n_topics=2.5"),
    ):
        with pytest.raises(InputError, match=message):
            cluster(**{"table": texts, **call})
