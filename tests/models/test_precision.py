"""int8 on request, and the choice that a measurement makes."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from parity.pairs import inputs
from parity.tiny_models import CONFIGS, make

import cutaway
from cutaway import AutoModel, AutoModelForSequenceClassification, pipeline
from cutaway.errors import ConfigError
from cutaway.models import precision
from cutaway.models.number_format import Candidate
from cutaway.nn.cpu.block_weight import BlockWeight
from cutaway.nn.cpu.int8 import Int8Rows, joined_rows
from cutaway.nn.linear import Linear

SENTENCES = ["a good film", "a bad film !", "not very good and not bad", "i believe that the eu is great ."] * 3


def alike(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0))


@torch.no_grad()
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "NARROWEST", 8)
    make(family).save_pretrained(tmp_path)
    full, narrow = AutoModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path, dtype="int8")
    assert (narrow.precision.name, full.precision.name, narrow.dtype) == ("int8", "float32", torch.float32)
    batch = inputs(family, (5, 3))
    before, found = full(**batch).last_hidden_state, narrow(**batch).last_hidden_state
    assert not torch.equal(before, found)
    assert alike(before, found) > 0.995


@torch.no_grad()
def test_a_model_in_int8_that_keeps_its_weights_is_the_model(tmp_path: Path) -> None:
    """It is saved, copied and trained as the one in float32, and can be looked into."""
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny.classifier(tmp_path / "a"), dtype="int8", keep_weights=True
    )
    batch = {"input_ids": torch.randint(5, 30, (2, 6))}
    before = model(**batch).logits
    assert torch.equal(copy.deepcopy(model)(**batch).logits, before)
    model.save_pretrained(tmp_path / "b")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b")
    full = AutoModelForSequenceClassification.from_pretrained(tmp_path / "a")
    assert again.precision.name == "float32"
    assert torch.equal(again(**batch).logits, full(**batch).logits)
    with model.record("blocks.0.attn.pattern") as seen:
        assert torch.equal(model(**batch).logits, before)
    assert seen["blocks.0.attn.pattern"].shape == (2, 4, 6, 6)
    with torch.enable_grad():
        model.train()(**batch, labels=torch.tensor([0, 1])).loss.backward()
        full.train()(**batch, labels=torch.tensor([0, 1])).loss.backward()
    for a, b in zip(model.parameters(), full.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)


@torch.no_grad()
def test_bytes_alone_answer_as_bytes_beside_the_weights_do(tmp_path: Path) -> None:
    folder = tiny.classifier(tmp_path / "a")
    kept = AutoModelForSequenceClassification.from_pretrained(folder, dtype="int8", keep_weights=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="int8")
    batch = {"input_ids": torch.randint(5, 30, (2, 6))}
    word = model.base_model.embeddings.word_embeddings.weight
    kept.base_model.embeddings.word_embeddings.weight.copy_(
        word
    )  # which are few bits, too, in the one and not the other
    assert torch.equal(model(**batch).logits, kept(**batch).logits)
    assert torch.equal(copy.deepcopy(model)(**batch).logits, kept(**batch).logits)
    assert model.get_memory_footprint() < 0.5 * kept.get_memory_footprint()


@torch.no_grad()
def test_a_weight_of_bytes_shows_its_numbers_wherever_they_lie(tmp_path: Path) -> None:
    """In the rows that were read, and after the first pass in what multiplies by them: side by side, or as they are."""
    folder = tiny.classifier(tmp_path / "a")
    full = AutoModelForSequenceClassification.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="int8")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(input_ids=torch.randint(5, 30, (2, 6)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        exact = full.state_dict()[name]
        step = exact.abs().amax(-1, keepdim=True) / 127 if isinstance(model.get_parameter(name), BlockWeight) else 0
        assert ((value - exact).abs() <= 0.505 * step).all(), name
    weight = model.base_model.blocks[0].attn.k.weight
    assert torch.equal(weight[3:5], before["bert.encoder.layer.0.attention.self.key.weight"][3:5])
    model.save_pretrained(tmp_path / "b")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b")
    assert torch.equal(again.state_dict()["classifier.weight"], before["classifier.weight"])


def test_bytes_alone_are_not_trained_and_adapters_on_them_are(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny.classifier(tmp_path / "a"), dtype="int8")
    with pytest.raises(ConfigError, match='dtype="float32"'):
        model.base_model.blocks[0].mlp.up.weight.requires_grad_(True)
    model.add_adapter(cutaway.LoraConfig(r=2, target_modules=["query", "dense"]))
    batch = {"input_ids": torch.randint(5, 30, (2, 6)), "labels": torch.tensor([0, 1])}
    model.train()(**batch).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients and all("lora" in name or "classifier" in name for name in gradients)
    assert any(g.abs().sum() > 0 for g in gradients.values())


@torch.no_grad()
@pytest.mark.parametrize(("gated", "n"), [(False, 48), (False, 37), (True, 32)])
def test_rows_of_bytes_side_by_side(gated: bool, n: int) -> None:
    """A product of parts, and each part read again from it."""
    weights = [torch.randn(n, 40) for _ in range(2)]
    rows = [Int8Rows(weight) for weight in weights]
    before = [row.dequantized(torch.arange(n)) for row in rows]
    joined = joined_rows(rows, None, gated)
    x = torch.randn(5, 40)
    if gated:
        plain = torch.relu(x @ before[0].T) * (x @ before[1].T)
        got = joined.product(x, "relu")
    else:
        plain, got = x @ torch.cat(before).T, joined.product(x)
    assert (got - plain).abs().mean() < 0.02 * plain.abs().mean()
    for row, value in zip(rows, before, strict=True):
        some = torch.tensor([n - 1, 0, 16])
        assert torch.equal(row.dequantized(torch.arange(n)), value)
        assert torch.equal(row.dequantized(some), value[some])


@torch.no_grad()
def test_a_decoders_bytes_have_a_scale_for_each_32_numbers(tmp_path: Path) -> None:
    """One number a thousand times as large as the rest costs its own group, and no other."""
    folder = tiny.decoder(tmp_path / "a")
    full = cutaway.AutoModelForCausalLM.from_pretrained(folder)
    full.transformer.h[0].mlp.c_proj.weight[5, :] *= 1000
    full.save_pretrained(tmp_path / "b")
    model = cutaway.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype="int8")
    weight, exact = model.transformer.h[0].mlp.c_proj.weight, full.transformer.h[0].mlp.c_proj.weight
    assert model.precision.name == "int8" and "Q8_0" in str(model.base_model.blocks[0].mlp.down.weight)
    assert ((weight - exact)[32:].abs() <= exact[32:].abs().max() / 250).all()


@pytest.mark.parametrize("how", [{"keep_weights": True}, {"dtype": "int4", "keep_weights": True}, {"keep_weights": 1}])
def test_keep_weights_where_nothing_is_dropped(how: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_weights is"):
        AutoModel.from_pretrained(tiny.classifier(tmp_path), **how)


@pytest.mark.parametrize("wrong", ["int3", "INT8 ", torch.int8, 5, ""])
def test_a_wrong_dtype_is_one_clear_error(wrong: Any, tmp_path: Path) -> None:
    folder = tiny.classifier(tmp_path)
    with pytest.raises(ConfigError, match=r"dtype is .* must be one of stored, auto, int4, int8, fastest, float32"):
        pipeline("text-classification", str(folder), dtype=wrong)


def test_bytes_of_the_built_in_model_are_those_of_its_file() -> None:
    """Its weights are stored as int8 rows; the bytes that are multiplied are these, not roundings of roundings."""
    from cutaway.checkpoint.checkpoint import quantize_rows
    from cutaway.checkpoint.safetensors import SafetensorsFile

    folder = Path(cutaway.__file__).parent / "builtin" / "sentiment"
    stored = SafetensorsFile(folder / "model.safetensors")
    model = AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment", dtype="int8")
    name = next(n for n in stored.names() if n.endswith("layer.0.intermediate.dense.weight"))
    values, scale = quantize_rows(model.base_model.blocks[0].mlp.up.weight)
    assert torch.equal(values, stored.read(name))
    torch.testing.assert_close(scale, stored.read(name + ".scale"))


def test_labels_of_the_built_in_model_stay() -> None:
    words = ("wonderful", "dull", "moving", "awful", "a masterpiece", "a mess", "fine", "bad", "funny", "tedious")
    texts = [f"{a} and {b}, but {c}." for a in words for b in words for c in words[:3]]
    full, narrow = (pipeline("text-classification", "cutaway/sentiment", dtype=d) for d in ("float32", "int8"))
    same = [a["label"] == b["label"] for a, b in zip(full(texts), narrow(texts), strict=True)]
    assert sum(same) >= 0.98 * len(texts)


MEASURED = {"fast and right": (2.0, 1.0, "int8"), "fast and wrong": (2.0, 0.97, ""), "right and slow": (1.05, 1.0, "")}


@pytest.mark.parametrize("case", MEASURED)
def test_fastest_says_what_it_chose(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    speedup, agreement, wanted = MEASURED[case]
    measure = precision._measure

    def as_if(models: list[Any], batch: Any) -> Any:
        _, answers = measure(models, batch)
        return [1.0, *[1.0 for _ in models[1:-1]], 1.0 / speedup], answers

    monkeypatch.setattr(precision, "_measure", as_if)
    monkeypatch.setattr(precision, "_agreement", lambda *_: agreement)
    folder = tiny.classifier(tmp_path)
    with caplog.at_level(logging.INFO, "cutaway"):
        pipe = pipeline("text-classification", str(folder), dtype="fastest")
    found = pipe.model.precision
    assert found.name == (wanted or "float32")
    assert Candidate("int8", speedup, agreement) in found.measured
    assert f"int8 {speedup:.2f} times as fast, {agreement:.1%} agreement" in found.why
    assert found.name in caplog.text and found.why in caplog.text
    assert any(m.int8 for m in pipe.model.modules() if type(m) is Linear) == (wanted == "int8")
    assert pipe("a good film")[0]["label"]


@pytest.mark.parametrize(
    "head",
    ["BertModel", "BertForTokenClassification", "BertForQuestionAnswering", "BertForMaskedLM", "BertForMultipleChoice"],
)
def test_fastest_measures_every_kind_of_answer(head: str, tmp_path: Path) -> None:
    labels = 2 if head == "BertForQuestionAnswering" else 3
    model = getattr(cutaway, head).from_pretrained(tiny.classifier(tmp_path, labels, head), dtype="fastest")
    if head == "BertForMultipleChoice":  # its input is another: it stays as it is, and says so
        assert model.precision.name == "float32" and "did not run" in model.precision.why
    else:
        found = {c.name: c.agreement for c in model.precision.measured}
        assert found["int8"] > 0.8


def test_fastest_for_models_that_write(tmp_path: Path) -> None:
    for kind, folder in (
        ("AutoModelForCausalLM", tiny.decoder(tmp_path / "a")),
        ("AutoModelForSeq2SeqLM", tiny.encoder_decoder(tmp_path / "b")),
    ):
        model = getattr(cutaway, kind).from_pretrained(folder, dtype="fastest")
        assert {c.name for c in model.precision.measured} >= {"int8"}
        assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False).shape[0] == 1


def test_fastest_without_a_tokenizer(tmp_path: Path) -> None:
    make("bert").save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path, dtype="fastest").precision.measured
