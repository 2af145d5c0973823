"""The training of a classifier on few labelled texts, from rows to a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cutaway import auto
from cutaway.errors import ConfigError, InputError
from cutaway.train import IntervalStrategy, Trainer, TrainerCallback, TrainingArguments
from cutaway.tuning.few_shot import LEAST, FewShotTrainer, check_classes, check_size, few_shot_settings
from cutaway.tuning.fine_tuning import FineTuning, Outcome
from cutaway.tuning.labelled import Labelled
from cutaway.tuning.measures import measures_of
from cutaway.tuning.sentence_trainer import LABEL, TEXTS, TRAINED_POOLINGS
from cutaway.tuning.task_tuning import write_sentence_modules
from cutaway.tuning.tasks import TaskOptions, longest_taken, pooling_of

if TYPE_CHECKING:
    from cutaway.models.pretrained import PreTrainedModel
    from cutaway.tokenization.base import PreTrainedTokenizerFast as Tokenizer
    from cutaway.tokenization.protocols import PaddingTokenizer, TokenizerLike


@dataclass(frozen=True)
class FewLabels(FineTuning):
    """As `FineTuning`, for few rows: contrastive training of the encoder, then logistic regression on its vectors.

    Attributes:
        pooling: of the vectors: "mean", "cls", "lasttoken" or "max"; as the base model's folder says unless given.
    """

    pooling: str | None = None

    def check(self) -> None:
        """All that can be known before a model is loaded.

        Raises InputError or ConfigError: labels or rows that this way cannot learn from, a base or a pooling whose
            vectors are not trained here.
        """
        if self.training.kind != "one" or self.training.pairs is not None:
            what = "pairs of texts" if self.training.pairs is not None else "several labels, or numbers"
            raise InputError(f"few-labels learns one label of one text, not {what}; train with text-classification.")
        check_classes(self.training.labels)
        check_size(int(self.settings.get("per_device_train_batch_size", LEAST)))
        if self.pooling is not None and self.pooling not in TRAINED_POOLINGS:
            raise ConfigError(f"--pooling {self.pooling}: vectors are trained with {', '.join(TRAINED_POOLINGS)}.")
        pooling_of(self.model, self._options())
        config = auto.AutoConfig.from_pretrained(self.model, **self.load)
        if config.is_encoder_decoder:
            raise InputError(
                f"{self.model} has an encoder and a decoder; few labels are learned by an encoder, such as "
                "cutaway/minilm."
            )

    def record(self) -> dict[str, str]:
        """As of every training; and the way of it."""
        return super().record() | {"task": "few-labels", "pooling": self.pooling or ""}

    def facts(self) -> dict[str, str]:
        """What the report says of this way of training."""
        return {"trained as": "pairs of the rows move the encoder; logistic regression on its vectors (few labels)"}

    def run(self, folder: Path, *, resume: bool = False, **settings: object) -> Outcome:
        """As `Tuning.run`; without evaluations in between, since the head comes last."""
        own: dict[str, Any] = {**few_shot_settings(len(self.training)), **self.settings}
        if "num_train_epochs" in self.settings and "max_steps" not in self.settings:
            del own["max_steps"]
        # an epoch is a step or two: no checkpoint after each; a training that is stopped writes one all the same
        own |= {"eval_strategy": "no", "save_strategy": "no"}
        own |= {"load_best_model_at_end": False, "metric_for_best_model": None}
        return super().run(folder, resume=resume, **{**own, **settings})

    def _options(self) -> TaskOptions:
        return TaskOptions(pooling=self.pooling, max_length=self.max_length, load=self.load)

    def _model(self) -> PreTrainedModel:
        return cast("PreTrainedModel", auto.AutoModel.from_pretrained(self.model, dtype="float32", **self.load))

    def _trainer(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        tokenizer: TokenizerLike,
        callbacks: Sequence[TrainerCallback],
    ) -> Trainer:
        modules = pooling_of(self.model, self._options())
        return FewShotTrainer(
            model,
            args,
            train_dataset=self._rows(self.training, model, tokenizer),
            pooling=modules.pooling[0],
            normalize="normalize" in modules.after,
            processing_class=cast("PaddingTokenizer", tokenizer),
            callbacks=callbacks,
        )

    def _rows(self, data: Labelled, model: PreTrainedModel, tokenizer: TokenizerLike) -> list[dict[str, Any]]:
        most = longest_taken(model, cast("Tokenizer", tokenizer), self._options())
        cut: dict[str, Any] = {} if most is None else {"truncation": True, "max_length": most}
        ids = tokenizer(data.texts, **cut)["input_ids"]
        return [{TEXTS: [own], LABEL: data.names.index(label)} for own, label in zip(ids, data.labels, strict=True)]

    def _measure(self, trainer: Trainer) -> dict[str, float]:
        """Put the head on, and measure the classifier on the validation rows."""
        few = cast("FewShotTrainer", trainer)
        model = few.classifier(self.training.names)
        few.model = few.model_wrapped = model
        quiet = dataclasses.replace(few.args, report_to=None, disable_tqdm=True, eval_strategy=IntervalStrategy.NO)
        tokenizer = cast("Tokenizer", few.processing_class)
        judge = Trainer(
            model, quiet, eval_dataset=self._encoded(self.validation, model, tokenizer),
            processing_class=tokenizer, compute_metrics=measures_of("one"),
        )  # fmt: skip
        metrics = judge.evaluate()
        few.log({name: value for name, value in metrics.items() if name.startswith("eval_")})
        return metrics

    def write_beside(self, trainer: Trainer, folder: Path) -> None:
        """The files by which sentence-transformers reads the classifier's encoder."""
        if trainer.is_world_process_zero():
            config = cast("PreTrainedModel", trainer.model).config
            write_sentence_modules(folder, self.model, self._options(), int(config.hidden_size))
