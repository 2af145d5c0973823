#!/usr/bin/env bash
# transformers 5.23, Falcon: asked for attentions with its default attention, the model is not causal any more. The mask
# holds truth values there, and is added to the scores as 1 and 0. With attn_implementation="eager" and alibi=True, ALiBi's
# slopes are in the mask and are added to the scores once more. So what is shown is not what computed the answer.
set -euo pipefail
python3 - <<'PYTHON'
import torch
import transformers
from transformers import FalconConfig, FalconModel

torch.manual_seed(0)
sizes = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
model = FalconModel(FalconConfig(**sizes)).eval()
ids = torch.randint(3, 50, (1, 6))
with torch.no_grad():
    plain = model(ids).last_hidden_state
    asked = model(ids, output_attentions=True)
changed = float((plain - asked.last_hidden_state).abs().max())
ahead = float(asked.attentions[0][0, :, 0, 1:].sum(-1).max())

states = []
for way in ("sdpa", "eager"):
    torch.manual_seed(0)
    model = FalconModel(FalconConfig(**sizes, alibi=True, attn_implementation=way)).eval()
    with torch.no_grad():
        states.append(model(ids).last_hidden_state)
apart = float((states[0] - states[1]).abs().max())
print(f"transformers {transformers.__version__}: asking changes the answer by {changed:.2f}, the first token looks ahead with")
print(f"{ahead:.2f} of its attention; with ALiBi, two ways to compute are {apart:.3f} apart")
assert min(changed, ahead, apart) > 0.01, "the behaviour changed"
PYTHON
