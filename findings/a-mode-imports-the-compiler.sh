#!/usr/bin/env bash
# torch 2.13.0: the first operator under a TorchDispatchMode imports torch._dynamo, which is some 800 modules and a second or
# more, though nothing is compiled; so does torch's own counter of FLOPs. What is timed or measured under a mode for the first
# time is the import. A mode whose class says _should_skip_dynamo() is False imports nothing and gives the same numbers; True,
# the default, means that the compiler is kept out of the mode, and to keep it out it is imported.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/run.py" <<'PY'
import sys
import time
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return operator(*args, **(kwargs or {}))


class Light(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return operator(*args, **(kwargs or {}))


mode = {"passing": Passing, "flops": lambda: FlopCounterMode(display=False), "light": Light}[sys.argv[1]]()
a = torch.ones(2, 2)
assert "torch._dynamo" not in sys.modules, "the behaviour changed: torch._dynamo is there before"
before, start = len(sys.modules), time.perf_counter()
with mode:
    b = a @ a
seconds, more = time.perf_counter() - start, len(sys.modules) - before
assert b.tolist() == [[2, 2], [2, 2]]
imported = "torch._dynamo" in sys.modules
print(f"torch {torch.__version__}, {type(mode).__name__:15} the first operator imports {more:4} modules, {seconds:.4f} s")
assert (imported, more > 300) == ((False, False) if sys.argv[1] == "light" else (True, True)), "the behaviour changed"
PY
for mode in passing flops light; do
  "$folder/venv/bin/python" "$folder/run.py" "$mode"
done
