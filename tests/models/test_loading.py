"""What a load costs, what it says, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity.tiny_models import make
from safetensors.torch import save_file

import cutaway
from cutaway.errors import ConfigError
from cutaway.models.loading import to_dtype

MEASURE = """
import resource, sys

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

import torch, safetensors.torch
import cutaway
from cutaway import {name}
torch.set_num_threads(1)
torch.randn(64, 64) @ torch.randn(64, 64)
imports = peak()
model = {name}.from_pretrained(sys.argv[1])
model.num_parameters()
loaded = peak()
{after}
print(imports, loaded, peak())
"""
RUN = """
with torch.no_grad():
    model(torch.arange(12)[None], output_attentions=[1])
"""


BERT = {"hidden_size": 1024, "num_hidden_layers": 5, "num_attention_heads": 8, "intermediate_size": 4096}


@pytest.mark.parametrize(
    ("name", "fields", "after"),
    [
        ("GPT2LMHeadModel", {"n_embd": 1024, "n_layer": 5, "n_head": 8}, ""),
        ("BertForSequenceClassification", BERT, ""),
        ("BertForSequenceClassification", BERT, RUN),
    ],
    ids=["gpt2", "bert", "bert-run"],
)
def test_peak_memory(name: str, fields: dict[str, int], after: str, tmp_path: Path) -> None:
    """At most what the imports take and 1.15 times the file, also after a first run, which packs the weights."""
    config = getattr(cutaway, f"{name.partition('LMHead')[0].partition('For')[0]}Config")(
        **{"vocab_size": 4000, **fields}
    )
    with torch.device("meta"):
        model = getattr(cutaway, name)(config)
    config.architectures = [name]
    config.save_pretrained(tmp_path)
    from cutaway.models.state_dict import published_state

    state = published_state(model)
    torch.manual_seed(0)
    save_file(
        {key: torch.randn(value.shape) * 0.02 for key, value in state.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    size = (tmp_path / "model.safetensors").stat().st_size / 2**20
    assert 200 < size < 300
    script = MEASURE.format(name=name, after=after)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    imports, loaded, run = map(float, done.stdout.split())
    assert loaded < imports + 1.15 * size, (imports, loaded, size)
    assert run < imports + 1.15 * size + 60, (imports, run, size)


def test_what_a_dtype_may_be() -> None:
    assert to_dtype("bf16") == to_dtype("torch.bfloat16") == torch.bfloat16
    assert to_dtype(None) is None and to_dtype("stored") is None
    for wrong in ("int3", torch.int8, 5):
        with pytest.raises(ConfigError, match="dtype"):
            to_dtype(wrong)


def test_what_from_pretrained_refuses(tmp_path: Path) -> None:
    make("bert").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"hidden_size|argument"):
        cutaway.BertModel.from_pretrained(tmp_path, hiden_size=3)
    with pytest.raises(ConfigError, match="AutoModel"):
        cutaway.GPT2Model.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="name or a folder"):
        cutaway.BertModel.from_pretrained({"a": 1})
    with pytest.raises(ConfigError, match="PretrainedConfig"):
        cutaway.BertModel.from_pretrained(tmp_path, config=object())
    with pytest.raises(ConfigError, match="push_to_hub"):
        cutaway.BertModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "x", push_to_hub=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        cutaway.BertModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "file")


def test_fields_may_be_overridden(tmp_path: Path) -> None:
    make("bert", "ForSequenceClassification").save_pretrained(tmp_path)
    model = cutaway.BertForSequenceClassification.from_pretrained(
        tmp_path, output_attentions=[1], id2label={0: "no", 1: "yes"}, use_safetensors=True
    )
    assert model.config.id2label == {0: "no", 1: "yes"} and model.config.label2id == {"no": 0, "yes": 1}
    out = model(torch.tensor([[5, 6, 7]]))
    assert list(out.attentions) == [1]
    model.save_pretrained(tmp_path / "again")
    fields = json.loads((tmp_path / "again" / "config.json").read_text())
    assert fields["architectures"] == ["BertForSequenceClassification"] and fields["id2label"] == {
        "0": "no",
        "1": "yes",
    }
