"""Translation with language codes: what is read and what the answer begins with."""

from __future__ import annotations

import pytest
import torch

from cutaway import MBartConfig, MBartForConditionalGeneration, MBartTokenizer, pipeline
from cutaway.errors import InputError


@pytest.fixture(scope="module")
def parts():
    tokenizer = MBartTokenizer(model_max_length=32)
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
    config = MBartConfig(vocab_size=len(tokenizer), decoder_start_token_id=2, **sizes, **heads)
    return MBartForConditionalGeneration(config).eval(), tokenizer


def expected(model, tokenizer, source, settings):
    """The answer's ids by `generate`, the source text framed by hand."""
    ids = [*tokenizer("a", add_special_tokens=False)["input_ids"], 2, tokenizer.convert_tokens_to_ids(source)]
    out = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False, **settings)
    return out[0, 1:].tolist()


@pytest.mark.parametrize("target", ["fr_XX", "fr"])
def test_codes_reach_both_sides(parts, target):
    model, tokenizer = parts
    french = tokenizer.convert_tokens_to_ids("fr_XX")
    pipe = pipeline("translation", model, tokenizer)
    options = {"max_new_tokens": 4, "do_sample": False}
    (result,) = pipe.each(["a"], src_lang="de_DE", tgt_lang=target, **options)
    assert list(result.tokens[0]) == expected(model, tokenizer, "de_DE", {"forced_bos_token_id": french})
    assert result.tokens[0][0] == french
    assert tokenizer.src_lang == "en_XX"  # as it was before
    (by_name,) = pipeline("translation_de_to_fr", model, tokenizer).each(["a"], **options)
    assert by_name.tokens == result.tokens


def test_an_answer_that_starts_with_the_code(parts):
    model, tokenizer = parts
    pipe = pipeline("translation", model, tokenizer)
    before = model.config.decoder_start_token_id
    model.config.decoder_start_token_id = tokenizer.convert_tokens_to_ids("ro_RO")
    try:
        french = tokenizer.convert_tokens_to_ids("fr_XX")
        (result,) = pipe.each(["a"], tgt_lang="fr_XX", max_new_tokens=4, do_sample=False)
        assert list(result.tokens[0]) == expected(model, tokenizer, "en_XX", {"decoder_start_token_id": french})
    finally:
        model.config.decoder_start_token_id = before


def test_a_language_that_the_model_lacks(parts):
    pipe = pipeline("translation", *parts)
    with pytest.raises(InputError, match="tgt_lang='klingon' is no language code"):
        pipe("a", tgt_lang="klingon")
    with pytest.raises(InputError, match="src_lang='tlh_XX'"):
        pipe("a", src_lang="tlh_XX")
