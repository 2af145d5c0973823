#!/usr/bin/env bash
# captum 0.9.0 with transformers 5.23.0: LLMAttribution gives other numbers with its default use_cached_outputs=True than with
# False. From the second token of the target on, the whole text is given to the model once more on top of the cache of the
# text before it, since transformers 5 leaves out what is cached only when it is told how many tokens are new. So the
# attribution is of a text that nobody gave: the probability of the target is not the model's. Only a target of one token is
# right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 captum==0.9.0
cat > "$folder/run.py" <<'PY'
from importlib.metadata import version
import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["[UNK]", "a", "good", "film", "very", "bad"]
backend = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
torch.manual_seed(0)
sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, initializer_range=0.5)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes)).eval()
prompt = "a good film"


def by_hand(target):
    """The log-probability of `target` after `prompt`, from one run of the model."""
    ids = tokenizer(f"{prompt} {target}", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        shares = model(ids).logits.log_softmax(-1)
    length = len(prompt.split())
    return float(shares[0, length - 1 : -1].gather(1, ids[0, length:, None]).sum())


print(f"captum {version('captum')}, transformers {version('transformers')}, torch {torch.__version__}: ablation of '{prompt}'")
apart = {}
for target in ("very", "very bad"):
    found = {}
    for cached in (True, False):
        seen = []
        result = LLMAttribution(FeatureAblation(model), tokenizer).attribute(
            TextTokenInput(prompt, tokenizer),
            target=target,
            use_cached_outputs=cached,
            _inspect_forward=lambda prompt, target, p: seen.append(p[0]),
        )
        whole = float(torch.tensor(seen[0]).log())  # the first run is that of the text as it is
        found[cached] = (result.seq_attr, abs(whole - by_hand(target)))
        numbers = " ".join(f"{number:8.3f}" for number in result.seq_attr.tolist())
        print(f"  {target:8} cached {cached!s:5} {numbers}   log-probability {whole:.3f}, the model's {by_hand(target):.3f}")
    apart[target] = float((found[True][0] - found[False][0]).abs().max())
    assert found[False][1] < 1e-3, "the behaviour changed"
    assert (found[True][1] > 0.01) == (target == "very bad"), "the behaviour changed"
assert apart["very"] < 1e-3 and apart["very bad"] > 0.1, "the behaviour changed"
PY
TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" -W ignore "$folder/run.py"
