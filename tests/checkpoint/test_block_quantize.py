"""Matrices in 4 bits: as the gguf package reads them, within half a scale, on any checkpoint."""

import gguf
import pytest
import tiny
import torch

from cutaway import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, pipeline
from cutaway.checkpoint import block_quantize
from cutaway.checkpoint.block_quantize import TYPES, four_bits, quantize
from cutaway.errors import CheckpointError, ConfigError
from cutaway.nn.cpu.block_weight import BlockWeight


def test_the_error_is_half_a_scale_and_the_gguf_package_reads_the_same():
    torch.manual_seed(0)
    weight = torch.randn(33, 96) * torch.rand(33, 1) * 3
    weight[3] = 0.25
    blocks = four_bits(weight)
    found = BlockWeight(blocks).dequantize()
    groups = weight.unflatten(1, (-1, 32))
    span = groups.amax(2) - groups.amin(2)
    error = (found - weight).abs().unflatten(1, (-1, 32)).amax(2)
    assert (error <= span / 30 * 1.01 + weight.abs().amax() * 2**-10).all()
    theirs = gguf.quants.dequantize(blocks.data.numpy(), gguf.GGMLQuantizationType.Q4_1)
    torch.testing.assert_close(found, torch.from_numpy(theirs))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 70000.0])
def test_numbers_without_a_place_are_refused(bad):
    weight = torch.zeros(4, 64)
    weight[2, 40] = bad
    with pytest.raises(CheckpointError, match="4 bits"):
        four_bits(weight)


def test_any_checkpoint_loads_in_four_bits_and_keeps_no_floats(tmp_path):
    folder = tiny.classifier(tmp_path / "bert")
    plain, four = (
        AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype) for dtype in ("float32", "int4")
    )
    assert four.precision.name == "int4"
    kinds = {name: isinstance(p, BlockWeight) for name, p in four.named_parameters()}
    # rows of 48 numbers are no groups of 32: such a layer stays as it is
    assert sum(kinds.values()) == 5 * four.config.num_hidden_layers + 2  # the pooler and the table of words
    assert not any(kinds[name] for name in kinds if "position" in name or "classifier" in name or "norm" in name)
    for (name, ours), (_, theirs) in zip(four.named_parameters(), plain.named_parameters(), strict=True):
        assert (ours - theirs).abs().amax() <= (theirs.amax() - theirs.amin()) / 29, name
    assert four(torch.randint(5, 40, (3, 12))).logits.isfinite().all()
    assert four.get_memory_footprint() < plain.get_memory_footprint() * 0.6


def test_the_built_in_model_says_the_same_in_four_bits():
    texts = ["A quiet, wonderful film.", "Two hours that I will not get back.", "I laughed twice.", "Dull and loud."]
    plain, four = (pipeline("sentiment-analysis", "cutaway/sentiment", dtype=dtype) for dtype in ("float32", "int4"))
    assert [a["label"] for a in plain(texts)] == [b["label"] for b in four(texts)]


def test_a_model_that_has_nothing_to_hold_in_four_bits_is_refused(tmp_path):
    config = BertConfig(vocab_size=40, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="multiple of 32"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype="int4")


@pytest.mark.parametrize("name", sorted(TYPES))
def test_each_format_is_read_as_the_gguf_package_reads_it_and_lies_within_its_step(name):
    """The largest error of a number is at most half the distance of two neighbours, and a rounded scale's share."""
    torch.manual_seed(1)
    weight = torch.randn(9, 512) * torch.rand(9, 1) + 0.1
    weight[2], weight[3] = 0.0, 0.5
    weight[4] = weight[4].abs()
    weight[5] = -weight[5].abs()
    blocks = quantize(weight, name)
    kind = gguf.GGMLQuantizationType[name]
    data = blocks.data.numpy()
    theirs = data.view("f4") if name == "F32" else gguf.quants.dequantize(data, kind)
    theirs = torch.from_numpy(theirs.copy()).reshape(weight.shape)
    torch.testing.assert_close(BlockWeight(blocks).dequantize(), theirs)
    span = (weight.amax(1) - weight.amin(1).clamp_max(0)).clamp_min(1e-6)
    bits = {"F32": 24, "F16": 11, "BF16": 7}.get(name) or int(name[1])
    rms = (theirs - weight).square().mean(1).sqrt()
    assert (rms <= span / 2**bits / 2).all()
    assert theirs[2].abs().max() == 0


@pytest.mark.parametrize(("name", "plain"), [("Q4_K", "Q4_0"), ("Q5_K", "Q5_0"), ("Q6_K", "Q5_1")])
def test_scales_of_least_squares_are_nearer_than_plain_ones(name, plain):
    torch.manual_seed(2)
    weight = torch.randn(64, 512)
    rows = torch.arange(64)
    errors = [(quantize(weight, n).dequantized(rows) - weight).square().mean() for n in (name, plain)]
    assert errors[0] < errors[1]


def test_rows_in_parts_are_the_same_as_at_once(monkeypatch):
    weight = torch.randn(7, 512)
    whole = quantize(weight, "Q4_K").data
    monkeypatch.setattr(block_quantize, "ROWS", 1024)
    assert torch.equal(quantize(weight, "Q4_K").data, whole)


def test_rows_that_are_no_whole_blocks_and_numbers_without_a_place_are_refused():
    with pytest.raises(CheckpointError, match="blocks of 256"):
        quantize(torch.zeros(2, 96), "Q6_K")
    with pytest.raises(CheckpointError, match="Q8_0"):
        quantize(torch.full((2, 32), torch.inf), "Q8_0")
