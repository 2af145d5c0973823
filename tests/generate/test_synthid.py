"""SynthID's mark: upstream's bits and scores, texts that hold more bits than chance, and rows that come and go."""

import numpy as np
import pytest
import torch
import transformers
from parity.pairs import pair

import cutaway
from cutaway.errors import GenerationError, InputError

KEYS = [654, 400, 836, 123, 340]
MARKS = [
    {"ngram_len": 5, "keys": KEYS},
    {"ngram_len": 2, "keys": KEYS[:2], "context_history_size": 3, "sampling_table_seed": 4, "sampling_table_size": 99},
    {"ngram_len": 4, "keys": KEYS, "skip_first_ngram_calls": True},
    {"ngram_len": 3, "keys": KEYS, "debug_mode": True},
]


def processors(mark):
    found = [lib.SynthIDTextWatermarkingConfig(**mark) for lib in (transformers, cutaway)]
    return [one.construct_processor(30, "cpu") for one in found]


@pytest.mark.parametrize("mark", MARKS)
def test_scores_and_bits_are_upstreams(mark):
    theirs, ours = processors(mark)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 4, (3, 6), generator=draw)  # few tokens, so that places repeat
    changed = 0
    for _ in range(25):
        scores = torch.randn(3, 30, generator=draw)
        scores[:, 5:9] = -torch.inf
        before = scores.clone()
        expected, found = theirs(ids, scores.clone()), ours(ids, scores)
        assert torch.allclose(found, expected, atol=1e-5) and torch.equal(scores, before)
        changed += not torch.equal(found, before)
        ids = torch.cat((ids, torch.randint(0, 4, (3, 1), generator=draw)), 1)
    assert changed > 10
    for name, more in (
        ("compute_g_values", ()),
        ("compute_context_repetition_mask", ()),
        ("compute_eos_token_mask", (2,)),
    ):
        assert torch.equal(getattr(ours, name)(ids, *more), getattr(theirs, name)(ids, *more)), name
    assert ours.expected_mean_g_value(30) == theirs.expected_mean_g_value(30)


def test_a_row_gives_the_same_whichever_rows_are_beside_it():
    _, ours = processors(MARKS[1])
    _, alone = processors(MARKS[1])
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 4, (3, 6), generator=draw)
    for step in range(12):
        scores = torch.randn(3, 30, generator=draw)
        rows = [0, 1, 2] if step < 5 else [2, 0]  # one is over, and the others change places
        assert torch.equal(ours(ids[rows], scores[rows])[rows.index(2)], alone(ids[2:], scores[2:])[0])
        ids = torch.cat((ids, torch.randint(0, 4, (3, 1), generator=draw)), 1)


@pytest.mark.parametrize("mark", MARKS[:3])
def test_marked_texts_are_upstreams(mark):
    theirs, ours = pair("gpt2", "LMHeadModel", eos_token_id=None, bos_token_id=None, pad_token_id=0)
    ids = torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(3))
    settings = {"max_new_tokens": 12, "do_sample": False}
    marks = [lib.SynthIDTextWatermarkingConfig(**mark) for lib in (transformers, cutaway)]
    expected = theirs.generate(ids, watermarking_config=marks[0], **settings)
    assert torch.equal(ours.generate(ids, watermarking_config=marks[1], **settings), expected)
    assert torch.equal(ours.generate(ids, watermarking_config=mark, **settings), expected)


def test_a_sampled_text_holds_more_bits_than_chance():
    _, ours = pair("gpt2", "LMHeadModel", eos_token_id=None, bos_token_id=None, pad_token_id=0, n_positions=300)
    mark = cutaway.SynthIDTextWatermarkingConfig(5, KEYS)
    bits = mark.construct_processor(len(KEYS))
    settings = {"max_new_tokens": 200, "do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 1}
    ids = torch.tensor([[7, 8]])
    means = [
        float(bits.compute_g_values(ours.generate(ids, watermarking_config=m, **settings)[:, 2:]).float().mean())
        for m in (mark, None)
    ]
    spread = 0.5 / (200 * len(KEYS)) ** 0.5
    assert means[0] > 0.5 + 5 * spread and abs(means[1] - 0.5) < 4 * spread


def test_the_tournament_changes_no_probability_on_average():
    _, ours = processors(MARKS[0])
    scores = torch.randn(1, 6, generator=torch.Generator().manual_seed(2)).double()
    every = torch.cartesian_prod(*[torch.tensor([0, 1])] * 6)  # all ways that 6 tokens can draw a bit, [64, 6]
    marked = ours.update_scores(scores.expand(64, 6), every[:, :, None]).exp()
    assert torch.allclose(marked.mean(0), scores.softmax(-1)[0], atol=1e-12)
    assert torch.allclose(marked.sum(-1), torch.ones(64).double())


def test_marks_are_kept_in_files(tmp_path):
    config = cutaway.GenerationConfig(watermarking_config=cutaway.SynthIDTextWatermarkingConfig(**MARKS[1]))
    config.save_pretrained(tmp_path)
    again = cutaway.GenerationConfig.from_pretrained(tmp_path)
    assert again.watermarking_config == config.watermarking_config
    array = cutaway.SynthIDTextWatermarkingConfig(2, np.array(KEYS[:2]))
    assert array.to_dict()["keys"] == KEYS[:2]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ngram_len": 1}, "at least 2"),
        ({"keys": []}, "keys"),
        ({"keys": "12"}, "keys"),
        ({"sampling_table_size": 2**25}, "16777216"),
        ({"context_history_size": 0}, "context_history_size"),
        ({"keys": [5, 2**70]}, f"keys has {2**70}: .*{2**63 - 1}"),
        ({"sampling_table_seed": "x"}, f"sampling_table_seed has 'x': .*{2**64 - 1}"),
        ({"sampling_table_seed": 1.5}, "sampling_table_seed has 1.5"),
        ({"sampling_table_seed": 2**70}, f"sampling_table_seed has {2**70}"),
        ({"skip_first_ngram_calls": "no"}, "skip_first_ngram_calls='no': pass True or False"),
        ({"debug_mode": None}, "debug_mode=None"),
    ],
)
def test_what_cannot_be_a_mark_is_refused(wrong, told):
    with pytest.raises(GenerationError, match=told):
        cutaway.SynthIDTextWatermarkingConfig(**{**MARKS[0], **wrong})
    with pytest.raises(GenerationError, match="debug_mode='no'"):
        cutaway.SynthIDTextWatermarkLogitsProcessor(5, KEYS, 2**16, 0, 1024, debug_mode="no")
    with pytest.raises(GenerationError, match="bias"):
        cutaway.GenerationConfig(watermarking_config={**MARKS[0], "bias": 2.0})
    with pytest.raises(GenerationError, match="keys"):
        cutaway.GenerationConfig(watermarking_config={"ngram_len": 5})
    with pytest.raises(InputError, match="texts, tokens"):
        processors(MARKS[0])[1].compute_g_values(torch.zeros(5, dtype=torch.long))
    with pytest.raises(InputError, match="texts, n, 5"):
        processors(MARKS[0])[1].compute_ngram_keys(torch.zeros(1, 2, 3, dtype=torch.long))
    with pytest.raises(GenerationError, match="compute_g_values"):
        cutaway.WatermarkDetector(cutaway.GPT2Config(), "cpu", MARKS[0])
