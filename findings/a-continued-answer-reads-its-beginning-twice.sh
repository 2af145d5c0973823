#!/usr/bin/env bash
# transformers 5.23.0: generate() of an encoder-decoder takes an earlier answer (decoder_input_ids) and its cache
# (past_key_values), as a decoder does. A decoder then reads the one token that the cache lacks. T5 and BART read the whole
# beginning again, behind the cache: their cache holds it twice, no warning is given, and the logits of the next token are
# not those of the answer that was never interrupted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
cat > "$folder/run.py" <<'PY'
from importlib.metadata import version

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

sizes = {"vocab_size": 60, "eos_token_id": None, "pad_token_id": 0}
bart = {f"{side}_{part}": n for side in ("encoder", "decoder") for part, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 32))}
models = {
    "GPT-2": (GPT2LMHeadModel, GPT2Config(n_embd=16, n_layer=2, n_head=2, bos_token_id=1, **sizes)),
    "T5": (
        T5ForConditionalGeneration,
        T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, **sizes),
    ),
    "BART": (
        BartForConditionalGeneration,
        BartConfig(d_model=16, decoder_start_token_id=2, forced_eos_token_id=None, bos_token_id=1, **bart, **sizes),
    ),
}
print(f"transformers {version('transformers')}, three tokens, then three more from their cache:")
for name, (kind, config) in models.items():
    torch.manual_seed(0)
    model = kind(config).eval()
    for weights in model.parameters():  # larger than their first values, so that the past matters
        torch.nn.init.normal_(weights, std=0.5)
    text = torch.randint(5, 60, (1, 7))
    # a text that does not repeat itself, of which a second reading changes nothing
    asked = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, "repetition_penalty": 3.0}
    whole = model.generate(text, max_new_tokens=6, **asked)
    begun = model.generate(text, max_new_tokens=3, **asked)
    held = begun.past_key_values.get_seq_length()
    if config.is_encoder_decoder:
        given = {"inputs": text, "decoder_input_ids": begun.sequences}
    else:
        given = {"inputs": begun.sequences}
    rest = model.generate(**given, past_key_values=begun.past_key_values, max_new_tokens=1, **asked)
    read = rest.past_key_values.get_seq_length() - held
    apart = (rest.logits[0] - whole.logits[3]).abs().max().item()
    print(f"  {name}: the cache holds {held}, of {begun.sequences.shape[1]} tokens {read} are read; "
          f"the logits of the next differ by {apart:.1g}")
    if config.is_encoder_decoder:
        assert read == begun.sequences.shape[1] and apart > 1e-4, "the behaviour changed"
    else:
        assert read == 1 and apart < 1e-5, "the behaviour changed"
PY
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" -W ignore "$folder/run.py"
