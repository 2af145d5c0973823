"""One process that tries every case of a module and prints what came of each, one JSON line per case.

`python -m bad_input.run configs`. The imports are done before; time is the processor's, memory the growth of the
resident set's peak.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import torch

from bad_input.case import Case, config, ids
from cutaway import auto

LAZY = (
    "gguf", "huggingface_hub", "huggingface_hub.utils", "cutaway.checkpoint.gguf", "cutaway.tokenization.registry",
    "cutaway.generate",
    *(module for module, _ in auto.FAMILIES.values()),
)  # fmt: skip


def kilobytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


def tried(case: Case, folder: Path) -> dict[str, object]:
    act = case.prepare(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    before = kilobytes("VmRSS")
    kinds: list[str] = []
    message = ""
    start = time.process_time()
    try:
        result = act()
        message = f"returned a {type(result).__name__}"
    except Exception as e:
        kinds, message = [kind.__name__ for kind in type(e).__mro__], str(e)
    seconds = time.process_time() - start
    grown = (kilobytes("VmHWM") - before) / 1024
    return {"name": case.name, "kinds": kinds, "message": message, "seconds": seconds, "megabytes": grown}


def main(module: str) -> None:
    for name in LAZY:
        importlib.import_module(name)
    torch.manual_seed(0)
    healthy = auto.AutoModel.from_config(config("bert")).eval()
    with torch.no_grad():
        wanted = healthy(ids()).last_hidden_state
    cases: list[Case] = importlib.import_module(f"bad_input.{module}").CASES
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(tried(case, Path(folder))), flush=True)
    with torch.no_grad():
        assert torch.equal(healthy(ids()).last_hidden_state, wanted)
    print(json.dumps({"name": "the process lives on"}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
