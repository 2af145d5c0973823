#!/bin/sh
# Falcon in transformers 5.23 with its default attention: asked for attentions too, the model is not causal any more. The
# mask is one of truth values there, and is added to the scores as 1 and 0. And
# with attn_implementation="eager" and alibi=True, the slopes are added twice.
set -e
python - <<'PYTHON'
import torch
from transformers import FalconConfig, FalconModel

torch.manual_seed(0)
sizes = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
model = FalconModel(FalconConfig(**sizes)).eval()
ids = torch.randint(3, 50, (1, 6))
with torch.no_grad():
    plain = model(ids).last_hidden_state
    asked = model(ids, output_attentions=True)
print("largest difference that asking makes:", float((plain - asked.last_hidden_state).abs().max()))
print("attention of the first token to later ones:", float(asked.attentions[0][0, :, 0, 1:].sum(-1).max()))

states = []
for way in ("sdpa", "eager"):
    torch.manual_seed(0)
    model = FalconModel(FalconConfig(**sizes, alibi=True, attn_implementation=way)).eval()
    with torch.no_grad():
        states.append(model(ids).last_hidden_state)
print("ALiBi, sdpa against eager:", float((states[0] - states[1]).abs().max()))
PYTHON
