"""Mistakes that a type checker must find: each is on a line that ends with the code of mypy's error."""

from __future__ import annotations

from torch import Tensor, nn

import cutaway
from cutaway import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertModel,
    Explanation,
    Trainer,
    TrainingArguments,
    explain,
    pipeline,
)
from cutaway.inspect import logit_lenz  # mypy: attr-defined
from cutaway.inspect import logit_lens
from cutaway.train import TrainerCallback, TrainerState


def mistakes(name: str, ids: Tensor) -> None:
    model = AutoModelForCausalLM.from_pretrained(name)
    cutaway.AutoModelForCausalML  # mypy: attr-defined
    model(input_id=ids)  # mypy: call-overload
    model(ids, use_cache="yes")  # mypy: call-overload
    model(ids).logit  # mypy: attr-defined
    model(ids).pooler_output  # mypy: attr-defined
    model(ids).loss.backward()  # mypy: union-attr
    model(ids).hidden_states[-1]  # mypy: index
    BertModel.from_pretrained(name)(ids).logits  # mypy: attr-defined
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer("A text.", padding=3)  # mypy: arg-type
    tokenizer.pad_token_id + 1  # mypy: operator
    pipeline("fill-mask", batch_size="8")  # mypy: call-overload
    pipeline("fill-mask").predict_proba(["a"])  # mypy: attr-defined
    explain(3)  # mypy: arg-type
    found: Explanation = explain("A text.").summary()  # mypy: assignment
    found.token_list  # mypy: attr-defined
    logit_lens("gpt2", tokenizer("A text."))  # mypy: arg-type
    model.record(3)  # mypy: arg-type
    model.generate(ids, streamer="out")  # mypy: call-overload
    Trainer(model).fit()  # mypy: attr-defined
    Trainer(name)  # mypy: arg-type
    Trainer(model, optimizers=(None, 0.1))  # mypy: arg-type
    Trainer(model).state.global_steps  # mypy: attr-defined
    Trainer(model).train().loss  # mypy: attr-defined
    Trainer(model).hyperparameter_search(trials=3)  # mypy: call-arg


class Mistaken(Trainer):
    """Overrides that do not fit."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:  # mypy: override
        return model(**inputs).loss  # mypy: no-any-return

    def get_train_dataloader(self) -> list[int]:  # mypy: override
        return []


class MistakenCallback(TrainerCallback):
    """An event with the arguments in another order, and one too few."""

    def on_step_end(self, state: TrainerState, args: TrainingArguments) -> None:  # mypy: override
        """Never right."""
