"""Beam search and the rules on scores against transformers on tiny random models: the same tokens and scores."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from cutaway import auto

VOCAB = 97
SMALL = {"vocab_size": VOCAB, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
STACK = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(is_decoder=True, max_position_embeddings=64, **STACK, **SMALL),
    "roberta": lambda: transformers.RobertaConfig(is_decoder=True, max_position_embeddings=64, **STACK, **SMALL),
    "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SMALL),
    "llama": lambda: transformers.LlamaConfig(num_key_value_heads=2, max_position_embeddings=64, **STACK, **SMALL),
    "t5": lambda: transformers.T5Config(
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=1,
        tie_word_embeddings=False,
        **SMALL,
    ),
    "bart": lambda: transformers.BartConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        **SMALL,
    ),
}
DECODERS = ["bert", "roberta", "gpt2", "llama"]
LENGTHS = [9, 3, 7, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """Family -> (theirs, ours), with the same weights; spread wide, so that beams differ."""
    found = {}
    for name, config in CONFIGS.items():
        folder: Path = tmp_path_factory.mktemp(name)
        torch.manual_seed(11)
        kind = "AutoModelForCausalLM" if name in DECODERS else "AutoModelForSeq2SeqLM"
        theirs = getattr(transformers, kind).from_config(config(), attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5 if name == "t5" else 4.0)
            if name == "t5":  # an untied output matrix, as in the published models; the two stacks share their tokens
                theirs.encoder.embed_tokens.weight.copy_(theirs.shared.weight)
                theirs.decoder.embed_tokens.weight.copy_(theirs.shared.weight)
        theirs.save_pretrained(folder)
        if (
            name == "roberta"
        ):  # upstream generates from position 0, which its own forward never uses; ours from 2, as there
            theirs.forward = without_positions(theirs.forward)
        found[name] = (theirs, getattr(auto, kind).from_pretrained(folder))
    return found


def without_positions(forward: Any) -> Any:
    """The model's own positions in the place of those that `generate` counts."""

    @functools.wraps(forward)
    def run(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return run


def batch(name: str, rows: int) -> dict[str, Tensor]:
    """Prompts of different lengths, padded on the left for a decoder, without special ids inside."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.full((rows, max(LENGTHS[:rows])), 1)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS[:rows]):
        where = slice(ids.shape[1] - length, None) if name in DECODERS else slice(0, length)
        ids[row, where] = torch.randint(3, VOCAB, (length,), generator=generator)
        mask[row, where] = 1
    return {"input_ids": ids, "attention_mask": mask}


def ends_of(ours: Any, inputs: dict[str, Tensor], name: str) -> list[int]:
    """Tokens that the model does say early, to serve as end tokens."""
    columns = inputs["input_ids"].shape[1] if name in DECODERS else 1
    answers = ours.generate(**inputs, max_new_tokens=6, eos_token_id=[])[:, columns:]
    return [int(answers[0, 2]), int(answers[-1, 4])]


SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_beams": 4, "length_penalty": 2.0, "num_return_sequences": 4},
    {"length_penalty": -1.0, "early_stopping": True},
    {"early_stopping": "never", "length_penalty": 0.0},
    {"early_stopping": "never", "length_penalty": 1.5, "num_return_sequences": 2},
    {"min_new_tokens": 4, "no_repeat_ngram_size": 2, "early_stopping": True},
    {"forced_bos_token_id": 7, "forced_eos_token_id": 5, "repetition_penalty": 1.3},
]


CASES = [(name, rows) for name in CONFIGS for rows in (1, 8) if name != "roberta" or rows == 1]


@pytest.mark.parametrize(("name", "rows"), CASES)
def test_beams(models: dict[str, Any], name: str, rows: int) -> None:
    theirs, ours = models[name]
    inputs = batch(name, rows)
    ends = ends_of(ours, inputs, name)
    lengths = set()
    for extra in SETTINGS:
        settings = {"max_new_tokens": 9, "num_beams": 3, "do_sample": False, "eos_token_id": ends, "pad_token_id": 1}
        settings |= extra | {"return_dict_in_generate": True, "output_scores": True}
        wanted, got = theirs.generate(**inputs, **settings), ours.generate(**inputs, **settings)
        assert torch.equal(wanted.sequences, got.sequences), extra
        torch.testing.assert_close(got.sequences_scores, wanted.sequences_scores, atol=1e-5, rtol=1e-4)
        assert torch.equal(got.beam_indices, wanted.beam_indices.long())
        lengths |= set((got.beam_indices >= 0).sum(-1).tolist())
        for used, mine, yours in zip(got.beam_indices.T, got.scores, wanted.scores, strict=False):
            used = used[used >= 0]
            torch.testing.assert_close(mine[used], yours[used], atol=2e-4, rtol=1e-4)
    without = ours.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(without.sequences, got.sequences)
    assert len(lengths) > 1  # some end before others


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_what_a_beam_shows(models: dict[str, Any], name: str) -> None:
    theirs, ours = models[name]
    inputs = batch(name, 1)
    settings = {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 3, "eos_token_id": None}
    settings |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    settings |= {"output_attentions": True, "output_hidden_states": True}
    wanted, got = theirs.generate(**inputs, **settings), ours.generate(**inputs, **settings)
    assert type(got).__name__ == type(wanted).__name__
    assert len(got.scores) == len(got.logits) == len(wanted.scores) == 4
    for mine, yours in (*zip(got.scores, wanted.scores, strict=True), *zip(got.logits, wanted.logits, strict=True)):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)
    fields = ["attentions", "hidden_states"] if name == "gpt2" else ["decoder_attentions", "cross_attentions"]
    for field in fields:
        for mine_step, your_step in zip(got[field], wanted[field], strict=True):
            for mine, yours in zip(mine_step, your_step, strict=True):
                torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_rules(models: dict[str, Any], name: str) -> None:
    theirs, ours = models[name]
    inputs = batch(name, 1)  # one text: upstream's rules count padding as text, ours do not
    columns = inputs["input_ids"].shape[1] if name == "llama" else 1
    free = ours.generate(**inputs, max_new_tokens=8, eos_token_id=[])[0, columns:].tolist()
    source = inputs["input_ids"][0].tolist()
    rules: list[dict[str, Any]] = [
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 1},
        {"encoder_no_repeat_ngram_size": 2, "sequence_bias": {(source[3],): 50.0, (source[3], source[4]): 90.0}},
        {"encoder_repetition_penalty": 3.0},
        {"bad_words_ids": [free[:2], [free[4]], [free[0], free[1], free[2]]]},
        {"sequence_bias": {(free[1],): -4.0, (free[2], free[3]): -20.0, (9,): 3.0}},
        {"suppress_tokens": [free[0], free[3]]},
        {"begin_suppress_tokens": [free[0], free[3]]},
        {"begin_suppress_tokens": [free[1]], "forced_bos_token_id": 7},
        {"exponential_decay_length_penalty": (2, 1.5), "eos_token_id": [free[5], 8]},
        {"remove_invalid_values": True, "renormalize_logits": True},
        {"prefix_allowed_tokens_fn": lambda _, ids: [int(ids[-1]) // 2, 40, int(ids[-1])]},
        {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "bad_words_ids": [[free[3]]], "min_new_tokens": 3},
    ]
    changed = 0
    for rule in rules:
        for more in ({}, {"num_beams": 3}):
            settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, **rule, **more}
            settings |= {"return_dict_in_generate": True, "output_scores": True, "pad_token_id": 1}
            wanted, got = theirs.generate(**inputs, **settings), ours.generate(**inputs, **settings)
            assert torch.equal(wanted.sequences, got.sequences), settings
            changed += not more and got.sequences[0, columns:].tolist() != free
            if not more:
                for mine, yours in zip(got.scores, wanted.scores, strict=True):
                    torch.testing.assert_close(mine, yours, atol=2e-4, rtol=1e-4)
    assert changed >= 10


def test_guidance(models: dict[str, Any]) -> None:
    theirs, ours = models["gpt2"]
    inputs = batch("gpt2", 1)
    negative = torch.tensor([[5, 6, 7, 8]])
    for more in ({}, {"negative_prompt_ids": negative}, {"negative_prompt_ids": negative, "num_beams": 2}):
        settings = {"max_new_tokens": 8, "guidance_scale": 1.7, "do_sample": False, "eos_token_id": None, **more}
        if "num_beams" not in more:  # upstream's guidance does not follow the beams
            assert torch.equal(theirs.generate(**inputs, **settings), ours.generate(**inputs, **settings))
        else:
            assert ours.generate(**inputs, **settings).shape == (1, 17)
    batched = batch("gpt2", 8)
    ends = ends_of(ours, batched, "gpt2")
    settings = {"max_new_tokens": 8, "guidance_scale": 1.7, "eos_token_id": ends, "negative_prompt_ids": negative}
    together = ours.generate(**batched, **settings)
    for row, length in enumerate(LENGTHS):
        alone = ours.generate(batched["input_ids"][row : row + 1, 9 - length :], **settings)[0, length:]
        assert torch.equal(together[row, 9 : 9 + len(alone)], alone)


def test_functions_of_the_user(models: dict[str, Any]) -> None:
    theirs, ours = models["llama"]
    inputs = batch("llama", 8)
    ends = ends_of(ours, inputs, "llama")
    shapes = []

    def even(ids: Tensor, scores: Tensor) -> Tensor:
        shapes.append((tuple(ids.shape), tuple(scores.shape)))
        return scores.masked_fill(torch.arange(VOCAB) % 2 == ids[:, -1:] % 2, -1e4)

    def long(ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return (ids[:, 9:] > 50).sum(-1) > 2

    for more in ({}, {"num_beams": 3}):
        settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": ends, "pad_token_id": 1, **more}
        lists = {
            "logits_processor": transformers.LogitsProcessorList([even]),
            "stopping_criteria": transformers.StoppingCriteriaList([long]),
        }
        wanted = theirs.generate(**inputs, **settings, **lists)
        their_shapes, shapes = shapes, []
        got = ours.generate(**inputs, **settings, **lists)
        assert torch.equal(wanted, got)
        assert shapes[: len(their_shapes)] == their_shapes[: len(shapes)]
        shapes = []


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_batch_equals_one_by_one(models: dict[str, Any], name: str) -> None:
    _, ours = models[name]
    inputs = batch(name, 8)
    ends = ends_of(ours, inputs, name)
    variants: list[dict[str, Any]] = [
        {"no_repeat_ngram_size": 2, "bad_words_ids": [[4, 5], [6]], "encoder_no_repeat_ngram_size": 1},
        {"num_beam_groups": 2, "diversity_penalty": 0.7},
        {"do_sample": True, "seed": 5, "top_k": 20, "temperature": 0.8},
        {"force_words_ids": [[11, 12], [13]]},
        {
            "num_beams": 1,
            "do_sample": True,
            "seed": 6,
            "typical_p": 0.9,
            "no_repeat_ngram_size": 1,
            "bad_words_ids": [[9]],
        },
    ]
    for variant in variants:
        settings = {"max_new_tokens": 8, "num_beams": 4, "eos_token_id": ends, "pad_token_id": 1, **variant}
        together = ours.generate(**inputs, **settings)
        columns = inputs["input_ids"].shape[1] if name in DECODERS else 1
        for row in range(8):
            ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
            alone = ours.generate(ids, **settings)[0, ids.shape[1] if name in DECODERS else 1 :]
            assert torch.equal(together[row, columns : columns + len(alone)], alone), (variant, row)
            assert bool((together[row, columns + len(alone) :] == 1).all())
