"""One library in a process of its own: it loads the model once, then answers one request a line.

Started by run.py as `python peer.py LIBRARY FOLDER THREADS`. A request is JSON, {"texts": [...], "batch": 32}; the
answer is {"seconds": ..., "vectors": [[...]]}. The code between the two clock readings is what a user would write, and
is the same for every library.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

START = time.perf_counter()


def load(library: str, folder: str, threads: int) -> tuple[Any, Any]:
    import torch

    torch.set_num_threads(threads)
    module = importlib.import_module(library)
    return module.AutoTokenizer.from_pretrained(folder), module.AutoModel.from_pretrained(folder).eval()


def vectors(tokenizer: Any, model: Any, texts: list[str], batch: int) -> Any:
    """Mean of the last hidden state over the real tokens of each text: [texts, hidden_size]."""
    import torch

    rows = []
    with torch.inference_mode():
        for first in range(0, len(texts), batch):
            inputs = tokenizer(texts[first : first + batch], padding=True, return_tensors="pt")
            states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)  # [B, L, 1]
            rows.append((states * mask).sum(1) / mask.sum(1))
    return torch.cat(rows)


def peak_megabytes() -> float:
    """Highest resident memory of this process, in MB (ru_maxrss is in KiB on Linux)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    library, folder, threads = sys.argv[1:]
    tokenizer, model = load(library, folder, int(threads))
    loaded = time.perf_counter() - START
    first = vectors(tokenizer, model, ["A first text."], 1)
    ready = time.perf_counter() - START
    version = getattr(importlib.import_module(library), "__version__", "")
    parameters = sum(p.numel() for p in model.parameters())
    about = {"loaded": loaded, "ready": ready, "version": version, "parameters": parameters}
    print(json.dumps({**about, "peak_mb": peak_megabytes(), "vectors": first.tolist()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        result = vectors(tokenizer, model, request["texts"], request["batch"])
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_mb": peak_megabytes(), "vectors": result.tolist()}), flush=True)


if __name__ == "__main__":
    main()
