"""Inputs that a sound model cannot take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bad_input.case import Case, config, ids
from cutaway import auto

INPUT = "InputError"
ENCODERS = ("bert", "distilbert", "roberta", "albert", "mpnet", "modernbert")
DECODERS = ("gpt2", "llama")
PAIRS = ("t5", "bart")


def model(family: str, ending: str = "", **fields: Any) -> Any:
    return getattr(auto, f"AutoModel{ending}").from_config(config(family, **fields)).eval()


def call(family: str, ending: str = "", make: Callable[[], dict[str, Any]] = dict, **given: Any) -> Any:
    """A call with these inputs; `make` gives those that need work."""

    def prepare(folder: Path) -> Callable[[], object]:
        made, inputs = model(family, ending), given | make()
        if family in PAIRS and "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = ids()
        return lambda: made(**inputs)

    return prepare


def everywhere(
    name: str, pattern: str, families: tuple[str, ...] = (*ENCODERS, *DECODERS, *PAIRS), **given: Any
) -> list[Case]:
    return [Case(f"{family}: {name}", INPUT, pattern, call(family, **given)) for family in families]


def mask(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


ONE, HALF = [1] * 5, [1, 1, 1, 0, 0]
IDS = [
    *everywhere("an id below 0", r"input_ids holds -1\b.*0\.\.39.*vocab_size = 40", input_ids=ids() - 4),
    *everywhere(
        "the id after the last", r"input_ids holds 40\b.*0\.\.39.*resize_token_embeddings", input_ids=ids() + 28
    ),
    *everywhere("a huge id", r"input_ids holds 4611686018427387904", input_ids=ids() + 2**62 - 12),
    *everywhere("float ids", r"whole numbers.*float32", input_ids=ids().float()),
    *everywhere("bool ids", r"whole numbers.*bool", input_ids=ids() > 3),
    *everywhere("complex ids", r"whole numbers.*complex64", input_ids=ids().to(torch.complex64)),
    *everywhere("one row without a batch", r"\[batch, length\].*\[5\].*input_ids\[None\]", input_ids=ids()[0]),
    *everywhere("a number", r"\[batch, length\].*\[\]", input_ids=torch.tensor(5)),
    *everywhere("three dimensions", r"\[batch, length\].*\[1, 2, 5\]", input_ids=ids()[None]),
    *everywhere("a list", r"must be a tensor, not list.*return_tensors='pt'", input_ids=[[1, 2]]),
    *everywhere("a text", r"must be a tensor, not str", input_ids="hello"),
    *everywhere("no token", r"empty: shape \[2, 0\]", input_ids=torch.zeros(2, 0, dtype=torch.int64)),
    *everywhere("no text", r"empty: shape \[0, 5\]", input_ids=torch.zeros(0, 5, dtype=torch.int64)),
    *everywhere("nothing", "Pass input_ids, or inputs_embeds", input_ids=None),
    *everywhere("ids and vectors", "one of the two", input_ids=ids(), inputs_embeds=torch.zeros(2, 5, 8)),
    *everywhere(
        "more tokens than positions",
        r"17 tokens.*can take 16.*truncation=True",
        ("bert", "distilbert", "albert", "gpt2", "llama", "bart"),
        input_ids=torch.ones(1, 17, dtype=torch.int64),
    ),
    *everywhere(
        "far more tokens than positions",
        r"1000000 tokens.*can take 16",
        ("bert", "gpt2", "llama", "bart"),
        input_ids=torch.ones(1, 10**6, dtype=torch.int64),
    ),
    *everywhere(
        "vectors of another width",
        r"width 9.*(hidden|embedding) size is 8",
        inputs_embeds=torch.zeros(2, 5, 9),
    ),
    *everywhere(
        "vectors of whole numbers", r"floating-point.*int64", inputs_embeds=torch.zeros(2, 5, 8, dtype=torch.int64)
    ),
    *everywhere("vectors without a batch", r"\[batch, length, hidden\].*\[5, 8\]", inputs_embeds=torch.zeros(5, 8)),
]
SMALL_INTEGERS = [
    Case(f"{kind} ids work", "", "", call("bert", input_ids=ids().to(kind)))
    for kind in (torch.int32, torch.int16, torch.uint8, torch.int8)
]
MASKS = [
    *everywhere(
        "a mask too short",
        r"attention_mask has shape \[2, 4\].*\[2, 5\]",
        input_ids=ids(),
        attention_mask=torch.ones(2, 4),
    ),
    *everywhere(
        "a mask of one text",
        r"attention_mask has shape \[1, 5\].*\[2, 5\]",
        input_ids=ids(),
        attention_mask=torch.ones(1, 5),
    ),
    *everywhere(
        "a mask without a batch", r"attention_mask has shape \[5\]", input_ids=ids(), attention_mask=torch.ones(5)
    ),
    *everywhere(
        "a mask of five dimensions",
        r"attention_mask has shape \[2, 1, 1, 5, 5\]",
        input_ids=ids(),
        attention_mask=torch.ones(2, 1, 1, 5, 5),
    ),
    *everywhere(
        "a mask of four dimensions for other queries",
        r"attention_mask has shape \[2, 1, 3, 5\]",
        input_ids=ids(),
        attention_mask=torch.ones(2, 1, 3, 5),
    ),
    *everywhere(
        "a mask of twos",
        r"only 0 \(padding\) and 1 \(token\); it holds \[1, 2",
        input_ids=ids(),
        attention_mask=mask([2] * 5, ONE),
    ),
    *everywhere("a mask below 0", r"only 0.*-1", input_ids=ids(), attention_mask=mask([-1] * 5, ONE)),
    *everywhere(
        "an additive mask", r"only 0.*-inf", input_ids=ids(), attention_mask=mask([0.0, 0, 0, 0, float("-inf")], ONE)
    ),
    *everywhere("a mask of NaN", r"only 0.*nan", input_ids=ids(), attention_mask=mask([float("nan")] * 5, ONE)),
    *everywhere("a mask of zeros", r"hides every token of text 0", input_ids=ids(), attention_mask=torch.zeros(2, 5)),
    *everywhere(
        "a mask that hides one text",
        r"hides every token of text 1.*at least one",
        input_ids=ids(),
        attention_mask=mask(HALF, [0] * 5),
    ),
    *everywhere(
        "a mask that is a list", "attention_mask must be a tensor.*not list", input_ids=ids(), attention_mask=[ONE, ONE]
    ),
    Case(
        "bart: a decoder mask of zeros",
        INPUT,
        "hides every token",
        call("bart", input_ids=ids(), decoder_attention_mask=torch.zeros(2, 5)),
    ),
    Case(
        "bart: a decoder mask too long",
        INPUT,
        r"\[2, 6\]",
        call("bart", input_ids=ids(), decoder_attention_mask=torch.ones(2, 6)),
    ),
]
TYPES = [
    Case(
        "a token type of 2",
        INPUT,
        r"token_type_ids holds 2.*0\.\.1.*type_vocab_size",
        call("bert", input_ids=ids(), token_type_ids=torch.full((2, 5), 2)),
    ),
    Case(
        "a token type below 0",
        INPUT,
        r"token_type_ids holds -1",
        call("bert", input_ids=ids(), token_type_ids=-torch.ones(2, 5, dtype=torch.int64)),
    ),
    Case(
        "float token types",
        INPUT,
        "token_type_ids must be whole",
        call("bert", input_ids=ids(), token_type_ids=torch.ones(2, 5)),
    ),
    Case(
        "token types of another shape",
        INPUT,
        r"token_type_ids has shape \[2, 4\]",
        call("bert", input_ids=ids(), token_type_ids=torch.ones(2, 4, dtype=torch.int64)),
    ),
    Case(
        "token types as a list",
        INPUT,
        "token_type_ids must be a tensor, not list",
        call("bert", input_ids=ids(), token_type_ids=[[0] * 5] * 2),
    ),
    Case(
        "token types in distilbert",
        INPUT,
        "no token types",
        call("distilbert", make=lambda: {"token_type_ids": torch.ones(2, 5, dtype=torch.int64)}, input_ids=ids()),
    ),
    *(
        Case(f"{family}: {name}", INPUT, pattern, call(family, input_ids=ids(), position_ids=value))
        for family in ("bert", "roberta", "gpt2", "llama")
        for name, pattern, value in (
            ("positions too far", r"position_ids holds 18\b", torch.full((2, 5), 18)),
            ("positions in the terabytes", r"position_ids holds 1000000000000", torch.full((2, 5), 10**12)),
            ("positions below 0", r"position_ids holds -1", torch.full((2, 5), -1)),
            ("float positions", "position_ids must be whole", torch.ones(2, 5)),
            ("positions of another shape", r"position_ids has shape \[5\]", torch.arange(5)),
            ("positions as a list", "position_ids must be a tensor", [[0, 1, 2, 3, 4]] * 2),
        )
    ),
]


def labelled(name: str, pattern: str, family: str, ending: str, **given: Any) -> Case:
    return Case(f"{family}{ending}: {name}", INPUT, pattern, call(family, ending, input_ids=ids(), **given))


CLASS, TOKEN, CAUSAL, SEQ = "ForSequenceClassification", "ForTokenClassification", "ForCausalLM", "ForSeq2SeqLM"
QA, MASKED, CHOICE = "ForQuestionAnswering", "ForMaskedLM", "ForMultipleChoice"
LABELS = [
    labelled(
        "the class after the last",
        r"labels holds 2\b.*2 classes \(0\.\.1\).*num_labels",
        "bert",
        CLASS,
        labels=torch.tensor([0, 2]),
    ),
    labelled("a class below 0", r"labels holds -1", "bert", CLASS, labels=torch.tensor([0, -1])),
    labelled("too few labels", r"labels has shape \[1\].*\[2\]", "bert", CLASS, labels=torch.tensor([0])),
    labelled(
        "float labels of another shape",
        r"labels has shape \[2\].*\[2, 2\]",
        "bert",
        CLASS,
        labels=torch.tensor([0.0, 1.0]),
    ),
    labelled("a list of labels", r"labels must be a tensor, not list", "bert", CLASS, labels=[0, 1]),
    labelled("a class for the token after the last", r"labels holds 7", "bert", TOKEN, labels=torch.full((2, 5), 7)),
    labelled(
        "labels of tokens in another shape",
        r"labels has shape \[2, 4\].*\[2, 5\]",
        "bert",
        TOKEN,
        labels=torch.zeros(2, 4, dtype=torch.int64),
    ),
    labelled(
        "float labels of tokens", r"labels must be whole numbers.*float32", "bert", TOKEN, labels=torch.zeros(2, 5)
    ),
    labelled("a token after the last", r"labels holds 40\b", "bert", MASKED, labels=torch.full((2, 5), 40)),
    labelled("a token after the last", r"labels holds 40\b", "gpt2", CAUSAL, labels=torch.full((2, 5), 40)),
    labelled("labels without a batch", r"labels has shape \[5\]", "gpt2", CAUSAL, labels=ids()[0]),
    labelled("a list of labels", r"labels must be a tensor", "llama", CAUSAL, labels=[[1]]),
    labelled("a token after the last", r"holds 40\b", "t5", SEQ, labels=torch.full((2, 5), 40), decoder_input_ids=None),
    labelled(
        "labels without a batch",
        r"\[batch, length\]; these are \[5\]",
        "t5",
        SEQ,
        labels=ids()[0],
        decoder_input_ids=None,
    ),
    labelled(
        "a list of labels", r"\[batch, length\]; these are list", "bart", SEQ, labels=[[1]], decoder_input_ids=None
    ),
    labelled(
        "float places",
        r"start_positions must be whole",
        "bert",
        QA,
        start_positions=torch.zeros(2),
        end_positions=torch.zeros(2),
    ),
    labelled(
        "too few places",
        r"end_positions has shape \[1\].*\[2\]",
        "bert",
        QA,
        start_positions=torch.tensor([0, 1]),
        end_positions=torch.tensor([1]),
    ),
    labelled("texts without choices", r"\[batch, choices, length\]", "bert", CHOICE),
    labelled("keeping a negative number of logits", "logits_to_keep is -1", "gpt2", CAUSAL, logits_to_keep=-1),
    labelled("keeping half a logit", "logits_to_keep is 0.5", "gpt2", CAUSAL, logits_to_keep=0.5),
    labelled("no end of text", "must hold the end-of-text token 2", "bart", CLASS, decoder_input_ids=None),
    labelled("a layer that does not exist", r"output_attentions asks for 2.*0\.\.1", "bert", "", output_attentions=[2]),
    labelled("a layer by name", "output_hidden_states is 'all'", "bert", "", output_hidden_states="all"),
    labelled("a layer by half", "output_hidden_states asks for 0.5", "bert", "", output_hidden_states=[0.5]),
]


CASES = [*IDS, *SMALL_INTEGERS, *MASKS, *TYPES, *LABELS]
