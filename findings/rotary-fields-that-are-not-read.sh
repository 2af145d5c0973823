#!/usr/bin/env bash
# transformers 5.23.0 passes over two spellings of rotary positions, without a word. Gemma 3's rope_scaling counts where its
# kind stands under "rope_type", and not under "type", the older key, which every other family reads: the table then says
# factor 2 and rope_type "default", and the model computes without scaling. GPT-NeoX reads rotary_emb_base, and not
# rope_theta; the config keeps and shows the rope_theta that it was given, and the model has 10000.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0
cat > "$folder/run.py" <<'PY'
from importlib.metadata import version

from transformers import Gemma3TextConfig, GPTNeoXConfig, LlamaConfig

scaling = {"type": "linear", "factor": 2.0}
llama = LlamaConfig(rope_scaling=dict(scaling)).rope_parameters
older = Gemma3TextConfig(rope_scaling=dict(scaling)).rope_parameters["full_attention"]
newer = Gemma3TextConfig(rope_scaling={"rope_type": "linear", "factor": 2.0}).rope_parameters["full_attention"]
neox = GPTNeoXConfig(rope_theta=500.0)
print(f"transformers {version('transformers')}")
print(f"Llama, type: {llama['rope_type']}; Gemma 3, type: {older['rope_type']}; Gemma 3, rope_type: {newer['rope_type']}")
print(f"GPT-NeoX: rope_theta={neox.rope_theta}, and in its table {neox.rope_parameters['rope_theta']}")
assert (llama["rope_type"], older["rope_type"], newer["rope_type"]) == ("linear", "default", "linear"), "it changed"
assert (neox.rope_theta, neox.rope_parameters["rope_theta"]) == (500.0, 10000.0), "it changed"
PY
"$folder/venv/bin/python" "$folder/run.py" 2>/dev/null
