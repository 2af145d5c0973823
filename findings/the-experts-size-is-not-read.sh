#!/usr/bin/env bash
# transformers 5.23.0 reads a GGUF file of qwen3moe without its expert_feed_forward_length: the experts have the 768 of the
# configuration class, whatever the file says. A file with experts of 768 is read; any other ends in a mismatch of shapes. It
# is read when the configuration is given by hand with the right moe_intermediate_size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cat > "$folder/run.py" <<'PY'
import sys
from importlib.metadata import version
import gguf
import numpy
from transformers import AutoConfig, AutoModelForCausalLM

folder = sys.argv[1]
hidden, heads, pairs, width, experts, vocabulary = 32, 4, 2, 8, 4, 16


def write(name, size):
    """A tiny random model of one layer, with experts of `size`, as GGUF."""
    file = gguf.GGUFWriter(f"{folder}/{name}", "qwen3moe")
    file.add_vocab_size(vocabulary)
    file.add_context_length(64)
    file.add_block_count(1)
    file.add_embedding_length(hidden)
    file.add_feed_forward_length(48)
    file.add_head_count(heads)
    file.add_head_count_kv(pairs)
    file.add_key_length(width)
    file.add_value_length(width)
    file.add_rope_freq_base(1e4)
    file.add_layer_norm_rms_eps(1e-6)
    file.add_expert_count(experts)
    file.add_expert_used_count(2)
    file.add_expert_feed_forward_length(size)
    shapes = {
        "token_embd": (vocabulary, hidden),
        "output_norm": (hidden,),
        "output": (vocabulary, hidden),
        "blk.0.attn_norm": (hidden,),
        "blk.0.attn_q": (heads * width, hidden),
        "blk.0.attn_k": (pairs * width, hidden),
        "blk.0.attn_v": (pairs * width, hidden),
        "blk.0.attn_output": (hidden, heads * width),
        "blk.0.attn_q_norm": (width,),
        "blk.0.attn_k_norm": (width,),
        "blk.0.ffn_norm": (hidden,),
        "blk.0.ffn_gate_inp": (experts, hidden),
        "blk.0.ffn_gate_exps": (experts, size, hidden),
        "blk.0.ffn_up_exps": (experts, size, hidden),
        "blk.0.ffn_down_exps": (experts, hidden, size),
    }
    random = numpy.random.default_rng(0)
    for part, shape in shapes.items():
        file.add_tensor(f"{part}.weight", random.normal(size=shape).astype(numpy.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


print(f"transformers {version('transformers')}, gguf {version('gguf')}:")
outcomes = []
for size, by_hand in ((768, False), (24, False), (24, True)):
    name = f"{size}.gguf"
    write(name, size)
    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    read = config.moe_intermediate_size
    if by_hand:
        config.moe_intermediate_size = size
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, **({"config": config} if by_hand else {}))
        shape = tuple(model.model.layers[0].mlp.experts.down_proj.shape)
        outcome = shape == (experts, hidden, size)
        told = f"experts of {shape}"
    except RuntimeError as error:
        assert "mismatched_sizes" in str(error), "the behaviour changed"
        outcome = False
        told = "RuntimeError, a mismatch of shapes"
    outcomes.append((read, outcome))
    print(f"  the file says {size}, the configuration {read}{', put right by hand' if by_hand else ''}: {told}")
assert outcomes == [(768, True), (768, False), (768, True)], "the behaviour changed"
PY
HF_HUB_OFFLINE=1 TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" -W ignore "$folder/run.py" "$folder"
