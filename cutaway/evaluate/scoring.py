"""What each task is measured by: the measures of scikit-learn, seqeval, torchmetrics, rouge-score and sacreBLEU."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import InputError

if TYPE_CHECKING:
    from cutaway.pipelines.base import Pipeline

Table = dict[str, list[Any]]
TOKEN_ROWS = 32  # rows of one batch where words are labelled


@dataclass(frozen=True)
class Scored:
    """measures: over all rows. per_row: name -> [rows]. details: as in `Evaluation`."""

    measures: dict[str, float]
    per_row: dict[str, np.ndarray]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """The columns that a task is evaluated on, and the function that does it."""

    reads: tuple[str, ...]
    score: Callable[[Any, Table], Scored]
    optional: tuple[str, ...] = ()


def library(name: str) -> Any:
    """A module of the extra `evaluate`. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"This measure needs {name.split('.')[0]}: pip install 'cutaway[evaluate]'.") from error


def label_ids(labels: list[Any], names: list[str]) -> np.ndarray:
    """Right answers as label ids: names (in any case) or the ids themselves. Raises InputError for any other."""
    by_name = {name.casefold(): i for i, name in enumerate(names)} | {str(i): i for i in range(len(names))}
    found = []
    for row, label in enumerate(labels):
        key = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).casefold()
        if key not in by_name:
            raise InputError(f"Row {row} has the label {label!r}; the model's labels are {', '.join(names)}.")
        found.append(by_name[key])
    return np.array(found)


def classification(pipe: Pipeline, table: Table) -> Scored:
    """Single-label classification; calibration by `calibration`."""
    metrics = library("sklearn.metrics")
    names = [pipe.model.config.id2label[i] for i in range(pipe.model.config.num_labels)]
    right = label_ids(table["label"], names)
    pairs = table.get("text_pair")
    inputs = (
        [{"text": a, "text_pair": b} for a, b in zip(table["text"], pairs, strict=True)] if pairs else table["text"]
    )
    place = {name: i for i, name in enumerate(names)}
    probabilities = np.zeros((len(right), len(names)))
    for row, answers in enumerate(pipe(inputs, top_k=None, function_to_apply="softmax")):
        for answer in answers:
            probabilities[row, place[answer["label"]]] = answer["score"]
    said = probabilities.argmax(axis=1)
    every = list(range(len(names)))
    own = probabilities[np.arange(len(right)), right]
    per_row = {
        "accuracy": (said == right).astype(float),
        "cross_entropy": -np.log(np.maximum(own, 1e-12)),
        "brier": ((probabilities - np.eye(len(names))[right]) ** 2).sum(axis=1),
    }
    bins = reliability(probabilities.max(axis=1), said == right)
    measures = {
        **{name: float(values.mean()) for name, values in per_row.items()},
        "macro_f1": float(metrics.f1_score(right, said, labels=every, average="macro", zero_division=0)),
        "ece": sum(entry["share"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins),
    }
    report = metrics.classification_report(
        right, said, labels=every, target_names=names, output_dict=True, zero_division=0
    )
    confusion = metrics.confusion_matrix(right, said, labels=every).tolist()
    return Scored(measures, per_row, {"labels": names, "confusion": confusion, "reliability": bins, "report": report})


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Answers by their confidence, in bins of equal width; `ece` is their mean gap (Guo et al., 2017, section 2)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        inside = which == number
        if inside.any():
            means = {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())}
            found.append({"low": number / bins, "share": float(inside.mean()), **means})
    return found


def entities(pipe: Pipeline, table: Table) -> Scored:
    """Words with tags (IOB): seqeval's measures over entities; a word has the tag of its first token."""
    import torch

    seqeval = library("seqeval.metrics")
    names = pipe.model.config.id2label
    tokens, right = [[_list(cell) for cell in table[name]] for name in ("tokens", "tags")]
    right = [[names[tag] if isinstance(tag, int) else tag for tag in tags] for tags in right]
    said: list[list[str]] = []
    for start in range(0, len(tokens), TOKEN_ROWS):
        words = tokens[start : start + TOKEN_ROWS]
        batch = pipe.tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            best = pipe.model(**{name: value.to(pipe.device) for name, value in batch.items()}).logits.argmax(dim=-1)
        for row, ids in enumerate(best.tolist()):
            by_word: dict[int, str] = {}
            for position, word in enumerate(batch.word_ids(row)):
                if word is not None:
                    by_word.setdefault(word, names[ids[position]])
            said.append([by_word.get(word, "O") for word in range(len(words[row]))])
    shares = []
    for row, (gold, tags) in enumerate(zip(right, said, strict=True)):
        if len(gold) != len(tags):
            raise InputError(f"Row {row} has {len(tags)} tokens and {len(gold)} tags.")
        shares.append(np.mean([a == b for a, b in zip(gold, tags, strict=True)]))
    measures = {
        "f1": float(seqeval.f1_score(right, said, zero_division=0)),
        "precision": float(seqeval.precision_score(right, said, zero_division=0)),
        "recall": float(seqeval.recall_score(right, said, zero_division=0)),
        "accuracy": float(seqeval.accuracy_score(right, said)),
    }
    report = seqeval.classification_report(right, said, output_dict=True, zero_division=0)
    return Scored(measures, {"row_accuracy": np.array(shares)}, {"report": _plain(report)})


def _plain(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {label: {name: float(value) for name, value in values.items()} for label, values in report.items()}


def _list(cell: str | Iterable[Any]) -> list[Any]:
    found = json.loads(cell) if isinstance(cell, str) else list(cell)
    if not isinstance(found, list):
        raise InputError(f"{cell!r:.60} is not a list.")
    return found


def answers(pipe: Pipeline, table: Table) -> Scored:
    """SQuAD's exact match and F1 (Rajpurkar et al., 2016); of several right answers the best counts."""
    squad = library("torchmetrics.functional.text").squad
    questions = [{"question": q, "context": c} for q, c in zip(table["question"], table["context"], strict=True)]
    found = [entry[0] if isinstance(entry, list) else entry for entry in pipe(questions)]
    exact, overlap = [], []
    for row, (answer, right) in enumerate(zip(found, table["answers"], strict=True)):
        target = {"answers": {"text": _texts(right), "answer_start": [0]}, "id": str(row)}
        scores = squad([{"prediction_text": answer["answer"], "id": str(row)}], [target])
        exact.append(float(scores["exact_match"]) / 100)
        overlap.append(float(scores["f1"]) / 100)
    per_row = {"exact_match": np.array(exact), "f1": np.array(overlap)}
    return Scored({name: float(values.mean()) for name, values in per_row.items()}, per_row)


def _texts(right: str | Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Right answers: a text, a list of texts, or SQuAD's {"text": [...]}."""
    if isinstance(right, str) and right.lstrip().startswith(("[", "{")):
        right = json.loads(right)
    if isinstance(right, dict):
        right = right.get("text", [])
    texts = [right] if isinstance(right, str) else list(right)
    return texts or [""]


def written(pipe: Pipeline, table: Table) -> list[str]:
    """The text that the pipeline writes for each row."""
    return [result.texts[0] for result in pipe.each(table["text"])]


def summaries(pipe: Pipeline, table: Table) -> Scored:
    """ROUGE's F1 (Lin, 2004), with stemming."""
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = library("rouge_score.rouge_scorer").RougeScorer(list(kinds), use_stemmer=True)
    pairs = zip(table["target"], written(pipe, table), strict=True)
    scores = [scorer.score(target, said) for target, said in pairs]
    per_row = {kind: np.array([score[kind].fmeasure for score in scores]) for kind in kinds}
    return Scored({name: float(values.mean()) for name, values in per_row.items()}, per_row)


def translations(pipe: Pipeline, table: Table) -> Scored:
    """BLEU (Papineni et al., 2002) and chrF (Popovic, 2015) over the corpus, with sacreBLEU's signatures."""
    metrics = library("sacrebleu.metrics")
    said = written(pipe, table)
    bleu, chrf = metrics.BLEU(), metrics.CHRF()
    measures = {
        "bleu": float(bleu.corpus_score(said, [table["target"]]).score),
        "chrf": float(chrf.corpus_score(said, [table["target"]]).score),
    }
    rows = [float(chrf.sentence_score(a, [b]).score) for a, b in zip(said, table["target"], strict=True)]
    signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    return Scored(measures, {"sentence_chrf": np.array(rows)}, {"signatures": signatures})


def foresight(pipe: Pipeline, table: Table) -> Scored:
    """The perplexity of all tokens together: a long text counts more than a short one."""
    found = pipe(table["text"])
    tokens = np.array([answer["tokens"] for answer in found], dtype=float)
    losses = np.array([answer["loss"] for answer in found])
    loss = float((losses * tokens).sum() / tokens.sum())
    return Scored(
        {"perplexity": float(np.exp(loss)), "loss": loss}, {"row_loss": losses}, {"tokens": int(tokens.sum())}
    )


SCORERS: dict[str, Scorer] = {
    "text-classification": Scorer(("text", "text_pair", "label"), classification, ("text_pair",)),
    "token-classification": Scorer(("tokens", "tags"), entities),
    "question-answering": Scorer(("question", "context", "answers"), answers),
    "summarization": Scorer(("text", "target"), summaries),
    "translation": Scorer(("text", "target"), translations),
    "text2text-generation": Scorer(("text", "target"), translations),
    "perplexity": Scorer(("text",), foresight),
}
