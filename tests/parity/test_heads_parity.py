"""Every head of every family against transformers: logits, losses, and the gradients of the losses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers
from parity.pairs import TOLERANCE, gap, gaps, inputs, pair, texts
from parity.tiny_models import (
    CLASSIFYING,
    CONFIGS,
    ENCODER_DECODERS,
    EVERY_HEAD,
    HEADS,
    VARIANTS,
    decoder_fields,
    with_joined_experts,
)
from torch import Tensor

import cutaway
from cutaway.errors import ConfigError
from cutaway.models.state_dict import published_state
from cutaway.nn import packed_batch

PAD = 0
LENGTHS = (8, 5, 3)
SEQ2SEQ = ("ForConditionalGeneration", "MTModel")
SPANS = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")
GRADIENT = 1e-4
# what config.problem_type and num_labels a sequence classification is tried with
PROBLEMS: dict[str, tuple[int, str | None]] = {
    "single": (3, None),
    "several": (3, "multi_label_classification"),
    "number": (1, None),
    "numbers": (2, "regression"),
}
# heads whose logits at padding mean nothing
EACH_TOKEN = (
    "ForTokenClassification", "ForMaskedLM", "LMHeadModel", "ForCausalLM", *SPANS, "ForPreTraining", "DoubleHeadsModel",
)  # fmt: skip
CASES = [
    (family, ending, problem)
    for family, ending in EVERY_HEAD
    for problem in (PROBLEMS if ending == "ForSequenceClassification" else [""])
]


def fields(family: str, ending: str, problem: str) -> dict[str, Any]:
    found = decoder_fields(family, ending)
    if ending == "ForTokenClassification":
        found["num_labels"] = 4
    if problem:
        found["num_labels"], kind = PROBLEMS[problem]
        if kind:
            found["problem_type"] = kind
    # one padding id for all, so that the same texts serve; RoBERTa counts its positions from it
    if family == "bart" and found.get("num_labels") == 2:
        del found["num_labels"]  # upstream drops it from config.json, and then cannot read its own checkpoint
    return {**found, "pad_token_id": PAD, "eos_token_id": 2, "decoder_start_token_id": 2}


def batch(family: str, ending: str, problem: str, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    """Inputs with labels; -100 and places out of range among them."""
    # XLNet's tokenizer pads on the left, and upstream reads a text at its last column, whatever stands there
    given = inputs(family, lengths, "left" if family == "xlnet" else "right", pad=PAD)
    mask = given.get("attention_mask", torch.ones_like(given["input_ids"]))
    n = len(lengths)
    torch.manual_seed(3)
    if family in ENCODER_DECODERS and ending not in SEQ2SEQ:
        given.pop("decoder_input_ids")  # the decoder reads the text again
        given.pop("decoder_attention_mask", None)
        last = mask.sum(1) - 1
        given["input_ids"][torch.arange(n), last] = 2  # the end-of-text token that these heads read
    if ending == "ForSequenceClassification":
        count, kind = PROBLEMS[problem]
        if kind == "multi_label_classification":
            given["labels"] = torch.randint(0, 2, (n, count)).float()
        elif problem in ("number", "numbers"):
            given["labels"] = torch.randn(n, 3 if family == "bart" else count) if count > 1 else torch.randn(n)
        else:
            given["labels"] = torch.randint(0, count, (n,))
    elif ending == "ForPreTraining" and family == "electra":
        given["labels"] = torch.randint(0, 2, mask.shape)
    elif ending == "ForNextSentencePrediction":
        given["labels"] = torch.randint(0, 2, (n,))
    elif ending == "ForTokenClassification":
        given["labels"] = torch.randint(0, 4, mask.shape).masked_fill(mask == 0, -100)
        given["labels"][0, 1] = -100
    elif ending in SPANS:
        given["start_positions"] = torch.tensor([1, 2, 500])
        given["end_positions"] = torch.tensor([3, mask.shape[1] + 7, 2])
    elif ending == "ForMultipleChoice":
        given = {name: torch.stack((value, value.flip(0)), 1) for name, value in given.items()}
        given["labels"] = torch.randint(0, 2, (n,))
    elif ending in SEQ2SEQ:
        target = given.pop("decoder_input_ids")
        seen = given.pop("decoder_attention_mask", torch.ones_like(target))
        given["labels"] = target.masked_fill(seen == 0, -100)
    else:
        given["labels"] = given["input_ids"].masked_fill(mask == 0, -100)
        given["labels"][0, 2:4] = -100
        if ending == "ForPreTraining":
            sentence = {"bert": "next_sentence_label", "albert": "sentence_order_label"}[family]
            given[sentence] = torch.randint(0, 2, (n,))
    if ending == "DoubleHeadsModel":
        given = {name: torch.stack((value, value.flip(0)), 1) for name, value in given.items()}
        given["mc_token_ids"] = torch.stack((mask.sum(1), mask.sum(1).flip(0)), 1) - 1
        given["mc_labels"] = torch.randint(0, 2, (n,))
    return given


@pytest.mark.parametrize(("family", "ending", "problem"), CASES)
def test_logits_losses_and_gradients(family: str, ending: str, problem: str) -> None:
    theirs, ours = pair(family, ending, **fields(family, ending, problem))
    # upstream's loss for spans depends on the padding; see test_padding_takes_no_part_in_the_loss_of_a_span
    given = batch(family, ending, problem, (8, 8, 8) if ending in SPANS else LENGTHS)
    mine, yours = ours(**given), theirs(**given)
    where = {k: v for k, v in given.items() if k.endswith("mask")}
    pairs = ("seq_relationship_logits", "sop_logits", "mc_logits", "mc_loss")
    for name in ("logits", "start_logits", "end_logits", "prediction_logits", *pairs):
        if name not in yours:
            continue
        if ending in EACH_TOKEN and name not in pairs:
            real = where.get("attention_mask", torch.ones_like(given["input_ids"])).bool()
            assert gap(mine[name][real], yours[name][real]) < TOLERANCE
        elif family.startswith("deberta-v2") and problem == "number":  # upstream drops the column that labels go with
            assert gap(mine[name], yours[name][:, None]) < TOLERANCE
        else:
            assert gap(mine[name], yours[name]) < TOLERANCE
    assert gap(mine.loss, yours.loss) < TOLERANCE, (mine.loss, yours.loss)
    for out in (mine, yours):
        (out.loss + out["mc_loss"] if "mc_loss" in out else out.loss).backward()
    found = with_joined_experts(gradients(ours))
    if family in FILES:
        found = as_in_the_class(family, found)
    if "embed_out.weight" in found:  # GPT-NeoX's files have another name than its class
        found["lm_head.weight"] = found["embed_out.weight"]
    assert {id(p) for n, p in theirs.named_parameters(remove_duplicate=False) if n in found} == {
        id(p) for p in theirs.parameters()
    }
    # a tied weight has several names upstream, of which we publish one
    for name, p in ((n, p) for n, p in theirs.named_parameters(remove_duplicate=False) if n in found):
        wanted = torch.zeros_like(p) if p.grad is None else p.grad
        largest = float(wanted.abs().max())
        # a key's bias shifts all scores of a query alike: its gradient is 0 and only rounding is seen
        assert float((found[name] - wanted).abs().max()) <= max(GRADIENT * largest, 1e-6), name


# families whose files have other names than their classes, which transformers translates: pattern -> name
FILES: dict[str, dict[str, str]] = {
    "nomic_bert": {
        "emb_ln": "embeddings.LayerNorm", r"encoder\.layers": "layers", r"attn\.Wqkv": "self_attn.q_proj k_proj v_proj",
        r"attn\.out_proj": "self_attn.o_proj", "norm1": "post_attention_layernorm", "norm2": "post_mlp_layernorm",
        r"mlp\.fc11": "mlp.up_proj", r"mlp\.fc12": "mlp.gate_proj", r"mlp\.fc2": "mlp.down_proj",
    },
    "jina_embeddings_v3": {
        "emb_ln": "embeddings.LayerNorm", r"encoder\.layers": "layers",
        r"mixer\.Wqkv": "self_attn.q_proj k_proj v_proj",
        r"mixer\.out_proj": "self_attn.o_proj", "norm1": "post_attention_layernorm", "norm2": "post_mlp_layernorm",
    },
    "gte": {
        r"encoder\.layer\.": "layers.", r"attention\.qkv_proj": "self_attn.q_proj k_proj v_proj",
        r"attention\.o_proj": "self_attn.o_proj", "attn_ln": "post_attention_layernorm",
        "mlp_ln": "post_mlp_layernorm", r"mlp\.up_gate_proj": "mlp.up_proj gate_proj",
        r"lm_head\.norm": "lm_head.layer_norm",
    },
}  # fmt: skip


def as_in_the_class(family: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of transformers' class; one layer of the file may be several of it."""
    named: dict[str, Tensor] = {}
    for name, value in found.items():
        for pattern, other in FILES[family].items():
            name = re.sub(pattern, other, name)
        first, *more = name.split(" ")
        leaf = name.rpartition(".")[2] if more else ""
        above = first.rpartition(".")[0]
        parts = [first, *(f"{above}.{part}" for part in more)]
        whole = [part if not leaf or part.endswith(f".{leaf}") else f"{part}.{leaf}" for part in parts]
        named |= dict(zip(whole, value.chunk(len(whole)) if more else [value], strict=True))
    return named


def gradients(model: Any) -> dict[str, Tensor]:
    """Under published names."""
    state = {
        name: p.grad if isinstance(p, torch.nn.Parameter) and p.grad is not None else torch.zeros_like(p)
        for name, p in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        )
    }
    return published_state(model, state)


@pytest.mark.parametrize(("family", "ending"), EVERY_HEAD)
def test_hidden_states_and_attentions_of_heads(family: str, ending: str) -> None:
    theirs, ours = pair(family, ending, **fields(family, ending, ""))
    given = batch(family, ending, "single", (6, 6, 6))
    given = {k: v for k, v in given.items() if not k.endswith(("labels", "label", "positions"))}
    if ending in SEQ2SEQ:
        given["decoder_input_ids"] = given["input_ids"][:, :4]
    asked = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        mine, yours = ours(**given, **asked), theirs(**given, **asked)
        assert torch.equal(ours(**given)[0], mine[0])
        parts = ours(**given, return_dict=False)
    assert isinstance(parts, tuple) and torch.equal(parts[0], mine[0])
    if ending in ("ForMultipleChoice", "DoubleHeadsModel"):
        for a, b in zip(mine.attentions, yours.attentions, strict=True):
            assert gap(a, b) < TOLERANCE
        return
    yours = {k: v for k, v in yours.items() if "logits" not in k}
    found = gaps(mine, yours, {k: v for k, v in given.items() if "mask" in k or k == "decoder_input_ids"})
    assert len(found) > 4 and max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("small", [0, 128], ids=["packed", "small"])
@pytest.mark.parametrize("family", [f for f in HEADS if "ForQuestionAnswering" in HEADS[f]])
def test_padding_takes_no_part_in_the_loss_of_a_span(family: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", small)
    ending = "ForQuestionAnswering"
    theirs, ours = pair(family, ending, **fields(family, ending, ""))
    given = batch(family, ending, "")
    given["start_positions"], given["end_positions"] = torch.tensor([1, 2, 0]), torch.tensor([7, 3, 1])
    if "labels" in given:
        del given["labels"]
    with torch.no_grad():
        found = ours(**given).loss
        alone = [
            theirs(
                input_ids=given["input_ids"][b : b + 1, :n],
                start_positions=given["start_positions"][b : b + 1],
                end_positions=given["end_positions"][b : b + 1],
            ).loss
            for b, n in enumerate(LENGTHS)
        ]
    assert gap(found, torch.stack(alone).mean()) < TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "llama", *CLASSIFYING])
@pytest.mark.parametrize("masked", [True, False])
def test_decoders_classify_by_the_last_real_token(family: str, masked: bool) -> None:
    ending = "ForSequenceClassification"
    theirs, ours = pair(family, ending, num_labels=3, pad_token_id=PAD)
    given = inputs(family, LENGTHS, pad=PAD)
    if not masked:
        del given["attention_mask"]
    with torch.no_grad():
        assert gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE
        if masked:
            left = inputs(family, LENGTHS, "left", pad=PAD)
            assert gap(ours(**left).logits, theirs(**given).logits) < TOLERANCE
            alone = ours(given["input_ids"][1:2, : LENGTHS[1]]).logits
            assert gap(ours(**given).logits[1:2], alone) < TOLERANCE


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("family", "ending"),
    [
        ("bert", "ForMaskedLM"),
        ("distilbert", "ForMaskedLM"),
        ("roberta", "ForMaskedLM"),
        ("electra", "ForMaskedLM"),
        ("albert", "ForMaskedLM"),
        ("mpnet", "ForMaskedLM"),
        ("modernbert", "ForMaskedLM"),
        ("gpt2", "LMHeadModel"),
        *((family, "ForCausalLM") for family in ("llama", *VARIANTS)),
        ("t5", "ForConditionalGeneration"),
        ("t5-gated", "ForConditionalGeneration"),
        *((family, "ForConditionalGeneration") for family in ("bart", "mbart", "pegasus")),
        ("marian", "MTModel"),
    ],
)
def test_output_matrix_tied_or_not(family: str, ending: str, tied: bool) -> None:
    theirs, ours = pair(family, ending, tie_word_embeddings=tied)
    given = inputs(family, (5, 5), pad=PAD)
    with torch.no_grad():
        assert gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE
    same = ours.get_output_embeddings().weight is ours.get_input_embeddings().weight
    upstream = theirs.get_output_embeddings().weight is theirs.get_input_embeddings().weight
    assert same == upstream
    if (
        family not in ("bart", "mbart", "marian", "pegasus") or tied
    ):  # upstream's untied BART also carries a `shared` table that nothing reads
        assert ours.num_parameters() == theirs.num_parameters()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("ending", ["ForSequenceClassification", "ForMultipleChoice"])
def test_the_mean_of_all_tokens_is_of_real_ones(ending: str, side: str) -> None:
    more = {"classifier_pooling": "mean", "classifier_bias": True, "classifier_activation": "silu"}
    theirs, ours = pair("modernbert", ending, **more)
    given = inputs("modernbert", LENGTHS, side)
    if ending == "ForMultipleChoice":
        given = {name: torch.stack((value, value), 1) for name, value in given.items()}
    with torch.no_grad():
        assert gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE


@pytest.mark.parametrize("summary", [{"summary_use_proj": False}, {"summary_activation": "tanh"},
                                     {"summary_use_proj": False, "summary_activation": "relu"}])  # fmt: skip
def test_electras_summary_as_its_config_says(summary: dict[str, Any]) -> None:
    theirs, ours = pair("electra", "ForMultipleChoice", **summary)
    given = {name: torch.stack((value, value), 1) for name, value in inputs("electra", LENGTHS).items()}
    with torch.no_grad():
        assert gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE
    assert ours.num_parameters() == theirs.num_parameters()


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({"summary_type": "mean"}, "summary_type is 'mean'"),
        ({"summary_proj_to_labels": True}, "summary_proj_to_labels is True"),
        ({"summary_first_dropout": 0.1}, "summary_first_dropout is 0.1"),
        ({"summary_activation": None}, "summary_activation"),
    ],
)
def test_a_summary_that_is_not_built_is_an_error(summary: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cutaway.ElectraForMultipleChoice(cutaway.ElectraConfig(vocab_size=9, num_hidden_layers=1, **summary))


@pytest.mark.parametrize("family", [family for family, ending in EVERY_HEAD if ending == "ForTokenClassification"])
def test_heads_of_tokens_drop_as_upstreams_in_training(family):
    first, sizes = CONFIGS[family]
    for more in ({}, {"classifier_dropout": 0.3}):
        theirs = getattr(transformers, f"{first}ForTokenClassification")(
            getattr(transformers, f"{first}Config")(**sizes, **more)
        )
        ours = getattr(cutaway, f"{first}ForTokenClassification")(getattr(cutaway, f"{first}Config")(**sizes, **more))
        dropout = getattr(theirs, "dropout", None) or getattr(theirs, "drop", None)  # ModernBERT's is called drop
        assert (dropout is None) == (ours.head_spec.drops == "none") == (family in ("eurobert", "xlnet"))
        assert dropout is None or ours.rate == dropout.p


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_end_that_the_mask_hides_is_read_as_upstream_reads_it(family):
    theirs, ours = pair(family, "ForSequenceClassification", pad_token_id=0, eos_token_id=2, decoder_start_token_id=0)
    ids = torch.stack(texts((7, 7)))
    ids[:, -1] = 2
    mask = torch.tensor([[1, 1, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1, 0]])
    for shown in (mask, torch.ones_like(mask)):
        expected, found = (model(input_ids=ids, attention_mask=shown).logits for model in (theirs, ours))
        assert gap(found, expected) < TOLERANCE


def test_a_head_says_and_takes_its_number_of_labels():
    _, ours = pair("bert", "ForTokenClassification", num_labels=5)
    assert ours.num_labels == 5
    ours.num_labels = 3
    assert (ours.num_labels, ours.config.num_labels) == (3, 3)
    assert not hasattr(pair("bert")[1], "num_labels")


@pytest.mark.parametrize("ending", ["Model", "ForConditionalGeneration"])
def test_ids_are_shifted_right_by_the_name_that_scripts_use(ending):
    theirs, ours = pair("t5", ending, decoder_start_token_id=0, pad_token_id=0)
    labels = torch.tensor([[5, 6, -100, -100], [7, -100, 8, 9]])
    assert torch.equal(ours._shift_right(labels), theirs._shift_right(labels))
