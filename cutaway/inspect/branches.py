"""What a model would have written had it taken another token: the branches of a tree whose trunk is what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cutaway.inspect.explanation import Branch, Candidate, Kind, Step

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel

ALTERNATIVES = 2  # at each step
LENGTH = 4  # tokens of a branch, the other one among them
TOKENS = 1500  # read by the model for all branches together; past it, later steps have none


def branches(
    model: GenerativeModel, kind: Kind, inputs: Mapping[str, Any], steps: list[Step], label: Callable[[int], str]
) -> list[Branch]:
    """For each step its likeliest other tokens, and what follows each of them, greedily; of a model that writes.

    Args:
        inputs: what the model read in all, written tokens too. label: a token's name.
    """
    import torch

    if kind not in ("next-token", "target"):
        return []
    name = "input_ids" if kind == "next-token" else "decoder_input_ids"
    all_branches: list[Branch] = []
    read = 0
    for number, step in enumerate(steps):
        others = [c for c in step.candidates if c.id != step.picked.id][:ALTERNATIVES]
        read += len(others) * (int(inputs["input_ids"].shape[1]) + step.position)
        if not others or read > TOKENS:
            break
        before = inputs[name][:, : step.position].expand(len(others), -1)  # [others, position]
        ids = torch.cat((before, torch.tensor([[c.id] for c in others], device=before.device)), 1)
        others_inputs = {key: value.expand(len(others), -1) for key, value in inputs.items() if key != name}
        options: dict[str, Any] = {"max_new_tokens": LENGTH - 1, "do_sample": False, "num_beams": 1}
        run = model.generate(
            **others_inputs, **{name: ids}, **options, output_logits=True, return_dict_in_generate=True
        )
        ends = _ends(model)
        for row, first in enumerate(others):
            tokens = [first]
            for turn, logits in enumerate(run.logits):
                if tokens[-1].id in ends:
                    break
                id = int(run.sequences[row, ids.shape[1] + turn])
                token_logits = logits[row].float()  # [V]
                tokens.append(Candidate(id, label(id), float(token_logits[id]), float(token_logits.softmax(-1)[id])))
            all_branches.append(Branch(number, tokens))
    return all_branches


def _ends(model: GenerativeModel) -> set[int]:
    end = model.config.eos_token_id
    return set() if end is None else set(end) if isinstance(end, list | tuple) else {int(end)}
