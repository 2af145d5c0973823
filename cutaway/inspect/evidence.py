"""What a page shows beside the run itself: values' norms, rollout, lens, attributions, and the parts of a logit.

Each is one of the measures, called on the text of the run. What a model does not allow is left out and said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cutaway.errors import CutawayError
from cutaway.inspect.explanation import Evidence, LensGrid, Parts, Scores
from cutaway.inspect.measures import Array

if TYPE_CHECKING:
    from cutaway.inspect.explanation import Attention, Kind
    from cutaway.models.protocols import GenerativeModel, LanguageModel

# what can be gathered; "quick" are the two attributions that a reader who types does not wait for
ALL = ("attention", "attribution", "parts", "lens", "planes", "branches")
QUICK = "quick"
LENS_NUMBERS = 100_000_000  # logits that a lens may hold at a time
LENS_TOP = 3
ATTRIBUTED_TOKENS = 256  # above, gradients and occlusion take longer than a reader waits
IG_POINTS = 64
# Shapley values ask a model hundreds of times: parameters x tokens that they may run in all (a few seconds of a core)
SHAPLEY_WORK = 4e11
SHAPLEY_MOST = 1024  # texts; all of them where there are no more (2^10)
SHAPLEY_LEAST = 8  # texts for each token: of fewer, the scores are mostly chance


def gather(
    model: LanguageModel,
    kind: Kind,
    inputs: Mapping[str, Any],
    asked: Mapping[str, Any],
    position: int | None,
    attention: Mapping[str, Attention],
    label: Callable[[int], str],
    want: Collection[str] = ALL,
) -> Evidence:
    """The evidence of one run.

    Args:
        inputs: what the model read in all, generated tokens too. asked: what stood before the answer was known.
        position: where the answer stands, in models that answer at every position; None for the last place.
        label: the name of an answer's index.
        want: which of `ALL`, or `QUICK`; what is not asked for is empty.
    """
    import torch

    from cutaway.inspect.flow import attention_rollout
    from cutaway.inspect.gradients import input_x_gradient, integrated_gradients
    from cutaway.inspect.logit_attribution import direct_logit_attribution
    from cutaway.inspect.perturbation import occlude, shapley_values
    from cutaway.inspect.target import Target

    norms, rollout, missing = {}, {}, {}
    for name, entry in attention.items() if "attention" in want else ():
        if entry.rows == entry.columns:
            rollout[name] = np.asarray(attention_rollout(torch.from_numpy(entry.pattern)).shares.numpy())
        try:
            norms[name] = _value_norms(model, inputs, name, len(entry.pattern))
        except (CutawayError, AttributeError) as e:  # attention whose output is no plain matrix
            missing["values"] = str(e)
    scores_by_method: list[Scores] = []
    parts, answer, lens = None, "", None
    attributes = "attribution" in want or QUICK in want
    if kind != "states" and (attributes or "parts" in want):
        target = Target(position=position)
        try:
            fixed = target.fixed(model, asked)
            answer = label(int(fixed.index or 0))
            length = int(asked["input_ids"].shape[1])
            if attributes and length > ATTRIBUTED_TOKENS:
                raise CutawayError(f"{length} tokens; attribution is made for at most {ATTRIBUTED_TOKENS}.")
            made = [input_x_gradient(model, asked, fixed), occlude(model, asked, fixed)] if attributes else []
            runs = _shapley_runs(int(model.num_parameters()), length)
            if "attribution" not in want:
                pass
            elif runs:
                made.append(shapley_values(model, asked, fixed, samples=runs))
            else:
                missing["shapley"] = (
                    f"{length} tokens would need at least {SHAPLEY_LEAST * length:,} runs of this model; "
                    "cutaway attribute --method shapley takes that time."
                )
            if "attribution" in want:
                made.insert(0, integrated_gradients(model, asked, fixed, most=IG_POINTS))
            for a in made:
                scores = a.scores.detach().float().cpu().numpy()
                scores_by_method.append(Scores(a.method, scores, a.value, a.base, a.residual, a.steps, a.note))
        except CutawayError as e:
            missing["attribution"] = str(e)
        try:
            if "parts" in want:
                c = direct_logit_attribution(model, asked, target)
                parts = Parts(c.names, c.values.float().cpu().numpy(), c.total, c.logit)
        except CutawayError as e:
            missing["parts"] = str(e)
    if kind not in ("states", "labels") and "lens" in want:
        try:
            lens = _lens(cast("GenerativeModel", model), kind, inputs, label)
        except CutawayError as e:
            missing["lens"] = str(e)
    return Evidence(norms, rollout, lens, scores_by_method, parts, answer=answer, missing=missing)


def _shapley_runs(parameters: int, length: int) -> int:
    """How many texts of so many tokens Shapley values may ask this model; 0 where that is too few for them."""
    runs = int(min(SHAPLEY_WORK / max(parameters * length, 1), SHAPLEY_MOST))
    return runs if runs >= min(2**length, SHAPLEY_LEAST * length) else 0


def _value_norms(model: LanguageModel, inputs: Mapping[str, Any], name: str, layers: int) -> Array:
    """||v(k) W_h|| of every head and key: times the weight, it is the norm of the weighted value (norms.py)."""
    import torch

    from cutaway.inspect.norms import weighted_values
    from cutaway.inspect.tower import tower_of

    tower = tower_of(model, {"self": None, "cross": "decoder"}.get(name, name))
    kind = "cross" if name == "cross" else "attn"
    places = tower.layers(f"{kind}.v")
    with torch.no_grad(), model.record(*places) as r:
        model(**inputs)
        norms = []
        for i, place in enumerate(places[:layers]):
            weight = getattr(tower.block(i), kind).o.weight
            values = r[place]  # [1, Lk, kv heads, d]
            heads = weight.shape[1] // values.shape[-1]
            ones = values.new_ones(1, heads, 1, values.shape[1])
            norms.append(weighted_values(ones, values, weight.to(values)).norm(dim=-1)[0, :, 0])  # [heads, Lk]
    return np.asarray(torch.stack(norms).float().cpu().numpy())


def _lens(model: GenerativeModel, kind: Kind, inputs: Mapping[str, Any], label: Callable[[int], str]) -> LensGrid:
    from cutaway.inspect.lens import logit_lens
    from cutaway.inspect.tower import tower_of

    tower = tower_of(model)
    numbers = (tower.spec.n_layers + 1) * int(inputs[tower.ids].shape[1]) * int(model.config.vocab_size)
    if numbers > LENS_NUMBERS:
        raise CutawayError(f"the lens of this text holds {numbers:,} logits; it is made for at most {LENS_NUMBERS:,}.")
    lens = logit_lens(model, inputs, top=LENS_TOP)
    ids = lens.tokens[:, 0].tolist()
    return LensGrid(
        tokens="target" if kind == "target" else "tokens",
        places=lens.places,
        ids=ids,
        probability=lens.probability[:, 0].float().cpu().numpy(),
        kl=lens.kl[:, 0].float().cpu().numpy(),
        labels={str(id): label(id) for state in ids for place in state for id in place},
    )
