"""Every encoder-decoder family is explained as one: what it answers is what it writes."""

import pytest

import cutaway
from cutaway.inspect.explainer import explain, kind_of

FAMILIES = {
    "Bart": "ForConditionalGeneration",
    "MBart": "ForConditionalGeneration",
    "Marian": "MTModel",
    "Pegasus": "ForConditionalGeneration",
}
SIZES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": None,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_decoder_is_explained(family):
    tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/sentiment", padding_side="right")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = getattr(cutaway, f"{family}Config")(vocab_size=len(tokenizer), **SIZES)
    model = getattr(cutaway, f"{family}{FAMILIES[family]}")(config).eval()
    assert kind_of(model) == "target"
    found = explain("A warm, funny film.", model, tokenizer, max_new_tokens=2)
    assert (found.model.layers, found.model.heads, found.model.hidden_size) == (2, 2, 16)
