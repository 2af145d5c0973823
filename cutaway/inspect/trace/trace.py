"""A trace: everything that one run of a model showed, in one file that is opened without the model.

`Trace.of(model, tokenizer, text).save("run.trace.safetensors")`, and later `Trace.open(...)`: the same explanation, so
the same page, pictures and tables, all hidden states, and the logits. Large arrays are stored in steps; `errors` says
how far a number of each may be from the model's.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import CheckpointError, InputError
from cutaway.inspect.attention import chosen
from cutaway.inspect.explanation import Evidence, Explanation, find_token
from cutaway.inspect.measures import MEANING, Array
from cutaway.inspect.trace import trace_file
from cutaway.inspect.trace.dataclass_json import from_json, to_json
from cutaway.show.sheet import Sheet, Table
from cutaway.show.shown import Shown

if TYPE_CHECKING:
    from cutaway.inspect.explainer import Run
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

ENDING = ".safetensors"
TOP = 32  # logits of a vocabulary that are kept at each place
ADDRESS = re.compile(r"((encoder|decoder)\.)?blocks\.\{i\}\.(attn|cross)\.pattern")


@dataclass(frozen=True)
class Logits:
    """The answer's numbers: `ids` and `values` [places, k], the largest of each place; `total` [places], log sum exp of
    all of them, so that exp(value - total) is the softmax's share. A classifier has one place, and all its classes.
    """

    ids: list[list[int]]
    values: Array
    total: Array


@dataclass(frozen=True)
class Trace(Shown):
    """A whole run.

    Attributes:
        explanation: tokens with their offsets, attention of all heads with its measures, answers, generation steps,
            certificate, and (unless left out) the evidence that the page shows.
        hidden: every state of each stack, [states, L, H]. logits: None for a model without a head.
        provenance: which versions made it. errors: for each array that was stored in steps, the largest difference from
            the model's numbers; empty before a trace is saved.
    """

    explanation: Explanation
    hidden: dict[str, Array]
    logits: Logits | None
    provenance: dict[str, str]
    errors: dict[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """The run, and how far the stored numbers are from the model's."""
        worst = max(self.errors.values(), default=0.0)
        return self.explanation.summary() + (f", errors up to {worst:.1g}" if self.errors else "")

    def sheet(self) -> Sheet:
        """The run, and what is kept beside it."""
        it = self.explanation.sheet()
        arrays = {f"hidden states of {name}": states for name, states in self.hidden.items()}
        if self.logits is not None:
            arrays["logits"] = self.logits.values
        rows = [[name, " x ".join(map(str, values.shape))] for name, values in arrays.items()]
        rows += [[f"error of {name.removeprefix('trace.')}", f"{error:.2g}"] for name, error in self.errors.items()]
        rows += [[name, value] for name, value in self.provenance.items()]
        return replace(it, parts=[*it.parts, Table("the trace", ["", ""], rows)])

    @classmethod
    def of(
        cls,
        model: LanguageModel | str | Path,
        tokenizer: TokenizerLike | None,
        text: str,
        *,
        evidence: bool = True,
        **options: Any,
    ) -> Trace:
        """Run `model` (a name, or loaded) on `text` and keep it all; options as those of `cutaway.inspect.explain`."""
        from cutaway.inspect.asked import Asked
        from cutaway.inspect.explainer import observe

        asked = {name: options.pop(name) for name in list(options) if name in Asked.__dataclass_fields__}
        explanation, run = observe(text, model, tokenizer, Asked(**asked, evidence=evidence), options)
        return cls(explanation, run.hidden, _logits(run), _provenance(explanation, run))

    def showing(
        self,
        *,
        layer: int | None = None,
        head: int | None = None,
        attention: str | None = None,
        token: str | int | None = None,
    ) -> Explanation:
        """The explanation with another head, or another token, than the one it was made with; as in `explain`."""
        it = self.explanation
        if (layer, head, attention) != (None, None, None):
            attentions, shown = chosen(it.attention, attention or it.shown, layer, head)
            it = replace(it, attention=attentions, shown=shown)
        if token is not None:
            prompt_tokens = [entry for entry in it.tokens if not entry.generated]
            it = replace(it, token=find_token(prompt_tokens, it.text, token))
        return it

    def save(self, path: str | Path) -> dict[str, float]:
        """Write the file, whose name ends in .safetensors; the largest error of each array that is stored in steps."""
        path = Path(path)
        if path.suffix.lower() != ENDING:
            raise InputError(f"{path.name}: a trace's name ends in {ENDING}, for example run.trace{ENDING}.")
        arrays: dict[str, Array] = {}
        tree = to_json(replace(self, errors={}), "trace", arrays)
        return trace_file.write(path, tree, arrays, self.errors)

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """A saved trace; CheckpointError where the file is not one, or is damaged."""
        path = Path(path)
        tree, arrays, errors = trace_file.read(path)
        try:
            trace: Trace = from_json(cls, tree, "trace", arrays)
            _agrees(trace)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} is a damaged trace: {error}") from None
        it = trace.explanation
        attention = {
            name: replace(a, error=errors.get(f"trace.explanation.attention.{name}.pattern", 0.0))
            for name, a in it.attention.items()
        }
        return replace(trace, explanation=replace(it, attention=attention), errors=errors)


def is_trace(name: str) -> bool:
    """Whether this is the name of a file that may be a trace, and not a text."""
    try:
        return name.lower().endswith(ENDING) and Path(name).is_file()
    except OSError:  # longer than a name may be
        return False


def _logits(run: Run) -> Logits | None:
    if run.kind in ("states", "span", "choices"):
        return None  # what a span and a choice were answered from is no row of logits for each token
    import torch

    rows = run.output.logits[0].detach().float()
    rows = rows[None] if rows.dim() == 1 else rows  # [places, classes]
    best = torch.topk(rows, min(TOP, rows.shape[-1]) if run.kind != "labels" else rows.shape[-1])
    return Logits(best.indices.tolist(), best.values.cpu().numpy(), rows.logsumexp(-1).cpu().numpy())


def _provenance(explanation: Explanation, run: Run) -> dict[str, str]:
    import tokenizers
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "tokenizers": tokenizers.__version__}
    it = explanation.model
    return {"cutaway": explanation.version, **versions, "numpy": np.__version__, "device": str(run.model.device),
            "model": it.name, "class": it.class_name, "dtype": it.dtype}  # fmt: skip


# -- what must fit together, before anything is drawn from it ---------------------------------------------------------


def _agrees(trace: Trace) -> None:
    it = trace.explanation
    strips = {"tokens": len(it.tokens), "target": len(it.target)}
    _must(bool(it.tokens) and 0 <= it.token < len(it.tokens), "the token that is followed")
    for tokens in (it.tokens, it.target):
        _must([token.index for token in tokens] == list(range(len(tokens))), "the numbers of the tokens")
    _must(
        set(it.attention) in ({"self"}, {"encoder", "decoder", "cross"}) and it.shown in it.attention, "the attention"
    )
    _must(set(it.states) in ({"self"}, {"encoder", "decoder"}) and set(trace.hidden) == set(it.states), "the states")
    for name, a in it.attention.items():
        layers, heads = a.pattern.shape[:2] if a.pattern.ndim == 4 else (0, 0)
        _must(a.pattern.shape == (layers, heads, strips[a.rows], strips[a.columns]), f"the pattern of {name}")
        _must(0 <= a.layer < layers and 0 <= a.head < heads, f"the head of {name}")
        _must("entropy" in a.measures and set(a.measures) <= set(MEANING), f"the measures of {name}")
        _must(all(values.shape == (layers, heads) for values in a.measures.values()), f"the measures of {name}")
        _must(bool(ADDRESS.fullmatch(a.address)) and a.name == name and a.error == 0, f"the address of {name}")
    for name, s in it.states.items():
        shape = (len(s.places), strips[s.tokens])
        _must(len(s.places) > 0 and s.name == name, f"the places of {name}")
        _must(all(v.shape == shape for v in (s.norm, s.to_embedding, s.to_previous)), f"the states of {name}")
        _must(s.first.ndim == 3 and s.first.shape[:2] == shape, f"the first numbers of {name}")
        hidden = trace.hidden[name]
        _must(hidden.ndim == 3 and hidden.shape[:2] == shape, f"the hidden states of {name}")
    _must(
        it.function in ("softmax", "sigmoid", "none", "") and (it.kind != "labels" or it.function != ""), "the answer"
    )
    written = it.target if it.kind == "target" else it.tokens
    _must(all(0 <= step.position < len(written) and step.candidates for step in it.steps), "the steps")
    if trace.logits is not None:
        ids, values, total = trace.logits.ids, trace.logits.values, trace.logits.total
        _must(values.ndim == 2 and total.shape == values.shape[:1], "the logits")
        _must([len(row) for row in ids] == [values.shape[1]] * len(values), "the logits")
    if it.evidence is not None:
        _evidence_agrees(it, it.evidence, strips)


def _evidence_agrees(it: Explanation, evidence: Evidence, strips: dict[str, int]) -> None:
    for name, norms in evidence.value_norms.items():
        a = it.attention.get(name)
        _must(a is not None and norms.shape == (*a.pattern.shape[:2], a.pattern.shape[3]), "the norms of values")
    for name, rollout in evidence.rollout.items():
        a = it.attention.get(name)
        _must(
            a is not None and a.rows == a.columns and rollout.shape == (len(a.pattern), *a.pattern.shape[2:]), "rollout"
        )
    lens = evidence.lens
    if lens is not None:
        _must(lens.tokens in strips, "the lens")
        places, length = len(lens.places), strips[lens.tokens]
        tops = lens.probability.shape[2] if lens.probability.ndim == 3 else 0
        _must(places > 0 and tops > 0 and lens.probability.shape == (places, length, tops), "the lens")
        _must(lens.kl.shape == (places, length), "the lens")
        _must([[len(best) for best in state] for state in lens.ids] == [[tops] * length] * places, "the lens")
        _must(all(str(id) in lens.labels for state in lens.ids for best in state for id in best), "the lens's labels")
    lengths = {len(scores.scores) for scores in evidence.attributions if scores.scores.ndim == 1} or {0}
    _must(len(lengths) == 1 and max(lengths) <= len(it.tokens), "the attributions")
    _must(all(scores.scores.ndim == 1 for scores in evidence.attributions), "the attributions")
    if evidence.parts is not None:
        _must(evidence.parts.values.shape == (len(evidence.parts.names),), "the parts of the logit")
    for name, plane in evidence.planes.items():
        states = it.states.get(name)
        _must(
            states is not None and plane.points.shape == (*states.norm.shape, 2) and len(plane.shares) == 2, "the plane"
        )
    _must(all(0 <= branch.step < len(it.steps) and branch.tokens for branch in evidence.branches), "the branches")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} and the rest of the run do not fit together")
