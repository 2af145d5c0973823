"""What each task is measured by: the measures of scikit-learn, seqeval, torchmetrics, rouge-score and sacreBLEU."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import InputError, counted, nearest
from cutaway.evaluate.text_tokens import BLEU, ROUGE, Characters, Unicode, bleu_tokenizer, rouge_tokenizer

if TYPE_CHECKING:
    from types import ModuleType

    from cutaway.config.config import PretrainedConfig
    from cutaway.pipelines.base import Pipeline

Table = dict[str, list[Any]]


class Column(list[Any]):
    """A column of a table; `numbers` are its rows' numbers in the file."""

    numbers: Sequence[int] = ()


def row_number(column: Sequence[Any], place: int) -> int:
    """The number, from 1, of the row at `place`, from 0: that of the file where the column knows it."""
    return column.numbers[place] if isinstance(column, Column) and column.numbers else place + 1


PACKAGES = {"sklearn": "scikit-learn", "rouge_score": "rouge-score"}  # module -> package, where they differ
TOKEN_ROWS = 32  # rows of one batch where words are labelled


@dataclass(frozen=True)
class Scored:
    """measures: over all rows. per_row: name -> [rows]. details, notes, answers: as in `Evaluation`."""

    measures: dict[str, float]
    per_row: dict[str, np.ndarray]
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    answers: list[tuple[str, str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Scorer:
    """How a task is evaluated.

    Attributes:
        reads, optional: the columns, and those of them that may lack.
        score: (pipeline, table, tokenizer or None) -> what was measured.
        check: (the model's config or None, table): raises InputError for what can be known before a model runs.
        libraries: modules of the extra `evaluate` that it needs.
        tokenizers: names that the call may give.
    """

    reads: tuple[str, ...]
    score: Callable[[Any, Table, str | None], Scored]
    optional: tuple[str, ...] = ()
    check: Callable[[Any, Table], None] = lambda config, table: None
    libraries: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ()


def library(name: str) -> ModuleType:
    """A module of the extra `evaluate`. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = PACKAGES.get(name.split(".")[0], name.split(".")[0])
        raise InputError(f"This measure needs {package}: pip install 'cutaway[evaluate]'.") from error


def label_ids(labels: list[Any], names: list[str]) -> np.ndarray:
    """Right answers as label ids: names (in any case) or the ids themselves.

    Raises InputError for any other; rows count from 1.
    """
    by_name = {name.casefold(): i for i, name in enumerate(names)} | {str(i): i for i in range(len(names))}
    found = []
    for place, label in enumerate(labels):
        key = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).strip().casefold()
        if key not in by_name:
            row = row_number(labels, place)
            raise InputError(
                f"Row {row} has the label {label!r:.60}; the model's labels are {', '.join(names[:20])}."
                f"{nearest(str(label), names) if len(names) > 20 else ''} "
                "Or is the label in another column (--column label=NAME)?"
            )
        found.append(by_name[key])
    return np.array(found)


def _labels_of(config: PretrainedConfig) -> list[str]:
    return [str(config.id2label[i]) for i in range(config.num_labels)]


def _problem(config: PretrainedConfig) -> str:
    """What a classifier answers: "one" label, "several" or a "number"."""
    problem = getattr(config, "problem_type", None)
    if problem == "regression" or (problem is None and config.num_labels == 1):
        return "number"
    return "several" if problem == "multi_label_classification" else "one"


def check_labels(config: PretrainedConfig | None, table: Table) -> None:
    """Raises InputError where a label is none of the model's."""
    if config is None:
        return
    problem = _problem(config)
    if problem == "number":
        _numbers(table["label"])
    else:
        (label_ids if problem == "one" else _label_sets)(table["label"], _labels_of(config))


def _label_sets(labels: list[Any], names: list[str]) -> np.ndarray:
    """Lists of labels as 0 and 1, [rows, labels]."""
    found = np.zeros((len(labels), len(names)))
    for row, cell in enumerate(labels):
        entries = _list(cell, row_number(labels, row), "label")
        for entry in entries:
            try:
                found[row, label_ids([entry], names)[0]] = 1
            except InputError:
                number = row_number(labels, row)
                raise InputError(
                    f"Row {number} has the label {entry!r:.60}; the model's labels are {', '.join(names[:20])}."
                ) from None
    return found


def _numbers(labels: list[Any]) -> np.ndarray:
    found = []
    for place, label in enumerate(labels):
        try:
            found.append(float(label))
        except (TypeError, ValueError):
            row = row_number(labels, place)
            raise InputError(f"Row {row} has the label {label!r:.60}; the model answers with a number.") from None
    return np.array(found)


def classification(pipe: Pipeline, table: Table, tokenizer: str | None = None) -> Scored:
    """Classification with one label each (calibration by `reliability`), several at once, or a number each."""
    pairs = table.get("text_pair")
    inputs = (
        [{"text": a, "text_pair": b} for a, b in zip(table["text"], pairs, strict=True)] if pairs else table["text"]
    )
    return {"one": _one_each, "several": _several, "number": _number_each}[_problem(pipe.model.config)](
        pipe, inputs, table["label"]
    )


def _scores(pipe: Pipeline, inputs: list[Any], names: list[str], activation: str) -> np.ndarray:
    """[rows, labels]"""
    place = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(inputs), len(names)))
    for row, answers in enumerate(pipe(inputs, top_k=None, function_to_apply=activation)):
        for answer in answers:
            found[row, place[answer["label"]]] = answer["score"]
    return found


def _one_each(pipe: Pipeline, inputs: list[Any], labels: list[Any]) -> Scored:
    metrics = library("sklearn.metrics")
    names = _labels_of(pipe.model.config)
    right = label_ids(labels, names)
    probabilities = _scores(pipe, inputs, names, "softmax")
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
    details = {"labels": names, "confusion": confusion, "reliability": bins, "report": _plain(report)}
    there = np.unique(right)
    notes = []
    if len(there) == 1 and len(names) > 1:
        notes.append(
            f"Every row has the label {names[there[0]]}: a model that always said it would be right in all of them, so "
            "accuracy says little here."
        )
    elif len(there) < len(names):
        missing = [name for i, name in enumerate(names) if i not in there]
        listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        notes.append(f"No row has the label {listed}: in macro_f1 such a label counts as 0.")
    best = probabilities.max(axis=1)
    answers = [(names[a], names[b], float(c)) for a, b, c in zip(right, said, best, strict=True)]
    return Scored(measures, per_row, details, notes, answers)


def _several(pipe: Pipeline, inputs: list[Any], labels: list[Any]) -> Scored:
    """A label is said where its probability is above one half."""
    metrics = library("sklearn.metrics")
    names = _labels_of(pipe.model.config)
    right = _label_sets(labels, names)
    said = (_scores(pipe, inputs, names, "sigmoid") > 0.5).astype(float)
    exact = (said == right).all(axis=1).astype(float)
    measures = {
        "micro_f1": float(metrics.f1_score(right, said, average="micro", zero_division=0)),
        "macro_f1": float(metrics.f1_score(right, said, average="macro", zero_division=0)),
        "exact": float(exact.mean()),
    }
    report = metrics.classification_report(right, said, target_names=names, output_dict=True, zero_division=0)
    return Scored(measures, {"exact": exact}, {"labels": names, "report": _plain(report)})


def _number_each(pipe: Pipeline, inputs: list[Any], labels: list[Any]) -> Scored:
    right = _numbers(labels)
    said = _scores(pipe, inputs, _labels_of(pipe.model.config), "none")[:, 0]
    errors = np.abs(said - right)
    measures = {"mean_absolute_error": float(errors.mean()), "rmse": float(np.sqrt((errors**2).mean()))}
    notes = []
    if said.std() > 0 and right.std() > 0:
        measures["pearson"] = float(np.corrcoef(said, right)[0, 1])
    else:
        notes.append("All rows have the same number, or the model says the same for all: there is no correlation.")
    return Scored(measures, {"mean_absolute_error": errors}, {}, notes)


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


SCHEME = re.compile(r"O|[BIESLUM]-.+")  # tags that say where an entity begins and goes on


def check_tags(config: PretrainedConfig, table: Table) -> None:
    """Raises InputError where tokens and tags do not go together, or no tag is one of the model's."""
    names = {} if config is None else {int(i): str(name) for i, name in config.id2label.items()}
    seen = _tags(table, names)[1]
    known = set(names.values())
    used = {tag for tags in seen for tag in tags} - {"O"}
    if config is not None and used and not used & known:
        told, given = ", ".join(sorted(used)[:8]), ", ".join(sorted(known)[:20])
        raise InputError(f"None of the tags ({told}) is one that the model gives: {given}.")


def _tags(table: Table, names: dict[int, str]) -> tuple[list[list[str]], list[list[str]]]:
    """The words and the right tags of each row; numbers are the model's labels."""
    words, right = [], []
    for place, (tokens, tags) in enumerate(zip(table["tokens"], table["tags"], strict=True)):
        row = row_number(table["tokens"], place)
        cells, marks = _list(tokens, row, "tokens"), _list(tags, row, "tags")
        if len(cells) != len(marks):
            raise InputError(f"Row {row} has {counted(len(cells), 'token')} and {counted(len(marks), 'tag')}.")
        if names:
            wrong = next((m for m in marks if isinstance(m, int) and m not in names), None)
            if wrong is not None:
                raise InputError(f"Row {row} has the tag {wrong}; the model's labels are 0 to {len(names) - 1}.")
        words.append([str(cell) for cell in cells])
        right.append([names.get(mark, str(mark)) if isinstance(mark, int) else str(mark) for mark in marks])
    return words, right


def entities(pipe: Pipeline, table: Table, tokenizer: str | None = None) -> Scored:
    """Words with tags; a word has the tag of its first token.

    Tags of an entity scheme (B-PER, I-PER, O) are measured over whole entities, as seqeval does (strictly by chunks);
    any others (parts of speech: NOUN, VERB) word by word.
    """
    import torch

    from cutaway.nn.call_context import Evaluation

    names = {int(i): str(name) for i, name in pipe.model.config.id2label.items()}
    tokens, right = _tags(table, names)
    said: list[list[str]] = []
    for start in range(0, len(tokens), TOKEN_ROWS):
        words = tokens[start : start + TOKEN_ROWS]
        batch = pipe.tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
        with Evaluation(pipe.model)(), torch.inference_mode():
            best = pipe.model(**{name: value.to(pipe.device) for name, value in batch.items()}).logits.argmax(dim=-1)
        for row, ids in enumerate(best.tolist()):
            by_word: dict[int, str] = {}
            for position, word in enumerate(batch.word_ids(row)):
                if word is not None:
                    by_word.setdefault(word, names[ids[position]])
            said.append([by_word.get(word, "O") for word in range(len(words[row]))])
    shares = np.array([_share(gold, tags) for gold, tags in zip(right, said, strict=True)])
    used = {tag for tags in right for tag in tags} - {"O"} or set(names.values()) - {"O"}
    scored = _chunks(right, said) if all(SCHEME.fullmatch(tag) for tag in used) else _words(right, said)
    return Scored(scored.measures, {"row_accuracy": shares}, scored.details, scored.notes)


def _share(gold: list[str], tags: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(gold, tags, strict=True)])) if gold else 1.0


def _chunks(right: list[list[str]], said: list[list[str]]) -> Scored:
    """Entities: right where type, beginning and end are."""
    seqeval = library("seqeval.metrics")
    # a tag of another scheme that the model gives must not be taken for an entity of another name
    said = [[tag if SCHEME.fullmatch(tag) else "O" for tag in tags] for tags in said]
    measures = {
        "f1": float(seqeval.f1_score(right, said, zero_division=0)),
        "precision": float(seqeval.precision_score(right, said, zero_division=0)),
        "recall": float(seqeval.recall_score(right, said, zero_division=0)),
        "accuracy": float(seqeval.accuracy_score(right, said)),
    }
    report = seqeval.classification_report(right, said, output_dict=True, zero_division=0)
    notes = []
    if all(tag == "O" for tags in right for tag in tags):
        notes.append("No row has an entity (every tag is O), so F1, precision and recall say nothing.")
    return Scored(measures, {}, {"report": _plain(report), "counted": "entities"}, notes)


def _words(right: list[list[str]], said: list[list[str]]) -> Scored:
    metrics = library("sklearn.metrics")
    gold, tags = ([tag for row in rows for tag in row] for rows in (right, said))
    names = sorted(set(gold))
    report = metrics.classification_report(gold, tags, labels=names, output_dict=True, zero_division=0)
    measures = {
        "accuracy": float(np.mean([a == b for a, b in zip(gold, tags, strict=True)])),
        "macro_f1": float(report["macro avg"]["f1-score"]),
    }
    notes = ["The tags have no B- and I-, so every word counts for itself, and no entities are counted."]
    return Scored(measures, {}, {"report": _plain(report), "counted": "words"}, notes)


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    """A report as JSON values. With one label each, scikit-learn adds the accuracy as a number."""
    return {
        label: {name: float(value) for name, value in values.items()} if isinstance(values, dict) else float(values)
        for label, values in report.items()
    }


def _list(cell: str | Iterable[Any], row: int, column: str) -> list[Any]:
    try:
        found = json.loads(cell) if isinstance(cell, str) else list(cell)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, list):
        raise InputError(f'Row {row}: {column!r} is {cell!r:.60}, not a list; in CSV a JSON list, ["a", "b"].')
    return found


def check_answers(config: PretrainedConfig, table: Table) -> None:
    """Raises InputError where right answers are neither texts nor lists of them."""
    for place, right in enumerate(table["answers"]):
        try:
            texts: list[Any] = _texts(right)
        except (ValueError, TypeError, AttributeError):
            texts = [None]
        if not all(isinstance(text, str) for text in texts):
            row = row_number(table["answers"], place)
            raise InputError(f"Row {row}: 'answers' is {right!r:.60}; it holds a text, or a list of texts.")


def answers(pipe: Pipeline, table: Table, tokenizer: str | None = None) -> Scored:
    """SQuAD's exact match and F1 (Rajpurkar et al., 2016); of several right answers the best counts."""
    squad = library("torchmetrics.functional.text").squad
    questions = [{"question": q, "context": c} for q, c in zip(table["question"], table["context"], strict=True)]
    # a stream: of a list of one, this task gives no list
    given = iter(questions) if hasattr(pipe, "each") else questions
    found = [entry[0] if isinstance(entry, list) else entry for entry in pipe(given)]
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


def summaries(pipe: Pipeline, table: Table, tokenizer: str | None = None) -> Scored:
    """ROUGE's F1 (Lin, 2004): English as rouge-score does it, with stems; other languages by `text_tokens.Unicode`."""
    kinds = ("rouge1", "rouge2", "rougeL")
    chosen = tokenizer or rouge_tokenizer(table["target"])
    cuts = {"rouge": None, "unicode": Unicode(), "char": Characters()}[chosen]
    scorer = library("rouge_score.rouge_scorer").RougeScorer(list(kinds), use_stemmer=True, tokenizer=cuts)
    pairs = zip(table["target"], written(pipe, table), strict=True)
    scores = [scorer.score(target, said) for target, said in pairs]
    per_row = {kind: np.array([score[kind].fmeasure for score in scores]) for kind in kinds}
    notes = []
    if chosen == "unicode":
        notes.append("The texts are not (only) in English letters: ROUGE counts whole words of any script, no stems.")
    if chosen == "rouge":
        blind = sum(not re.search("[a-z0-9]", target.lower()) for target in table["target"])
        if blind:
            notes.append(
                f"{blind:,} of the right answers have no letter a-z, which is all that this tokenizer sees: they score "
                "0 whatever is said. Take --tokenizer unicode."
            )
    measures = {name: float(values.mean()) for name, values in per_row.items()}
    return Scored(measures, per_row, {"tokenizer": chosen}, notes)


ORDER = 4  # the longest sequences of words that BLEU counts


def translations(pipe: Pipeline, table: Table, tokenizer: str | None = None) -> Scored:
    """BLEU (Papineni et al., 2002) and chrF (Popovic, 2015) over the corpus, with sacreBLEU's signatures.

    Where no answer has four words, BLEU counts the sequences that there are: it would be 0 whatever is said.
    """
    metrics = library("sacrebleu.metrics")
    chosen = tokenizer or bleu_tokenizer(table["target"])
    try:
        bleu, chrf = metrics.BLEU(tokenize=chosen), metrics.CHRF()
    except (RuntimeError, ImportError):  # an extra of sacreBLEU's
        raise InputError(f"--tokenizer {chosen} needs pip install 'sacrebleu[{chosen[:2]}]'.") from None
    said = written(pipe, table)
    scored = bleu.corpus_score(said, [table["target"]])
    notes = []
    longest = max((n for n, total in enumerate(scored.totals, start=1) if total), default=0)
    if longest < ORDER:
        bleu = metrics.BLEU(tokenize=chosen, effective_order=True)
        scored = bleu.corpus_score(said, [table["target"]])
        notes.append(f"No answer has {ORDER} words: BLEU counts sequences of up to {max(longest, 1)} here.")
    else:
        cut = metrics.BLEU(tokenize=chosen).corpus_score
        short = sum(cut([target], [[target]]).totals[ORDER - 1] == 0 for target in table["target"])
        if short * 2 > len(table["target"]):
            notes.append(
                f"{short:,} of {len(table['target']):,} right answers have fewer than {ORDER} words: BLEU, which "
                "counts sequences of four, says little about them. Look at chrF."
            )
    if chosen == "char" and tokenizer is None:
        notes.append("The texts are in a script without spaces: BLEU counts letters. See --tokenizer.")
    measures = {
        "bleu": float(scored.score),
        "chrf": float(chrf.corpus_score(said, [table["target"]]).score),
    }
    rows = [float(chrf.sentence_score(a, [b]).score) for a, b in zip(said, table["target"], strict=True)]
    signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    return Scored(measures, {"sentence_chrf": np.array(rows)}, {"tokenizer": chosen, "signatures": signatures}, notes)


def foresight(pipe: Pipeline, table: Table, tokenizer: str | None = None) -> Scored:
    """The perplexity of all tokens together: a long text counts more than a short one."""
    found = pipe(table["text"])
    tokens = np.array([answer["tokens"] for answer in found], dtype=float)
    losses = np.array([answer["loss"] for answer in found])
    loss = float((losses * tokens).sum() / tokens.sum())
    return Scored(
        {"perplexity": float(np.exp(loss)), "loss": loss}, {"row_loss": losses}, {"tokens": int(tokens.sum())}
    )


_WRITES = Scorer(("text", "target"), translations, libraries=("sacrebleu",), tokenizers=BLEU)
SCORERS: dict[str, Scorer] = {
    "text-classification": Scorer(
        ("text", "text_pair", "label"), classification, ("text_pair",), check_labels, ("sklearn.metrics",)
    ),
    "token-classification": Scorer(
        ("tokens", "tags"), entities, check=check_tags, libraries=("seqeval.metrics", "sklearn.metrics")
    ),
    "question-answering": Scorer(
        ("question", "context", "answers"), answers, check=check_answers, libraries=("torchmetrics",)
    ),
    "summarization": Scorer(("text", "target"), summaries, libraries=("rouge_score",), tokenizers=ROUGE),
    "translation": _WRITES,
    "text2text-generation": _WRITES,
    "perplexity": Scorer(("text",), foresight),
}
TEXTS = ("text", "text_pair", "question", "context", "target")  # columns that hold texts
