"""Marks in generated texts: upstream's green lists, the same counts, and texts that are found again."""

import pytest
import torch
import transformers
from parity.pairs import pair
from transformers.generation import watermarking as upstream

import cutaway
from cutaway.errors import GenerationError, InputError

SCHEMES = [
    {},
    {"greenlist_ratio": 0.5, "bias": 3.5, "hashing_key": 77, "context_width": 3},
    {"seeding_scheme": "selfhash", "context_width": 2, "greenlist_ratio": 0.4},
]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_green_tokens_are_upstreams(scheme):
    ids = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    scores = torch.randn(3, 60, generator=torch.Generator().manual_seed(1))
    before = scores.clone()
    found = cutaway.WatermarkLogitsProcessor(60, "cpu", **scheme)(ids, scores)
    expected = transformers.WatermarkLogitsProcessor(vocab_size=60, device="cpu", **scheme)(ids, scores.clone())
    assert torch.equal(found, expected) and torch.equal(scores, before) and not torch.equal(found, scores)
    short = ids[:, : scheme.get("context_width", 1) - 1]
    assert torch.equal(cutaway.WatermarkLogitsProcessor(60, "cpu", **scheme)(short, scores), scores)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_counts_are_upstreams(scheme, repeats):
    ids = torch.randint(0, 12, (3, 40), generator=torch.Generator().manual_seed(2))
    ids[:, 0] = 1
    kind = {"vocab_size": 60, "bos_token_id": 1}
    theirs = transformers.WatermarkDetector(
        transformers.GPT2Config(**kind), "cpu", transformers.WatermarkingConfig(**scheme), repeats
    )(ids, return_dict=True)
    detector = cutaway.WatermarkDetector(cutaway.GPT2Config(**kind), "cpu", scheme, repeats)
    ours = detector(ids, return_dict=True)
    for name in ("num_tokens_scored", "num_green_tokens", "green_fraction", "z_score", "prediction"):
        assert ours[name] == pytest.approx(getattr(theirs, name)), name
    assert ours.p_value == pytest.approx(theirs.p_value, abs=0.01)  # upstream's is an approximation
    assert detector(ids).tolist() == ours.prediction.tolist()
    with pytest.raises(InputError, match="says nothing"):
        detector(ids[:, : scheme.get("context_width", 1)])


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"repetition_penalty": 1.5}])
def test_marked_texts_are_upstreams(search):
    theirs, ours = pair("gpt2", "LMHeadModel", eos_token_id=None, bos_token_id=None, pad_token_id=0)
    ids = torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(3))
    settings = {"max_new_tokens": 12, "do_sample": False, **search}
    plain = ours.generate(ids, **settings)
    for scheme in SCHEMES:
        marked = transformers.WatermarkingConfig(**scheme), cutaway.WatermarkingConfig(**scheme)
        expected = theirs.generate(ids, watermarking_config=marked[0], **settings)
        assert torch.equal(ours.generate(ids, watermarking_config=marked[1], **settings), expected)
        assert torch.equal(ours.generate(ids, watermarking_config=scheme, **settings), expected)
    assert not torch.equal(plain, expected)


def test_a_sampled_text_is_found_again():
    _, ours = pair("gpt2", "LMHeadModel", eos_token_id=None, bos_token_id=None, pad_token_id=0, n_positions=200)
    mark = cutaway.WatermarkingConfig(bias=6.0)
    settings = {"max_new_tokens": 90, "do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 1}
    ids = torch.tensor([[7, 8]])
    detector = cutaway.WatermarkDetector(ours.config, "cpu", mark)
    assert detector(ours.generate(ids, watermarking_config=mark, **settings)).tolist() == [True]
    assert detector(ours.generate(ids, **settings)).tolist() == [False]
    few = ours.generate(ids, watermarking_config=mark, **{**settings, "top_k": 3})
    assert few.shape == (1, 92)


def test_marks_are_kept_in_files(tmp_path):
    mark = cutaway.WatermarkingConfig(bias=1.5, context_width=2)
    cutaway.GenerationConfig(watermarking_config=mark).save_pretrained(tmp_path)
    assert cutaway.GenerationConfig.from_pretrained(tmp_path).watermarking_config == mark
    read = transformers.GenerationConfig.from_pretrained(tmp_path).watermarking_config
    assert (read.bias, read.context_width) == (1.5, 2)
    transformers.GenerationConfig(watermarking_config=upstream_mark()).save_pretrained(tmp_path)
    assert cutaway.GenerationConfig.from_pretrained(tmp_path).watermarking_config.bias == 4.0


def upstream_mark():
    return transformers.WatermarkingConfig(bias=4.0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"greenlist_ratio": 1.0}, "greenlist_ratio"), ({"seeding_scheme": "hash"}, "lefthash, selfhash"),
        ({"context_width": 0}, "context_width"), ({"bias": "much"}, "bias"), ({"ngram_len": 5}, "ngram_len"),
        (3, "WatermarkingConfig"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_mark_is_refused(wrong, told):
    with pytest.raises(GenerationError, match=told):
        cutaway.GenerationConfig(watermarking_config=wrong)
    assert upstream.WatermarkDetector is transformers.WatermarkDetector


def test_an_encoder_decoder_without_input_begins_with_its_bos_token():
    theirs, ours = pair("t5", "ForConditionalGeneration", decoder_start_token_id=0, pad_token_id=0, eos_token_id=None)
    expected = theirs.generate(bos_token_id=5, max_new_tokens=6, do_sample=False)
    assert torch.equal(ours.generate(bos_token_id=5, max_new_tokens=6), expected)
    with pytest.raises(GenerationError, match="needs a text to read"):
        ours.generate(max_new_tokens=6)


def test_settings_have_upstreams_names_for_their_file_and_tokens(tmp_path):
    cutaway.GenerationConfig(top_k=3).save_pretrained(tmp_path, config_name=None)
    assert cutaway.GenerationConfig.from_pretrained(tmp_path, config_name=None).top_k == 3
    begin = cutaway.SuppressTokensAtBeginLogitsProcessor([4, 5], 2)
    assert (list(begin.begin_suppress_tokens), begin.begin_index) == ([4, 5], 2)
