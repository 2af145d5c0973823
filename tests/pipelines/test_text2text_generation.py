"""transformers 5 has no such pipelines, so each answer is proved by the argmax of the model's logits, step by step."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from cutaway.errors import HubError, InputError
from cutaway.pipelines import pipeline

TEXTS = ["a good film", "bad", "i believe that the eu is trust , and not bad !"]
TASKS = {
    "text2text-generation": "generated",
    "summarization": "summary",
    "translation": "translation",
    "translation_en_to_de": "translation",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.encoder_decoder(tmp_path_factory.mktemp("t5"))


def greedy(pipe, text, steps):
    """The answer's ids from the model alone: the likeliest token after those before, up to the end token."""
    ids = pipe.tokenizer(text, return_tensors="pt")["input_ids"]
    written = torch.tensor([[0]])
    with torch.no_grad():
        for _ in range(steps):
            logits = pipe.model(input_ids=ids, decoder_input_ids=written).logits
            written = torch.cat([written, logits[:, -1:].argmax(-1)], 1)
            if written[0, -1] == 3:
                break
    return written[0, 1:].tolist()


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_the_models(folder, task):
    pipe, name = pipeline(task, folder), TASKS[task]
    expected = [greedy(pipe, text, 8) for text in TEXTS]
    texts = [pipe.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    assert pipe(TEXTS, max_new_tokens=8) == [{f"{name}_text": text} for text in texts]
    assert pipe(TEXTS[0], max_new_tokens=8) == [{f"{name}_text": texts[0]}]
    ids = pipe(TEXTS, max_new_tokens=8, return_tensors=True)
    assert ids == [{f"{name}_token_ids": row} for row in expected]
    results = list(pipe.each(TEXTS, max_new_tokens=8))
    assert [result.answers[0] for result in results] == texts
    assert list(pipe(iter(TEXTS[:1]), max_new_tokens=8)) == [[{f"{name}_text": texts[0]}]]


def test_several_answers_come_as_a_list_each(folder):
    pipe = pipeline("summarization", folder)
    answers = pipe(TEXTS, num_return_sequences=2, do_sample=True, seed=1, max_new_tokens=4)
    assert [len(answer) for answer in answers] == [2, 2, 2]
    assert answers[1] == pipe(TEXTS[1], num_return_sequences=2, do_sample=True, seed=1, max_new_tokens=4)


def test_what_config_json_says_about_the_task(tmp_path, caplog):
    folder = tiny.encoder_decoder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["task_specific_params"] = {
        "summarization": {"prefix": "not ", "max_length": 6, "dola_layers": "high", "no_repeat_ngram_size": 0},
        "translation_en_to_de": {"prefix": "that "},
    }
    (folder / "config.json").write_text(json.dumps(config))
    pipe = pipeline("summarization", folder)
    assert "dola_layers='high', which is not built yet" in caplog.text
    assert pipe(TEXTS[0], return_tensors=True)[0]["summary_token_ids"] == greedy(pipe, "not " + TEXTS[0], 5)
    longer = pipe(TEXTS[0], max_new_tokens=8, return_tensors=True)
    assert longer[0]["summary_token_ids"] == greedy(pipe, "not " + TEXTS[0], 8)
    german = pipeline("translation_en_to_de", folder)
    call = {"max_new_tokens": 6, "return_tensors": True}
    assert german(TEXTS[1], **call)[0]["translation_token_ids"] == greedy(german, "that " + TEXTS[1], 6)
    assert german(TEXTS[1], prefix="", **call)[0]["translation_token_ids"] == greedy(german, TEXTS[1], 6)


def test_long_texts(folder, caplog):
    pipe = pipeline("summarization", folder)
    pipe.tokenizer.model_max_length = 16
    with pytest.raises(InputError, match="takes 16"):
        pipe("good " * 30)
    [result] = pipe.each("good " * 30, long="truncate", max_new_tokens=3)
    assert (result.cut, len(result.prompt)) == (16, 16)


def test_a_decoder_is_refused(tmp_path):
    from cutaway.auto import AutoModelForCausalLM, AutoTokenizer

    folder = tiny.decoder(tmp_path)
    with pytest.raises(InputError, match='"text-generation"'):
        pipeline("summarization", AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def test_translation_without_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for task in ("translation", "translation_fr_to_ro"):
        with pytest.raises(InputError, match="translation_en_to_fr"):
            pipeline(task)
    with pytest.raises(HubError, match=r"t5-base.*Pass model="):
        pipeline("translation_en_to_fr")
