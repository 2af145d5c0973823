"""What a user writes, as a strict type checker reads it: test_typing.py runs mypy on it and expects no error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

import cutaway
from cutaway import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BatchEncoding,
    BertForMaskedLM,
    BertModel,
    DistilBertModel,
    Embedder,
    Explanation,
    FillMaskPipeline,
    GenerationConfig,
    GPT2Model,
    Pipeline,
    T5Model,
    TextClassificationPipeline,
    TextGenerationPipeline,
    TokenClassificationPipeline,
    Trainer,
    TrainingArguments,
    TranslationPipeline,
    explain,
    pipeline,
)
from cutaway.generate import GenerateOutput, Token, stream
from cutaway.inspect import Lens, Recorder, logit_lens, occlude
from cutaway.inspect import Target as Goal
from cutaway.inspect.attribution import Attribution
from cutaway.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    TokenClassifierOutput,
)
from cutaway.models.lm_heads import CausalLM, MaskedLM
from cutaway.models.protocols import LanguageModel
from cutaway.nn.kv_cache import Cache
from cutaway.tokenization.protocols import TokenizerLike
from cutaway.train import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainOutput
from cutaway.train.evaluation import EvalLoopOutput


def loading(name: str) -> None:
    assert_type(cutaway.__version__, str)
    assert_type(AutoModelForMaskedLM.from_pretrained(name), MaskedLM)
    assert_type(BertForMaskedLM.from_pretrained(name, dtype="bfloat16"), BertForMaskedLM)
    model, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True)
    assert_type(model, CausalLM)
    assert_type(report.missing, list[str])
    fields = {"num_hidden_layers": 2}
    assert_type(AutoModelForCausalLM.from_pretrained(name, **fields), CausalLM)
    assert_type(model.num_parameters(), int)
    assert_type(model.addresses(), list[str])


def outputs(name: str, ids: Tensor) -> None:
    assert_type(BertModel.from_pretrained(name)(ids), BaseModelOutputWithPooling)
    assert_type(DistilBertModel.from_pretrained(name)(ids), BaseModelOutput)
    assert_type(GPT2Model.from_pretrained(name)(ids), BaseModelOutputWithPast)
    assert_type(T5Model.from_pretrained(name)(ids, decoder_input_ids=ids), Seq2SeqModelOutput)
    assert_type(AutoModelForMaskedLM.from_pretrained(name)(ids), MaskedLMOutput)
    assert_type(AutoModelForSeq2SeqLM.from_pretrained(name)(ids, labels=ids), Seq2SeqLMOutput)
    assert_type(AutoModelForTokenClassification.from_pretrained(name)(ids), TokenClassifierOutput)
    assert_type(AutoModelForQuestionAnswering.from_pretrained(name)(ids), QuestionAnsweringModelOutput)
    assert_type(AutoModelForMultipleChoice.from_pretrained(name)(ids), MultipleChoiceModelOutput)
    out = AutoModelForCausalLM.from_pretrained(name)(input_ids=ids, labels=ids, output_hidden_states=True)
    assert_type(out, CausalLMOutputWithPast)
    assert_type(AutoModelForMaskedLM.from_pretrained(name)(ids, adapters=["a", None]), MaskedLMOutput)
    assert_type(out.loss, Tensor | None)
    assert_type(out.logits, Tensor)  # every plain call of a task head fills it
    assert_type(out.past_key_values, Cache | None)
    assert_type(out.hidden_states, tuple[Tensor, ...] | None)  # a field to be asked for
    assert out.hidden_states is not None
    assert_type(out.hidden_states[-1], Tensor)
    assert_type(BertModel.from_pretrained(name)(ids).pooler_output, Tensor | None)  # a field that not every model has
    assert_type(out.logits[:, -1].argmax(-1), Tensor)
    assert_type(AutoModel.from_pretrained(name)(ids).last_hidden_state, Tensor)


def texts(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(name)
    batch = tokenizer(["A text.", "Another."], padding=True, return_tensors="pt")
    assert_type(batch, BatchEncoding)
    assert_type(batch.to("cpu"), BatchEncoding)
    assert_type(tokenizer.pad_token_id, int | None)
    assert_type(tokenizer.tokenize("A text."), list[str])
    model = AutoModelForCausalLM.from_pretrained(name)
    with torch.no_grad():
        assert_type(model(**batch).logits, Tensor)
    model.generate(**batch, max_new_tokens=5)
    assert_type(model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_length=5), Tensor)
    made = model.generate(batch["input_ids"], return_dict_in_generate=True, output_scores=True)
    assert_type(made, GenerateOutput)
    assert_type(made.scores, tuple[Tensor, ...] | None)
    assert_type(model.generation_config, GenerationConfig)
    for token in stream(model, batch["input_ids"], tokenizer=tokenizer):
        assert_type(token, Token)
        assert_type(token.text, str | None)


def tasks(name: str, task: str) -> None:
    classify = pipeline("sentiment-analysis")
    assert_type(classify, TextClassificationPipeline)
    assert_type(pipeline("text-classification", model=name, device=0), TextClassificationPipeline)
    assert_type(pipeline("fill-mask"), FillMaskPipeline)
    assert_type(pipeline("ner", aggregation_strategy="simple"), TokenClassificationPipeline)
    assert_type(pipeline("text-generation", name, dtype=torch.bfloat16), TextGenerationPipeline)
    assert_type(pipeline("translation_en_to_fr"), TranslationPipeline)
    assert_type(pipeline(task), Pipeline)
    assert_type(pipeline(model=name), Pipeline)
    loaded = AutoModelForCausalLM.from_pretrained(name)
    assert_type(pipeline("text-generation", loaded, AutoTokenizer.from_pretrained(name)), TextGenerationPipeline)
    assert_type(Embedder(name).encode(["a", "b"], convert_to_tensor=True), Tensor)


def inside(name: str) -> None:
    found = explain("A warm, funny film.")
    assert_type(found, Explanation)
    assert_type(found.tokens[0].token, str)
    assert_type(found.summary(), str)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    assert_type(explain("A text.", model, tokenizer, layer=1), Explanation)
    inputs = tokenizer("A text.", return_tensors="pt")
    with model.record("blocks.*.attn.pattern") as recorded, model.edit({"blocks.0.attn.head.1.out": 0}):
        model(**inputs)
    assert_type(recorded, Recorder)
    assert_type(recorded["blocks.0.attn.pattern"], Tensor)
    assert_type(logit_lens(model, inputs), Lens)
    assert_type(occlude(model, inputs, Goal(index=3)), Attribution)


def anything(model: LanguageModel, tokenizer: TokenizerLike) -> int:
    """A function of the user's own that takes any model and tokenizer."""
    ids = tokenizer("A text.")["input_ids"]
    return len(ids) + len(model.addresses()) + model.num_parameters()


def handed_on(name: str) -> int:
    return anything(BertModel.from_pretrained(name), AutoTokenizer.from_pretrained(name))


class Tell(TrainerCallback):
    """A callback of the user's own."""


class Weighted(Trainer):
    """A trainer of the user's own, with the annotations that upstream's documents show."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        return (2 * loss, outputs) if return_outputs else 2 * loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor | Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        return super().training_step(model, inputs, num_items_in_batch)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return loss, logits, labels

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        return super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=self.args.train_batch_size, collate_fn=self.data_collator)

    def get_eval_dataloader(self, eval_dataset: str | Dataset[Any] | None = None) -> DataLoader[Any]:
        return super().get_eval_dataloader(eval_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        self.optimizer = torch.optim.SGD((model or self.model).parameters(), lr=self.args.learning_rate)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, "step": self.state.global_step}, start_time)


class Twice(TrainerCallback):
    """A callback with upstream's annotations."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_log = state.global_step % 2 == 0
        return control


def training(name: str, rows: list[dict[str, list[int]]]) -> None:
    args = TrainingArguments("out", learning_rate=1e-4, num_train_epochs=1, eval_strategy="epoch")
    assert_type(args.learning_rate, float)
    assert_type(args.output_dir, str)
    assert_type(args.per_device_train_batch_size, int)

    def measure(given: EvalPrediction) -> dict[str, float]:
        return {"n": float(len(rows))}

    trainer = Trainer(
        BertForMaskedLM.from_pretrained(name), args, train_dataset=rows, compute_metrics=measure, callbacks=[Tell()]
    )
    assert_type(trainer.train(), TrainOutput)
    assert_type(trainer.train().training_loss, float)
    assert_type(trainer.evaluate(), dict[str, float])
    assert_type(trainer.args, TrainingArguments)
    assert_type(trainer.state, TrainerState)
    assert_type(trainer.optimizer, Optimizer | None)
    Weighted(trainer.model, args, train_dataset=rows, callbacks=[Twice]).train()
