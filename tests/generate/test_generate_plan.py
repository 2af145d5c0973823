"""Calls of generate that cannot be: refused before the model runs, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_model import FakeModel

from cutaway.errors import GenerationError, InputError
from cutaway.generate import generate

PROMPT = torch.tensor([[3, 4, 5]])

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("do_sample is False", {"temperature": 0.7}),
    ("do_sample is False", {"do_sample": False, "top_p": 0.9}),
    ("do_sample is False", {"do_sample": False, "top_k": 10}),
    ("do_sample is False", {"min_p": 0.1}),
    ("not built yet", {"penalty_alpha": 0.6}),
    ("num_beams above 1", {"length_penalty": 2.0}),
    ("num_beams above 1", {"early_stopping": True}),
    ("num_beams above 1", {"force_words_ids": [[3]]}),
    ("more than num_beams", {"num_beams": 2, "num_return_sequences": 3}),
    ("num_beams=1000000000000: with 1 prompt", {"num_beams": 10**12}),
    ("num_return_sequences=16777217", {"do_sample": True, "num_return_sequences": 2**24 + 1}),
    ("length_penalty=1000000000000", {"num_beams": 2, "length_penalty": 10**12}),
    ("shared out", {"num_beams": 3, "num_beam_groups": 2, "diversity_penalty": 1.0}),
    ("go together", {"num_beams": 4, "num_beam_groups": 2}),
    ("go together", {"num_beams": 4, "diversity_penalty": 0.5}),
    ("exclude each other", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "do_sample": True}),
    ("early_stopping='soon'", {"num_beams": 2, "early_stopping": "soon"}),
    ("asks for 9 tokens", {"num_beams": 2, "force_words_ids": [list(range(9))], "max_new_tokens": 8}),
    ("plain beam search", {"num_beams": 2, "force_words_ids": [[3]], "do_sample": True}),
    ("force_words_ids holds", {"num_beams": 2, "force_words_ids": [[99]]}),
    ("list of words", {"num_beams": 2, "force_words_ids": [3]}),
    ("knows its answer at the end", {"num_beams": 2, "streamer": object()}),
    ("do_sample is False", {"typical_p": 0.5}),
    ("typical_p=0", {"do_sample": True, "typical_p": 0.0}),
    ("eta_cutoff=2", {"do_sample": True, "eta_cutoff": 2}),
    ("bad_words_ids=", {"bad_words_ids": []}),
    ("bad_words_ids holds", {"bad_words_ids": [[99]]}),
    ("list of lists", {"bad_words_ids": [3]}),
    ("sequence_bias=", {"sequence_bias": {3: 1.0}}),
    ("not a token id", {"suppress_tokens": [99]}),
    ("there is none", {"exponential_decay_length_penalty": (3, 1.1)}),
    ("tokens before it begins", {"exponential_decay_length_penalty": 3, "eos_token_id": 2}),
    ("cannot be called", {"logits_processor": [3]}),
    ("only acts through guidance_scale", {"negative_prompt_ids": PROMPT}),
    ("both or neither", {"negative_prompt_attention_mask": PROMPT, "guidance_scale": 2.0}),
    ("2 rows for 1 prompts", {"negative_prompt_ids": PROMPT.repeat(2, 1), "guidance_scale": 2.0}),
    ("needs the tokenizer", {"regex": "a+"}),
    ("exclude each other", {"regex": "a+", "grammar": "start: A"}),
    ("needs an end token", {"regex": "a+", "tokenizer": object()}),
    ("contradicts regex", {"regex": "a+", "tokenizer": object(), "eos_token_id": 2, "min_new_tokens": 4}),
    ("not a JSON schema", {"json_schema": "{", "tokenizer": object(), "eos_token_id": 2}),
    ("max_new_tokens=-1", {"max_new_tokens": -1}),
    ("max_new_tokens=0", {"max_new_tokens": 0}),
    ("max_new_tokens=2.5", {"max_new_tokens": 2.5}),
    ("counts the prompt", {"max_length": 3}),
    ("contradict", {"max_length": 9, "max_new_tokens": 9}),
    ("cannot be reached", {"max_new_tokens": 3, "min_new_tokens": 5}),
    ("cannot be reached", {"min_length": 50}),
    ("top_p=0", {"do_sample": True, "top_p": 0.0}),
    ("top_p=1.5", {"do_sample": True, "top_p": 1.5}),
    ("min_p=-1", {"do_sample": True, "min_p": -1}),
    ("top_k=-5", {"do_sample": True, "top_k": -5}),
    ("temperature=0", {"do_sample": True, "temperature": 0}),
    ("temperature=nan", {"do_sample": True, "temperature": float("nan")}),
    ("temperature='hot'", {"do_sample": True, "temperature": "hot"}),
    ("repetition_penalty=0", {"repetition_penalty": 0.0}),
    ("greedy search has one answer", {"num_return_sequences": 2}),
    ("Did you mean 'max_new_tokens'", {"max_new_token": 5}),
    ("needs the tokenizer", {"stop_strings": "."}),
    ("none of them empty", {"stop_strings": [""], "tokenizer": object()}),
    ("stop_strings=2.5: pass a text", {"stop_strings": 2.5, "tokenizer": object()}),
    ("return_dict_in_generate=True as well", {"output_scores": True}),
    ("not a token id", {"eos_token_id": 99}),
    ("one token id", {"pad_token_id": [1, 2]}),
    ("2 numbers for 1 prompts", {"do_sample": True, "seed": [1, 2]}),
    ("seed=-3", {"do_sample": True, "seed": -3}),
    ("do_sample='yes'", {"do_sample": "yes"}),
    ("encoder-decoder", {"decoder_input_ids": PROMPT}),
    ("pass one of them", {"inputs": PROMPT}),
]


@pytest.mark.parametrize(("message", "settings"), WRONG, ids=[f"{message}-{i}" for i, (message, _) in enumerate(WRONG)])
def test_contradictions(message: str, settings: dict[str, Any]) -> None:
    model = FakeModel()
    with pytest.raises(GenerationError, match=message):
        generate(model, PROMPT, **settings)
    assert model.calls == []


def test_what_a_file_says_is_no_contradiction() -> None:
    model = FakeModel(
        temperature=0.7, top_p=0.9, do_sample=True, early_stopping=True, length_penalty=2.0, eos_token_id=-1
    )
    assert generate(model, PROMPT, do_sample=False, max_new_tokens=2).shape == (1, 5)
    with pytest.raises(GenerationError, match="Pass dola_layers=None"):
        generate(FakeModel(dola_layers="high"), PROMPT)
    assert generate(FakeModel(num_beams=4), PROMPT, num_beams=1).shape == (1, 23)
    assert generate(FakeModel(num_beams=4, length_penalty=0.5), PROMPT).shape == (1, 23)
    assert generate(model, PROMPT, do_sample=False, temperature=1.0, top_k=50, max_length=5).shape == (1, 5)


def test_wrong_inputs() -> None:
    model = FakeModel()
    for ids in (torch.tensor([3, 4]), torch.zeros(1, 0, dtype=torch.long), torch.randn(1, 3), "text", [[1], [2, 3]]):
        with pytest.raises(InputError, match="input_ids"):
            generate(model, ids)
    with pytest.raises(InputError, match="attention_mask has shape"):
        generate(model, PROMPT, torch.ones(1, 4))
    with pytest.raises(InputError, match="without a single token"):
        generate(model, PROMPT, torch.zeros(1, 3))
    model.can_generate = lambda: False
    with pytest.raises(GenerationError, match="no language-model head"):
        generate(model, PROMPT)
