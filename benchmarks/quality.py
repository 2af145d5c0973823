"""What few bits cost a language model: perplexity, and the first token of answers, against float32.

    python benchmarks/quality.py TEXTS [--model NAME] [--formats stored,int8,int4] [--count 200] [--gguf FILE]

TEXTS holds one text a line, or is a .tsv (.gz) with a column "text". Each text is read as it is (perplexity), and asked
about as a chat of one turn (the first token of the answer). `--gguf` adds llama.cpp on that file. One JSON line each.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 256  # tokens of a text


def read_texts(path: Path, count: int) -> list[str]:
    """The first `count` texts of more than a few words."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    if ".tsv" in path.name:
        column = lines[0].split("\t").index("text")
        lines = [line.split("\t")[column] for line in lines[1:]]
    return [line for line in lines if len(line.split()) >= 8][:count]


class Ours:
    """cutaway with one dtype; "stored" is a .gguf on its own blocks."""

    def __init__(self, name: str, dtype: str) -> None:
        import cutaway

        where: dict[str, Any] = {}
        if name.endswith(".gguf"):
            where["gguf_file"], name = Path(name).name, str(Path(name).parent)
        self.model = cutaway.AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **where)

    def logits(self, ids: list[int]) -> Any:
        """[tokens, vocabulary]."""
        import torch

        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids])).logits[0].float()


class LlamaCpp:
    """llama.cpp on a file, with its own arithmetic."""

    def __init__(self, file: str) -> None:
        import llama_cpp

        self.model = llama_cpp.Llama(file, n_ctx=512, n_batch=512, n_threads=1, logits_all=True, verbose=False)

    def logits(self, ids: list[int]) -> Any:
        """[tokens, vocabulary]."""
        import torch

        self.model.reset()
        self.model.eval(ids)
        return torch.from_numpy(self.model.scores[: len(ids)]).float().clone()


def measured(run: Callable[[list[int]], Any], texts: list[list[int]], asked: list[list[int]]) -> dict[str, Any]:
    """Nats of all tokens that have one before them, and first tokens, with the logits that chose them."""
    import torch

    nats = [torch.nn.functional.cross_entropy(run(ids)[:-1], torch.tensor(ids[1:]), reduction="sum") for ids in texts]
    last = torch.stack([run(ids)[-1] for ids in asked])  # [texts, vocabulary]
    return {"nats": float(torch.stack(nats).sum()), "first": last.argmax(-1), "logits": last.log_softmax(-1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--model", default="cutaway/smollm2")
    parser.add_argument("--formats", default="stored,int8,int4")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--gguf", help="llama.cpp on this file too")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    import cutaway

    torch.set_num_threads(1)
    where: dict[str, Any] = {}
    name = options.model
    if name.endswith(".gguf"):
        where["gguf_file"], name = Path(name).name, str(Path(name).parent)
    tokenizer = cutaway.AutoTokenizer.from_pretrained(name, **where)
    texts = read_texts(options.texts, options.count)
    ids = [tokenizer(text)["input_ids"][:LONGEST] for text in texts]
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"In one word, what is this about? {text}"}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )["input_ids"][:LONGEST]
        for text in texts
    ]
    count = sum(len(row) - 1 for row in ids)
    exact = measured(Ours(options.model, "float32").logits, ids, asked)
    print(json.dumps({"format": "float32", "perplexity": round(math.exp(exact["nats"] / count), 4), "tokens": count}))
    runs: list[tuple[str, Callable[[], Any]]] = [
        (dtype, lambda dtype=dtype: Ours(options.model, dtype)) for dtype in options.formats.split(",") if dtype
    ]
    if options.gguf:
        runs.append(("llama.cpp", lambda: LlamaCpp(options.gguf)))
    for label, load in runs:
        found = measured(load().logits, ids, asked)
        distance = (exact["logits"].exp() * (exact["logits"] - found["logits"])).sum(-1)  # [texts]
        said = {
            "format": label,
            "perplexity over float32's": round(math.exp((found["nats"] - exact["nats"]) / count), 5),
            "first tokens alike": round(float((found["first"] == exact["first"]).float().mean()), 4),
            "mean KL of the first token": float(f"{float(distance.mean()):.2e}"),
        }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
