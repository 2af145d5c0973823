"""generate on a fake model whose logits depend on the whole text: what the search hands to the model and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_model import FakeModel
from parity.pairs import pair, texts
from parity.tiny_models import decoder_fields
from torch import Tensor

from cutaway.errors import GenerationError, MissingOutputError
from cutaway.generate import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput, GenerationConfig, generate
from cutaway.outputs import strict_outputs

PROMPT = torch.tensor([[3, 4, 5]])
TEXTS = [[3, 4, 5], [7], [9, 2, 2, 8, 1], [6, 6]]


def padded(texts: list[list[int]], side: str, pad: int = 0) -> tuple[Tensor, Tensor]:
    longest = max(map(len, texts))
    ids, mask = [], []
    for text in texts:
        gap = longest - len(text)
        left, right = (gap, 0) if side == "left" else (0, gap)
        ids.append([pad] * left + text + [pad] * right)
        mask.append([0] * left + [1] * len(text) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask)


def greedy(
    model: FakeModel, text: list[int], n: int, eos: tuple[int, ...] = (), source: list[int] | None = None
) -> list[int]:
    text, answer = list(text), []
    for _ in range(n):
        token = int(model.logits_of(text, source or []).argmax())
        text.append(token)
        answer.append(token)
        if token in eos:
            break
    return answer


def filled(answers: list[list[int]], pad: int) -> list[list[int]]:
    longest = max(map(len, answers))
    return [answer + [pad] * (longest - len(answer)) for answer in answers]


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy(use_cache: bool) -> None:
    model = FakeModel()
    out = generate(model, PROMPT, max_new_tokens=6, use_cache=use_cache)
    assert isinstance(out, Tensor)
    assert out.dtype == torch.int64
    assert not out.is_inference()
    assert out.tolist() == [[3, 4, 5, *greedy(model, [3, 4, 5], 6)]]
    assert len(model.calls) == 6
    assert torch.equal(out, generate(model, inputs=PROMPT, max_length=9, use_cache=use_cache))
    assert torch.equal(out, generate(model, PROMPT.tolist(), torch.ones(1, 3), max_length=9))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_a_batch_equals_one_by_one(side: str, use_cache: bool, with_mask: bool) -> None:
    model = FakeModel()
    ids, mask = padded(TEXTS, side)
    eos = (12, 20, 5)
    out = generate(
        model,
        ids,
        mask if with_mask else None,
        max_new_tokens=15,
        eos_token_id=list(eos),
        pad_token_id=0,
        use_cache=use_cache,
    )
    answers = [greedy(model, text, 15, eos) for text in TEXTS]
    assert len({len(answer) for answer in answers}) > 1  # some end early
    assert out[:, 5:].tolist() == filled(answers, 0)
    assert out[:, :5].tolist() == padded(TEXTS, "left")[0].tolist()


def test_ended_rows_leave_the_batch() -> None:
    model = FakeModel()
    ids, mask = padded(TEXTS, "left")
    answers = [greedy(model, text, 15, (12, 20, 5)) for text in TEXTS]
    generate(model, ids, mask, max_new_tokens=15, eos_token_id=[12, 20, 5])
    sizes = [call["input_ids"].shape[0] for call in model.calls]
    assert sizes == [sum(len(answer) > step for answer in answers) for step in range(max(map(len, answers)))]


def test_padding_id() -> None:
    model = FakeModel()
    model.rig[(3, 4, 5)] = 9
    two = torch.tensor([[3, 4, 5], [5, 4, 3]])
    assert generate(model, two, max_new_tokens=4, eos_token_id=9)[0, 3:].tolist() == [9, 9, 9, 9]
    assert generate(model, two, max_new_tokens=4, eos_token_id=[9, 2], pad_token_id=1)[0, 3:].tolist() == [9, 1, 1, 1]
    assert generate(model, PROMPT, max_new_tokens=4, eos_token_id=9).shape == (1, 4)  # no columns of padding alone


def test_an_end_token_in_padding_is_not_padding() -> None:
    model = FakeModel()
    ids = torch.tensor([[9, 4, 5]])
    out = generate(model, ids, max_new_tokens=3, eos_token_id=9, pad_token_id=9)
    assert out[0, 3:].tolist() == greedy(model, [9, 4, 5], 3, (9,))


def test_lengths() -> None:
    model = FakeModel()
    model.rig[(3, 4, 5)] = 9
    assert generate(model, PROMPT).shape == (1, 23)
    assert generate(FakeModel(max_length=11), PROMPT).shape == (1, 11)
    assert generate(FakeModel(max_length=11), PROMPT, max_new_tokens=2).shape == (1, 5)
    assert generate(FakeModel(max_new_tokens=2), PROMPT, max_length=11).shape == (1, 11)
    assert generate(FakeModel(positions=12), PROMPT).shape == (1, 12)  # the default stops at the last position
    assert generate(FakeModel(positions=12, max_new_tokens=100), PROMPT).shape == (1, 12)
    assert generate(model, PROMPT, max_new_tokens=8, eos_token_id=9).shape == (1, 4)
    for least in ({"min_new_tokens": 3}, {"min_length": 6}):
        out = generate(model, PROMPT, max_new_tokens=8, eos_token_id=list(range(1, 31)), **least)
        assert out[0, 3:6].tolist() == [0, 0, 0]
    with pytest.raises(GenerationError, match="max_new_tokens=9 or less"):
        generate(FakeModel(positions=12), PROMPT, max_length=30)
    with pytest.raises(GenerationError, match="no room"):
        generate(FakeModel(positions=3), PROMPT)
    ids, mask = padded(TEXTS, "left")
    assert generate(FakeModel(positions=12), ids, mask, max_new_tokens=7).shape == (4, 12)


def test_forced_tokens() -> None:
    model = FakeModel()
    out = generate(model, torch.tensor([[3]]), max_length=5, forced_bos_token_id=8, forced_eos_token_id=2)
    assert out[0, 1] == 8
    assert out[0, 4] == 2
    assert generate(model, PROMPT, max_length=6, forced_bos_token_id=8)[0, 3:].tolist() == greedy(model, [3, 4, 5], 3)


def test_repetition_penalty_ignores_padding() -> None:
    model = FakeModel()
    ids, mask = padded(TEXTS, "left", pad=13)
    together = generate(model, ids, mask, max_new_tokens=12, repetition_penalty=1.9)
    plain = generate(model, ids, mask, max_new_tokens=12)
    assert not torch.equal(together, plain)
    for row, text in enumerate(TEXTS):
        alone = generate(model, torch.tensor([text]), max_new_tokens=12, repetition_penalty=1.9)
        assert together[row, 5:].tolist() == alone[0, len(text) :].tolist()


def test_a_seed_gives_the_same_text_in_any_batch() -> None:
    model = FakeModel()
    settings: dict[str, Any] = {"max_new_tokens": 12, "do_sample": True, "eos_token_id": [12, 20], "pad_token_id": 0}
    ids, mask = padded(TEXTS, "left")
    together = generate(model, ids, mask, seed=5, **settings)
    shuffled = generate(model, ids[[2, 0]], mask[[2, 0]], seed=5, **settings)
    several = generate(model, ids, mask, seed=[5, 6, 7, 8], num_return_sequences=3, **settings)
    assert several.shape[0] == 12

    def answer(row: Tensor) -> list[int]:
        return [token for token in row.tolist() if token]

    for row, text in enumerate(TEXTS):
        alone = generate(model, torch.tensor([text]), seed=5, **settings)
        assert answer(alone[0, len(text) :]) == answer(together[row, 5:])
        for copy in range(3):
            alone = generate(model, torch.tensor([text]), seed=5 + row + copy, **settings)
            assert answer(alone[0, len(text) :]) == answer(several[3 * row + copy, 5:])
    assert answer(shuffled[0, 5:]) == answer(together[2, 5:])
    assert answer(shuffled[1, 5:]) == answer(together[0, 5:])
    assert len({tuple(row.tolist()) for row in several}) > 4


def test_what_generate_draws_follows_the_processed_softmax() -> None:
    """Chi-square over 100,000 draws, beside the same test of the draw alone (test_sampling.py)."""
    model, n = FakeModel(), 100_000
    torch.manual_seed(4)
    how = {"temperature": 1.4, "top_k": 20, "top_p": 0.97, "repetition_penalty": 1.3, "suppress_tokens": [6, 7]}
    out = generate(model, PROMPT, do_sample=True, num_return_sequences=n, max_new_tokens=1, **how)
    logits = model.logits_of(PROMPT[0].tolist(), []).double()
    for token in PROMPT[0].tolist():
        logits[token] = logits[token] / 1.3 if logits[token] > 0 else logits[token] * 1.3
    logits[[6, 7]] = -torch.inf
    logits /= 1.4
    logits[logits < logits.topk(20).values[-1]] = -torch.inf
    p, order = logits.softmax(0).sort(descending=True)
    logits[order[p.cumsum(0) - p >= 0.97]] = -torch.inf
    expected = logits.softmax(0) * n
    counts = out[:, 3].bincount(minlength=len(expected)).double()
    there = expected > 0
    assert counts[~there].sum() == 0
    freedom = int(there.sum()) - 1
    assert freedom > 5
    chi2 = float(((counts - expected)[there].square() / expected[there]).sum())
    assert chi2 < freedom + 3.5 * (2 * freedom) ** 0.5


def test_sampling_without_a_seed_uses_the_global_generator() -> None:
    model = FakeModel()
    torch.manual_seed(1)
    one = generate(model, PROMPT, max_length=20, do_sample=True, top_p=0.9)
    two = generate(model, PROMPT, max_length=20, do_sample=True, top_p=0.9)
    torch.manual_seed(1)
    again = generate(model, PROMPT, max_length=20, do_sample=True, top_p=0.9)
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    state = torch.get_rng_state()
    generate(model, PROMPT, max_length=20, do_sample=True, seed=3)
    generate(model, PROMPT, max_length=20)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_k": 0, "top_p": 0.8}, {"min_p": 0.1, "temperature": 2.0}])
def test_asking_for_scores_changes_no_token(settings: dict[str, Any]) -> None:
    model = FakeModel(vocab=700)
    settings = {"max_new_tokens": 30, "do_sample": True, "seed": 3, **settings}
    out = generate(model, PROMPT, return_dict_in_generate=True, output_scores=True, **settings)
    assert torch.equal(out.sequences, generate(model, PROMPT, **settings))
    for step, scores in enumerate(out.scores):
        assert scores[0, out.sequences[0, 3 + step]].isfinite()


def test_answers_follow_the_scores() -> None:
    model = FakeModel(vocab=200)
    settings: dict[str, Any] = {"max_new_tokens": 1, "do_sample": True, "top_k": 12, "temperature": 1.3}
    one = generate(model, PROMPT, return_dict_in_generate=True, output_scores=True, **settings)
    expected = one.scores[0][0].double().softmax(-1) * 20_000
    many = generate(model, PROMPT, num_return_sequences=20_000, **settings)
    counts = many[:, 3].bincount(minlength=200).double()
    there = expected > 0
    assert counts[~there].sum() == 0
    assert int(there.sum()) == 12
    assert float(((counts - expected)[there].square() / expected[there]).sum()) < 31.3  # 11 degrees, one in a thousand


def test_one_prompt_is_run_once_for_several_sequences() -> None:
    model = FakeModel()
    out = generate(model, PROMPT, max_new_tokens=4, do_sample=True, num_return_sequences=5, seed=0)
    assert out.shape == (5, 7)
    assert [call["input_ids"].shape[0] for call in model.calls] == [1, 5, 5, 5]


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_record(use_cache: bool) -> None:
    model = FakeModel()
    ids, mask = padded(TEXTS, "right")
    out = generate(
        model,
        ids,
        mask,
        max_new_tokens=6,
        eos_token_id=[12, 20, 5],
        pad_token_id=0,
        repetition_penalty=1.3,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_attentions=True,
        output_hidden_states=True,
    )
    assert isinstance(out, GenerateDecoderOnlyOutput)
    steps = out.sequences.shape[1] - 5
    assert len(out.scores) == len(out.logits) == len(out.attentions) == len(out.hidden_states) == steps
    ended = torch.zeros(4, dtype=torch.bool)
    for step in range(steps):
        assert out.scores[step].shape == out.logits[step].shape == (4, 31)
        chosen = out.sequences[:, 5 + step]
        assert torch.equal(out.scores[step].argmax(-1), chosen)
        queries = 5 if step == 0 else 1 if use_cache else 5 + step  # as upstream: without a cache all is run again
        assert [a.shape for a in out.attentions[step]] == [(4, 2, queries, 5 + step)] * 2
        assert [h.shape for h in out.hidden_states[step]] == [(4, queries, 3)] * 3
        for row in range(4):
            text = [*TEXTS[row], *out.sequences[row, 5 : 5 + step].tolist()]
            if ended[row]:
                assert chosen[row] == 0
                assert out.scores[step][row].softmax(-1)[0] == 1
                assert not out.logits[step][row].any()
                assert not out.attentions[step][0][row].any()
            else:
                assert torch.equal(out.logits[step][row], model.logits_of(text, []))
                assert bool((out.attentions[step][0][row] == sum(text)).all())
        ended |= torch.isin(chosen, torch.tensor([12, 20, 5]))
    assert (out.past_key_values is not None) == use_cache
    assert out["sequences"] is out[0] is out.sequences


def test_only_what_was_asked_for_is_there() -> None:
    model = FakeModel()
    out = generate(
        model, PROMPT, max_length=6, return_dict_in_generate=True, output_scores=True, output_attentions=False
    )
    assert list(out.keys()) == ["sequences", "scores", "past_key_values"] and out.attentions is None
    with strict_outputs(), pytest.raises(MissingOutputError):
        out.attentions  # noqa: B018
    assert all(call["output_attentions"] is False for call in model.calls)
    some = generate(model, PROMPT, max_length=6, return_dict_in_generate=True, output_attentions=[1])
    assert [sorted(step) for step in some.attentions] == [[1]] * 3
    copies = generate(
        model,
        PROMPT,
        max_length=6,
        do_sample=True,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_hidden_states=True,
    )
    assert [step[0].shape for step in copies.hidden_states] == [(2, 3, 3), (2, 1, 3), (2, 1, 3)]


@pytest.mark.parametrize("use_cache", [True, False])
def test_encoder_decoder(use_cache: bool) -> None:
    model = FakeModel(encoder_decoder=True, decoder_start_token_id=1, eos_token_id=2, pad_token_id=0)
    ids, mask = padded(TEXTS, "right")
    out = generate(model, ids, mask, max_new_tokens=9, use_cache=use_cache, eos_token_id=[12, 20, 5])
    answers = [greedy(model, [1], 9, (12, 20, 5), text) for text in TEXTS]
    assert out.tolist() == [[1, *row] for row in filled(answers, 0)]
    assert model.encoder_runs == 1
    assert generate(model, ids, mask).shape[1] <= 21
    forced = generate(model, ids, mask, max_length=5, forced_bos_token_id=8, forced_eos_token_id=2)
    assert forced[:, 1].tolist() == [8] * 4
    assert bool((forced[:, -1] == 2).any())
    given = generate(model, ids, mask, decoder_input_ids=[[1, 7]] * 4, max_new_tokens=2, eos_token_id=30)
    assert torch.equal(
        given, generate(model, ids, mask, decoder_input_ids=[[7]] * 4, max_new_tokens=2, eos_token_id=30)
    )
    runs = model.encoder_runs
    memory = (ids.float()[..., None],)
    assert torch.equal(
        out, generate(model, None, mask, encoder_outputs=memory, max_new_tokens=9, eos_token_id=[12, 20, 5])
    )
    assert model.encoder_runs == runs


def test_the_record_of_an_encoder_decoder() -> None:
    model = FakeModel(encoder_decoder=True, bos_token_id=1)
    out = generate(
        model,
        torch.tensor([[4, 5, 6], [4, 5, 7]]),
        max_new_tokens=3,
        return_dict_in_generate=True,
        output_attentions=True,
        output_hidden_states=True,
        do_sample=True,
        num_return_sequences=2,
        seed=1,
    )
    assert isinstance(out, GenerateEncoderDecoderOutput)
    assert list(out)[1:-1] == [
        "encoder_attentions",
        "encoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "decoder_hidden_states",
    ]
    assert out.encoder_hidden_states[0].shape[0] == 2  # one row for each prompt, as upstream
    assert len(out.encoder_attentions) == 1
    assert [step[0].shape for step in out.decoder_attentions] == [(4, 2, 1, 1), (4, 2, 1, 2), (4, 2, 1, 3)]


def test_without_a_prompt_the_text_starts_at_bos() -> None:
    model = FakeModel(bos_token_id=4)
    assert generate(model, max_new_tokens=3).tolist() == [[4, *greedy(model, [4], 3)]]
    with pytest.raises(GenerationError, match="bos_token_id"):
        generate(FakeModel())


def test_settings_come_from_the_call_the_object_and_the_model() -> None:
    model = FakeModel(eos_token_id=9, do_sample=True, temperature=0.6)
    model.rig[(3, 4, 5)] = 9
    assert generate(model, PROMPT, do_sample=False, max_new_tokens=5).shape == (1, 4)
    model.generation_config = GenerationConfig(max_new_tokens=3)
    assert generate(model, PROMPT).shape == (1, 6)
    model.generation_config = {"max_new_tokens": 4, "something_else": 1}
    assert generate(model, PROMPT).shape == (1, 7)
    own = GenerationConfig(max_new_tokens=5)
    assert generate(model, PROMPT, generation_config=own).shape == (1, 8)
    assert generate(model, PROMPT, generation_config=own, max_new_tokens=6).shape == (1, 9)
    assert own == GenerationConfig(max_new_tokens=5)
    assert generate(
        model, PROMPT, max_new_tokens=2, do_sample=True, top_k=None, top_p=None, token_type_ids=PROMPT
    ).shape == (1, 5)


def test_dropout_is_off_and_each_mode_comes_back() -> None:
    model = FakeModel().train()
    generate(model, PROMPT, max_new_tokens=2)
    assert model.modes == [False, False]
    assert model.training
    assert model.child.training
    model.eval()
    model.child.train()
    model.broken = True
    with pytest.raises(GenerationError, match="not finite"):
        generate(model, PROMPT)
    with pytest.raises(GenerationError, match="not finite"):
        generate(model, PROMPT, do_sample=True)
    assert model.child.training
    assert not model.training


@torch.no_grad()
def test_what_is_recorded_of_a_step_is_not_what_rules_made_of_it() -> None:
    ours = pair("gpt2", "LMHeadModel", **decoder_fields("gpt2", "LMHeadModel"))[1]
    ids = torch.stack(texts((6, 6)))
    rules: dict[str, Any] = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "suppress_tokens": [5, 6]}
    more: dict[str, Any] = {"max_new_tokens": 8, "return_dict_in_generate": True, "output_logits": True}
    plain = ours.generate(ids, **rules, max_new_tokens=8)
    for _ in range(2):
        found = ours.generate(ids, **rules, **more)
        assert torch.equal(found.sequences, plain)
        for step, logits in enumerate(found.logits):
            wanted = ours(found.sequences[:, : ids.shape[1] + step]).logits[:, -1]
            torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
    with ours.record("logits") as r:
        assert torch.equal(ours.generate(ids, **rules, max_new_tokens=8), plain)
    for run, logits in zip(r.runs, found.logits, strict=True):
        torch.testing.assert_close(run["logits"][:, -1], logits, atol=1e-5, rtol=1e-5)
