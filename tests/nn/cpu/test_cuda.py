"""On a GPU: the same numbers as on the processor, whatever the padding; the same text, and what is recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import gap, padded, pair, texts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
MODELS = [("bert", "Model"), ("modernbert", "Model"), ("llama", "ForCausalLM"), ("t5", "ForConditionalGeneration")]


def outputs(ours: Any, ids: torch.Tensor, mask: torch.Tensor, device: str) -> torch.Tensor:
    ours.to(device)
    given = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    if ours.is_encoder_decoder:
        given["decoder_input_ids"] = ids[:, :3].to(device)
    found: torch.Tensor = ours(**given)[0]
    assert found.device.type == device
    return found.cpu()


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("family", "ending"), MODELS)
def test_numbers(family: str, ending: str, side: str) -> None:
    ours = pair(family, ending)[1]
    ids, mask = padded(texts((9, 3, 6)), side, 0)
    real = slice(None) if ours.is_encoder_decoder else mask.bool()
    here, there = (outputs(ours, ids, mask, device)[real] for device in ("cpu", "cuda"))
    assert gap(there, here) < 1e-4
    ours.bfloat16()
    assert gap(outputs(ours, ids, mask, "cuda")[real].float(), here) < 0.05


@pytest.mark.parametrize(("family", "ending"), MODELS[2:])
def test_text_and_recording(family: str, ending: str) -> None:
    ours = pair(family, ending)[1]
    ids, mask = padded(texts((7, 4)), "left", 0)
    asked = {"max_new_tokens": 8, "eos_token_id": []}
    wanted = ours.generate(ids, mask, **asked)
    ours.to("cuda")
    address = "decoder.blocks.*.attn.pattern" if ours.is_encoder_decoder else "blocks.*.attn.pattern"
    with ours.record(address) as seen:
        found = ours.generate(ids.cuda(), mask.cuda(), **asked)
    assert torch.equal(found.cpu(), wanted)
    assert len(seen.runs) == 8
