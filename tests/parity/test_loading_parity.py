"""Loading what transformers writes, and transformers loading what we write."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity.pairs import FAMILIES, TOLERANCE, gap, inputs, load, pair
from parity.tiny_models import CONFIGS, ENCODER_DECODERS, EVERY_HEAD, decoder_fields, make, upstream_expert_name
from safetensors.torch import load_file, save_file

import cutaway
from cutaway.errors import CheckpointError, ConfigError

BASES = [(family, "Model") for family in FAMILIES] + [("t5", "EncoderModel")]


def first_output(model: Any, family: str, ending: str) -> torch.Tensor:
    given = inputs(family, (6, 6))
    if "Encoder" in ending or (family in ENCODER_DECODERS and "Classif" in ending + "Answering"):
        given.pop("decoder_input_ids", None)
    given["input_ids"][:, -1] = model.config.eos_token_id or 2
    if ending == "ForMultipleChoice":
        given = {name: value[:, None].repeat(1, 2, 1) for name, value in given.items()}
    with torch.no_grad():
        return model(**given)[0]


@pytest.mark.parametrize(("family", "ending"), [*BASES, *EVERY_HEAD])
def test_there_and_back(family: str, ending: str, tmp_path: Path) -> None:
    theirs, ours = pair(family, ending, **decoder_fields(family, ending))
    if family in ("t5", "t5-gated") and ending == "ForQuestionAnswering":
        theirs.config.decoder_start_token_id = 0
    ours.save_pretrained(tmp_path)
    back, report = type(ours).from_pretrained(tmp_path, output_loading_info=True)
    assert not report.missing and not report.unexpected
    state, again = ours.state_dict(), back.state_dict()
    assert state.keys() == again.keys() and all(torch.equal(state[k], again[k]) for k in state)
    upstream, info = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    wanted = theirs.state_dict()
    assert all(torch.equal(upstream.state_dict()[k], wanted[k]) for k in wanted)
    if family in ("t5", "t5-gated"):
        upstream.config.decoder_start_token_id = 0
    assert gap(first_output(back, family, ending), first_output(upstream, family, ending)) < TOLERANCE


@pytest.mark.parametrize(("family", "ending"), EVERY_HEAD)
def test_base_from_head_and_head_from_base(
    family: str, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra = decoder_fields(family, ending)
    base_ending = "EncoderModel" if family.startswith("t5") and ending == "ForTokenClassification" else "Model"
    first = CONFIGS[family][0]
    head, base = make(family, ending, **extra), make(family, base_ending, **extra)
    head.save_pretrained(tmp_path / "head")
    base.save_pretrained(tmp_path / "base")
    caplog.set_level(logging.WARNING, "cutaway")

    ours, report = getattr(cutaway, first + base_ending).from_pretrained(tmp_path / "head", output_loading_info=True)
    upstream, info = type(base).from_pretrained(tmp_path / "head", output_loading_info=True)
    fixed = {
        n for n in info["missing_keys"] if family.startswith("marian") and "embed_positions" in n
    }  # they need no file
    assert {*map(upstream_expert_name, report.missing)} == set(info["missing_keys"]) - fixed
    assert bool(caplog.records) == bool(report.missing)
    caplog.clear()
    if not report.missing:
        wanted = upstream(**inputs(family, (6, 6)))[0] if base_ending == "Model" else None
        if wanted is not None:
            assert gap(ours(**inputs(family, (6, 6)))[0], wanted) < TOLERANCE

    ours, report = getattr(cutaway, type(head).__name__).from_pretrained(tmp_path / "base", output_loading_info=True)
    _, info = type(head).from_pretrained(tmp_path / "base", output_loading_info=True)
    twins = {
        "cls.predictions.decoder.bias",
        "lm_head.decoder.bias",
        "predictions.decoder.bias",
    }  # upstream names both ends of a tie
    said = {"lm_head.weight" if name == "embed_out.weight" else name for name in report.missing}  # as in the file
    said = {name.replace("lm_head.norm.", "lm_head.layer_norm.") for name in said}  # GTE's files too
    assert said - twins == set(info["missing_keys"]) - twins
    if report.missing:
        (record,) = caplog.records
        assert all(name in record.getMessage() for name in report.missing)
        assert "drawn at random" in record.getMessage() and "train" in record.getMessage()
    state = ours.state_dict()
    assert all(bool(torch.isfinite(v).all()) for v in state.values())
    assert not any(p.is_meta for p in [*ours.parameters(), *ours.buffers()])


@pytest.mark.parametrize(
    ("family", "ending", "change"),
    [
        ("bert", "ForSequenceClassification", {"num_labels": 5}),
        ("roberta", "ForTokenClassification", {"num_labels": 7}),
        ("gpt2", "ForSequenceClassification", {"num_labels": 4}),
        ("gpt2", "LMHeadModel", {"vocab_size": 120}),
        ("bert", "ForMaskedLM", {"vocab_size": 120}),
        ("t5", "ForConditionalGeneration", {"vocab_size": 120}),
        ("bart", "ForSequenceClassification", {"num_labels": 5}),
        ("llama", "ForCausalLM", {"num_key_value_heads": 4}),
    ],
)
def test_weights_of_another_shape_are_drawn_anew_as_upstream(
    family: str, ending: str, change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, ours = pair(family, ending)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="ignore_mismatched_sizes=True"):
        type(ours).from_pretrained(tmp_path, **change)
    upstream, info = type(theirs).from_pretrained(
        tmp_path, **change, ignore_mismatched_sizes=True, output_loading_info=True
    )
    caplog.set_level(logging.WARNING, "cutaway")
    caplog.clear()
    again, report = type(ours).from_pretrained(
        tmp_path, **change, ignore_mismatched_sizes=True, output_loading_info=True
    )
    # upstream names both ends of a tie, where the file holds one
    twins = {"lm_head.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    kept = {(n, tuple(a), tuple(b)) for n, a, b in info["mismatched_keys"] if n not in twins}
    assert {entry for entry in report["mismatched_keys"] if entry[0] not in twins} == kept != set()
    assert set(report.missing) - twins == set(info["missing_keys"]) - twins and not report.unexpected
    (record,) = [r for r in caplog.records if r.name == "cutaway"]
    assert all(f"{name} ({list(a)} there, {list(b)} here)" in record.getMessage() for name, a, b in report.mismatched)
    assert first_output(again, family, ending).shape == first_output(upstream, family, ending).shape
    before, after = ours.state_dict(), again.state_dict()
    for name, value in after.items():
        assert bool(torch.isfinite(value).all())
        if value.shape == before[name].shape:
            assert torch.equal(value, before[name])
    assert not any(p.is_meta for p in [*again.parameters(), *again.buffers()])


def rewrite(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def test_names_of_old_checkpoints(tmp_path: Path) -> None:
    theirs, ours = pair("bert", "ForSequenceClassification")
    theirs.save_pretrained(tmp_path)
    rewrite(
        tmp_path,
        lambda held: (
            {
                k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
                for k, v in held.items()
            }
            | {"bert.embeddings.position_ids": torch.arange(40)[None]}
        ),
    )
    old, report = type(ours).from_pretrained(tmp_path, output_loading_info=True)
    assert not report.missing and not report.unexpected
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize(("family", "ending"), [("bert", "ForMaskedLM"), ("gpt2", "LMHeadModel"), ("bart", "Model")])
def test_shards_and_torch_files(family: str, ending: str, tmp_path: Path) -> None:
    theirs, ours = pair(family, ending)
    state = ours.state_dict()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    ours.save_pretrained(tmp_path / "ours", max_shard_size="20KB")
    (tmp_path / "bin").mkdir()
    theirs.config.save_pretrained(tmp_path / "bin")
    torch.save(theirs.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    for name in ("theirs", "ours", "bin"):
        assert name == "bin" or len(list((tmp_path / name).glob("*.safetensors"))) > 2
        found = type(ours).from_pretrained(tmp_path / name).state_dict()
        assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state), name
    upstream, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert all(torch.equal(a, b) for a, b in zip(upstream.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", "bfloat16", torch.float64, None, "stored"], ids=str)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_dtypes(dtype: Any, family: str, tmp_path: Path) -> None:
    theirs = make(family)
    theirs.save_pretrained(tmp_path)
    name = CONFIGS[family][0] + "Model"
    wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "stored" else dtype
    wanted = wanted if isinstance(wanted, torch.dtype) else torch.float32
    for argument in ("dtype", "torch_dtype"):
        ours = getattr(cutaway, name).from_pretrained(tmp_path, **{argument: dtype})
        assert {p.dtype for p in ours.parameters()} == {wanted} == {ours.dtype}
        with torch.no_grad():
            out = ours(**inputs(family, (5, 3))).last_hidden_state
        assert out.dtype == wanted and bool(torch.isfinite(out).all())
    ours.save_pretrained(tmp_path / "again")  # the stored dtype is kept
    assert getattr(cutaway, name).from_pretrained(tmp_path / "again").dtype == wanted
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == str(wanted).removeprefix("torch.")
    if wanted == torch.bfloat16:
        upstream = type(theirs).from_pretrained(tmp_path, dtype=torch.bfloat16)
        with torch.no_grad():
            assert gap(out, upstream(**inputs(family, (5, 3))).last_hidden_state) < 0.1 or family != "bert"


def test_t5_v11_whose_config_says_tied_but_whose_file_does_not(tmp_path: Path) -> None:
    theirs = make("t5", "ForConditionalGeneration", feed_forward_proj="gated-gelu")
    theirs.save_pretrained(tmp_path)
    torch.manual_seed(0)
    rewrite(tmp_path, lambda held: {**held, "lm_head.weight": torch.randn(99, 32)})
    for tied in (None, True, False):
        path = tmp_path / "config.json"
        fields = {k: v for k, v in json.loads(path.read_text()).items() if k != "scale_decoder_outputs"}
        fields.pop("tie_word_embeddings", None)
        path.write_text(json.dumps(fields if tied is None else {**fields, "tie_word_embeddings": tied}))
        upstream = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
        ours = cutaway.T5ForConditionalGeneration.from_pretrained(tmp_path)
        assert ours.lm_head.weight is not ours.shared.weight
        given = inputs("t5", (6, 6))
        with torch.no_grad():
            assert gap(ours(**given).logits, upstream(**given).logits) < TOLERANCE
        again = load(ours, "ForConditionalGeneration")
        with torch.no_grad():
            assert torch.equal(again(**given).logits, ours(**given).logits)
        ours.resize_token_embeddings(110)
        assert ours.lm_head.weight.shape[0] == 110 and ours.lm_head.weight is not ours.shared.weight


@pytest.mark.parametrize(("family", "ending"), [("bert", "Model"), ("gpt2", "Model"), ("t5", "Model")])
def test_wrong_shapes(family: str, ending: str, tmp_path: Path) -> None:
    theirs = make(family, ending)
    theirs.save_pretrained(tmp_path)
    name, stored = next((k, v) for k, v in load_file(tmp_path / "model.safetensors").items() if v.dim() == 2)
    rewrite(tmp_path, lambda held: {**held, name: torch.zeros(5, 7)})
    with pytest.raises(CheckpointError) as e:
        getattr(cutaway, CONFIGS[family][0] + ending).from_pretrained(tmp_path)
    said = str(e.value)
    assert name in said and "[5, 7]" in said and str(list(stored.shape)) in said


def test_other_shapes_do_not_ask_for_more_memory_than_there_is(tmp_path: Path) -> None:
    make("bert", "ForMaskedLM").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="memory"):
        cutaway.BertForMaskedLM.from_pretrained(
            tmp_path, vocab_size=9_000_000, hidden_size=60_000, ignore_mismatched_sizes=True
        )
