"""The training of one task besides text classification, what it measures, and its report."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from cutaway.errors import CutawayError, InputError, counted
from cutaway.evaluate.evaluation import Evaluation, evaluate, interval, prepare
from cutaway.evaluate.report import Report, Series, facts_of, model_card, write_report
from cutaway.jsonfile import write_text
from cutaway.pipelines import pipeline
from cutaway.pipelines.embedder import Embedder
from cutaway.train import IntervalStrategy, Trainer, TrainerCallback, TrainingArguments
from cutaway.train.study import Tried
from cutaway.tuning import curves
from cutaway.tuning.fine_tuning import Outcome, Tuning
from cutaway.tuning.ranking_measures import correlations, cosines, of_groups, of_ranks, ranks
from cutaway.tuning.ranking_trainer import RIGHT, RankingTrainer, ranking_settings
from cutaway.tuning.report import tried_table
from cutaway.tuning.sentence_trainer import SentenceTrainer
from cutaway.tuning.task_rows import TaskRows
from cutaway.tuning.tasks import (
    TASKS,
    TaskOptions,
    by_query,
    check_head,
    check_options,
    load_model,
    loss_name,
    pooling_of,
    trainer_class,
)

if TYPE_CHECKING:
    from cutaway.models.pretrained import PreTrainedModel
    from cutaway.tokenization.protocols import TokenizerLike

log = logging.getLogger(__name__)
ADAPTER = "adapter"  # the folder of what LoRA learned, beside the model that it is merged into
COSINES = "by the base model's cosines"
AT_ONCE = 64  # texts of one pass of an evaluation
_BY_PIPELINE = ("token-classification", "question-answering", "summarization", "translation", "text2text-generation")


@dataclass(frozen=True)
class TaskTuning(Tuning[TaskRows]):
    """A training of `task`, a name of `cutaway.tuning.READINGS`, on rows that `read_task` has read.

    Attributes:
        options: how the task is trained.
    """

    task: str = ""
    options: TaskOptions = field(default_factory=TaskOptions)

    def record(self) -> dict[str, str]:
        """As of every training; and the task, and how it is trained."""
        how = {name: value for name, value in dataclasses.asdict(self.options).items() if name != "load"}
        return super().record() | {"task": self.task, "options": json.dumps(how, sort_keys=True)}

    def run(self, folder: Path, *, resume: bool = False, **settings: object) -> Outcome:
        """As `Tuning.run`; of a reranker with `ranking_settings` where the settings say nothing: the best MRR stays."""
        own: dict[str, Any] = {}
        if self.task == "rerank":
            queries = by_query(self.training)
            own = ranking_settings(len(queries), sum(len(documents) for _, documents, _ in queries))
            if not any(max(right) > 0 and min(right) < 1 for _, _, right in by_query(self.validation)):
                del own["metric_for_best_model"]  # nothing is ranked
            own = {name: value for name, value in own.items() if name not in self.settings}
        return super().run(folder, resume=resume, **{**own, **settings})

    def check(self) -> None:
        """All that can be known before a model is loaded.

        Raises InputError: an option that the task does not take, a base model that cannot learn it, a package that a
            measure needs, too few rows.
        """
        check_options(self.task, self.options, self.training.columns)
        if self.training.columns != self.validation.columns:
            raise InputError(
                f"the validation has {', '.join(self.validation.columns)} and the training "
                f"{', '.join(self.training.columns)}; give rows of one kind."
            )
        check_head(self.task, self.model, self.training.columns, self.load)
        if self.task in _BY_PIPELINE:
            prepare(self.task, self.validation.rows, {}, None, self.validation.numbers)
        if self.task == "sentence-similarity":
            pooling_of(self.model, self.options)

    def _model(self) -> PreTrainedModel:
        return cast("PreTrainedModel", load_model(self.task, self.model, self.training, self._options()))

    def _options(self) -> TaskOptions:
        return dataclasses.replace(self.options, load=self.load, max_length=self.max_length)

    def _trainer(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        tokenizer: TokenizerLike,
        callbacks: Sequence[TrainerCallback],
    ) -> Trainer:
        options, spec = self._options(), TASKS[self.task]
        args.prediction_loss_only = self.task != "rerank"
        return trainer_class(self.task, self.model, options, self.training.columns)(
            model,
            args,
            train_dataset=spec.encode(self.training, model, tokenizer, options),
            eval_dataset=spec.encode(self.validation, model, tokenizer, options),
            data_collator=spec.collator(tokenizer, model, options),
            processing_class=tokenizer,
            callbacks=callbacks,
        )

    def _before(self, trainer: Trainer) -> dict[str, float]:
        """Of models that can do the task already, what they make of it."""
        if self.task in ("text-generation", "fill-mask"):
            never = IntervalStrategy.NO
            quiet = dataclasses.replace(
                trainer.args, report_to=None, disable_tqdm=True, eval_strategy=never, load_best_model_at_end=False
            )
            other = Trainer(
                trainer.model, quiet, trainer.data_collator, eval_dataset=trainer.eval_dataset,
                processing_class=trainer.processing_class,
            )  # fmt: skip
            metrics = other.evaluate()
            if "eval_loss" not in metrics:
                raise InputError(
                    f"{counted(len(self.validation), 'row')} to validate with hold too few tokens to mask any; "
                    "give more with --validation."
                )
            return _of_loss(metrics["eval_loss"])
        if self.task == "sentence-similarity":
            return self.measured(trainer, None).measures
        if self.task == "rerank":
            return self._of_cosines(trainer)
        return {}

    def _of_cosines(self, trainer: Trainer) -> dict[str, float]:
        """How well the base model ranks the rows without any training: by the cosines of its vectors."""
        load = dict(self.load)
        if "local_files_only" in load:
            load["model_kwargs"] = {"local_files_only": load.pop("local_files_only")}
        try:
            embed = Embedder(self.model, **load)
            texts = list(
                dict.fromkeys(text for row in self.validation.rows for text in (row["query"], *row["documents"]))
            )
            vectors = dict(zip(texts, np.asarray(embed.encode(texts, normalize_embeddings=True)), strict=True))
        except CutawayError as error:  # a model whose vectors cannot be had is trained all the same
            log.warning("the report has no cosines of the base model: %s", error)
            return {}
        said, right = [], []
        for query, documents, labels in by_query(self.validation):
            said.append(np.array([float(vectors[query] @ vectors[one]) for one in documents]))
            right.append(np.array(labels))
        per_row = of_groups(said, right)
        return {name: float(values.mean()) for name, values in per_row.items() if len(values)}

    def _save(self, trainer: Trainer, folder: Path) -> None:
        """The model, its adapter merged into it; of vectors with the files that sentence-transformers reads."""
        if self.options.lora:
            if trainer.is_world_process_zero():
                trainer.model.save_adapter(folder / ADAPTER)
            trainer.model.merge_adapter()
        super()._save(trainer, folder)

    def write_beside(self, trainer: Trainer, folder: Path) -> None:
        """The adapter alone, and what sentence-transformers reads."""
        if not trainer.is_world_process_zero():
            return
        learned = Path(trainer.args.output_dir) / ADAPTER
        if self.options.lora and learned != folder / ADAPTER:  # of the best trial of a search
            shutil.copytree(learned, folder / ADAPTER, dirs_exist_ok=True)
        if self.task == "sentence-similarity":
            write_sentence_modules(folder, self.model, self._options(), int(trainer.model.config.hidden_size))

    def measured(self, trainer: Trainer, metrics: dict[str, float] | None) -> Evaluation:
        """What the model makes of the validation rows; metrics: of its last evaluation."""
        rows, model, tokenizer = self.validation, trainer.model, trainer.processing_class
        model.eval()
        if self.task in _BY_PIPELINE:
            with torch.inference_mode():
                made = pipeline(self.task, model, tokenizer)
                return evaluate(made, rows.rows, numbers=rows.numbers)
        if self.task == "rerank":
            return self._of_ranking(cast("RankingTrainer", trainer))
        if self.task == "sentence-similarity":
            return self._of_vectors(cast("SentenceTrainer", trainer))
        loss = (metrics or {}).get("eval_loss", math.nan)
        notes = []
        if self.task == "fill-mask":
            notes = ["Measured at masked tokens, drawn once for all evaluations."]
        elif "text" not in rows.columns:
            notes = ["Measured over the tokens of the answers alone."]
        return Evaluation(self.task, len(rows), _of_loss(loss), {}, {}, {}, notes)

    def _encoded(self, trainer: Trainer) -> list[dict[str, Any]]:
        return TASKS[self.task].encode(self.validation, trainer.model, trainer.processing_class, self._options())

    def _of_vectors(self, trainer: SentenceTrainer) -> Evaluation:
        rows, encoded = self.validation, self._encoded(trainer)
        columns: list[list[np.ndarray]] = []
        with torch.inference_mode():
            for at in range(0, len(encoded), AT_ONCE):
                batch = trainer._prepare_inputs(dict(trainer.data_collator(encoded[at : at + AT_ONCE])))
                columns.append([one.float().cpu().numpy() for one in trainer.vectors(trainer.model, batch)])
        vectors = [np.concatenate(parts) for parts in zip(*columns, strict=True)]  # of each column [rows, width]
        scored = "label" in rows.columns
        notes: list[str] = []
        if scored:
            same = np.diag(cosines(vectors[0], vectors[1]))
            found = correlations(same, np.array([row["label"] for row in rows.rows]))
            if not found:
                notes.append("All scores, or all similarities, are equal, so no order can be compared.")
            return Evaluation(self.task, len(rows), found, {}, {}, {}, notes)
        texts = [text for row in rows.rows for text in row["texts"][1:]]
        documents = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(documents)}
        of_text = dict(zip(texts, np.stack(vectors[1:], 1).reshape(-1, vectors[0].shape[1]), strict=True))
        matrix = np.stack([of_text[text] for text in documents])
        own = ranks(cosines(vectors[0], matrix), [place[row["texts"][1]] for row in rows.rows])
        per_row = of_ranks(own)
        if len(vectors) > 2:
            near = np.diag(cosines(vectors[0], vectors[1]))
            far = np.stack([np.diag(cosines(vectors[0], one)) for one in vectors[2:]]).max(0)
            per_row["triplet_accuracy"] = (near > far).astype(np.float64)
        notes.append(f"Each query looks for its text among {counted(len(documents), 'text')} of the validation rows.")
        return _of_rows(self.task, len(rows), per_row, notes)

    def _of_ranking(self, trainer: RankingTrainer) -> Evaluation:
        rows, encoded = self.validation, self._encoded(trainer)
        few = max(1, AT_ONCE // max((len(row[RIGHT]) for row in encoded), default=1))
        said: list[np.ndarray] = []
        with torch.inference_mode():
            for at in range(0, len(encoded), few):
                batch = trainer._prepare_inputs(dict(trainer.data_collator(encoded[at : at + few])))
                said += [own.double().cpu().numpy() for own in trainer.scores(trainer.model, batch)]
        right = [np.array(row[RIGHT]) for row in encoded]
        per_row = of_groups(said, right)
        agreed = (np.concatenate(said) > 0) == (np.concatenate(right) > 0.5)
        found = _of_rows(self.task, len(rows), per_row if len(per_row["mrr_at_10"]) else {}, [])
        notes = [] if found.measures else ["No query has both an answer and a text that is none, so nothing is ranked."]
        measures = {**found.measures, "pairs_right": float(agreed.mean())}
        return dataclasses.replace(found, measures=measures, notes=notes)


def beaten_by_cosines(measures: Mapping[str, float], cosines: Mapping[str, float]) -> str:
    """What there is to say where the base model's cosines rank better than what was trained; "" where they do not."""
    first = "mrr_at_10"
    if cosines.get(first, 0.0) <= measures.get(first, 1.0):
        return ""
    return (
        f"The base model's cosines rank these rows better ({cosines[first]:.4f} against {measures[first]:.4f}), and "
        "cost less. A reranker reads the query and a document together, by a head that begins anew: it needs more "
        "queries (well over a thousand), or more --epochs, than a model whose vectors were trained to be compared."
    )


def _of_loss(loss: float) -> dict[str, float]:
    return {"perplexity": math.exp(min(loss, 700.0)), "loss": loss}


def _of_rows(task: str, n: int, per_row: dict[str, Any], notes: list[str]) -> Evaluation:
    measures = {name: float(values.mean()) for name, values in per_row.items()}
    return Evaluation(
        task, n, measures, {name: interval(values) for name, values in per_row.items()}, per_row, {}, notes
    )


def write_sentence_modules(folder: Path, base: str, options: TaskOptions, width: int) -> None:
    """What sentence-transformers, and `cutaway embed`, need to know beside the model."""
    modules = pooling_of(base, options)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if "normalize" in modules.after else [])]
    places = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    listed = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places, strict=True))
    ]
    ways = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
    pooling = {"word_embedding_dimension": width} | {
        f"pooling_mode_{name}": way == modules.pooling[0] for way, name in ways.items()
    }
    longest = options.max_length or modules.longest
    settings = {"max_seq_length": longest, "do_lower_case": modules.lower}
    similarity = {"similarity_fn_name": "cosine", "prompts": dict(modules.prompts), "default_prompt_name": None}
    for place in places[1:]:
        (folder / place).mkdir(exist_ok=True)
    write_text(folder / "modules.json", json.dumps(listed, indent=1) + "\n")
    write_text(folder / "1_Pooling" / "config.json", json.dumps(pooling, indent=1) + "\n")
    write_text(folder / "sentence_bert_config.json", json.dumps(settings, indent=1) + "\n")
    write_text(folder / "config_sentence_transformers.json", json.dumps(similarity, indent=1) + "\n")


# -- the report --------------------------------------------------------------------------------------------------------

_TITLES = {
    "token-classification": "A model that tags words",
    "question-answering": "A model that finds answers",
    "summarization": "A model that shortens texts",
    "translation": "A model that translates",
    "text2text-generation": "A model of texts to texts",
    "fill-mask": "A model that fills gaps",
    "text-generation": "A model that writes",
    "sentence-similarity": "A model of vectors",
    "rerank": "A model that ranks answers",
}


def write_task(
    tuning: TaskTuning,
    outcome: Outcome,
    folder: Path,
    tried: Sequence[Tried] = (),
    *,
    data: str = "",
    command: str = "",
    also: Path | None = None,
) -> Evaluation | None:
    """Write report.html, README.md (a model card) and curves.png into `folder`; what they say.

    Of several processes all call it, and the first measures and writes; the others get None.
    """

    def made() -> Evaluation:
        history = outcome.trainer.state.log_history
        evaluation = tuning.measured(outcome.trainer, outcome.metrics)
        curves.save(history, "loss", folder / "curves.png")
        if tuning.task == "rerank" and (said := beaten_by_cosines(evaluation.measures, outcome.before)):
            evaluation.notes.append(said)

        def points(name: str) -> list[tuple[float, float]]:
            return [(float(entry["step"]), float(entry[name])) for entry in history if name in entry]

        report = Report(
            title=f"{_TITLES[tuning.task]}, from {Path(data).name or 'a table'}",
            facts=_facts(tuning, outcome, data, command),
            evaluation=evaluation,
            series=[
                Series("loss", [("training", points("loss")), ("validation", points("eval_loss"))]),
                Series("learning rate", [("rate", points("learning_rate"))]),
            ],
            tried=tried_table(tried),
            before=outcome.before,
            before_is=COSINES if tuning.task == "rerank" else "before the training",
        )
        fields = {
            "library_name": "cutaway",
            "pipeline_tag": {"rerank": "text-ranking"}.get(tuning.task, tuning.task),
            "base_model": tuning.model,
            "tags": [tuning.task, "cutaway"],
        }
        write_report(report, folder / "report.html")
        write_text(folder / "README.md", model_card(report, fields))
        if also is not None:
            write_report(report, also)
        return evaluation

    found: list[Evaluation] = []
    outcome.trainer.ranks.on_first_rank(lambda: found.append(made()))
    return found[0] if found else None


def _facts(tuning: TaskTuning, outcome: Outcome, data: str, command: str) -> dict[str, str]:
    state, args, options = outcome.trainer.state, outcome.trainer.args, tuning.options
    seconds = next((e["train_runtime"] for e in reversed(state.log_history) if "train_runtime" in e), 0.0)
    made = facts_of(tuning.task, data, tuning.model, command)
    if tuning.task == "sentence-similarity":
        made["loss"] = loss_name(options, tuning.training.columns)
    if options.lora:
        made["adapter"] = f"LoRA of rank {options.lora}, merged into the model; alone in the folder {ADAPTER}"
    return made | {
        "rows": f"{len(tuning.training):,} to train on, {len(tuning.validation):,} to validate with",
        "steps": f"{state.global_step:,} of {state.max_steps:,}, {state.epoch:.2f} epochs, {seconds:,.0f} s",
        "the model kept": f"of step {state.best_global_step:,}" if state.best_global_step else "the last one",
        "batch size, rate, seed": f"{args.per_device_train_batch_size}, {args.learning_rate:g}, {args.seed}",
    }
