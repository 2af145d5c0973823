"""A model of a GGUF file on the file's own blocks, beside the same model dequantized."""

import copy
import logging

import gguf
import numpy as np
import pytest
import torch

import cutaway
from cutaway import AutoModelForCausalLM, Trainer, TrainingArguments
from cutaway.errors import ConfigError
from cutaway.nn.cpu.block_weight import BlockWeight
from tests.checkpoint.test_gguf import HIDDEN, VOCAB, write

IDS = torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))


def both(folder, **how):
    in_place, plain = (
        AutoModelForCausalLM.from_pretrained(folder, gguf_file="tiny.gguf", **how, dtype=dtype)
        for dtype in (None, "float32")
    )
    return in_place, plain


def lora(model):
    model.add_adapter(cutaway.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantized", [True, False])
def test_the_blocks_stay_the_files_and_answer_as_the_numbers_do(tmp_path, tied, quantized):
    write(tmp_path / "tiny.gguf", tied=tied, quantized=quantized)
    in_place, plain = both(tmp_path)
    for (name, ours), (_, theirs) in zip(in_place.named_parameters(), plain.named_parameters(), strict=True):
        assert isinstance(ours, BlockWeight) == (theirs.dim() == 2), name
        assert torch.equal(ours + 0, theirs), name
    assert in_place.get_memory_footprint() < plain.get_memory_footprint() * (0.4 if quantized else 0.6)
    with torch.no_grad():
        want, got = plain(IDS).logits, in_place(IDS).logits
    near = (got - want).abs().mean() / want.abs().mean()
    # the weights are as large as the numbers: what rounding to bytes changes grows from block to block
    assert near < (0.1 if quantized else 1e-4)
    with torch.no_grad():
        past = in_place(IDS[:, :-1], use_cache=True).past_key_values
        last = in_place(IDS[:, -1:], past_key_values=past).logits
    assert (last[:, 0] - want[:, -1]).abs().mean() < (0.1 if quantized else 1e-4) * want.abs().mean()
    assert in_place.generate(IDS, max_new_tokens=8, min_new_tokens=8).shape == (2, 17)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", torch.float32])
def test_any_dtype_that_is_asked_for_dequantizes(tmp_path, dtype):
    write(tmp_path / "tiny.gguf")
    keep = {"keep_weights": True} if dtype == "int8" else {}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=dtype, **keep)
    assert not any(isinstance(p, BlockWeight) for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert model(IDS).logits.isfinite().all()


def test_state_saving_and_recording_see_numbers(tmp_path):
    write(tmp_path / "tiny.gguf")
    in_place, plain = both(tmp_path)
    theirs = plain.state_dict()
    for name, value in in_place.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    in_place.save_pretrained(tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for name, value in saved.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    with in_place.record("blocks.0.attn.head.1.out", "blocks.1.mlp.out") as recorded:
        before = in_place(IDS).logits
    assert recorded["blocks.1.mlp.out"].shape == (2, 9, HIDDEN)
    torch.testing.assert_close(in_place(IDS).logits, before)
    assert str(in_place)
    halves = in_place.bfloat16()
    assert {p.dtype for p in halves.parameters()} == {torch.bfloat16}


def test_an_adapter_trains_on_the_blocks_and_they_do_not(tmp_path):
    write(tmp_path / "tiny.gguf")
    in_place, plain = both(tmp_path)
    with pytest.raises(ConfigError, match='dtype="float32"'):
        in_place.get_input_embeddings().weight.requires_grad_(True)
    arguments = TrainingArguments(str(tmp_path / "out"), max_steps=1, report_to="none", save_strategy="no")
    rows = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in IDS]
    with pytest.raises(ConfigError, match='dtype="float32"'):
        Trainer(in_place, arguments, train_dataset=rows).train()
    gradients = []
    for model in (in_place, plain):
        torch.manual_seed(0)
        lora(model)
        model.train()
        model(IDS, labels=IDS).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    last = "blocks.1.mlp.down.lora_B"  # after it nothing of large weights is left to be rounded
    ours, theirs = (next(g for name, g in found.items() if name.endswith(last)) for found in gradients)
    assert (ours - theirs).norm() <= 0.2 * theirs.norm()
    Trainer(in_place, arguments, train_dataset=rows).train()
    assert isinstance(in_place.get_input_embeddings().weight, BlockWeight)


def test_a_type_that_is_not_read_in_place_is_said_once(tmp_path, caplog):
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "gpt2")
    for key, value in (
        ("context_length", 16),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("block_count", 1),
    ):
        getattr(writer, f"add_{key}")(value)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    rng = np.random.default_rng(0)

    def add(name, *shape, kind=None):
        data = rng.standard_normal(shape).astype(np.float32)
        if kind is None:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)

    four = gguf.GGMLQuantizationType.Q4_1
    add("token_embd.weight", 24, 32, kind=gguf.GGMLQuantizationType.Q8_0)
    add("position_embd.weight", 16, 32)
    for name, n, k in (("attn_qkv", 96, 32), ("attn_output", 32, 32), ("ffn_up", 64, 32), ("ffn_down", 32, 64)):
        add(f"blk.0.{name}.weight", n, k, kind=four)
        add(f"blk.0.{name}.bias", n)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        add(f"{name}.weight", 32)
        add(f"{name}.bias", 32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with caplog.at_level(logging.WARNING, logger="cutaway"):
        in_place, plain = both(tmp_path)
    assert "read in place" not in caplog.text
    ids = IDS % 24
    # the parts of a joined matrix, published transposed, are rows of one in the file
    weights = dict(in_place.named_parameters())
    assert sum(isinstance(p, BlockWeight) for p in weights.values()) >= 6
    for name, value in plain.named_parameters():
        whole = in_place.state_dict()[name]  # its parts lie in blocks of their own
        assert torch.equal(whole + 0, value), name
    want, got = plain(ids).logits, in_place(ids).logits
    assert (got - want).abs().mean() < 0.03 * want.abs().mean()


def test_the_best_epoch_is_restored_and_files_hold_plain_tensors(tmp_path):
    write(tmp_path / "tiny.gguf")
    model = both(tmp_path)[0]
    lora(model)
    with torch.no_grad():
        before = model(IDS).logits
    best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    stored = torch.load(tmp_path / "state.pt")  # weights_only, which is torch's default
    assert all(type(value) is torch.Tensor for value in stored.values())
    model.load_state_dict(stored)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, before)
    name = next(name for name, p in model.named_parameters() if isinstance(p, BlockWeight))
    with pytest.raises(RuntimeError, match="blocks"):
        model.load_state_dict({**stored, name: stored[name] + 1})


@pytest.mark.parametrize("init", ["normal_", "uniform_", "kaiming_uniform_", "zeros_", "xavier_normal_"])
def test_no_initialization_goes_by_unsaid(tmp_path, init):
    write(tmp_path / "tiny.gguf")
    weight = both(tmp_path)[0].get_output_embeddings().weight
    with pytest.raises(ConfigError, match="blocks"):
        getattr(torch.nn.init, init)(weight)


def test_adapters_train_under_autocast_as_on_the_numbers(tmp_path):
    write(tmp_path / "tiny.gguf")
    gradients = []
    for model in both(tmp_path):
        torch.manual_seed(0)
        lora(model)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(IDS, labels=IDS).loss
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, atol=2e-2, rtol=2e-2)


def test_gradients_of_torch_func_are_refused_in_words(tmp_path):
    write(tmp_path / "tiny.gguf")
    layer = both(tmp_path)[0].base.blocks[0].mlp.up
    with pytest.raises(ConfigError, match="float32"):
        torch.func.grad(lambda y: layer(y).square().sum())(torch.randn(3, HIDDEN))
