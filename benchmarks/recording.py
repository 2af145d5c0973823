"""Recording the states of all layers of SmolLM2 beside interp-engine and TransformerLens, in turns, by processor time.

    python -m venv build/peers && build/peers/bin/pip install interp-engine==1.14.2 transformer-lens==4.3.0
    PYTHONPATH=$(echo build/peers/lib/python3*/site-packages) python benchmarks/recording.py [--rounds 5] [--threads 1]

Each is used as its pages say: `record`, `capture` (on a CPU it runs transformers, eager) and `run_with_cache`; while
tokens are written, `record` around `generate`, `capture_generation`, and hooks around TransformerLens' `generate`. The
other two always make the logits of all tokens; cutaway is asked for the last ones alone. A library that cannot be
imported is left out. The states are compared before a time counts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from inside import alternate

import cutaway

TEXTS, LENGTH, NEW = 32, 64, 64
CLOSE = 1e-4  # of the largest number of a layer


def say(name: str, value: object) -> None:
    print(json.dumps({name: value}), flush=True)


def gap(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest difference, as a part of the layer's largest number."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a.float() - b.float()).abs().max() / a.float().abs().max()) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/smollm2")
    model = cutaway.AutoModelForCausalLM.from_pretrained("cutaway/smollm2", dtype="float32").eval()
    folder = Path(tempfile.mkdtemp())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    layers = int(model.config.num_hidden_layers)
    ids = tokenizer(" ".join(" ".join(topics.values()).split()))["input_ids"]
    batch = torch.tensor(ids[: TEXTS * LENGTH]).view(TEXTS, LENGTH)
    prompt = batch[:1, :16]
    places = [f"blocks.{i}.resid" for i in range(layers)]
    say("load", os.getloadavg())

    def ours() -> list[torch.Tensor]:
        with torch.inference_mode(), model.record(*places) as r:
            model(input_ids=batch, logits_to_keep=1, use_cache=False)
            return [r[place] for place in places]

    def ours_writing() -> list[torch.Tensor]:
        with torch.inference_mode(), model.record(*places) as r:
            model.generate(prompt, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
            return [torch.cat([run[place] for run in r.runs], 1) for place in places]

    reads: dict[str, Callable[[], list[torch.Tensor]]] = {"cutaway": ours}
    writes: dict[str, Callable[[], list[torch.Tensor]]] = {"cutaway": ours_writing}
    for name, add in (("interp-engine", interp_engine), ("transformer-lens", transformer_lens)):
        if name not in asked.without:
            try:
                reads[name], writes[name] = add(folder, layers, batch, prompt)
            except ImportError as error:
                say(name, f"left out: {error}")
    for what, ways in (("texts", reads), ("writing", writes)):
        wanted = ways["cutaway"]()
        for name, way in ways.items():
            found = way()
            n = min(wanted[0].shape[1], found[0].shape[1])
            apart = gap([state[:, :n] for state in wanted], [state[:, :n] for state in found])
            say(f"{what}, {name}, largest difference", float(f"{apart:.2g}"))
            if apart > CLOSE:
                raise SystemExit(f"{name} has other states: nothing is measured.")
        took = alternate(ways, asked.rounds, time.process_time)  # type: ignore[arg-type]
        say(f"{what}, seconds of processor time", {name: round(seconds, 3) for name, seconds in took.items()})
        say(f"{what}, times ours", {name: round(seconds / took["cutaway"], 2) for name, seconds in took.items()})


def interp_engine(folder: Path, layers: int, batch: torch.Tensor, prompt: torch.Tensor) -> tuple[Any, Any]:
    from interp_engine import Address, capture, capture_generation, load_model

    model = load_model(str(folder), backend="eager", device="cpu", dtype="float32")
    points = [Address("resid_post", i) for i in range(layers)]

    def texts() -> list[torch.Tensor]:
        found = capture(model, batch, points)
        return [found[point] for point in points]

    def writing() -> list[torch.Tensor]:
        _, found = capture_generation(model, prompt[0].tolist(), points, max_tokens=NEW)
        return [state if state.dim() == 3 else state[None] for state in (found[point] for point in points)]

    return texts, writing


def transformer_lens(folder: Path, layers: int, batch: torch.Tensor, prompt: torch.Tensor) -> tuple[Any, Any]:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
    names = [f"blocks.{i}.hook_out" for i in range(layers)]

    def texts() -> list[torch.Tensor]:
        with torch.inference_mode():
            _, found = model.run_with_cache(batch, names_filter=names)
        return [found[name] for name in names]

    def writing() -> list[torch.Tensor]:
        kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}

        def keep(value: torch.Tensor, hook: Any) -> None:
            kept[hook.name].append(value.clone())

        with torch.inference_mode(), model.hooks(fwd_hooks=[(name, keep) for name in names]):
            model.generate(prompt, max_new_tokens=NEW, do_sample=False, stop_at_eos=False, verbose=False)
        return [torch.cat(kept[name], 1) for name in names]

    return texts, writing


if __name__ == "__main__":
    main()
