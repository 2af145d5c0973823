"""The tasks that are trained besides text classification: the head of each, its batches, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutaway import auto
from cutaway.errors import ConfigError, InputError
from cutaway.hub.class_endings import ending_of
from cutaway.nn.losses import IGNORED
from cutaway.pipelines.fit import longest_input
from cutaway.pipelines.sentence_modules import SentenceModules, sentence_modules
from cutaway.train import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
    Trainer,
    default_data_collator,
)
from cutaway.train.collator import DataCollatorWithPadding
from cutaway.train.sentence_losses import SENTENCE_LOSSES, sentence_loss
from cutaway.tuning.chat_rows import encoded as as_conversation
from cutaway.tuning.ranking_trainer import PAIRS, RIGHT, DataCollatorForRanking, RankingTrainer
from cutaway.tuning.sentence_trainer import TRAINED_POOLINGS, DataCollatorForSentences, SentenceTrainer
from cutaway.tuning.task_rows import TaskRows

if TYPE_CHECKING:
    from torch import nn

    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.base import PreTrainedTokenizerFast as Tokenizer

Encoded = list[dict[str, Any]]
STRIDE = 0.25  # of a window of a long context, shared with the next


@dataclass(frozen=True)
class TaskOptions:
    """How a task is trained.

    Attributes:
        loss: of vectors, by its name in `SENTENCE_LOSSES`; by the columns unless given.
        pooling: of vectors; as the base model's folder says, or the mean, unless given.
        pack: lay the texts of a batch one after another in one row (causal models).
        max_length: tokens at which texts are cut; what the model takes unless given.
        lora: the rank of an adapter that learns in place of the weights; 0 for none.
        load: more arguments of `from_pretrained`. seed: of the masks.
    """

    loss: str | None = None
    pooling: str | None = None
    pack: bool = False
    max_length: int | None = None
    lora: int = 0
    load: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 42


@dataclass(frozen=True)
class TrainedTask:
    """One task.

    Attributes:
        head: the name of the auto class. fields: (rows, options) -> fields of the config that the rows decide.
        encode: (rows, model, tokenizer, options) -> rows of token ids and labels.
        collator: (tokenizer, model, options) -> what makes batches.
        options: names of the options that the task takes beside lora and max_length.
    """

    head: str
    encode: Callable[[TaskRows, Any, Any, TaskOptions], Encoded]
    collator: Callable[[Any, Any, TaskOptions], Any]
    fields: Callable[[TaskRows], dict[str, Any]] = lambda rows: {}
    options: tuple[str, ...] = ()


def check_options(task: str, options: TaskOptions, columns: Sequence[str] = ()) -> None:
    """Raises InputError or ConfigError for options that the task does not take."""
    for name in ("loss", "pooling", "pack"):
        if getattr(options, name) and name not in TASKS[task].options:
            owners = " or ".join(one for one, spec in TASKS.items() if name in spec.options)
            raise InputError(f"--{name} belongs to --task {owners}, not to {task}.")
    if options.loss is not None:
        sentence_loss(options.loss)
        if columns and options.loss in _SCORED and "label" not in columns:
            raise InputError(
                f"{options.loss} needs the columns sentence1, sentence2 and score; the data is read as "
                f"{', '.join(columns)}."
            )
        if columns and options.loss not in _SCORED and "label" in columns:
            raise InputError(
                f"{options.loss} needs the columns anchor and positive; of scored pairs, take {' or '.join(_SCORED)}."
            )
    if options.pooling is not None and options.pooling not in TRAINED_POOLINGS:
        raise ConfigError(f"--pooling {options.pooling}: vectors are trained with {', '.join(TRAINED_POOLINGS)}.")


def check_head(task: str, name: str, columns: Sequence[str], load: Mapping[str, Any]) -> None:
    """Raises InputError for a base model that cannot learn the task: no such head, or no template for conversations."""
    head = TASKS[task].head
    config = auto.AutoConfig.from_pretrained(name, **load)
    try:
        getattr(auto, head).model_class(config.model_type, name)
    except ConfigError as error:
        raise InputError(
            f"{name} is a {config.model_type} model, which cannot be trained for {task}{_BASES.get(head, '')}."
        ) from error
    if "messages" in columns and not auto.AutoTokenizer.from_pretrained(name, **load).chat_template:
        raise InputError(
            f"{name} has no chat template, and the data has messages. Take a base that was made for conversations, "
            "such as HuggingFaceTB/SmolLM2-135M-Instruct, set tokenizer.chat_template and save the tokenizer beside "
            "the base, or give rows of prompt and answer."
        )


_WRITERS = ": it writes no text. Take an encoder-decoder, such as t5-small or facebook/bart-base"
_BASES = {"AutoModelForSeq2SeqLM": _WRITERS, "AutoModelForCausalLM": ": take a decoder, such as gpt2"}
_BASES["AutoModelForMaskedLM"] = ": take an encoder with masked tokens, such as bert-base-uncased"

_SCORED = ("CosineSimilarityLoss", "CoSENTLoss", "ContrastiveLoss")


def loss_name(options: TaskOptions, columns: Sequence[str]) -> str:
    """The loss of vectors: the one that is asked for, or the one that fits the columns."""
    return options.loss or ("CosineSimilarityLoss" if "label" in columns else "MultipleNegativesRankingLoss")


def pooling_of(name: str, options: TaskOptions) -> SentenceModules:
    """How the vectors of a base model are pooled, as its folder says.

    Raises InputError where it says more than can be trained here.
    """
    modules = sentence_modules(name) or SentenceModules(("mean",))
    if options.pooling is not None:
        return SentenceModules((options.pooling,), (), modules.longest, modules.lower)
    if len(modules.pooling) > 1 or modules.pooling[0] not in TRAINED_POOLINGS or set(modules.after) - {"normalize"}:
        raise InputError(
            f"{name} pools its vectors in a way that is not trained here ({', '.join(modules.pooling)}, and "
            f"{len(modules.after)} more modules). Say --pooling mean to begin anew from its tokens' vectors."
        )
    return modules


def load_model(task: str, name: str, rows: TaskRows, options: TaskOptions) -> nn.Module:
    """The base model under the task's head: its own head where it fits, else a fresh one."""
    head = TASKS[task].head
    cls = getattr(auto, head)
    fields = TASKS[task].fields(rows)
    load = dict(options.load)
    config = auto.AutoConfig.from_pretrained(name, **load)
    class_name = next(iter(getattr(config, "architectures", None) or ()), "")
    end = ending_of(class_name)
    fresh = head not in _WITHOUT_FRESH and (end is None or end.auto != head)
    if "id2label" in fields:
        same = not fresh and set(config.id2label.values()) == set(fields["id2label"].values())
        fields = {} if same else fields
        fresh = fresh or not same
    if task == "rerank":
        fresh = fresh or config.num_labels != 1
    if not fresh:
        model = cls.from_pretrained(name, dtype="float32", **fields, **load)
    else:
        model = cls.from_config(auto.AutoConfig.from_pretrained(name, **fields, **load))
        base = auto.AutoModel.from_pretrained(name, dtype="float32", **load)
        model.base_model.load_state_dict(base.state_dict(), strict=False)
    if options.lora:
        from cutaway.nn.lora_config import LoraConfig

        whole = ["logits"] if fresh else None  # a fresh head must learn in full
        model.add_adapter(LoraConfig(r=options.lora, lora_alpha=2 * options.lora, modules_to_save=whole))
    made: nn.Module = model
    return made


_WITHOUT_FRESH = ("AutoModel", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM", "AutoModelForCausalLM")


def trainer_class(task: str, name: str, options: TaskOptions, columns: Sequence[str]) -> Callable[..., Trainer]:
    """What makes the trainer: of vectors one that compares them, of rankings one that reads a query's documents."""
    if task == "rerank":
        return RankingTrainer
    if task != "sentence-similarity":
        return Trainer

    def made(*args: object, **more: object) -> Trainer:
        modules = pooling_of(name, options)
        loss = SENTENCE_LOSSES[loss_name(options, columns)]()
        return SentenceTrainer(*args, loss=loss, pooling=modules.pooling[0], **more)  # type: ignore[arg-type]

    return made


def longest_taken(model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> int | None:
    """How many tokens of a text are read: those that the model takes, or fewer where the options say so."""
    most = longest_input(model, tokenizer)
    known = [n for n in (most, options.max_length) if n is not None]
    return min(known) if known else None


# -- words and their tags ----------------------------------------------------------------------------------------------


def _tags(rows: TaskRows) -> dict[str, Any]:
    names = sorted({tag for row in rows.rows for tag in row["tags"]} - {"O"})
    # "I-" of every "B-", so that what is written of the tags of other rows has its label
    names = sorted({*names, *(f"I-{name[2:]}" for name in names if name.startswith("B-"))})
    id2label = dict(enumerate(["O", *names]))
    return {
        "num_labels": len(id2label),
        "id2label": id2label,
        "label2id": {name: i for i, name in id2label.items()},
    }


def _encode_tags(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    place = model.config.label2id
    for row, number in zip(rows.rows, rows.numbers, strict=True):
        unknown = next((tag for tag in row["tags"] if tag not in place), None)
        if unknown is not None:
            raise InputError(f"row {number} has the tag {unknown!r}, which no training row has: {', '.join(place)}.")
    most = longest_taken(model, tokenizer, options)
    found = tokenizer([row["tokens"] for row in rows.rows], is_split_into_words=True, truncation=True, max_length=most)
    made = []
    for i, row in enumerate(rows.rows):
        words, labels, before = found.word_ids(i), [], None
        for word in words:  # the first piece of each word says its tag
            labels.append(IGNORED if word is None or word == before else place[row["tags"][word]])
            before = word
        made.append({**{name: found[name][i] for name in found}, "labels": labels})
    return made


# -- answers in a context ----------------------------------------------------------------------------------------------


def _encode_answers(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    """Each window of a long context is a row; those without the answer point to the first token."""
    most = longest_taken(model, tokenizer, options)
    made = []
    for row in rows.rows:
        more: dict[str, Any] = {}
        if most is not None:
            question = len(tokenizer(row["question"])["input_ids"])
            room = most - question - 2
            if room < 2:
                raise InputError(
                    f"the question {row['question']!r:.40} leaves no room for a context; raise --max-length."
                )
            more = {"truncation": "only_second", "max_length": most, "stride": int(room * STRIDE)}
        found = tokenizer(
            [row["question"]],
            [row["context"]],
            return_offsets_mapping=True,
            return_overflowing_tokens=most is not None,
            **more,
        )
        answer = row["answers"][0] if row["answers"] else ""
        first, last = row["start"], row["start"] + len(answer)
        for i, offsets in enumerate(found["offset_mapping"]):
            inside = [j for j, of in enumerate(found.sequence_ids(i)) if of == 1]
            tokens = [j for j in inside if offsets[j][0] < last and offsets[j][1] > first]
            covered = bool(answer and tokens) and offsets[inside[0]][0] <= first and offsets[inside[-1]][1] >= last
            start, end = (tokens[0], tokens[-1]) if covered else (0, 0)
            names = [name for name in tokenizer.model_input_names if name in found]
            made.append({**{name: found[name][i] for name in names}, "start_positions": start, "end_positions": end})
    return made


class _Padded:
    """Padding by the tokenizer; numbers beside the ids are put together as they are."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.pad = tokenizer, DataCollatorWithPadding(tokenizer)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        names = ("start_positions", "end_positions")
        rest = [{name: row[name] for name in names} for row in features]
        rows = [{name: value for name, value in row.items() if name not in names} for row in features]
        return {**self.pad(rows), **default_data_collator(rest)}


# -- texts -------------------------------------------------------------------------------------------------------------


def _encode_targets(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    prefix = (getattr(model.config, "prefix", None) or "") if "text" in rows.columns else ""
    most = longest_taken(model, tokenizer, options)
    cut: dict[str, Any] = {"truncation": most is not None, **({} if most is None else {"max_length": most})}
    found = tokenizer(
        [prefix + row["text"] for row in rows.rows], text_target=[row["target"] for row in rows.rows], **cut
    )
    return [{name: found[name][i] for name in found} for i in range(len(rows))]


def _encode_texts(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    most = longest_taken(model, tokenizer, options)
    cut: dict[str, Any] = {"truncation": most is not None, **({} if most is None else {"max_length": most})}
    found = tokenizer([row["text"] for row in rows.rows], **cut)
    return [{name: found[name][i] for name in found} for i in range(len(rows))]


def _encode_chat(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    most = longest_taken(model, tokenizer, options)
    made = []
    for row, number in zip(rows.rows, rows.numbers, strict=True):
        found = as_conversation(row, tokenizer, most)
        if all(label == IGNORED for label in found["labels"]):
            raise InputError(f"row {number}: no token of an answer lies within {most} tokens; raise --max-length.")
        made.append(found)
    return made


def _chat_collator(
    tokenizer: Tokenizer, model: LanguageModel, options: TaskOptions
) -> DataCollatorWithFlattening | DataCollatorForLanguageModeling:
    return DataCollatorWithFlattening() if options.pack else DataCollatorForLanguageModeling(tokenizer, mlm=False)


# -- vectors and rankings ----------------------------------------------------------------------------------------------


def _encode_compared(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    most = longest_taken(model, tokenizer, options)
    cut: dict[str, Any] = {"truncation": most is not None, **({} if most is None else {"max_length": most})}
    made: Encoded = []
    for row in rows.rows:
        found: dict[str, Any] = {"texts": tokenizer(row["texts"], **cut)["input_ids"]}
        made.append(found | ({"label": row["label"]} if "label" in row else {}))
    return made


def by_query(rows: TaskRows) -> list[tuple[str, list[str], list[float]]]:
    """(query, its documents, their labels): a query may stand in several rows, with some of its documents each."""
    queries: dict[str, tuple[list[str], list[float]]] = {}
    for row in rows.rows:
        documents, right = queries.setdefault(row["query"], ([], []))
        documents += row["documents"]
        right += row["labels"]
    return [(query, documents, right) for query, (documents, right) in queries.items()]


def _encode_ranked(rows: TaskRows, model: LanguageModel, tokenizer: Tokenizer, options: TaskOptions) -> Encoded:
    most = longest_taken(model, tokenizer, options)
    cut: dict[str, Any] = {"truncation": most is not None, **({} if most is None else {"max_length": most})}
    queries = by_query(rows)
    pairs = [(query, document) for query, documents, _ in queries for document in documents]
    found = tokenizer([query for query, _ in pairs], [document for _, document in pairs], **cut)
    made, at = [], 0
    for _, _, right in queries:
        own = range(at, at + len(right))
        made.append({PAIRS: [{name: found[name][i] for name in found} for i in own], RIGHT: right})
        at += len(right)
    return made


_WRITES = TrainedTask(
    "AutoModelForSeq2SeqLM", _encode_targets, lambda tokenizer, model, options: DataCollatorForSeq2Seq(tokenizer, model)
)

TASKS: dict[str, TrainedTask] = {
    "token-classification": TrainedTask(
        "AutoModelForTokenClassification",
        _encode_tags,
        lambda tokenizer, model, options: DataCollatorForTokenClassification(tokenizer),
        _tags,
    ),
    "question-answering": TrainedTask(
        "AutoModelForQuestionAnswering", _encode_answers, lambda tokenizer, model, options: _Padded(tokenizer)
    ),
    "summarization": _WRITES,
    "translation": _WRITES,
    "text2text-generation": _WRITES,
    "fill-mask": TrainedTask(
        "AutoModelForMaskedLM",
        _encode_texts,
        lambda tokenizer, model, options: DataCollatorForLanguageModeling(tokenizer, seed=options.seed),
    ),
    "text-generation": TrainedTask("AutoModelForCausalLM", _encode_chat, _chat_collator, options=("pack",)),
    "sentence-similarity": TrainedTask(
        "AutoModel",
        _encode_compared,
        lambda tokenizer, model, options: DataCollatorForSentences(tokenizer),
        options=("loss", "pooling"),
    ),
    # one number, whose sigmoid is the probability of an answer
    "rerank": TrainedTask(
        "AutoModelForSequenceClassification",
        _encode_ranked,
        lambda tokenizer, model, options: DataCollatorForRanking(tokenizer),
        lambda rows: {"num_labels": 1, "problem_type": "multi_label_classification"},
    ),
}
