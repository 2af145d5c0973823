"""A report that can be handed in: what it says, in HTML and Markdown, and that texts in it are data."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cutaway.errors import InputError
from cutaway.evaluate import Evaluation, report
from cutaway.evaluate.baselines import linear_probe, majority
from cutaway.evaluate.mistakes import Answer, Mistake
from cutaway.evaluate.plain_words import SENTENCES
from cutaway.evaluate.scoring import SCORERS, reliability
from cutaway.jobs import TableReader
from cutaway.show.chart import ticks

EVIL = "<script>alert(1)</script> | **x** ![a](http://x)"


def answers(n=20):
    return [Answer(i + 1, EVIL if i == 0 else f"text {i}", "good", "bad" if i < 3 else "good", 0.9) for i in range(n)]


@pytest.fixture
def made():
    rows = answers()
    right = np.array([a.right == a.said for a in rows])
    bins = reliability(np.array([a.confidence for a in rows]), right)
    one = {"precision": 1.0, "recall": 0.85, "f1-score": 0.92, "support": 20.0}
    evaluation = Evaluation(
        "text-classification", 20, {"accuracy": 0.85, "macro_f1": 0.46, "ece": 0.05}, {"accuracy": (0.7, 1.0)}, {},
        {"labels": ["good", "bad"], "confusion": [[17, 3], [0, 0]], "reliability": bins, "report": {"good": one}},
        ["A note about <rows>."], [(a.right, a.said, a.confidence) for a in rows],
    )  # fmt: skip
    mistakes = [Mistake(rows[0], [("<b>", 4), ("word", -4), ("plain", 0)], ""), Mistake(rows[1], [], "too long")]
    facts = report.facts_of("text-classification", "films.csv", "a/model", "cutaway evaluate a/model films.csv")
    series = [report.Series("loss", [("training", [(1, 2.0), (5, 1.0)]), ("validation", [(5, 1.5)])])]
    return report.Report(
        f"Report {EVIL}", facts, evaluation, rows, [majority([a.right for a in rows])], mistakes, "a.csv",
        {"good": (40,)}, ("rows to train on",), series, [["trial", ""], ["0", "cut off"]],
    )  # fmt: skip


def test_the_page_says_everything_and_runs_nothing(made):
    page = report.html(made)
    assert "default-src 'none'" in page and "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"https?://(?!x\))|src=| style=", page)
    for said in (
        "85.0% of 20 rows get the right label (95% interval 70.0% to 100.0%); 100.0% by the most frequent label.",
        "films.csv", "cutaway evaluate a/model films.csv", SENTENCES["accuracy"], "0.7000 to 1.0000",
        "The model says 90% on average and is right in 85%: it is surer than it should be.",
        'id="row-1"', 'href="#row-1"', '<a href="a.csv">', 'class="t f4"', 'class="t a4"', "A note about &lt;rows&gt;.",
        "<td>cut off</td>", "3 of 20 answers are wrong",
    ):  # fmt: skip
        assert said in page, said
    assert page.count("<svg") == 2  # reliability and loss


def test_the_first_sentence_says_what_the_first_measure_is(made):
    def of(task, measures, intervals, details):
        found = Evaluation(task, 20, measures, intervals, {}, details, [], [])
        return report.Report("title", {}, found)

    written = of("summarization", {"rouge1": 0.25}, {"rouge1": (0.2, 0.3)}, {})
    said = "ROUGE-1 is 0.2500 over 20 rows (95% interval 0.2000 to 0.3000). Words that the answer shares with the right"
    assert said in report.html(written) and said in report.markdown(written)
    number = of("text-classification", {"mean_absolute_error": 2.0}, {}, {})
    page = report.html(number)
    assert "Mean absolute error is 2.0000 over 20 rows. How far the number said" in page
    assert "95% interval" not in page  # where no measure has one there is no empty column
    one = {"precision": 1.0, "recall": 0.5, "f1-score": 0.67, "support": 4.0}
    tags = of("token-classification", {"f1": 0.5, "accuracy": 0.4}, {}, {"counted": "entities", "report": {"PER": one}})
    for page in (report.html(tags), report.markdown(tags)):
        assert "share of words with the right tag" in page and SENTENCES["accuracy"] not in page
        assert "entities" in page
    assert "Precision: of the entities that got this label" in report.html(tags)


def test_markdown_shows_texts_as_they_are(made):
    text = report.markdown(made)
    title = text.splitlines()[0]
    assert title == r"# Report \<script\>alert(1)\</script\> \| \*\*x\*\* \!\[a\](http://x)"
    assert "| accuracy | 0.8500 | 0.7000 to 1.0000 |" in text
    assert "| good | 1.0000 | 0.8500 | 0.9200 | 20 |" in text
    assert "**bad** with 90.0%, right: **good** (row 1)" in text
    for line in text.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 6)


def test_a_model_card_begins_with_the_hubs_fields(made):
    card = report.model_card(made, {"base_model": 'a "b"', "tags": ["x"]})
    assert card.startswith('---\nbase_model: "a \\"b\\""\ntags: ["x"]\n---\n\n# Report')


def test_answers_stand_in_a_table_beside_it(made, tmp_path):
    path = tmp_path / "r.html"
    report.write_report(made, path)
    rows = [row.values for row in TableReader(tmp_path / "a.csv").rows()]
    assert rows[0] == {
        "row": "1", "text": EVIL, "right": "good", "said": "bad", "probability": "0.900000", "correct": "False",
    }  # fmt: skip
    assert len(rows) == 20


def test_names_that_no_report_has(made, tmp_path):
    with pytest.raises(InputError, match=r"\.html or \.md"):
        report.check_report(tmp_path / "a.docx")
    with pytest.raises(InputError, match="no folder"):
        report.check_report(tmp_path / "no" / "a.html")


def test_every_measure_has_a_sentence():
    known = {
        "accuracy", "macro_f1", "ece", "brier", "cross_entropy", "micro_f1", "exact", "mean_absolute_error", "rmse",
        "pearson", "precision", "recall", "f1", "exact_match", "rouge1", "rouge2", "rougeL", "bleu", "chrf",
        "perplexity", "loss", "accuracy_at_1", "mrr_at_10", "ndcg_at_10", "recall_at_10", "triplet_accuracy",
        "spearman", "pairs_right",
    }  # fmt: skip
    assert known == set(SENTENCES)
    assert SCORERS


class Places:
    """Vectors that say the label, or nothing."""

    def __init__(self, tells):
        self.tells = tells

    def __call__(self, texts, **how):
        draw = np.random.default_rng(0)
        noise = draw.normal(size=(len(texts), 4))
        return noise + (np.array([[8.0 * t.startswith("good")] for t in texts]) if self.tells else 0)


def test_baselines():
    texts = [f"{'good' if i % 3 else 'bad'} {i}" for i in range(60)]
    right = [text.split()[0] for text in texts]
    assert majority(right).accuracy == pytest.approx(2 / 3)
    assert majority(right, ["bad"]).accuracy == pytest.approx(1 / 3)
    assert majority(right).macro_f1 == pytest.approx(0.4)
    assert linear_probe(Places(True), texts, right).accuracy == 1
    assert linear_probe(Places(True), texts, right, (texts, right)).accuracy == 1
    assert linear_probe(Places(False), texts, right).accuracy < 0.9
    assert linear_probe(Places(True), texts[:4], right[:4]) is None  # too few for folds


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    for low, high in ((0, 37), (0.0012, 0.0077), (-3, 1e6), (5, 5)):
        found = ticks(low, high)
        assert 1 <= len(found) <= 7 and min(found) >= low - 1e-9 and max(found) <= high + 1e-9


def test_axes_show_what_can_be():
    """Whole steps, and no share below 0 or above 1, even where a measure never moved."""

    def labels(series):
        return [float(text) for text in re.findall(r'class="minor">([-\d.e]+)</text>', report._series(series))]

    flat = labels(report.Series("accuracy", [("validation", [(1.0, 0.0), (2.0, 0.0)])]))
    assert min(flat) == 0 and max(flat) == 2 and 1.5 not in flat and {0.2, 0.8} <= set(flat)
    full = labels(report.Series("macro f1", [("validation", [(1.0, 0.5), (3.0, 1.0)])]))
    assert max(set(full) - {0.0, 2.0, 3.0}) == 1 and 0.6 in full
    free = labels(report.Series("loss", [("training", [(1.0, 2.0), (2.0, 4.0)])]))
    assert {2.0, 4.0} <= set(free)
