"""Runs a few models without one private name of torch, for each such name, and stores what comes out.

Called by test_torch_private.py in a process of its own: torch is imported once, then each run is a fork of it in which
`cutaway.nn.cpu.torch_private` finds a name missing. Nothing of torch itself is taken away, so what fails is ours.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MODULE = "cutaway.nn.cpu.torch_private"
ALL = "*"
# what takes long to import and asks for none of these names
BEFORE = (
    "numpy",
    "huggingface_hub",
    "tokenizers",
    "safetensors.torch",
    "jinja2",
    "cutaway.config.config",
    "cutaway.checkpoint.checkpoint",
)


def import_without(missing: str) -> set[str]:
    """Import the file of private names as if torch had none called `missing`, or none at all (ALL).

    Gives the names that it asked for. It finds this `getattr` before the built-in one.
    """
    asked: set[str] = set()

    def seen(owner: Any, name: str, *otherwise: Any) -> Any:
        asked.add(name)
        return otherwise[0] if otherwise and missing in (name, ALL) else builtins.getattr(owner, name, *otherwise)

    spec = importlib.util.find_spec(MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["getattr"] = seen
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return asked


def core() -> dict[str, Tensor]:
    """What a forward, a generation, a training step, a recording and function transforms give, by name."""
    from cutaway import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM
    from cutaway.models.precision import enable_int8
    from cutaway.nn.linear import Linear
    from cutaway.nn.norm_mlp import LayerNorm
    from cutaway.train.ema import EMA

    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=256, num_labels=3, **still)).eval()
    ids = torch.randint(5, 60, (8, 40))
    mask = torch.ones_like(ids)
    mask[3, 17:] = 0
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        found["encoder"] = encoder(ids, attention_mask=mask).logits
        with encoder.record("blocks.1.attn.pattern", "blocks.0.mlp.act") as record:
            found["recorded run"] = encoder(ids[:2]).logits
        found["pattern"], found["act"] = record["blocks.1.attn.pattern"], record["blocks.0.mlp.act"]
    with torch.no_grad():  # what was packed must follow the weight
        encoder.base.blocks[0].mlp.up.weight.mul_(1.5)
        found["changed weight"] = encoder(ids).logits
    encoder.train()
    average = EMA(encoder, 0.9)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    found["loss"] = encoder(ids, attention_mask=mask, labels=torch.arange(8) % 3).loss
    found["loss"].backward()
    optimizer.step()
    average.update()
    found["learned"] = encoder.base.blocks[0].mlp.up.weight.detach().clone()
    found["average"] = torch.cat([value.flatten() for _, value in sorted(average.held.items())])
    encoder.eval()
    with torch.inference_mode():
        for dtype in ("bfloat16", "int8"):
            if dtype == "bfloat16":
                other = BertForSequenceClassification(encoder.config).eval()
                other.load_state_dict(encoder.state_dict())
                found[dtype] = other.bfloat16()(ids).logits.float()
            else:
                enable_int8(encoder)
                found[dtype] = encoder(ids).logits
        decoder = LlamaForCausalLM(
            LlamaConfig(**sizes, intermediate_size=96, num_key_value_heads=1, max_position_embeddings=128)
        ).eval()
        told = decoder.generate(ids[:3, :9], max_new_tokens=12, do_sample=False, eos_token_id=[], pad_token_id=0)
        found["written"] = told
        found["decoder"] = decoder(told).logits
    layer, norm, x = Linear(64, 32).eval(), LayerNorm(64).eval(), torch.randn(5, 64)

    def twice(x: Tensor) -> Tensor:
        return layer(norm(x))

    with torch.no_grad():
        twice(x)  # packed by now
        found["vmap"] = torch.func.vmap(twice)(x)
        found["jvp"] = torch.func.jvp(twice, (x,), (torch.ones_like(x),))[1]
        found["jacobian"] = torch.func.jacrev(twice)(x[0])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        found["dual"] = torch.autograd.forward_ad.unpack_dual(twice(dual)).tangent
    return {name: value.detach().clone() for name, value in found.items()}


def in_a_fork(missing: str, folder: Path) -> list[str]:
    """Run the core without a name, into "NAME.pt"; gives the names that were asked for."""
    said = folder / "asked.json"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asked = import_without(missing)
            with_kernels = core()
            from cutaway import native

            native.LIBRARY, native.BF16 = None, False
            torch.save({"kernels": with_kernels, "torch": core()}, folder / f"{missing or 'nothing'}.pt")
            said.write_text(json.dumps(sorted(asked)))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"the core does not run without {missing!r}")
    return list(json.loads(said.read_text()))


def main(folder: Path) -> None:
    for name in BEFORE:
        importlib.import_module(name)
    torch.set_num_threads(1)
    one = torch.ones(1)
    torch.func.vmap(torch.sin)(one), torch.func.jvp(torch.sin, (one,), (one,))  # torch imports what they need only now
    torch.func.jacrev(torch.sin)(one), torch.optim.SGD([one], lr=0.1)
    parts = {"_C", "_functorch", "_python_dispatch", "binary", "default"}  # only on the way to a name
    for name in [*(name for name in in_a_fork("", folder) if name not in parts), ALL]:
        in_a_fork(name, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
