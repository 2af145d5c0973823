"""The vector that a classifier reads in place of its family's own: formulas, files, padding, and what is refused."""

from __future__ import annotations

import pytest
import torch

import cutaway
from cutaway.errors import ConfigError
from cutaway.models.text_vector import POOLINGS, TextVector, text_vector

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES = {
    "bert": (cutaway.BertConfig, "BertForSequenceClassification", {"max_position_embeddings": 24}),
    "roberta": (
        cutaway.RobertaConfig,
        "RobertaForSequenceClassification",
        {"max_position_embeddings": 24, "pad_token_id": 1},
    ),
    "modernbert": (cutaway.ModernBertConfig, "ModernBertForSequenceClassification", {"pad_token_id": 0}),
    "llama": (cutaway.LlamaConfig, "LlamaForSequenceClassification", {"num_key_value_heads": 2, "pad_token_id": 0}),
}
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def built(family: str, **field):
    config, name, more = FAMILIES[family]
    cutaway.set_seed(0)
    return getattr(cutaway, name)(config(**SMALL, **more, num_labels=3, text_vector=field)).eval()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_reads_the_vector_that_the_config_names(family, pooling, tmp_path):
    model = built(family, pooling=pooling, normalize=True)
    with torch.no_grad():
        logits = model(IDS, MASK).logits
        hidden = model.base_model(IDS, MASK).last_hidden_state
    texts = [hidden[0], hidden[1, :3]]
    of = {"mean": lambda x: x.mean(0), "max": lambda x: x.amax(0), "cls": lambda x: x[0], "lasttoken": lambda x: x[-1]}
    vectors = torch.stack([of[pooling](text) for text in texts])
    vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    out = model.get_submodule(model.head_spec.out)
    torch.testing.assert_close(logits, vectors @ out.weight.T + out.bias, rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = cutaway.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(IDS, MASK).logits, logits)
        torch.testing.assert_close(
            again(IDS[1:, :3]).logits, logits[1:], rtol=1e-5, atol=1e-5
        )  # padding counts nothing
        left = again(IDS[1:].roll(1), MASK[1:].roll(1)).logits
        torch.testing.assert_close(left, logits[1:], rtol=1e-5, atol=1e-5)


def test_without_the_field_the_family_s_own_head_reads():
    plain = cutaway.BertForSequenceClassification(cutaway.BertConfig(**SMALL, max_position_embeddings=24))
    assert text_vector(plain.config) is None and plain.vector is None
    assert built("bert", pooling="mean").vector == TextVector("mean", False)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"pooling": "meen"}, "Did you mean 'mean'"),
        ({"pooling": "mean", "normalize": 1}, "normalize is 1; give true or false"),
        ({"normalise": True}, "text_vector is"),
        ("mean", "text_vector is 'mean'"),
    ],
)
def test_what_the_field_cannot_be(field, said):
    config = cutaway.BertConfig(**SMALL, max_position_embeddings=24, text_vector=field)
    with pytest.raises(ConfigError, match=said):
        cutaway.BertForSequenceClassification(config)


def test_a_part_has_no_share_of_a_logit_that_reads_a_mean():
    from cutaway.errors import InputError
    from cutaway.inspect import direct_logit_attribution

    with pytest.raises(InputError, match="between the state and the answer"):
        direct_logit_attribution(built("llama", pooling="mean"), {"input_ids": IDS[:1]})
