"""What only DeBERTa has, against transformers: kinds of scores, two heads for masked words, long texts, soft labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity.pairs import TOLERANCE, gap, gaps, inputs, pair
from safetensors.torch import load_file

import cutaway
from cutaway import pipeline

ALL = {"output_attentions": True, "output_hidden_states": True}


@pytest.mark.parametrize(
    "fields",
    [
        {"pos_att_type": "c2p"},
        {"pos_att_type": "p2c", "share_att_key": False},
        {"pos_att_type": ["c2p", "p2c"], "share_att_key": False, "norm_rel_ebd": "none"},
        {"relative_attention": False},
        {"relative_attention": False, "pos_att_type": None, "position_biased_input": True},
        {"position_buckets": -1},
        {"position_biased_input": True, "max_position_embeddings": 40, "type_vocab_size": 2},
        {"attention_head_size": 8},
    ],
    ids=lambda fields: " ".join(f"{name}={value}" for name, value in fields.items()),
)
@torch.no_grad()
def test_every_kind_of_scores(fields: dict[str, Any]) -> None:
    theirs, ours = pair("deberta-v2", **fields)
    given = inputs("deberta-v2", (9, 4, 7))
    found = gaps(ours(**given, **ALL), theirs(**given, **ALL), given)
    assert len(found) >= 8 and max(found.values()) < TOLERANCE, found


@torch.no_grad()
def test_texts_far_longer_than_the_last_bucket() -> None:
    theirs, ours = pair("deberta-v2", position_buckets=16, max_position_embeddings=32)
    given = inputs("deberta-v2", (150, 90))
    found = gaps(ours(**given, **ALL), theirs(**given, **ALL), given)
    assert max(found.values()) < TOLERANCE, found


@torch.no_grad()
def test_neighbours_are_those_of_the_same_text() -> None:
    """A convolution looks across places; other texts and padding stand beside them in the packed rows."""
    theirs, ours = pair("deberta-v2-conv", conv_kernel_size=5)
    given = inputs("deberta-v2-conv", (9, 1, 4, 7))
    found = gaps(ours(**given, **ALL), theirs(**given, **ALL), given)
    assert max(found.values()) < TOLERANCE, found


def test_the_head_that_the_table_of_tokens_ends(tmp_path: Path) -> None:
    """`legacy: false`: logits are products with the token vectors, and files hold no matrix of their own for it."""
    theirs, ours = pair("deberta-v2", "ForMaskedLM", legacy=False, tie_word_embeddings=False)
    given = inputs("deberta-v2", (8, 8))
    labels = given["input_ids"]
    mine, yours = ours(**given, labels=labels), theirs(**given, labels=labels)
    assert gap(mine.logits, yours.logits) < TOLERANCE and gap(mine.loss, yours.loss) < TOLERANCE
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    a, b = (load_file(tmp_path / who / "model.safetensors") for who in ("ours", "theirs"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    again = transformers.DebertaV2ForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(again(**given).logits, theirs(**given).logits)
    ours.resize_token_embeddings(120)
    assert ours(**given).logits.shape == (2, 8, 120)


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_labels_that_are_shares(problem: str | None) -> None:
    """Without a stated kind, upstream's loss takes numbers as how much of each label is right."""
    theirs, ours = pair("deberta-v2", "ForSequenceClassification", num_labels=3, problem_type=problem)
    given = {**inputs("deberta-v2", (8, 5)), "labels": torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])}
    assert gap(ours(**given).loss, theirs(**given).loss) < TOLERANCE


def test_the_pooler_has_a_rate_of_its_own() -> None:
    config = cutaway.DebertaV2Config(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, pooler_dropout=1.0, cls_dropout=0.0,
    )  # fmt: skip
    model = cutaway.DebertaV2ForSequenceClassification(config).train()
    ids = torch.tensor([[1, 2, 3]])
    bias = model.classifier(torch.nn.functional.gelu(model.pooler.dense.bias))
    assert torch.allclose(model(ids).logits[0], bias) and not torch.allclose(model.eval()(ids).logits[0], bias)


def test_zero_shot_classification_reads_pairs(tmp_path: Path) -> None:
    """The tokenizer gives types 0 and 1; a model without types takes them, and they change nothing."""
    import tiny

    tokenizer = tiny.wordpiece()
    torch.manual_seed(0)
    config = transformers.DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        relative_attention=True, pos_att_type="p2c|c2p", position_buckets=8, position_biased_input=False,
        share_att_key=True, norm_rel_ebd="layer_norm", initializer_range=0.5, max_position_embeddings=64,
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    )  # fmt: skip
    tiny.save(tmp_path, transformers.DebertaV2ForSequenceClassification(config), tokenizer)
    texts, labels = ["i believe that the eu is great", "bad film"], ["good", "bad", "great film"]
    ours = pipeline("zero-shot-classification", str(tmp_path))(texts, candidate_labels=labels)
    theirs = transformers.pipeline(
        "zero-shot-classification",
        transformers.DebertaV2ForSequenceClassification.from_pretrained(tmp_path),
        tokenizer=tokenizer,
    )(texts, candidate_labels=labels)
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine["labels"] == yours["labels"]
        assert mine["scores"] == pytest.approx(yours["scores"], abs=1e-5)
