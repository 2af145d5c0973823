"""Log-probabilities of prompts and answers, by definition: log softmax of transformers' logits on each text alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from parity.pairs import load, padded, texts
from parity.pipes import checkpoints
from parity.tiny_models import make
from torch import Tensor

from cutaway.errors import GenerationError, MissingOutputError
from cutaway.outputs import strict_outputs
from cutaway.pipelines import pipeline

LENGTHS = (6, 1, 4)
PAD = 0
TWO = ("t5", "bart")
HOW: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "seed": 3, "temperature": 0.6, "top_k": 7, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "ruled": {"repetition_penalty": 1.7, "suppress_tokens": [4, 5]},
}


@functools.cache
def models(family: str) -> tuple[Any, Any]:
    ending = {"gpt2": "LMHeadModel"}.get(family, "ForConditionalGeneration" if family in TWO else "ForCausalLM")
    extra = {"decoder_start_token_id": 2} if family in TWO else {}
    theirs = make(family, ending, **extra)
    theirs.set_attn_implementation("eager")
    return theirs, load(theirs, ending)


def by_definition(theirs: Any, text: list[int], source: Tensor | None) -> Tensor:
    """Log-probabilities [tokens - 1, V] of all tokens but the first."""
    ids = torch.tensor([text])
    given = {"input_ids": ids} if source is None else {"input_ids": source[None], "decoder_input_ids": ids}
    with torch.no_grad():
        return theirs(**given).logits[0, :-1].log_softmax(-1)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("family", ["gpt2", "llama", *TWO])
def test_every_token_of_prompt_and_answer(family: str, how: str) -> None:
    theirs, ours = models(family)
    sources = texts(LENGTHS)
    ids, mask = padded(sources, "left", PAD)
    call = {"max_new_tokens": 7, "eos_token_id": list(range(20, 40)), "pad_token_id": PAD, **HOW[how]}
    out = ours.generate(ids, mask, output_logprobs=3, return_dict_in_generate=True, **call)
    assert torch.equal(out.sequences, ours.generate(ids, mask, **call))
    copies = HOW[how].get("num_return_sequences", 1)
    assert len(out.logprobs) == len(out.prompt_logprobs) == len(LENGTHS) * copies
    start = 1 if family in TWO else ids.shape[1]
    for i, (prompt, answer) in enumerate(zip(out.prompt_logprobs, out.logprobs, strict=True)):
        source = sources[i // copies]
        told = [*prompt, *answer]
        text = [token.id for token in told]
        assert text[: len(prompt)] == ([2] if family in TWO else source.tolist())
        new = out.sequences[i, start:].tolist()
        ends = next((n for n, token in enumerate(new, start=1) if 20 <= token < 40), len(new))
        assert text[len(prompt) :] == new[:ends]
        assert (told[0].logprob, told[0].rank, told[0].top) == (None, None, ())
        expected = by_definition(theirs, text, source if family in TWO else None)
        for token, row in zip(told[1:], expected, strict=True):
            assert token.text is None
            assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-5)
            assert token.rank == 1 + int((row > row[token.id]).sum())
            best = row.topk(3)
            assert [other.id for other in token.top] == best.indices.tolist()
            assert [other.logprob for other in token.top] == pytest.approx(best.values.tolist(), abs=1e-5)
    alone = ours.generate(sources[2][None], output_logprobs=True, return_dict_in_generate=True, **call)
    for one, other in zip(out.logprobs[2 * copies], alone.logprobs[0], strict=True):
        assert (one.id, one.rank, other.top) == (other.id, other.rank, ())
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_a_beam_s_score_is_the_sum_over_its_answer() -> None:
    _, ours = models("llama")
    ids = texts((5,))[0][None]
    call = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 5, "eos_token_id": 9}
    out = ours.generate(ids, output_logprobs=True, return_dict_in_generate=True, **call)
    for score, answer in zip(out.sequences_scores.tolist(), out.logprobs, strict=True):
        assert score == pytest.approx(sum(token.logprob for token in answer) / len(answer), abs=1e-5)


def test_they_must_be_asked_for_and_have_somewhere_to_go() -> None:
    _, ours = models("gpt2")
    ids = texts((5,))[0][None]
    with pytest.raises(GenerationError, match="output_logprobs=2 has nowhere to go"):
        ours.generate(ids, output_logprobs=2)
    with pytest.raises(GenerationError, match="has 99 tokens"):
        ours.generate(ids, output_logprobs=100, return_dict_in_generate=True)
    with strict_outputs(), pytest.raises(MissingOutputError, match="output_logprobs=True"):
        _ = ours.generate(ids, max_new_tokens=2, return_dict_in_generate=True).logprobs


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoints.decoder(tmp_path_factory.mktemp("writer"))


def test_the_pipeline_gives_them_with_their_characters(writer: Any) -> None:
    pipe, foresee = pipeline("text-generation", writer), pipeline("perplexity", writer)
    prompts = ["a good film 😀", "xy", "not"]
    call = {"do_sample": False, "max_new_tokens": 9, "output_logprobs": 2}
    answers = pipe(prompts, **call)
    for prompt, [answer], result in zip(prompts, answers, pipe.each(prompts, **call), strict=True):
        assert list(answer) == ["generated_text", "logprobs", "prompt_logprobs"]
        said = "".join(token["text"] for token in answer["logprobs"])
        assert said == pipe.tokenizer.decode([token["id"] for token in answer["logprobs"]])
        assert "".join(token["text"] for token in answer["prompt_logprobs"]) == prompt
        own = [token["logprob"] for token in answer["prompt_logprobs"]][1:]
        assert -sum(own) / len(own) == pytest.approx(foresee(prompt)["loss"], abs=1e-5)
        assert [token.id for token in result.logprobs[0]] == list(result.tokens[0])
        assert answer["logprobs"][0]["rank"] == 1
        assert answer["logprobs"][0]["id"] == answer["logprobs"][0]["top"][0]["id"]
        [same] = pipe(prompt, **call)
        for one, other in zip(answer["logprobs"], same["logprobs"], strict=True):
            assert (one["id"], one["text"]) == (other["id"], other["text"])
            assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-5)
    assert pipe(prompts, do_sample=False, max_new_tokens=9)[0][0].keys() == {"generated_text"}


def test_an_encoder_decoder_s_pipeline_gives_those_of_its_answer(tmp_path: Any) -> None:
    pipe = pipeline("text2text-generation", checkpoints.encoder_decoder(tmp_path))
    [answer] = pipe("a good film", max_new_tokens=5, num_beams=2, output_logprobs=True)
    assert list(answer) == ["generated_text", "logprobs"]
    assert all(token["logprob"] < 0 for token in answer["logprobs"])
