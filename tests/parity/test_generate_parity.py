"""generate against transformers on tiny random models: the same tokens, scores, attentions and hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from cutaway import auto
from cutaway.errors import GenerationError

VOCAB = 97
SMALL = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=64, **SMALL),
    "llama": lambda: transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        **SMALL,
    ),
    "t5": lambda: transformers.T5Config(
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        **SMALL,
    ),
    "bart": lambda: transformers.BartConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
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
DECODERS = ["gpt2", "llama"]
ENCODER_DECODERS = ["t5", "bart"]
ALL = DECODERS + ENCODER_DECODERS
LENGTHS = [9, 3, 7, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """Family -> (theirs, ours), with the same weights; spread wide, so that greedy search does not repeat one token."""
    found = {}
    for name, config in CONFIGS.items():
        folder: Path = tmp_path_factory.mktemp(name)
        torch.manual_seed(11)
        kind = "AutoModelForCausalLM" if name in DECODERS else "AutoModelForSeq2SeqLM"
        theirs = getattr(transformers, kind).from_config(config(), attn_implementation="eager").eval()
        with torch.no_grad():
            for weight, parameter in theirs.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(60.0 if name == "bart" and "positions" in weight else 3.0 if name == "t5" else 6.0)
            if name == "t5":  # an untied output matrix, as in the published models; the two stacks share their tokens
                theirs.encoder.embed_tokens.weight.copy_(theirs.shared.weight)
                theirs.decoder.embed_tokens.weight.copy_(theirs.shared.weight)
        theirs.save_pretrained(folder)
        found[name] = (theirs, getattr(auto, kind).from_pretrained(folder))
    return found


def batch(rows: int, side: str = "left") -> dict[str, Tensor]:
    """Prompts of different lengths, without special ids inside."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.zeros(rows, max(LENGTHS[:rows]), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS[:rows]):
        where = slice(ids.shape[1] - length, None) if side == "left" else slice(0, length)
        ids[row, where] = torch.randint(3, VOCAB, (length,), generator=generator)
        mask[row, where] = 1
    return {"input_ids": ids, "attention_mask": mask}


def side_of(name: str) -> str:
    return "left" if name in DECODERS else "right"


def frequent_tokens(ours: Any, inputs: dict[str, Tensor], columns: int) -> list[int]:
    """Tokens that the model does say early in some rows, to serve as end tokens."""
    answers = ours.generate(**inputs, max_new_tokens=12, eos_token_id=[])[:, columns:]
    return [int(answers[0, 2]), int(answers[-1, 5])]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy(models: dict[str, Any], name: str, rows: int, use_cache: bool) -> None:
    theirs, ours = models[name]
    inputs = batch(rows, side_of(name))
    settings = {"max_new_tokens": 20, "do_sample": False}
    answer = ours.generate(**inputs, use_cache=use_cache, **settings)
    assert torch.equal(theirs.generate(**inputs, **settings), answer)
    assert rows == 1 or len(answer[:, -20:].unique()) > 7  # the models say something


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("use_cache", [True, False])
def test_end_tokens_and_rules(models: dict[str, Any], name: str, use_cache: bool) -> None:
    theirs, ours = models[name]
    inputs = batch(8, side_of(name))
    columns = inputs["input_ids"].shape[1] if name in DECODERS else 1
    ends = frequent_tokens(ours, inputs, columns)
    for extra in (
        {},
        {"repetition_penalty": 1.7},
        {"min_new_tokens": 8},
        {"min_length": columns + 5},
        {"forced_eos_token_id": 5},
        {"forced_bos_token_id": 7},
    ):
        settings = {"max_new_tokens": 15, "do_sample": False, "eos_token_id": ends, "pad_token_id": 0, **extra}
        assert torch.equal(
            theirs.generate(**inputs, **settings), ours.generate(**inputs, use_cache=use_cache, **settings)
        )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("do_sample", [False, True])
def test_scores_and_logits(models: dict[str, Any], name: str, do_sample: bool) -> None:
    theirs, ours = models[name]
    inputs = batch(8, side_of(name))
    settings: dict[str, Any] = {
        "max_new_tokens": 8,
        "eos_token_id": None,
        "repetition_penalty": 1.2,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
    }
    if do_sample:
        # with one token to choose from, chance is out of it and every processor is still at work
        settings |= {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.999}
    wanted, got = theirs.generate(**inputs, **settings), ours.generate(**inputs, **settings)
    assert torch.equal(wanted.sequences, got.sequences)
    assert len(got.scores) == len(got.logits) == 8
    for mine, yours in ((got.scores, wanted.scores), (got.logits, wanted.logits)):
        for a, b in zip(mine, yours, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5 * float(b[b.isfinite()].abs().max()), rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_warped_scores(models: dict[str, Any], name: str) -> None:
    theirs, ours = models[name]
    inputs = batch(1, side_of(name))
    settings: dict[str, Any] = {
        "max_new_tokens": 1,
        "do_sample": True,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    for extra in (
        {},
        {"top_k": 5},
        {"top_k": 0, "top_p": 0.6},
        {"min_p": 0.1, "temperature": 2.0},
        {"top_p": 0.95, "top_k": 30},
    ):
        wanted, got = theirs.generate(**inputs, **settings, **extra), ours.generate(**inputs, **settings, **extra)
        torch.testing.assert_close(got.scores[0], wanted.scores[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_attentions_and_hidden_states_of_a_decoder(models: dict[str, Any], name: str, use_cache: bool) -> None:
    theirs, ours = models[name]
    inputs = batch(4)
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    settings |= {"output_attentions": True, "output_hidden_states": True}
    wanted, got = (m.generate(**inputs, use_cache=use_cache, **settings) for m in (theirs, ours))
    assert torch.equal(wanted.sequences, got.sequences)
    real = inputs["attention_mask"].bool()
    for step in range(5):
        assert len(got.attentions[step]) == len(wanted.attentions[step]) == 3
        shown = torch.nn.functional.pad(real, (0, step), value=True)  # without a cache, what was written is run again
        assert len(got.hidden_states[step]) == len(wanted.hidden_states[step]) == 4
        for mine, yours in zip(got.attentions[step], wanted.attentions[step], strict=True):
            assert mine.shape == yours.shape
            if mine.shape[2] > 1:  # rows of padding are 0 here and arbitrary there
                mine, yours = mine.transpose(1, 2)[shown], yours.transpose(1, 2)[shown]
            torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-4)
        for mine, yours in zip(got.hidden_states[step], wanted.hidden_states[step], strict=True):
            assert mine.shape == yours.shape
            if mine.shape[1] > 1:
                mine, yours = mine[shown], yours[shown]
            torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_attentions_and_hidden_states_of_an_encoder_decoder(models: dict[str, Any], name: str, use_cache: bool) -> None:
    theirs, ours = models[name]
    inputs = batch(4, "right")
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    settings |= {"output_attentions": True, "output_hidden_states": True}
    wanted, got = (m.generate(**inputs, use_cache=use_cache, **settings) for m in (theirs, ours))
    assert torch.equal(wanted.sequences, got.sequences)
    real = inputs["attention_mask"].bool()
    for mine, yours in zip(got.encoder_attentions, wanted.encoder_attentions, strict=True):
        assert mine.shape == yours.shape
        torch.testing.assert_close(mine.transpose(1, 2)[real], yours.transpose(1, 2)[real], atol=1e-5, rtol=1e-4)
    for mine, yours in zip(got.encoder_hidden_states, wanted.encoder_hidden_states, strict=True):
        torch.testing.assert_close(mine[real], yours[real], atol=1e-4, rtol=1e-4)
    for field in ("decoder_attentions", "cross_attentions", "decoder_hidden_states"):
        assert len(got[field]) == len(wanted[field]) == 5
        for mine_step, your_step in zip(got[field], wanted[field], strict=True):
            for mine, yours in zip(mine_step, your_step, strict=True):
                assert mine.shape == yours.shape
                torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_equals_one_by_one(models: dict[str, Any], name: str, side: str) -> None:
    _, ours = models[name]
    inputs = batch(8, side)
    columns = inputs["input_ids"].shape[1] if name in DECODERS else 1
    ends = frequent_tokens(ours, inputs, columns)
    for extra in ({}, {"do_sample": True, "seed": 4, "top_p": 0.9}):
        settings = {"max_new_tokens": 12, "eos_token_id": ends, "pad_token_id": 0, **extra}
        together = ours.generate(**inputs, **settings)
        for row, length in enumerate(LENGTHS):
            ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
            alone = ours.generate(ids, **settings)
            answer = alone[0, length if name in DECODERS else 1 :]
            assert torch.equal(together[row, columns : columns + len(answer)], answer)
            assert not together[row, columns + len(answer) :].any()


@pytest.mark.parametrize("name", ALL)
def test_ended_rows_are_zero_in_the_record(models: dict[str, Any], name: str) -> None:
    _, ours = models[name]
    inputs = batch(8, side_of(name))
    columns = inputs["input_ids"].shape[1] if name in DECODERS else 1
    ends = frequent_tokens(ours, inputs, columns)
    settings = {"max_new_tokens": 10, "eos_token_id": ends, "pad_token_id": 0, "return_dict_in_generate": True}
    settings |= {"output_attentions": [1], "output_hidden_states": True, "output_scores": True}
    got = ours.generate(**inputs, **settings)
    free = ours.generate(**inputs, **(settings | {"eos_token_id": []}))
    attentions = "attentions" if name in DECODERS else "decoder_attentions"
    ended = torch.zeros(8, dtype=torch.bool)
    seen = False
    for step, (mine, all_run) in enumerate(zip(got[attentions], free[attentions], strict=False)):
        assert mine[1].shape == all_run[1].shape
        torch.testing.assert_close(mine[1][~ended], all_run[1][~ended], atol=1e-5, rtol=1e-4)
        assert not mine[1][ended].any()
        seen |= bool(ended.any())
        assert bool((got.scores[step][ended].softmax(-1)[:, 0] == 1).all())
        ended |= torch.isin(got.sequences[:, columns + step], torch.tensor(ends))
    assert seen


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_outputs_and_decoder_prompt(models: dict[str, Any], name: str) -> None:
    theirs, ours = models[name]
    inputs = batch(4, "right")
    settings = {"max_new_tokens": 6, "do_sample": False}
    prompt = torch.tensor([[9, 8]] * 4)
    assert torch.equal(
        theirs.generate(**inputs, decoder_input_ids=prompt, **settings),
        ours.generate(**inputs, decoder_input_ids=prompt, **settings),
    )
    memory = ours.get_encoder()(**inputs)
    again = ours.generate(attention_mask=inputs["attention_mask"], encoder_outputs=memory, **settings)
    assert torch.equal(ours.generate(**inputs, **settings), again)


@pytest.mark.parametrize("name", ALL)
def test_defaults(models: dict[str, Any], name: str) -> None:
    theirs, ours = models[name]
    inputs = batch(1, side_of(name))
    with pytest.warns(UserWarning, match="max_length"):
        wanted = theirs.generate(**inputs)
    assert torch.equal(wanted, ours.generate(**inputs))
    assert torch.equal(theirs.generate(**inputs, max_length=17), ours.generate(**inputs, max_length=17))


def test_the_models_generation_config_is_read_and_can_be_changed(tmp_path: Path, models: dict[str, Any]) -> None:
    theirs, _ = models["gpt2"]
    theirs.save_pretrained(tmp_path)
    transformers.GenerationConfig(max_new_tokens=4, eos_token_id=2, pad_token_id=0).save_pretrained(tmp_path)
    ours = auto.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert ours.generate(**batch(1)).shape == (1, 13)
    ours.generation_config.max_new_tokens = 6
    assert ours.generate(**batch(1)).shape == (1, 15)
    assert ours.generation_config.pad_token_id == 0
    ours.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.generation_config.max_new_tokens == 6
    assert torch.equal(again.generate(**batch(1)), ours.generate(**batch(1)))


def test_positions_run_out(models: dict[str, Any]) -> None:
    _, ours = models["gpt2"]
    assert ours.generate(**batch(1), max_length=64, eos_token_id=[]).shape == (1, 64)
    with pytest.raises(GenerationError, match="64 positions"):
        ours.generate(**batch(1), max_length=65)
