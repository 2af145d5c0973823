"""One fine-tuning: from rows to a folder with the model; and that of a classifier, from labelled texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch

from cutaway.auto import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from cutaway.errors import InputError
from cutaway.hub.files import packaged_file
from cutaway.jsonfile import MEGABYTE, read_json, write_text
from cutaway.train import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from cutaway.train import saving as checkpoints
from cutaway.train.distributed import ProcessGroup, restarted
from cutaway.train.signals import SignalStop
from cutaway.tuning.labelled import Labelled
from cutaway.tuning.measures import measures_of
from cutaway.tuning.validation_log import ValidationLog

if TYPE_CHECKING:
    from cutaway.models.pretrained import PreTrainedModel
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

RECORD = "data.json"
PROBLEMS = {"one": "single_label_classification", "several": "multi_label_classification", "number": "regression"}


@dataclass(frozen=True)
class Outcome:
    """A finished training: its trainer (model, tokenizer, state) and what the validation said of the model saved.

    before: what was measured before the first step.
    """

    trainer: Trainer
    metrics: dict[str, float]
    before: dict[str, float] = field(default_factory=dict)


# settings of TrainingArguments that a training goes on with as it began; the batches' own are in its checkpoints
UNCHANGED = (
    "num_train_epochs", "max_steps", "learning_rate", "learning_rates", "layer_lr_decay", "lr_scheduler_type",
    "warmup_ratio", "warmup_steps", "optim", "weight_decay", "max_grad_norm", "freeze", "class_weights",
    "label_smoothing_factor", "bf16", "fp16", "seed",
)  # fmt: skip


def without_short_warmup(args: TrainingArguments, rows: int) -> dict[str, float]:
    """Settings that leave the warm-up out where it is a share shorter than a step; {} where it is not.

    It would be a first step at a rate of 0, which teaches nothing. A number of steps that is asked for stays.
    """
    steps = float(args.max_steps)
    if steps <= 0:
        rows_of_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        steps = -(-rows // rows_of_step) * args.num_train_epochs
    share = args.warmup_steps or args.warmup_ratio
    return {"warmup_ratio": 0.0, "warmup_steps": 0} if 0 < share < 1 and share * steps < 1 else {}


def _unchanged(args: TrainingArguments, max_length: int | None) -> dict[str, object]:
    """What of the settings may not change when a training goes on, as JSON holds it."""
    found = {name: getattr(args, name) for name in UNCHANGED} | {"max_length": max_length}
    plain: dict[str, object] = json.loads(json.dumps(found, default=str))
    return plain


class RowsToTrainOn(Protocol):
    """What a training records of its rows."""

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """Equal for equal rows in the same order."""


R = TypeVar("R", bound=RowsToTrainOn)


@dataclass(frozen=True)
class Tuning(Generic[R]):
    """A training that may be run, and resumed; a subclass says what its rows are, and what is trained on them.

    Attributes:
        model: a name or folder. load: more arguments of `from_pretrained`.
        training, validation: the rows.
        settings: of TrainingArguments. patience: evaluations without improvement after which it stops.
        max_length: tokens at which texts are cut; what the model takes unless given.
        callbacks: more of the trainer's.
    """

    model: str
    training: R
    validation: R
    settings: Mapping[str, Any] = field(default_factory=dict)
    patience: int | None = None
    max_length: int | None = None
    load: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[TrainerCallback] = ()

    def run(self, folder: Path, *, resume: bool = False, **settings: object) -> Outcome:
        """Train, evaluate after each epoch, and save the model with the lowest validation loss in `folder`.

        A warm-up that is shorter than a step is left out.

        Several processes of torchrun train as one; one that torchrun has started again goes on where it was.

        Args:
            resume: go on from the newest whole checkpoint in `folder`.
            settings: TrainingArguments that go before those of this training.

        Raises:
            InputError: the folder holds another training, or a model that would be overwritten; or it is to go on with
                other settings than it began with.
            OutputError: another process trains there.
            KeyboardInterrupt: it was stopped; a checkpoint of the last step is in `folder`.
        """
        given: dict[str, Any] = {
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
            "logging_steps": 0.02,
            **self.settings,
            **settings,
        }
        args = TrainingArguments(folder, **given)
        if changed := without_short_warmup(args, len(self.training)):
            args = TrainingArguments(folder, **{**given, **changed})
        ranks = ProcessGroup.here(torch.cuda.is_available() and not args.use_cpu, args.ddp_timeout)
        claim = checkpoints.OutputClaim(folder)  # from here to the saved model
        ranks.on_first_rank(claim.take)
        try:
            return self._run(folder, args, ranks, resume)
        finally:
            claim.release()

    def _run(self, folder: Path, args: TrainingArguments, ranks: ProcessGroup, resume: bool) -> Outcome:
        resume = ranks.on_first_rank(lambda: self._claim(folder, args, resume))
        tokenizer = AutoTokenizer.from_pretrained(self.model, **self.load)
        set_seed(args.seed)  # a fresh head is drawn
        model = self._model()
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
            model.config.pad_token_id = tokenizer.pad_token_id
        _check_room(folder, model)
        stopping = SignalStop(patient=ranks.size > 1)
        early = [] if self.patience is None else [EarlyStoppingCallback(self.patience)]
        trainer = self._trainer(model, args, tokenizer, [stopping, *early, *self.callbacks])
        with stopping.listening():
            before = self._before(trainer)
            trainer.train(resume_from_checkpoint=resume or None)
            metrics = self._measure(trainer)
        self._save(trainer, folder)
        return Outcome(trainer, metrics, before)

    def _model(self) -> PreTrainedModel:
        """The model that is trained, under the head of the task."""
        raise NotImplementedError

    def _trainer(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        tokenizer: TokenizerLike,
        callbacks: Sequence[TrainerCallback],
    ) -> Trainer:
        """The trainer of the model on the rows."""
        raise NotImplementedError

    def _before(self, trainer: Trainer) -> dict[str, float]:
        """What is measured before the first step, to stand beside the result; nothing where a baseline says it."""
        return {}

    def _measure(self, trainer: Trainer) -> dict[str, float]:
        """What the validation says of the model that was trained, just before it is saved."""
        return trainer.evaluate()

    def _save(self, trainer: Trainer, folder: Path) -> None:
        """Write the model that was trained."""
        trainer.save_model(folder)
        self.write_beside(trainer, folder)

    def write_beside(self, trainer: Trainer, folder: Path) -> None:
        """Write what lies beside the saved model: nothing, unless the task has more to say."""

    def record(self) -> dict[str, str]:
        """What must be equal for a training to go on: the data, and the model that it begins from."""
        return {"training": self.training.digest(), "validation": self.validation.digest(), "model": self.model}

    def _claim(self, folder: Path, args: TrainingArguments, resume: bool) -> bool:
        """Note in the folder what is trained, and how; refuse where it holds something else. Whether to resume."""
        record, settings = self.record(), _unchanged(args, self.max_length)
        path = folder / RECORD
        if resume or (restarted() and path.is_file()):
            if not path.is_file():
                raise InputError(f"{folder} holds no training to go on with; leave out --resume.")
            before = read_json(path, InputError, max_bytes=MEGABYTE)
            held = before.get("settings")  # folders of earlier versions hold none
            began = held if isinstance(held, dict) else {}
            changed = [name for name, value in record.items() if before.get(name) != value]
            others = [name for name, value in settings.items() if began.get(name, value) != value]
            if changed and "seed" not in others:  # another seed parts the same table into other rows
                raise InputError(f"{folder} was trained on another {' and '.join(changed)}; --resume needs the same.")
            if others:
                name = "seed" if "seed" in others else others[0]
                raise InputError(
                    f"{folder} was trained with {name} = {json.dumps(began[name])}, now it is "
                    f"{json.dumps(settings[name])}: --resume goes on as it began. Set it back, or name another folder."
                )
            return True
        if checkpoints.numbered(folder) or (folder / "config.json").exists():
            raise InputError(f"{folder} holds a training already: go on with --resume, or name another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**record, "settings": settings}, indent=1) + "\n")
        return False


@dataclass(frozen=True)
class FineTuning(Tuning[Labelled]):
    """The training of a classifier on labelled texts; the labels' names are those of `training`."""

    def facts(self) -> dict[str, str]:
        """What the report says of the way of training, beside what all have."""
        return {}

    def _trainer(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        tokenizer: TokenizerLike,
        callbacks: Sequence[TrainerCallback],
    ) -> Trainer:
        measures, kind = measures_of(self.training.kind), self.training.kind
        log = ValidationLog(Path(args.output_dir), self.training.names, measures) if kind == "one" else None
        return Trainer(
            model,
            args,
            train_dataset=self._encoded(self.training, model, tokenizer),
            eval_dataset=self._encoded(self.validation, model, tokenizer),
            processing_class=tokenizer,
            compute_metrics=measures if log is None else log.measure,
            callbacks=[*callbacks, *([] if log is None else [log])],
        )

    def _model(self) -> PreTrainedModel:
        """The model with a head for the labels: its own head where it has the same ones, else a fresh one."""
        kind, names = self.training.kind, self.training.names
        config = AutoConfig.from_pretrained(self.model, **self.load)
        own = dict(config.id2label)
        problem = {"problem_type": PROBLEMS[kind]}
        same = set(own.values()) == set(names) if kind != "number" else config.problem_type == PROBLEMS[kind]
        if same:
            return AutoModelForSequenceClassification.from_pretrained(
                self.model, dtype="float32", **problem, **self.load
            )
        id2label = dict(enumerate(names)) if names else {0: "LABEL_0"}
        fields = {"num_labels": len(id2label), "id2label": id2label, "label2id": {v: k for k, v in id2label.items()}}
        config = AutoConfig.from_pretrained(self.model, **fields, **problem, **self.load)
        model = AutoModelForSequenceClassification.from_config(config)
        base = AutoModel.from_pretrained(self.model, dtype="float32", **self.load)
        model.base_model.load_state_dict(base.state_dict())
        return model

    def _encoded(self, data: Labelled, model: LanguageModel, tokenizer: TokenizerLike) -> list[dict[str, Any]]:
        """Rows of token ids and labels."""
        both = tokenizer(data.texts, data.pairs or None, truncation=True, max_length=self.max_length or None)
        place = model.config.label2id
        rows = []
        for number, label in enumerate(data.labels):
            right: object = label
            if data.kind == "one":
                right = place[label]
            elif data.kind == "several":
                right = [float(name in label) for name in place]
            rows.append({**{name: both[name][number] for name in both}, "labels": right})
        return rows


COPIES = 10  # of the weights in float32: three checkpoints with the optimizer's two numbers for each, and the model


def _check_room(folder: Path, model: PreTrainedModel) -> None:
    """Raises InputError where the disk has no room for the checkpoints of a training."""
    needed = COPIES * 4 * sum(weight.numel() for weight in model.parameters())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {free / 1e9:,.1f} GB are free, and the checkpoints of this model take up to "
            f"{needed / 1e9:,.1f} GB while it trains. Make room, or give --output a folder on another disk."
        )


def check_base(model: str) -> None:
    """Raises InputError for a base model that cannot be trained: a GGUF file."""
    if model.lower().endswith(".gguf") or packaged_file(model) is not None:
        raise InputError(
            f"{model} is a GGUF file: its weights are rounded for running, and trained on they would not be stored "
            "so again. Give the folder or the hub's name of the checkpoint that it was made from; or write its weights "
            "out first: AutoModelForCausalLM.from_pretrained(folder, gguf_file=name).save_pretrained(new_folder), and "
            "the tokenizer likewise."
        )
