"""Pairs of an encoder and a decoder, of one family and of two, against transformers."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity.pairs import TOLERANCE, gap, gaps, inputs, padded, texts
from parity.tiny_models import CONFIGS
from torch import Tensor

import cutaway
from cutaway import native
from cutaway.errors import CheckpointError, ConfigError, InputError
from cutaway.models.decode_step import DecodeStepper
from cutaway.nn import packed_batch

NARROW = {"n_embd": 16, "n_head": 2}  # another width than the encoder's
PAIRS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert-bert": ("bert", "bert", {}),
    "bert-gpt2": ("bert", "gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "distilbert-gpt2, projected": ("distilbert", "gpt2", NARROW),
    "roberta-roberta": ("roberta", "roberta", {}),
    "xlm-roberta-camembert": ("xlm-roberta", "camembert", {}),
    "electra-electra": ("electra", "electra", {}),
    "bert-gpt2, one layer": ("bert", "gpt2", {"n_layer": 1}),
}
PAD, START, END = 1, 3, 2
ALL = {"output_attentions": True, "output_hidden_states": True}
LENGTHS = (9, 4, 7, 4)


def config_of(family: str, **fields: Any) -> Any:
    first, config = CONFIGS[family]
    return getattr(transformers, f"{first}Config")(**{**config, "pad_token_id": PAD, **fields})


@functools.cache
def published(name: str) -> Any:
    encoder, decoder, fields = PAIRS[name]
    torch.manual_seed(0)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        config_of(encoder),
        config_of(decoder, **fields),
        pad_token_id=PAD,
        decoder_start_token_id=START,
        eos_token_id=END,
    )
    theirs = transformers.EncoderDecoderModel(config)
    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(3.0).add_(torch.randn_like(p) * 0.05) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
    theirs.set_attn_implementation("eager")
    return theirs.eval()


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    theirs = published(request.param)
    theirs.save_pretrained(tmp_path)
    return theirs, cutaway.EncoderDecoderModel.from_pretrained(tmp_path)


every = pytest.mark.parametrize("pair", PAIRS, indirect=True)
three = pytest.mark.parametrize("pair", list(PAIRS)[:3], indirect=True)


def run(model: Any, given: dict[str, Tensor], **asked: Any) -> Any:
    with torch.no_grad():
        return model(**given, **asked)


@every
@pytest.mark.parametrize("lengths", [(9, 9, 9), LENGTHS], ids=["unpadded", "right-padded"])
@pytest.mark.parametrize("small", [0, 128], ids=["packed", "small"])
def test_every_layer_equals_transformers(
    pair: tuple[Any, Any], lengths: tuple[int, ...], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", small)
    theirs, ours = pair
    given = inputs("bart", lengths, pad=PAD)
    found = gaps(run(ours, given, **ALL), run(theirs, given, **ALL), given)
    assert len(found) >= 11
    assert max(found.values()) < TOLERANCE, found


@every
def test_left_padding_equals_each_text_alone(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    given = inputs("bart", LENGTHS, "left", PAD)
    batch = run(ours, given)
    for b in range(len(LENGTHS)):
        real, says = given["attention_mask"][b].bool(), given["decoder_attention_mask"][b].bool()
        alone = {
            "input_ids": given["input_ids"][b][real][None],
            "decoder_input_ids": given["decoder_input_ids"][b][says][None],
        }
        wanted = run(theirs, alone)
        assert gap(batch.logits[b][says], wanted.logits[0]) < TOLERANCE
        assert gap(batch.encoder_last_hidden_state[b][real], wanted.encoder_last_hidden_state[0]) < TOLERANCE


@every
def test_loss_equals_transformers_and_its_gradients_too(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    given = inputs("bart", LENGTHS, pad=PAD)
    labels = given.pop("decoder_input_ids").masked_fill(given.pop("decoder_attention_mask") == 0, -100)
    losses = []
    for model in pair:
        model.zero_grad()
        with pytest.warns(FutureWarning) if model is theirs else contextlib.nullcontext():
            losses.append(model(**given, labels=labels).loss)
        losses[-1].backward()
    assert gap(losses[1][None], losses[0][None]) < TOLERANCE
    wanted = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert {name for name, p in ours.named_parameters() if p.grad is not None} == set(wanted)
    for name, p in ours.named_parameters():
        if name in wanted:
            assert float((p.grad - wanted[name]).abs().max()) < 1e-4 * max(1.0, float(wanted[name].abs().max())), name
    alone = ours(**given, labels=labels, return_logits=False).loss
    assert torch.allclose(alone, losses[1], rtol=1e-6)


@every
@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"use_cache": False}, {"num_beams": 2, "num_return_sequences": 2}], ids=str
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_generated_tokens_are_the_same(pair: tuple[Any, Any], settings: dict[str, Any], side: str) -> None:
    theirs, ours = pair
    ids, mask = padded(texts(LENGTHS), "right", PAD)
    mine = dict(zip(("input_ids", "attention_mask"), padded(texts(LENGTHS), side, PAD), strict=True))
    asked = {"max_new_tokens": 9, "do_sample": False, **settings}
    assert torch.equal(ours.generate(**mine, **asked), theirs.generate(ids, attention_mask=mask, **asked))


@three
def test_folders_are_read_both_ways(pair: tuple[Any, Any], tmp_path: Path) -> None:
    theirs, ours = pair
    ours.save_pretrained(tmp_path / "again")
    back, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    state = theirs.state_dict()
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in state.items())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    again = cutaway.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again")
    given = inputs("bart", LENGTHS, pad=PAD)
    assert torch.equal(run(again, given).logits, run(ours, given).logits)
    assert isinstance(again, cutaway.EncoderDecoderModel) and again.config == ours.config


@every
def test_looking_changes_no_bit_and_reaches_every_address(pair: tuple[Any, Any]) -> None:
    _, ours = pair
    given = inputs("bart", LENGTHS, "left", PAD)
    plain = run(ours, given)
    with torch.no_grad(), ours.record(*ours.addresses()) as recorder:
        recorded = ours(**given)
    assert set(recorder) == set(ours.addresses())
    assert torch.equal(plain.logits, recorded.logits) and torch.equal(recorder["logits"], plain.logits)
    asked = run(ours, given, **ALL)
    assert torch.equal(asked.cross_attentions[0], recorder["decoder.blocks.0.cross.pattern"])
    assert torch.equal(asked.encoder_hidden_states[1], recorder["encoder.blocks.0.resid"])


@pytest.mark.parametrize("pair", ["bert-gpt2"], indirect=True)
def test_edits_reach_both_sides_and_a_part_alone_keeps_its_own_addresses(pair: tuple[Any, Any]) -> None:
    _, ours = pair
    given = inputs("bart", (5, 5), pad=PAD)
    plain = run(ours, given).logits
    for address in ("encoder.blocks.1.resid", "decoder.blocks.0.cross.out", "logits"):
        with ours.edit({address: 0.0}):
            assert not torch.equal(run(ours, given).logits, plain), address
    with ours.encoder.record("blocks.0.resid") as recorder:
        ours.encoder(given["input_ids"])
    assert recorder["blocks.0.resid"].shape == (2, 5, 32)
    with ours.encoder.record("blocks.0.resid"), pytest.raises(InputError, match=r"begin with 'encoder\.'"):
        ours(**given)
    assert torch.equal(run(ours, given).logits, plain)


@pytest.mark.parametrize("pair", ["bert-bert"], indirect=True)
def test_hooks_on_both_sides_run(pair: tuple[Any, Any]) -> None:
    _, ours = pair
    seen = []
    for name in ("encoder", "decoder", "decoder.bert"):
        ours.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    run(ours, inputs("bart", (5, 5), pad=PAD))
    assert seen == ["encoder", "decoder.bert", "decoder"]


@pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine")
@pytest.mark.parametrize("pair", ["bert-gpt2, one layer"], indirect=True)
def test_decoding_takes_single_steps(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first pass the whole model is called no more."""
    _, ours = pair
    steps: list[Any] = []
    monkeypatch.setattr(DecodeStepper, "__call__", _counted(steps, DecodeStepper.__call__))
    passes: list[Any] = []
    monkeypatch.setattr(
        cutaway.models.lm_heads.CausalLM, "answer", _counted(passes, cutaway.models.lm_heads.CausalLM.answer)
    )
    ids, mask = padded(texts(LENGTHS), "right", PAD)
    ours.generate(ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert len(passes) == 1 and len(steps) == 5


def _counted(passes: list[Any], function: Any) -> Any:
    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return function(*args, **kwargs)

    return counted


def test_two_checkpoints_become_a_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    encoder = transformers.BertModel(config_of("bert")).eval()
    decoder = transformers.GPT2LMHeadModel(config_of("gpt2")).eval()
    encoder.save_pretrained(tmp_path / "encoder")
    decoder.save_pretrained(tmp_path / "decoder")
    ours = cutaway.EncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path / "encoder", tmp_path / "decoder", decoder_start_token_id=START, pad_token_id=PAD
    )
    assert "crossattention.c_attn" in caplog.text and "drawn at random" in caplog.text
    assert torch.equal(ours.encoder.state_dict()["pooler.dense.weight"], encoder.state_dict()["pooler.dense.weight"])
    assert torch.equal(ours.decoder.transformer.wte.weight, decoder.transformer.wte.weight)
    assert ours.config.decoder.add_cross_attention and not ours.config.encoder.add_cross_attention
    assert ours.decoder.config is ours.config.decoder and not ours.training
    ours.save_pretrained(tmp_path / "pair")
    theirs = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "pair").eval()
    given = inputs("bart", LENGTHS, pad=PAD)
    assert max(gaps(run(ours, given), run(theirs, given), given).values()) < TOLERANCE


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2"])
def test_a_decoder_alone_looks_at_what_it_is_given(family: str, tmp_path: Path) -> None:
    ending = "LMHeadModel" if family in ("bert", "gpt2") else "ForCausalLM"
    torch.manual_seed(0)
    config = config_of(family, is_decoder=True, add_cross_attention=True)
    name = f"{CONFIGS[family][0]}{ending}"
    theirs = getattr(transformers, name)(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = getattr(cutaway, name).from_pretrained(tmp_path)
    ids, mask = padded(texts((5, 3), seed=4), "right", PAD)
    states, seen = torch.randn(2, 6, 32), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    given = {"input_ids": ids, "attention_mask": mask}
    crossed = {**given, "encoder_hidden_states": states, "encoder_attention_mask": seen}
    for asked in (given, crossed):
        mine, wanted = run(ours, asked), run(theirs, asked)
        for b in range(2):
            n = int(mask[b].sum())
            assert gap(mine.logits[b, :n], wanted.logits[b, :n]) < TOLERANCE
    assert run(ours, crossed, output_attentions=True).cross_attentions[0].shape == (2, 4, 5, 6)
    assert run(ours, given, output_attentions=True).get("cross_attentions") is None


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    bert, llama = config_of("bert"), config_of("llama")
    with pytest.raises(ConfigError, match="add_cross_attention"):
        cutaway.BertModel(cutaway.BertConfig(**{**CONFIGS["bert"][1], "add_cross_attention": True}))
    plain = cutaway.BertModel(cutaway.BertConfig(**CONFIGS["bert"][1])).eval()
    with pytest.raises(InputError, match="no cross-attention"):
        plain(torch.tensor([[5]]), encoder_hidden_states=torch.zeros(1, 1, 32))
    with pytest.raises(ConfigError, match="add_cross_attention is True"):
        cutaway.EncoderDecoderModel(
            cutaway.EncoderDecoderConfig.from_encoder_decoder_configs(
                cutaway.BertConfig.from_dict(bert.to_dict()), cutaway.LlamaConfig.from_dict(llama.to_dict())
            )
        )
    with pytest.raises(ConfigError, match="needs the configurations of both sides"):
        cutaway.EncoderDecoderModel(cutaway.EncoderDecoderConfig(encoder=bert.to_dict()))
    with pytest.raises(ConfigError, match="needs config="):
        cutaway.EncoderDecoderModel()
    with pytest.raises(ConfigError, match="model_type is None"):
        cutaway.EncoderDecoderConfig(encoder={})
    with pytest.raises(ConfigError, match="cannot be the encoder"):
        cutaway.EncoderDecoderModel(encoder=cutaway.BertForMaskedLM(plain.config), decoder=plain)
    ours = cutaway.EncoderDecoderModel.from_encoder_decoder_pretrained(
        encoder_model=plain,
        decoder_model=cutaway.GPT2LMHeadModel(cutaway.GPT2Config(**CONFIGS["gpt2"][1], add_cross_attention=True)),
        pad_token_id=PAD, decoder_start_token_id=START,
    )  # fmt: skip
    with pytest.raises(InputError, match=re.escape("model.encoder.resize_token_embeddings")):
        ours.resize_token_embeddings(120)
    with pytest.raises(InputError, match="decoder_input_ids is missing"):
        ours(torch.tensor([[5, 6]]))
    ours.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["encoder"]["num_hidden_layers"] = 9
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="holds 3 such blocks"):
        cutaway.EncoderDecoderModel.from_pretrained(tmp_path)
