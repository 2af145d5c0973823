"""transformers 5 has no such pipeline, so each answer is proved by trying every span over the model's own logits."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline

QUESTION = "what is good?"
CONTEXT = "A good film, not a bad one! I believe that the EU is trustworthy."


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    folder = tiny.classifier(tmp_path_factory.mktemp("qa"), 2, head="BertForQuestionAnswering")
    found = pipeline("question-answering", folder)
    found.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return found


def every_answer(pipe, question, context, *, longest, overlap, most, words=True):
    """({(start, end): best score}, score of no answer), window by window and span by span, in plain loops."""
    tokenizer, found, null = pipe.tokenizer, {}, math.inf
    asked = tokenizer(question, add_special_tokens=False)["input_ids"]
    encoding = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets, word_ids = encoding["input_ids"], encoding["offset_mapping"], encoding.word_ids()
    room, start = longest - len(asked) - 3, 0
    while True:
        own = ids[start : start + room]
        row = [tokenizer.cls_token_id, *asked, tokenizer.sep_token_id, *own, tokenizer.sep_token_id]
        types = [0] * (len(asked) + 2) + [1] * (len(own) + 1)
        with torch.no_grad():
            out = pipe.model(input_ids=torch.tensor([row]), token_type_ids=torch.tensor([types]))
        place = len(asked) + 2
        allowed = [0, *range(place, place + len(own))]
        begin, end = (logits[0][allowed].softmax(0).tolist() for logits in (out.start_logits, out.end_logits))
        null = min(null, begin[0] * end[0])
        for a in range(len(own)):
            for b in range(a, min(a + most, len(own))):
                first, last = start + a, start + b
                span = offsets[first][0], offsets[last][1]
                if words:
                    inside = [offsets[i] for i in range(len(ids)) if word_ids[i] in (word_ids[first], word_ids[last])]
                    span = inside[0][0], inside[-1][1]
                found[span] = max(found.get(span, 0), begin[a + 1] * end[b + 1])
        if start + room >= len(ids):
            return found, null
        start += room - overlap


def check(answers, expected, context):
    """The answers are the best of `expected`, in order, each with its own score."""
    scores = sorted(expected.values(), reverse=True)
    for rank, answer in enumerate(answers):
        assert answer["score"] == pytest.approx(scores[rank], abs=1e-6)
        assert answer["score"] == pytest.approx(expected[answer["start"], answer["end"]], abs=1e-6)
        assert answer["answer"] == context[answer["start"] : answer["end"]]
    assert len({(a["start"], a["end"]) for a in answers}) == len(answers)


@pytest.mark.parametrize("most", [1, 4, 15])
@pytest.mark.parametrize("words", [True, False])
def test_the_answer_is_the_best_of_all_spans(pipe, most, words):
    expected, _ = every_answer(pipe, QUESTION, CONTEXT, longest=64, overlap=0, most=most, words=words)
    call = {"max_answer_len": most, "align_to_words": words}
    best = pipe(question=QUESTION, context=CONTEXT, **call)
    assert list(best) == ["score", "start", "end", "answer"]
    check([best], expected, CONTEXT)
    several = pipe(question=QUESTION, context=CONTEXT, top_k=12, **call)
    assert len(several) == 12
    check(several, expected, CONTEXT)


@pytest.mark.parametrize(("longest", "stride"), [(24, 6), (30, 0), (64, None)])
def test_long_contexts_in_windows(pipe, longest, stride):
    context = " ".join(f"good film {i} not bad, the EU" for i in range(30))
    overlap = min(128, longest // 2) if stride is None else stride
    expected, null = every_answer(pipe, QUESTION, context, longest=longest, overlap=overlap, most=15)
    call = {"max_seq_len": longest, "doc_stride": stride}
    check(pipe(question=QUESTION, context=context, top_k=20, **call), expected, context)
    [result] = pipe.each({"question": QUESTION, "context": context}, handle_impossible_answer=True, top_k=10**4, **call)
    [none] = [answer for answer in result.answers if not answer.answer]
    assert (none.start, none.end, none.score) == (0, 0, pytest.approx(null, abs=1e-6))


def test_no_answer_wins_where_it_is_likelier(pipe, monkeypatch):
    def nothing(input_ids, **_):
        logits = torch.zeros(input_ids.shape)
        logits[:, 0] = 9
        return type("Out", (), {"start_logits": logits, "end_logits": logits})

    monkeypatch.setattr(pipe.model, "forward", nothing)
    assert pipe(question=QUESTION, context=CONTEXT, handle_impossible_answer=True)["answer"] == ""
    assert pipe(question=QUESTION, context=CONTEXT)["answer"] != ""


def test_the_forms_of_inputs_and_answers(pipe):
    one = {"question": QUESTION, "context": CONTEXT}
    alone = pipe(one)
    assert isinstance(alone, dict)
    assert pipe([one]) == alone == pipe(question=[QUESTION], context=[CONTEXT])
    several = pipe(question=[QUESTION, "bad?"], context=CONTEXT)
    assert [type(answer) for answer in several] == [dict, dict]
    assert several[0]["answer"] == alone["answer"]
    assert several[0]["score"] == pytest.approx(alone["score"], abs=1e-5)
    assert next(pipe(iter([one])))["answer"] == alone["answer"]
    assert len(list(pipe.each([one, one]))) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"question": QUESTION}, "context="),
        ({"question": QUESTION, "context": " "}, "not empty"),
        ({"question": QUESTION, "context": CONTEXT, "top_k": 0}, "top_k=0"),
        ({"question": QUESTION, "context": CONTEXT, "max_answer_len": 0}, "max_answer_len=0"),
        ({"question": QUESTION, "context": CONTEXT, "max_seq_len": 999}, "takes 64"),
        ({"question": "good " * 70, "context": CONTEXT}, "Shorten the other"),
        ({"question": QUESTION, "context": CONTEXT * 9, "long": "error"}, "takes 64"),
        ({"question": [QUESTION] * 2, "context": [CONTEXT] * 3}, "as many contexts"),
    ],
)
def test_what_cannot_be_asked_is_an_error(pipe, call, message):
    with pytest.raises(InputError, match=message):
        pipe(**call)
