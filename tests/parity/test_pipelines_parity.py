"""The pipelines that transformers 5 still has: the same answers in the same forms, on tiny random models."""

from __future__ import annotations

import types

import pytest
import torch
from parity.pipes import checkpoints, same, upstream

from cutaway.pipelines import pipeline

TEXTS = ["I believe that the EU is trustworthy.", "bad", "a very good film , and not a bad one !", "😀 ab cd", ""]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return checkpoints.classifier(tmp_path_factory.mktemp("encoder"), head="BertModel")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return checkpoints.classifier(tmp_path_factory.mktemp("masked"), head="BertForMaskedLM")


def test_feature_extraction(encoder):
    theirs, ours = upstream("feature-extraction", encoder), pipeline("feature-extraction", encoder)
    for inputs in (TEXTS[0], TEXTS, TEXTS[:1]):
        same(ours(inputs), theirs(inputs))
        same(ours(inputs, return_tensors="pt"), theirs(inputs, return_tensors=True))
    wanted = theirs("good " * 90, truncation=True)
    same(ours("good " * 90, truncation=True), wanted, 1e-5 * torch.tensor(wanted).abs().max().item())
    short = {"truncation": True, "max_length": 5}
    same(ours(TEXTS, tokenize_kwargs=short), theirs(TEXTS, tokenize_kwargs=short))
    stream = ours(text for text in TEXTS)
    assert isinstance(stream, types.GeneratorType)
    same(list(stream), list(theirs(text for text in TEXTS)))


GAPS = ["a [MASK] film", "[MASK] is not a bad [MASK] .", "good [MASK]"]


@pytest.mark.parametrize("call", [{}, {"top_k": 1}, {"top_k": 3}, {"targets": ["good", "bad"]}, {"targets": "film"},
                                  {"targets": ["trustworthy", "a"], "top_k": 1}])  # fmt: skip
def test_fill_mask(masked, call):
    theirs, ours = upstream("fill-mask", masked, top_k=2), pipeline("fill-mask", masked, top_k=2)
    for inputs in (GAPS[0], GAPS[1], GAPS, GAPS[:1], GAPS[1:2]):
        same(ours(inputs, **call), theirs(inputs, **call))


LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    return checkpoints.classifier(
        tmp_path_factory.mktemp("tagger"), 5, "BertForTokenClassification", hidden_act="relu", **names
    )


SENTENCES = [
    "I believe that the EU is trustworthy.",
    "goodbad filming  not\tthat",
    "Ωmega   very-good (one)!",
    "bad",
    "",
]


@pytest.mark.parametrize("strategy", [None, "none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("ignored", [None, [], ["O", "PER", "B-LOC"]])
def test_token_classification(tagger, strategy, ignored):
    theirs, ours = upstream("token-classification", tagger), pipeline("ner", tagger)
    call = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    call = {name: value for name, value in call.items() if value is not None}
    for inputs in (SENTENCES[0], SENTENCES[:-1], SENTENCES[:1]):
        same(ours(inputs, **call), theirs(inputs, **call))


@pytest.fixture(scope="module")
def entailer(tmp_path_factory):
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    return checkpoints.classifier(
        tmp_path_factory.mktemp("nli"), 3, id2label=names, label2id={name: i for i, name in names.items()}
    )


@pytest.mark.parametrize("call", [{}, {"multi_label": True}, {"hypothesis_template": "a {} film"}])
@pytest.mark.parametrize("labels", [["good", "bad", "very bad"], "good, not good", ["one"]])
def test_zero_shot_classification(entailer, call, labels):
    theirs, ours = upstream("zero-shot-classification", entailer), pipeline("zero-shot-classification", entailer)
    for inputs in (TEXTS[0], TEXTS[:3], TEXTS[:1]):
        same(ours(inputs, candidate_labels=labels, **call), theirs(inputs, candidate_labels=labels, **call))
    same(ours(TEXTS[0], labels), theirs(TEXTS[0], labels))


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHAT = [{"role": "user", "content": "Hi"}]
PREFILLED = [*CHAT, {"role": "assistant", "content": "Well,"}]
PROMPTS = ["Once", "a good film, and", "x"]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    folder = checkpoints.decoder(tmp_path_factory.mktemp("writer"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.mark.parametrize(
    "call",
    [
        {"max_new_tokens": 9},
        {"max_new_tokens": 5, "return_full_text": False},
        {"max_new_tokens": 5, "return_tensors": True},
        {"max_new_tokens": 4, "prefix": "So "},
        {"max_new_tokens": 12, "skip_special_tokens": False, "clean_up_tokenization_spaces": True},
        {"max_length": 21},
        {"max_new_tokens": 12, "min_length": 13},
        {},
    ],
)
def test_text_generation(writer, call):
    theirs, ours = upstream("text-generation", writer), pipeline("text-generation", writer)
    call = {"do_sample": False, **call}
    inputs = [PROMPTS[1], PROMPTS, PROMPTS[:1]]
    if call == {"do_sample": False}:  # 256 tokens are more than the model has positions for: upstream just goes on
        call["max_new_tokens"] = 64 - len(PROMPTS[1])
        same(ours(PROMPTS[1], do_sample=False), theirs(PROMPTS[1], **call))
        return
    if "prefix" not in call and "max_length" not in call:
        inputs += [CHAT, [CHAT, PREFILLED], PREFILLED]
    for one in inputs:
        same(ours(one, **call), theirs(one, **call))


def test_text_generation_stops_and_continues(writer):
    theirs, ours = upstream("text-generation", writer), pipeline("text-generation", writer)
    written = ours(PROMPTS[1], do_sample=False, max_new_tokens=20, return_full_text=False)[0]["generated_text"]
    call = {"do_sample": False, "max_new_tokens": 20, "stop_sequence": next(c for c in written if "!" < c < "~")}
    same(ours(PROMPTS, **call), theirs(PROMPTS, **call))
    call = {"do_sample": False, "max_new_tokens": 6, "continue_final_message": False}
    same(ours(PREFILLED, **call), theirs(PREFILLED, **call))
