"""The same answers in the same shapes as transformers, on tiny random models."""

from __future__ import annotations

import types

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline

TEXTS = ["I believe that the EU is trustworthy.", "bad", "a very good film , and not a bad one !", "😀 ab cd", ""]
CALLS = [
    {},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": None},
    {"function_to_apply": "sigmoid"},
    {"function_to_apply": "none"},
    {"function_to_apply": "softmax", "top_k": None},
]
INPUTS = [
    "a good film",
    TEXTS,
    ["bad"],
    {"text": "good", "text_pair": "bad"},
    [{"text": "good", "text_pair": "bad film"}, {"text": "not"}],
    [[["good", "bad"]]],
]
MODELS = {
    "three labels": {"labels": 3},
    "one label": {"labels": 1},
    "regression": {"labels": 1, "problem_type": "regression"},
    "several at once": {"labels": 4, "problem_type": "multi_label_classification"},
    "names": {"labels": 2, "id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}},
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    return tiny.classifier(tmp_path_factory.mktemp("classifier"), **MODELS[request.param])


def upstream(folder, **settings):
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.pipeline("text-classification", model=str(folder), device="cpu", **settings)


def same(ours, theirs):
    """Equal in shape and labels; scores to 1e-5."""
    assert type(ours) is type(theirs)
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours["label"] == theirs["label"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert set(ours) == set(theirs)
        assert isinstance(ours["score"], float)


def test_every_call_matches(folder):
    theirs, ours = upstream(folder), pipeline("text-classification", model=folder)
    for call in CALLS:
        for inputs in INPUTS:
            same(ours(inputs, **call), theirs(inputs, **call))


@pytest.mark.parametrize("top_k", [1, 2, None])
def test_top_k_of_the_pipeline(folder, top_k):
    theirs, ours = upstream(folder, top_k=top_k), pipeline("text-classification", model=folder, top_k=top_k)
    for inputs in INPUTS:
        same(ours(inputs), theirs(inputs))


def test_a_generator_gives_a_generator(folder):
    ours = pipeline("text-classification", model=folder)(text for text in TEXTS)
    assert isinstance(ours, types.GeneratorType)
    same(list(ours), list(upstream(folder)(text for text in TEXTS)))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("text-classification", model=tiny.classifier(tmp_path_factory.mktemp("classifier")))


def test_a_stream_is_read_batch_by_batch(pipe):
    read = []

    def stream():
        for i in range(100):
            read.append(i)
            yield "good film"

    answers = pipe(stream(), batch_size=4)
    next(answers)
    assert len(read) == 4


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_batches_change_nothing(pipe, batch_size):
    texts = [f"{'good ' * (i % 7)}film {i}" for i in range(20)]
    alone = [pipe(text)[0] for text in texts]
    same(pipe(texts, batch_size=batch_size), alone)


def test_nothing_in_nothing_out(pipe):
    assert pipe([]) == []


def test_a_text_that_is_too_long(pipe):
    text = "good " * 100
    with pytest.raises(InputError, match=r"102 tokens.*64.*truncation=True"):
        pipe(["bad", text])
    assert pipe(text, truncation=True)[0]["score"] > 0


@pytest.mark.parametrize("pair", [None, "not a good one"])
def test_windows_are_weighted_by_the_tokens_they_own(folder, pair):
    pipe = pipeline("text-classification", folder, top_k=None, long="window", overlap=10)
    text = " ".join(f"good film {letter} bad" for letter in "abcdefghijklmnopqrstuvwxyz")  # 104 tokens
    inputs = text if pair is None else {"text": text, "text_pair": pair}
    ids = pipe.tokenizer(text, add_special_tokens=False)["input_ids"]
    beside = [] if pair is None else [*pipe.tokenizer(pair, add_special_tokens=False)["input_ids"], 3]
    room, start, owned = 62 - len(beside), 0, 0
    total = torch.zeros(pipe.model.config.num_labels)
    count = 0
    while owned < len(ids):
        end = min(start + room, len(ids))
        row = [2, *ids[start:end], 3, *beside]
        with torch.no_grad():
            logits = pipe.model(torch.tensor([row])).logits[0]
        own_end = len(ids) if end == len(ids) else end - 5
        kind = pipe.model.config.problem_type or ("softmax" if len(logits) > 1 else "sigmoid")
        applied = {"regression": logits, "softmax": logits.softmax(0)}.get(kind, logits.sigmoid())
        total += applied * (own_end - owned) / len(ids)
        start, owned, count = end - 10, own_end, count + 1
    [result] = pipe.each([inputs])
    assert result.windows == count > 1
    names = pipe.model.config.id2label
    assert dict(zip(result.labels, result.scores, strict=True)) == pytest.approx(
        {names[i]: float(score) for i, score in enumerate(total)}, abs=1e-5
    )
    short = pipe("good film", long="window")
    assert short == pipe("good film", long="error")
    assert [r.windows for r in pipe.each(["good", inputs, ""])] == [1, count, 1]
    assert pipe(["good", inputs])[1] == [
        {"label": a, "score": pytest.approx(b, abs=1e-5)} for a, b in zip(result.labels, result.scores, strict=True)
    ]


def test_truncation_matches(tmp_path):
    folder = tiny.classifier(tmp_path)
    text = "good bad film " * 50
    same(pipeline(model=folder)(text, truncation=True), upstream(folder)(text, truncation=True))
    same(
        pipeline(model=folder, truncation=True, max_length=8)(text),
        upstream(folder, truncation=True, max_length=8)(text),
    )


@pytest.mark.parametrize("bad", [3, None, [3], ["a", None], {"txt": "a"}, {"text": 3}, [["a", "b", "c"]], [["a", "b"]]])
def test_what_is_no_text_is_an_error(pipe, bad):
    with pytest.raises(InputError):
        pipe(bad)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "two", True])
def test_top_k_out_of_bounds(pipe, top_k):
    with pytest.raises(InputError, match="top_k"):
        pipe("good", top_k=top_k)


def test_numbers_of_texts_that_a_model_does_not_read_are_left_out(tmp_path):
    import transformers

    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(tiny.classifier(tmp_path / "bert")), model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )
    assert "token_type_ids" in tokenizer("good")
    tokenizer.save_pretrained(tmp_path / "bart")
    end = tokenizer.sep_token_id  # which each text has once
    config = transformers.BartConfig(vocab_size=len(tokenizer), eos_token_id=end, **sizes, **heads)
    theirs = transformers.BartForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path / "bart")
    found = pipeline("text-classification", str(tmp_path / "bart"))(["a good film", "bad"], top_k=None)
    encoded = tokenizer(["a good film", "bad"], return_tensors="pt", padding=True)
    encoded.pop("token_type_ids")
    with torch.inference_mode():
        wanted = theirs(**encoded).logits.softmax(-1)
    for row, scores in zip(found, wanted, strict=True):
        by_label = {one["label"]: one["score"] for one in row}
        assert [by_label[f"LABEL_{i}"] for i in range(3)] == pytest.approx(scores.tolist(), abs=1e-5)
