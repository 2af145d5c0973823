"""What a page shows beside the run itself: values' norms, rollout, lens, attributions, and the parts of an answer.

Each is one of the measures, called on the text of the run. What a model does not allow is left out and said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cutaway.errors import CutawayError
from cutaway.inspect.explanation import Evidence, LensGrid, Parts, Scores
from cutaway.inspect.measures import Array

if TYPE_CHECKING:
    from cutaway.inspect.explanation import Attention, Kind
    from cutaway.inspect.target import Target
    from cutaway.models.protocols import GenerativeModel, LanguageModel

# what can be gathered; "quick" are the two attributions that a reader who types does not wait for
ALL = ("attention", "attribution", "parts", "lens", "planes", "branches")
QUICK = "quick"
LENS_NUMBERS = 100_000_000  # logits that a lens may hold at a time
LENS_TOP = 3
ATTRIBUTED_TOKENS = 256  # above, gradients and occlusion take longer than a reader waits
IG_POINTS = 64
TRIED_HEADS = 8  # that are switched off one by one
# Shapley values ask a model hundreds of times: parameters x tokens that they may run in all (a few seconds of a core)
SHAPLEY_WORK = 4e11
SHAPLEY_MOST = 1024  # texts; all of them where there are no more (2^10)
SHAPLEY_LEAST = 8  # texts for each token: of fewer, the scores are mostly chance


def gather(
    model: LanguageModel,
    kind: Kind,
    inputs: Mapping[str, Any],
    asked: Mapping[str, Any],
    target: Target,
    attention: Mapping[str, Attention],
    label: Callable[[int], str],
    want: Collection[str] = ALL,
    answer: str = "",
) -> Evidence:
    """The evidence of one run.

    Args:
        inputs: what the model read in all, generated tokens too. asked: what stood before the answer was known.
        target: what of the answer is explained.
        label: the name of an answer's index. answer: what the answer is called, where it has no index.
        want: which of `ALL`, or `QUICK`; what is not asked for is empty.
    """
    import torch

    from cutaway.inspect.flow import attention_rollout

    norms, rollout, missing = {}, {}, {}
    for name, entry in attention.items() if "attention" in want else ():
        if entry.rows == entry.columns:
            rollout[name] = np.asarray(attention_rollout(torch.from_numpy(entry.pattern)).shares.numpy())
        try:
            norms[name] = _value_norms(model, target.arranged(inputs), name, len(entry.pattern))
        except (CutawayError, AttributeError) as e:  # attention whose output is no plain matrix
            missing["values"] = str(e)
    scores_by_method: list[Scores] = []
    parts, lens = None, None
    attributes = "attribution" in want or QUICK in want
    if attributes or "parts" in want:
        try:
            fixed = target.fixed(model, asked)
            answer = answer or label(int(fixed.index or 0))
            if attributes:
                scores_by_method, missing_here = _attributed(model, asked, fixed, "attribution" in want)
                missing |= missing_here
        except CutawayError as e:
            missing["attribution"] = str(e)
        try:
            if "parts" in want:
                parts = _parts(model, asked, target)
        except CutawayError as e:
            missing["parts"] = str(e)
    if kind in ("next-token", "target", "mask") and "lens" in want:
        try:
            lens = _lens(cast("GenerativeModel", model), kind, inputs, label)
        except CutawayError as e:
            missing["lens"] = str(e)
    number = {"span": "sum of both logits", "choices": "score", "states": "cosine to the whole text's vector"}
    return Evidence(
        norms,
        rollout,
        lens,
        scores_by_method,
        parts,
        answer=answer,
        missing=missing,
        number=number.get(kind, "logit"),
    )


def _attributed(
    model: LanguageModel, asked: Mapping[str, Any], target: Target, all_of_them: bool
) -> tuple[list[Scores], dict[str, str]]:
    """What each token did, by each method; the two quick ones unless all are wanted. And what is missing."""
    from cutaway.inspect.gradients import input_x_gradient, integrated_gradients
    from cutaway.inspect.perturbation import occlude, shapley_values
    from cutaway.inspect.target import VectorTarget

    missing = {}
    length = int(asked["input_ids"].shape[1])
    if length > ATTRIBUTED_TOKENS:
        raise CutawayError(f"{length} tokens; attribution is made for at most {ATTRIBUTED_TOKENS}.")
    # a text's own vector is as near to it as can be: there is no slope
    made = [] if isinstance(target, VectorTarget) else [input_x_gradient(model, asked, target)]
    made.append(occlude(model, asked, target))
    if all_of_them:
        runs = _shapley_runs(int(model.num_parameters()), length)
        if runs:
            made.append(shapley_values(model, asked, target, samples=runs))
        else:
            missing["shapley"] = (
                f"{length} tokens would need at least {SHAPLEY_LEAST * length:,} runs of this model; "
                "cutaway attribute --method shapley takes that time."
            )
        made.insert(0, integrated_gradients(model, asked, target, most=IG_POINTS))
    scores = [
        Scores(a.method, a.scores.detach().float().cpu().numpy(), a.value, a.base, a.residual, a.steps, a.note)
        for a in made
    ]
    return scores, missing


def _parts(model: LanguageModel, asked: Mapping[str, Any], target: Target) -> Parts:
    """The parts of the answer: of a head of one matrix exactly, else through the head."""
    from cutaway.inspect.answer_parts import head_attribution
    from cutaway.inspect.logit_attribution import direct_logit_attribution, reads_linearly

    if reads_linearly(model, target):
        c = direct_logit_attribution(model, asked, target)
        residual = abs(c.total - c.logit) / max(abs(c.logit), 1e-12)
        return Parts(c.names, c.values.float().cpu().numpy(), c.total, c.logit, 0.0, residual)
    h = head_attribution(model, asked, target)
    total = h.base + float(h.values.sum())
    return Parts(h.names, h.values.float().cpu().numpy(), total, h.value, h.base, h.residual)


def effects(
    model: LanguageModel, asked: Mapping[str, Any], target: Target, function: str, attention: Mapping[str, Attention]
) -> dict[str, Attention]:
    """Each attention with the measure "effect" of its heads, and the head shown without which the answer loses most."""
    import torch

    from cutaway.inspect.head_importance import most_effective
    from cutaway.inspect.tower import logits_options

    fixed = target.fixed(model, asked)
    arranged = {**fixed.arranged(asked), **logits_options(model)}
    share = function == "softmax"

    def number(out: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return fixed.log_share(out) if share else fixed.of(out["logits"])

    shown = {}
    for name, entry in attention.items():
        tower = {"self": None, "cross": "decoder"}.get(name, name)
        slopes, layer, head, fall = most_effective(
            model, arranged, number, tower=tower, cross=name == "cross", tried=TRIED_HEADS
        )
        loss = f"{fall:.3g} nats of the answer's log-probability" if share else f"{fall:.3g} of the answer's score"
        chosen = f"switched off, it costs {loss}, the most of the {TRIED_HEADS} with the largest effect"
        if fall <= 0:
            chosen = f"the answer loses nothing without any of the {TRIED_HEADS} heads with the largest effect"
        values = {**entry.measures, "effect": np.asarray(slopes.float().cpu().numpy(), np.float32)}
        kept = entry.chosen == "asked for"
        place = (entry.layer, entry.head, entry.chosen) if kept else (layer, head, chosen)
        shown[name] = replace(entry, measures=values, layer=place[0], head=place[1], chosen=place[2])
    return shown


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
            weight = getattr(tower.block(i), kind).output_layer().weight
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
