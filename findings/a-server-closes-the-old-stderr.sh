#!/usr/bin/env bash
# absl-py 2.5.1 (which rouge-score and TensorBoard import) keeps the standard error of the moment when it is imported, and closes
# it when logging is configured anew, unless it is still sys.stderr. uvicorn 0.54.0 configures logging when its Config is
# made. In a notebook or a test that redirects standard error in between, making a server closes the stream that was there
# before, and everything that writes to it afterwards fails with "I/O operation on closed file".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check absl-py==2.5.1 uvicorn==0.54.0
cat > "$folder/run.py" <<'PY'
import io
import sys
from contextlib import redirect_stderr
from importlib.metadata import version

first = io.StringIO()
with redirect_stderr(first):
    from absl import logging  # noqa: F401
import uvicorn

with redirect_stderr(io.StringIO()):
    uvicorn.Config(lambda *arguments: None, log_config=None)
kept = not first.closed
with redirect_stderr(io.StringIO()):
    uvicorn.Config(lambda *arguments: None)
print(f"absl-py {version('absl-py')}, uvicorn {version('uvicorn')}", file=sys.stdout)
print(f"with log_config=None the first stream is open: {kept}; with uvicorn's own it is open: {not first.closed}")
assert kept and first.closed, "the behaviour changed"
PY
"$folder/venv/bin/python" "$folder/run.py"
