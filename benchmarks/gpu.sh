#!/usr/bin/env bash
# On a machine with a GPU: the tests that need one, then parity, attention over texts of many lengths, a captured decode
# step and a training step. At most 8 minutes; figures go to benchmarks/results/gpu.json (or to the path that is given).
#
#   bash benchmarks/gpu.sh [RESULT.json]       PYTHON=... names another interpreter than .venv/bin/python
#
# Where there is no GPU, `benchmarks/gpu.py RESULT.json --device cpu` runs the same lines in small sizes.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
result=${1:-benchmarks/results/gpu.json}
export HF_HUB_OFFLINE=1 PYTHONPATH="$PWD"
"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' ||
    { echo "torch sees no GPU on this machine (or no build of torch for it): nothing was measured" >&2; exit 2; }
failed=0
timeout 180 "$python" -m pytest -q -p no:cacheprovider tests/nn/cpu/test_cuda.py || failed=1
timeout 290 "$python" benchmarks/gpu.py "$result" || failed=1
exit "$failed"
