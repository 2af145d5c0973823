"""Caches, encoder outputs and generation settings that do not belong to the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bad_input.calls import CAUSAL, CLASS, DECODERS, INPUT, MASKED, call, model
from bad_input.case import Case, ids


def cached(name: str, pattern: str, family: str, other: Callable[[], Any], error: str = INPUT, **given: Any) -> Case:
    """A decoder that is given a cache that is not its own."""

    def prepare(folder: Path) -> Callable[[], object]:
        made, past = model(family, CAUSAL if family in DECODERS else ""), other()
        inputs = {"input_ids": ids(2, 1), **given}
        return lambda: made(past_key_values=past, **inputs)

    return Case(f"{family}: {name}", error, pattern, prepare)


def filled(family: str, batch: int = 2, **fields: Any) -> Callable[[], Any]:
    return lambda: model(family, CAUSAL, **fields)(ids(batch), use_cache=True).past_key_values


def answered(length: int, batch: int = 2) -> Any:
    return model("bart")(input_ids=ids(batch, length), decoder_input_ids=ids(batch, 3), use_cache=True).past_key_values


CACHES = [
    cached("another model's cache", r"\(2, 1, 4\).*\(2, 2, 4\).*this model returned", "gpt2", filled("llama")),
    cached("a deeper model's cache", r"\(3, 2, 4\).*\(2, 2, 4\)", "gpt2", filled("gpt2", n_layer=3)),
    cached("a wider model's cache", r"\(2, 2, 8\).*\(2, 2, 4\)", "gpt2", filled("gpt2", n_embd=16)),
    cached("a cache of another batch", r"holds 1 texts.*has 2", "gpt2", filled("gpt2", 1)),
    cached(
        "a full cache",
        r"17 tokens.*can take 16",
        "gpt2",
        lambda: model("gpt2", CAUSAL)(torch.ones(2, 16, dtype=torch.int64), use_cache=True).past_key_values,
    ),
    cached("a tuple for a cache", "not tuple", "gpt2", lambda: ((torch.zeros(2, 2, 5, 4),) * 2,) * 2),
    cached(
        "a mask of another width",
        r"attention_mask has shape \[2, 3\]",
        "gpt2",
        filled("gpt2"),
        attention_mask=torch.ones(2, 3),
    ),
    cached(
        "a mask that hides new tokens", "hides new tokens", "gpt2", filled("gpt2"), attention_mask=torch.zeros(2, 1)
    ),
    cached("a cache for an encoder", "not causal", "bert", filled("gpt2")),
    cached(
        "the cache of another text",
        r"\[2, 5\].*\[2, 4\]",
        "bart",
        lambda: answered(5),
        input_ids=ids(2, 4),
        decoder_input_ids=ids(2, 1),
    ),
]
DECODED = [
    Case(
        "t5: no text for the decoder",
        INPUT,
        "decoder_input_ids is missing.*generate",
        call("t5", input_ids=ids(), decoder_input_ids=None),
    ),
    Case("t5: nothing for the encoder", INPUT, "Pass input_ids", call("t5")),
    Case(
        "t5: another number of texts",
        INPUT,
        "encoder saw 2 texts.*has 3",
        call("t5", input_ids=ids(), decoder_input_ids=ids(3)),
    ),
    Case(
        "t5: a decoder id after the last", INPUT, "holds 40", call("t5", input_ids=ids(), decoder_input_ids=ids() + 28)
    ),
    Case(
        "t5: the encoder's output as text",
        INPUT,
        "encoder_outputs must be what model.encode returned, not str",
        call("t5", encoder_outputs="x"),
    ),
    Case(
        "t5: the encoder's output as a tensor",
        INPUT,
        "encoder_outputs must be what.*Tensor",
        call("t5", encoder_outputs=torch.zeros(2, 5, 8)),
    ),
    Case(
        "t5: the encoder's output of another width",
        INPUT,
        r"\[batch, length, 8\].*\[2, 5, 9\]",
        call("t5", encoder_outputs=(torch.zeros(2, 5, 9),)),
    ),
    Case("t5: the encoder's output of numbers", INPUT, r"hidden states.*int", call("t5", encoder_outputs=(5,))),
    Case(
        "t5: a mask that does not fit the encoder's output",
        INPUT,
        r"attention_mask has shape \[2, 4\]",
        call("t5", encoder_outputs=(torch.zeros(2, 5, 8),), attention_mask=torch.ones(2, 4)),
    ),
    Case(
        "bart: no first token",
        INPUT,
        "decoder_start_token_id",
        lambda folder: lambda: model("bart", decoder_start_token_id=None, pad_token_id=None)(input_ids=ids()),
    ),
]


def generating(
    name: str, error: str, pattern: str, family: str, ending: str = CAUSAL, given: Any = None, **settings: Any
) -> Case:
    def prepare(folder: Path) -> Callable[[], object]:
        made = model(family, ending)
        return lambda: made.generate(ids() if given is None else given, **settings)

    return Case(f"{family}{ending} generates: {name}", error, pattern, prepare)


G = "GenerationError"
GENERATED = [
    generating("an encoder", G, "BertModel cannot generate.*AutoModelForCausalLM", "bert", ""),
    generating("a masked model", G, "cannot generate", "bert", MASKED),
    generating("an encoder with a causal head", G, "cannot generate|no language-model head", "bert", CAUSAL),
    generating("a decoder without a head", G, "cannot generate", "gpt2", ""),
    generating("a classifier", G, "cannot generate", "llama", CLASS),
    generating("float ids", INPUT, "float32", "gpt2", given=ids().float()),
    generating("one row without a batch", INPUT, r"input_ids\[None\]", "gpt2", given=ids()[0]),
    generating("an id after the last", INPUT, "40", "gpt2", given=ids() + 28, max_new_tokens=2),
    generating("no tokens", INPUT, "shape", "gpt2", given=torch.zeros(1, 0, dtype=torch.int64)),
    generating("more than the model takes", G, "16", "gpt2", max_new_tokens=1000),
    generating("a negative length", G, "max_new_tokens", "gpt2", max_new_tokens=-1),
    generating("a billion tokens", G, "16", "llama", max_new_tokens=10**9),
    generating("no temperature", G, "temperature", "gpt2", do_sample=True, temperature=0.0),
    generating("an unknown setting", G, "max_new_token\\b.*max_new_tokens", "gpt2", max_new_token=3),
    generating("a mask of another shape", INPUT, "attention_mask|mask", "gpt2", attention_mask=torch.ones(2, 4)),
]


CASES = [*CACHES, *DECODED, *GENERATED]
