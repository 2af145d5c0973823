"""`cutaway bench`: figures for encoders and decoders, formats that fail, texts of one's own."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from cutaway import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, cli
from cutaway.errors import CutawayError, InputError
from cutaway.evaluate import speed


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("decoder"))
    torch.manual_seed(0)
    letters = GPT2Tokenizer(vocab={c: i for i, c in enumerate(["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyzA.Ġ"])})
    sizes = {"vocab_size": 30, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    letters.save_pretrained(folder)
    return folder


def test_an_encoder_in_two_formats():
    plain, half = speed.measure("cutaway/sentiment", ["float32", "bfloat16"], speed.sentences(4), rounds=1)
    assert plain.agreement == pytest.approx(1, abs=1e-5)
    assert half.agreement > 0.99
    assert all(value > 0 for value in (plain.load_seconds, plain.p50_ms, plain.p99_ms, plain.tokens_per_second))
    assert plain.p50_ms <= plain.p99_ms


def test_a_decoder_and_a_format_that_is_none(decoder):
    plain, none = speed.measure(decoder, ["float32", "float3"], ["abc abc"], rounds=1)
    assert plain.agreement == 1
    assert plain.tokens_per_second > 0
    assert "float3" in none.error
    with pytest.raises(CutawayError, match="float3"):
        speed.measure(decoder, ["float3"], ["abc"], rounds=1)
    with pytest.raises(InputError, match="no text"):
        speed.measure(decoder, ["float32"], [], rounds=1)


def test_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.csv").write_text("id,body\n1,Good.\n2,A long dull film.\n")
    arguments = ["-i", str(tmp_path / "texts.csv"), "--column", "body", "--dtype", "float32", "--rounds", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["cutaway", "bench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["texts"] == 2
    assert found["figures"][0]["tokens_per_second"] > 0
