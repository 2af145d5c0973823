"""Training of encoder-decoders (or decoders) that is judged by what they write, not by what they would say next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cutaway.errors import ConfigError
from cutaway.generate.settings import GenerationConfig
from cutaway.nn.call_context import Evaluation
from cutaway.train.arguments import TrainingArguments
from cutaway.train.evaluation import Answer, PredictionOutput
from cutaway.train.evaluator import Evaluator
from cutaway.train.objective import Objective
from cutaway.train.session import TrainingSession
from cutaway.train.trainer import Trainer


@dataclass(kw_only=True, init=False, repr=False)
class Seq2SeqTrainingArguments(TrainingArguments):
    """`TrainingArguments`, and how texts are written where the model is evaluated.

    `predict_with_generate=True` lets evaluate and predict write a text for each row: compute_metrics gets its ids,
    filled up with the padding id. `generation_max_length` counts the decoder's whole text, `generation_num_beams` are
    its beams; `generation_config` (a GenerationConfig, a name or a folder) goes before the model's own settings.
    """

    takes_itself: ClassVar[tuple[str, ...]] = ("predict_with_generate",)

    sortish_sampler: bool = False
    predict_with_generate: bool = False
    generation_max_length: int | None = None
    generation_num_beams: int | None = None
    generation_config: GenerationConfig | str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sortish_sampler:
            raise ConfigError(
                "sortish_sampler=True is not available: train_sampling_strategy='group_by_length' puts rows of like "
                "length together."
            )
        for name in ("generation_max_length", "generation_num_beams"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1 up, or None.")


class WritingEvaluator(Evaluator):
    """An `Evaluator` whose answers are the texts that the model writes, where the arguments ask for them."""

    def __init__(self, session: TrainingSession, trainer: Seq2SeqTrainer) -> None:
        super().__init__(session, trainer)
        self.writer = trainer

    def answer(
        self, model: nn.Module, objective: Objective, batch: dict[str, Any], keep: bool, ignore: list[str] | None
    ) -> Answer:
        """The ids of the texts in the place of logits; the loss is that of the labels all the same."""
        if not (keep and self.writer.writes):
            return super().answer(model, objective, batch, keep, ignore)
        labels = self.labels(batch)
        sizes, sums = objective.sizes(batch), None
        if labels is not None:
            sizes, sums, _, _ = super().answer(model, objective, batch, False, ignore)
        return Answer(sizes, sums, self.writer.written(dict(batch)), labels)


class Seq2SeqTrainer(Trainer):
    """A `Trainer` whose evaluate and predict can write texts; arguments of `generate` may be given to both."""

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        processing_class: object = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: Sequence[object] | None = None,
        optimizers: tuple[Optimizer | None, LRScheduler | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
        *,
        tokenizer: object = None,
    ) -> None:
        super().__init__(
            model, Seq2SeqTrainingArguments() if args is None else args, data_collator, train_dataset, eval_dataset,
            processing_class, model_init, compute_loss_func, compute_metrics, callbacks, optimizers,
            optimizer_cls_and_kwargs, preprocess_logits_for_metrics, tokenizer=tokenizer,
        )  # fmt: skip
        self._gen_kwargs: dict[str, Any] = {}
        if getattr(self.args, "generation_config", None) is not None:
            self.model.generation_config = self.load_generation_config(self.args.generation_config)

    @staticmethod
    def load_generation_config(gen_config_arg: GenerationConfig | str | Path) -> GenerationConfig:
        """A GenerationConfig from itself, from a name or a folder, or from a file."""
        if isinstance(gen_config_arg, GenerationConfig):
            return copy.deepcopy(gen_config_arg)
        path = Path(gen_config_arg)
        if path.is_file():
            return GenerationConfig.from_pretrained(path.parent, path.name)
        return GenerationConfig.from_pretrained(gen_config_arg)

    def _settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `generate`: those of the call, then those of the arguments."""
        found = {name: value for name, value in given.items() if value is not None}
        if "max_length" not in found and "max_new_tokens" not in found and self.args.generation_max_length is not None:
            found["max_length"] = self.args.generation_max_length
        if "num_beams" not in found and self.args.generation_num_beams is not None:
            found["num_beams"] = self.args.generation_num_beams
        return found

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **gen_kwargs: object,
    ) -> dict[str, float]:
        """As `Trainer.evaluate`; `gen_kwargs` are for `generate`."""
        self._gen_kwargs = self._settings(gen_kwargs)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def predict(
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        **gen_kwargs: object,
    ) -> PredictionOutput:
        """As `Trainer.predict`; `gen_kwargs` are for `generate`."""
        self._gen_kwargs = self._settings(gen_kwargs)
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    # -- in an evaluation --------------------------------------------------------------------------------------------

    @property
    def writes(self) -> bool:
        """Whether an evaluation writes texts."""
        return bool(self.args.predict_with_generate) and not self.args.prediction_loss_only

    @cached_property
    def _evaluator(self) -> Evaluator:
        return WritingEvaluator(self.session, self)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: object,
    ) -> tuple[Any, Any, Any]:
        """As `Trainer.prediction_step`; with predict_with_generate the ids of the texts are in the place of logits."""
        if prediction_loss_only or not self.writes:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        labels = self._evaluator.labels(inputs)
        loss = None if labels is None else super().prediction_step(model, inputs, True, ignore_keys)[0]
        before = self._gen_kwargs
        self._gen_kwargs = {**before, **gen_kwargs}
        try:
            with Evaluation(self.model)():
                return loss, self.written(dict(inputs)), labels
        finally:
            self._gen_kwargs = before

    def _pad_tensors_to_max_len(self, tensor: Tensor, max_length: int) -> Tensor:
        """Ids [rows, columns] filled up to `max_length` columns with the padding id."""
        return torch.nn.functional.pad(tensor, (0, max_length - tensor.shape[1]), value=self._pad())

    def written(self, batch: dict[str, Any]) -> Tensor:
        """The ids of the texts [rows, columns] that the model writes, filled up to the longest that it may write."""
        settings = dict(self._gen_kwargs)
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "decoder_input_ids", "decoder_attention_mask")}
        labels, reads = batch.get("labels"), batch.get("decoder_input_ids")
        if reads is not None and (labels is None or labels.shape != reads.shape):
            inputs["decoder_input_ids"] = reads  # it was not made of the labels: the text goes on from it
        with torch.no_grad():
            ids = self.model.generate(**inputs, **settings)
        most = self._longest(settings, batch)
        if most is None or ids.shape[1] >= most:
            return ids  # type: ignore[no-any-return]
        return self._pad_tensors_to_max_len(ids, most)

    def _longest(self, settings: dict[str, Any], batch: dict[str, Any]) -> int | None:
        """The columns of the longest text that may be written; None where nothing says it."""
        own = self.model.generation_config.to_dict()
        for source in (settings, own):
            if source.get("max_length") is not None:
                return int(source["max_length"])
            if source.get("max_new_tokens") is not None:
                before = 1 if self.model.is_encoder_decoder else batch["input_ids"].shape[1]
                return int(source["max_new_tokens"]) + int(before)
        return None

    def _pad(self) -> int:
        tokenizer = self.processing_class
        for one in (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None)):
            if one is not None:
                return int(one)
        found = getattr(self.model.config, "pad_token_id", None)
        if found is None:
            raise ConfigError("written texts are filled up to one length; set model.config.pad_token_id.")
        return int(found)
