"""Beam search on a fake model: against searching everything, against the papers, and by property."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from fake_model import FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate_streaming import BYTES, speaking

from cutaway import native
from cutaway.errors import GenerationError
from cutaway.generate import beam, generate, stream
from cutaway.generate.required_words import RequiredWords, begun, contains, share_out
from cutaway.nn.cpu import ops

PROMPT = torch.tensor([[3, 4, 1]])


def log_probability(model: FakeModel, answer: list[int], prompt: tuple[int, ...] = (3, 4, 1)) -> float:
    text, total = list(prompt), 0.0
    for token in answer:
        total += float(model.logits_of(text, []).log_softmax(-1)[token])
        text.append(token)
    return total


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_enough_beams_find_the_best_of_all(penalty: float) -> None:
    model = FakeModel(vocab=5)
    answers = [list(a) for a in itertools.product(range(5), repeat=3) if 2 not in a[:2]]
    answers += [[2], *([i, 2] for i in range(5) if i != 2)]
    ranked = sorted(answers, key=lambda a: -log_probability(model, a) / len(a) ** penalty)
    out = generate(
        model,
        PROMPT,
        num_beams=125,
        num_return_sequences=20,
        max_new_tokens=3,
        eos_token_id=2,
        pad_token_id=0,
        length_penalty=penalty,
        early_stopping="never",
        return_dict_in_generate=True,
    )
    assert [row[3:].tolist() for row in out.sequences] == [a + [0] * (3 - len(a)) for a in ranked[:20]]
    for row, score in zip(ranked, out.sequences_scores.tolist(), strict=False):
        assert score == pytest.approx(log_probability(model, row) / len(row) ** penalty, abs=1e-4)


@pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine")
@pytest.mark.parametrize("ends", [[], [2], [2, 5, 7]])
@pytest.mark.parametrize("least", [None, 1, 4])
def test_the_best_of_each_beam_are_enough(ends: list[int], least: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other rules a step needs the likeliest tokens alone, also where a text may not end yet."""
    model, taken = FakeModel(vocab=90), list[int]()

    def noting(logits: Any, n: int) -> Any:
        taken.append(n)
        return ops.best_tokens(logits, n)

    prompts = torch.tensor([[3, 4, 1], [8, 9, 6]])
    asked = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 8, "min_new_tokens": least}
    asked |= {"eos_token_id": ends, "pad_token_id": 0}
    monkeypatch.setattr(beam, "best_tokens", noting)
    found = generate(model, prompts, **asked)
    steps = len(taken)
    assert steps > 1
    generate(model, prompts, **asked, repetition_penalty=1.5)
    assert len(taken) == steps  # which needs all scores
    monkeypatch.setattr(beam, "best_tokens", lambda logits, n: None)
    assert torch.equal(found, generate(model, prompts, **asked))
    monkeypatch.setattr(beam, "best_tokens", noting)
    broken = FakeModel(vocab=90)
    broken.logits_of = lambda *given: torch.full((90,), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(GenerationError, match="not finite"):
        generate(broken, prompts, **asked)


def diverse(model: FakeModel, groups: int, size: int, penalty: float, steps: int) -> list[list[int]]:
    """Diverse beam search as the paper's algorithm 1 has it, with Hamming diversity, in plain words."""
    beams: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in range(groups)]
    for _ in range(steps):
        said: list[int] = []
        for g in range(groups):
            ways = []
            for total, answer in beams[g]:
                scores = model.logits_of([3, 4, 1, *answer], []).log_softmax(-1).tolist()
                ways += [(total + x, [*answer, token]) for token, x in enumerate(scores)]
            ways.sort(key=lambda way: -(way[0] - penalty * said.count(way[1][-1])))
            beams[g] = ways[:size]
            said += [answer[-1] for _, answer in beams[g]]
    found = sorted((way for group in beams for way in group), key=lambda way: -way[0])
    return [answer for _, answer in found]


@pytest.mark.parametrize("penalty", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("groups", [2, 3])
def test_diverse_beams_are_those_of_the_paper(groups: int, penalty: float) -> None:
    model = FakeModel(vocab=11)
    out = generate(
        model,
        PROMPT,
        num_beams=2 * groups,
        num_beam_groups=groups,
        diversity_penalty=penalty,
        num_return_sequences=2 * groups,
        max_new_tokens=4,
        early_stopping="never",
    )
    assert out[:, 3:].tolist() == diverse(model, groups, 2, penalty, 4)


def test_groups_differ_where_one_group_does_not() -> None:
    model = FakeModel(vocab=31)
    common: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 5}
    plain = generate(model, PROMPT, **common)
    groups = generate(model, PROMPT, **common, num_beam_groups=4, diversity_penalty=100.0)
    assert len({tuple(row) for row in groups[:, 3:].T.tolist()}) == 5
    assert all(len(set(column)) == 4 for column in groups[:, 3:].T.tolist())  # no token twice in a step
    assert any(len(set(column)) < 4 for column in plain[:, 3:].T.tolist())


PHRASE = st.lists(st.integers(5, 14), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(PHRASE, st.lists(PHRASE, min_size=1, max_size=2)), min_size=1, max_size=3),
    st.integers(2, 6),
    st.booleans(),
    st.integers(0, 3),
)
def test_every_answer_has_the_required_words(words: list[Any], beams: int, ends: bool, room: int) -> None:
    model = FakeModel(vocab=15)
    forms = [word if isinstance(word[0], list) else [word] for word in words]
    needed = sum(min(len(form) for form in word) for word in forms)
    out = generate(
        model,
        torch.tensor([[3, 4, 1], [9, 8, 7]]),
        num_beams=beams,
        force_words_ids=words,
        max_new_tokens=needed + room,
        eos_token_id=[2, 3] if ends else [],
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for row, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
        answer = row[3:]
        if ends:
            length = next((i + 1 for i, token in enumerate(answer) if token in (2, 3)), len(answer))
            answer = answer[:length]
        for word in forms:
            assert any(contains(answer, tuple(form)) for form in word), (answer, words)
        assert score == pytest.approx(log_probability(model, answer, tuple(row[:3])) / len(answer), abs=1e-4)


@given(st.lists(PHRASE, min_size=1, max_size=3), st.lists(st.integers(5, 14), max_size=8))
def test_a_next_token_always_brings_an_answer_nearer(words: list[list[int]], answer: list[int]) -> None:
    required = RequiredWords([(tuple(word),) for word in words])
    missing = required.missing(answer)
    steps = 0
    while missing:
        nearer = [t for t in required.next_tokens(answer) if required.missing([*answer, t]) < missing]
        assert nearer
        answer = [*answer, nearer[0]]
        missing, steps = required.missing(answer), steps + 1
    assert steps <= required.total
    assert not required.next_tokens(answer)


def test_banks_and_beginnings() -> None:
    assert begun([1, 2, 1, 2], (1, 2, 1, 2, 3)) == 4
    assert begun([1, 2, 3], (1, 2, 3)) == 0
    assert share_out([0, 0, 0, 2, 1], 3) == [0, 3, 4]
    assert share_out([0, 0, 0, 2, 1], 4) == [0, 1, 3, 4]
    assert share_out([1, 1], 5) == [0, 1]


def test_what_cannot_be_kept_is_said() -> None:
    model = FakeModel()
    with pytest.raises(GenerationError, match="no answer that keeps the required words"):
        generate(model, PROMPT, num_beams=2, force_words_ids=[[7]], suppress_tokens=[7], max_new_tokens=4)
    with pytest.raises(GenerationError, match="has 2 answers under these settings"):
        generate(
            model,
            PROMPT,
            num_beams=4,
            num_return_sequences=4,
            max_new_tokens=1,
            prefix_allowed_tokens_fn=lambda _, ids: [4, 5],
        )
    with pytest.raises(GenerationError, match="allows no token after column 3 of prompt 0"):
        generate(model, PROMPT, num_beams=2, prefix_allowed_tokens_fn=lambda _, ids: [])
    with pytest.raises(GenerationError, match="the rules of this call leave none"):
        generate(model, PROMPT, suppress_tokens=list(range(31)))
    model.broken = True
    with pytest.raises(GenerationError, match="not finite"):
        generate(model, PROMPT, num_beams=2)


def test_settled_prompts_leave_the_batch() -> None:
    model = FakeModel()
    ids = torch.tensor([[3, 4, 5], [7, 7, 7], [9, 2, 8]])
    common: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 12, "eos_token_id": [12, 20, 5], "early_stopping": True}
    out = generate(model, ids, **common, pad_token_id=0)
    sizes = [call["input_ids"].shape[0] for call in model.calls]
    assert sizes[:2] == [3, 6]  # each prompt is run once, then its beams
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[-1] < 6
    for row in range(3):
        alone = generate(model, ids[row : row + 1], **common, pad_token_id=0)[0]
        assert out[row, : len(alone)].tolist() == alone.tolist()


def test_sampled_beams_follow_their_seed() -> None:
    model = FakeModel(vocab=200)
    ids = torch.tensor([[3, 4, 5], [7, 7, 7]])
    common: dict[str, Any] = {"num_beams": 3, "do_sample": True, "max_new_tokens": 6, "top_p": 0.9, "top_k": 30}
    one = generate(model, ids, seed=4, num_return_sequences=3, **common)
    assert torch.equal(one, generate(model, ids, seed=4, num_return_sequences=3, **common))
    assert torch.equal(one[3:], generate(model, ids[1:], seed=4, num_return_sequences=3, **common))
    assert not torch.equal(one, generate(model, ids, seed=5, num_return_sequences=3, **common))


def test_sampled_beams_are_drawn_without_replacement_from_the_softmax() -> None:
    model = FakeModel(vocab=12)
    n = 4000
    out = generate(
        model, PROMPT.repeat(n, 1), num_beams=2, do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=2,
        seed=list(range(n)),
    )  # fmt: skip
    pairs = out[:, 3].view(n, 2)
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    p = model.logits_of([3, 4, 1], []).double().softmax(-1)
    expected = torch.zeros(12, 12, dtype=torch.float64)  # of the two that go on of the four that are drawn, by chance
    for first, second, third, fourth in itertools.permutations(range(12), 4):
        chance = p[first] * p[second] / (1 - p[first]) * p[third] / (1 - p[first] - p[second])
        chance = chance * p[fourth] / (1 - p[first] - p[second] - p[third])
        best = sorted((first, second, third, fourth), key=lambda i: -float(p[i]))[:2]
        expected[best[0], best[1]] += chance * n
    counts = torch.zeros_like(expected).index_put_((pairs[:, 0], pairs[:, 1]), torch.ones(n).double(), accumulate=True)
    there = expected > 5
    chi2 = float(((counts - expected)[there].square() / expected[there]).sum())
    assert chi2 < int(there.sum()) + 3.5 * (2 * int(there.sum())) ** 0.5


def test_a_stream_of_beams_is_their_answer() -> None:
    ids = torch.tensor([[3, 4], [5, 6]])
    common: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": [4, 9], "max_new_tokens": 9}
    wanted = generate(FakeModel(), ids, pad_token_id=0, **common)
    rows: list[list[int]] = [[] for _ in range(4)]
    for token in stream(FakeModel(), ids, pad_token_id=0, **common):
        rows[token.row].append(token.id)
        assert token.last == (token.id in (4, 9) or len(rows[token.row]) == 9)
    assert [row + [0] * (wanted.shape[1] - 2 - len(row)) for row in rows] == wanted[:, 2:].tolist()


def test_stop_strings_end_beams() -> None:
    model = speaking("ab€cdab")
    out = generate(
        model, torch.tensor([[72, 105]]), num_beams=2, stop_strings="€", tokenizer=BYTES, pad_token_id=0,
        max_new_tokens=20, early_stopping=True,
    )  # fmt: skip
    assert BYTES.decode(out[0, 2:].tolist()) == "ab€"
    text = "".join(t.text for t in stream(model, torch.tensor([[72, 105]]), num_beams=2, tokenizer=BYTES) if t.text)
    assert text == "ab€cdab"
