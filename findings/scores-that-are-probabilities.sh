#!/usr/bin/env bash
# transformer-lens 4.3.0, TransformerBridge over transformers 5.23.0: of BERT and OPT, attn.hook_attn_scores holds the pattern
# after the softmax, the same numbers as attn.hook_pattern; of Llama it holds the scores before it, as its name says. BERT's
# hook_attn_out holds the stream after the addition and the norm, of OPT and Llama what the attention adds to the stream. A
# study that compares models by these names compares different things.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 transformer-lens==4.3.0
cat > "$folder/run.py" <<'PY'
import sys
from importlib.metadata import version
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM
from transformers import PreTrainedTokenizerFast
from transformer_lens.model_bridge import TransformerBridge

HEADS, WIDTH = 4, 8
common = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=HEADS, attn_implementation="eager")
backend = Tokenizer(models.WordLevel({f"w{id}": id for id in range(50)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=backend, unk_token="w0", pad_token="w1", bos_token="w2", eos_token="w3"
)
torch.manual_seed(0)
ids = torch.randint(4, 50, (1, 6))
ahead = torch.ones(6, 6, dtype=torch.bool).triu(1)


def keep(outputs, name, module):
    """Hold what `module` gives in `outputs` under `name`; the handle ends that."""
    return module.register_forward_hook(lambda module, given, out: outputs.__setitem__(name, out))


def difference(a, b):
    """The largest, where a token may look."""
    return float((a - b)[:, :, ahead.logical_not()].abs().max())


print(f"transformer-lens {version('transformer-lens')}, transformers {version('transformers')}, the second block:")
for name in ("bert", "opt", "llama"):
    if name == "bert":
        model = BertForMaskedLM(BertConfig(**common, intermediate_size=48))
        layer = model.bert.encoder.layer[1]
        q, k, out, normed = (
            layer.attention.self.query,
            layer.attention.self.key,
            layer.attention.output.dense,
            layer.attention.output.LayerNorm,
        )
    elif name == "opt":
        model = OPTForCausalLM(OPTConfig(**common, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64))
        layer = model.model.decoder.layers[1]
        q, k, out, normed = layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.out_proj, None
    else:
        model = LlamaForCausalLM(LlamaConfig(**common, intermediate_size=48))
        layer = model.model.layers[1]
        q, k, out, normed = None, None, layer.self_attn.o_proj, None
    model.eval()
    seen = {}
    hooks = [keep(seen, part, module) for part, module in dict(q=q, k=k, out=out, normed=normed).items() if module]
    with torch.no_grad():
        plain = model(ids, output_attentions=True)
    for hook in hooks:
        hook.remove()
    pattern = plain.attentions[1]  # [1, heads, L, L]

    home = f"{sys.argv[1]}/{name}"
    model.save_pretrained(home)
    tokenizer.save_pretrained(home)
    bridge = TransformerBridge.boot_transformers(home, hf_model=model)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(ids)
    theirs = cache["blocks.1.attn.hook_attn_scores"]
    assert torch.allclose(logits, plain.logits, atol=1e-5)
    assert difference(cache["blocks.1.attn.hook_pattern"], pattern) < 1e-5

    is_pattern = difference(theirs, pattern) < 1e-5
    if name == "llama":
        hidden = theirs.masked_fill(ahead, float("-inf"))
        assert difference(hidden.softmax(-1), pattern) < 1e-5, "the behaviour changed"
    else:
        q, k = (seen[part].view(1, 6, HEADS, WIDTH).transpose(1, 2) for part in "qk")
        scores = q @ k.transpose(-1, -2) / WIDTH**0.5
        softmax = (scores if name == "bert" else scores.masked_fill(ahead, float("-inf"))).softmax(-1)
        assert difference(softmax, pattern) < 1e-5
        assert difference(theirs, scores) > 0.01, "the behaviour changed"
    added = cache["blocks.1.hook_attn_out"]
    is_added = torch.allclose(added, seen["out"].view(added.shape), atol=1e-5)
    print(f"  {name:5} hook_attn_scores holds the {'pattern after' if is_pattern else 'scores before'} the softmax,", end=" ")
    print(f"hook_attn_out holds {'what the attention adds' if is_added else 'the stream after addition and norm'}")
    assert is_pattern == (name != "llama") and is_added == (name != "bert"), "the behaviour changed"
    if name == "bert":
        assert torch.allclose(added, seen["normed"], atol=1e-5), "the behaviour changed"
PY
HF_HUB_OFFLINE=1 TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" -W ignore "$folder/run.py" "$folder"
