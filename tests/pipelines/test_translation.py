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


@pytest.mark.parametrize("kind", ["nllb", "m2m"])
def test_the_codes_of_models_for_many_languages(kind, tmp_path):
    import json

    import sentencepiece

    import cutaway

    spm = tmp_path / "sentencepiece.bpe"
    texts = ["a house", "ein haus", "la maison"] * 9
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(spm), model_type="bpe", vocab_size=30, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    if kind == "nllb":
        tokenizer, codes = cutaway.NllbTokenizer.from_pretrained(tmp_path), ("deu_Latn", "fra_Latn")
    else:
        pieces = sentencepiece.SentencePieceProcessor(str(spm.with_suffix(".bpe.model")))
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, pieces.get_piece_size()))]
        (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        tokenizer, codes = cutaway.M2M100Tokenizer.from_pretrained(tmp_path), ("de", "fr")
    torch.manual_seed(0)
    config = cutaway.M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    model = cutaway.M2M100ForConditionalGeneration(config).eval()
    ids = [tokenizer.convert_tokens_to_ids(tokenizer.code_token(code)) for code in codes]
    text = [ids[0], *tokenizer("ein haus", add_special_tokens=False)["input_ids"], 2]
    options = {"max_new_tokens": 5, "do_sample": False}
    wanted = model.generate(torch.tensor([text]), forced_bos_token_id=ids[1], **options)[0, 1:].tolist()
    pipe = pipeline("translation", model, tokenizer)
    (result,) = pipe.each(["ein haus"], src_lang=codes[0], tgt_lang=codes[1], **options)
    assert list(result.tokens[0]) == wanted and wanted[0] == ids[1]
    (short,) = pipeline(f"translation_{codes[0][:3]}_to_{codes[1][:3]}", model, tokenizer).each(["ein haus"], **options)
    assert short.tokens == result.tokens
    with pytest.raises(InputError, match="tgt_lang='klingon' is no language code"):
        pipe("a", tgt_lang="klingon")
