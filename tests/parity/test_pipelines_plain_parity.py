"""The pipelines that transformers 5 lacks, against its plain models on the same folder, text by text."""

from __future__ import annotations

import math

import pytest
import torch
from parity.pipes import checkpoints

from cutaway.pipelines import pipeline

TEXTS = ["a good film", "bad one", "I believe that the EU is trustworthy, and not bad!"]


def plain(folder, kind):
    """Their model and tokenizer."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    made = getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager").eval()
    return made, transformers.AutoTokenizer.from_pretrained(folder)


def test_multiple_choice(tmp_path):
    folder = checkpoints.classifier(tmp_path, head="BertForMultipleChoice")
    model, tokenizer = plain(folder, "AutoModelForMultipleChoice")
    pipe = pipeline("multiple-choice", folder)
    for prompt in TEXTS:
        rows = tokenizer([prompt] * len(TEXTS), TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            scores = model(**{name: value[None] for name, value in rows.items()}).logits[0].softmax(0)
        chosen = pipe(prompt, TEXTS)
        assert [entry["index"] for entry in chosen] == scores.argsort(descending=True).tolist()
        for entry in chosen:
            assert entry["score"] == pytest.approx(float(scores[entry["index"]]), abs=1e-5)


def test_perplexity(tmp_path):
    folder = checkpoints.decoder(tmp_path)
    model, tokenizer = plain(folder, "AutoModelForCausalLM")
    for text, answer in zip(TEXTS, pipeline("perplexity", folder)(TEXTS), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            loss = float(model(ids, labels=ids).loss)
        assert answer["tokens"] == ids.shape[1] - 1
        assert answer["loss"] == pytest.approx(loss, abs=1e-5)
        assert answer["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_question_answering(tmp_path):
    """The best span of the context by the product of both softmaxes, as the pipeline of transformers 4 has it."""
    folder = checkpoints.classifier(tmp_path, 2, head="BertForQuestionAnswering")
    model, tokenizer = plain(folder, "AutoModelForQuestionAnswering")
    pipe = pipeline("question-answering", folder)
    for context in TEXTS:
        given = tokenizer("what is good?", context, return_tensors="pt", return_offsets_mapping=True)
        offsets = given.pop("offset_mapping")[0].tolist()
        own = [i for i, part in enumerate(given.sequence_ids(0)) if part == 1]
        with torch.no_grad():
            out = model(**given)
        allowed = [0, *own]  # the first token stands for "no answer" and takes part in the softmax
        starts, ends = (logits[0, allowed].softmax(0)[1:] for logits in (out.start_logits, out.end_logits))
        spans = {
            (offsets[own[a]][0], offsets[own[b]][1]): float(starts[a] * ends[b])
            for a in range(len(own))
            for b in range(a, min(a + 15, len(own)))
        }
        best = max(spans, key=lambda span: spans[span])
        answer = pipe(question="what is good?", context=context, align_to_words=False)
        assert (answer["start"], answer["end"]) == best
        assert answer["score"] == pytest.approx(spans[best], abs=1e-5)
        assert answer["answer"] == context[best[0] : best[1]]


TASKS = {
    "text2text-generation": "generated",
    "summarization": "summary",
    "translation": "translation",
    "translation_en_to_de": "translation",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("how", [{}, {"num_beams": 3, "length_penalty": 0.5}, {"min_new_tokens": 4}])
def test_texts_from_texts(tmp_path, task, how):
    folder = checkpoints.encoder_decoder(tmp_path)
    model, tokenizer = plain(folder, "AutoModelForSeq2SeqLM")
    answers = pipeline(task, folder)(TEXTS, max_new_tokens=8, **how)
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=8, do_sample=False, **how)
        assert answer == {f"{TASKS[task]}_text": tokenizer.decode(ids[0], skip_special_tokens=True)}
