"""One text read by one model, for a page's views: what is small as JSON, matrices by name, evidence when wanted."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from cutaway.inspect.evidence import ATTRIBUTED_TOKENS
from cutaway.inspect.page.page import run_data
from cutaway.inspect.pattern_rows import PatternRows
from cutaway.nn.call_context import Evaluation
from cutaway.studio.changes import Change, changed
from cutaway.studio.live_run import PIXELS, LiveRun, refuse_patches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from cutaway.inspect.explanation import Evidence, Explanation
    from cutaway.inspect.measures import Array
    from cutaway.serve.served_model import ServedModel

# view -> what of the evidence it shows
EVIDENCE = {
    "attention": ("attention",),
    "layers": ("lens", "planes"),
    "attribution": ("attribution",),
    "typing": ("quick",),
    "answer": ("parts",),
}
SMALL = 3e9  # products of a pass that one thread does while a reader types: about 30 ms
CHARACTERS = 4  # of a token, about


@dataclass
class Analysis:
    """A run that is kept while a page may ask for more of it.

    Attributes:
        tensors: {name: array} of what is sent as bytes, or what parts of it are computed from; an analysis never
            changes, so neither do they.
    """

    served: ServedModel
    run: LiveRun
    explanation: Explanation
    changes: tuple[Change, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    tensors: dict[str, Array | PatternRows] = field(default_factory=dict)

    @classmethod
    def of(cls, served: ServedModel, text: str, new_tokens: int, changes: Sequence[Change] = ()) -> Analysis:
        """Run the model; called by the engine."""
        import torch

        with evaluated(served, changes), threads_for(served, len(text)), torch.inference_mode():
            run = LiveRun(text, served.name, served.model, served.explainer, new_tokens, False)
            if run.rows:
                refuse_patches([change.address for change in changes if change.kind == "patch"])
            explanation = run.explanation(None, None, None, None)
        found = cls(served, run, explanation, tuple(changes))
        if run.rows:
            found.tensors = dict(run.rows)
            run.output = {"logits": run.output.get("logits")}  # states of a long text are large, and are in `hidden`
        else:
            found.tensors = {name: attention.pattern for name, attention in explanation.attention.items()}
        return found

    @property
    def is_long(self) -> bool:
        """Whether patterns are computed part by part."""
        return bool(self.run.rows)

    @property
    def bytes(self) -> int:
        states = sum(states.nbytes for states in self.run.hidden.values()) if self.is_long else 0
        return states + sum(tensor.nbytes for tensor in self.tensors.values())

    def tensor(self, name: str) -> Array | PatternRows | None:
        """What is sent under a name; None where there is nothing. `NAME.pictures` are all heads of an attention, small.

        Each picture is a share of its head's own largest weight: [layers, heads, n, n].
        """
        kind, _, what = name.partition(".")
        if name in self.tensors or what != "pictures" or kind not in self.tensors:
            return self.tensors.get(name)
        pictures = self.run.summaries[kind].pictures if self.is_long else _pictures(self.explanation, kind)
        most = np.nan_to_num(pictures).max((-2, -1), keepdims=True)
        self.tensors[name] = np.asarray(pictures / np.where(most > 0, most, 1), np.float32)
        return self.tensors[name]

    def evidence(self, view: str) -> Evidence:
        """What a view shows beside the run; called by the engine."""
        with evaluated(self.served, self.changes), threads_for(self.served, len(self.run.text)):
            want = () if self.is_long and view == "attention" else EVIDENCE[view]  # rollout and norms need it whole
            found = self.run.evidence(self.explanation, want)
        for name, rollout in found.rollout.items():
            self.tensors[f"{name}.rollout"] = rollout[:, None]  # [layers, 1, L, L]
        return found

    def effects(self, view: str) -> Explanation:
        """The run with the measure "effect" of its heads, where the view shows it; called by the engine."""
        if view != "attention" or self.is_long or len(self.run.ids) > ATTRIBUTED_TOKENS:
            return self.explanation
        with evaluated(self.served, self.changes), threads_for(self.served, len(self.run.text)):
            return self.run.with_effects(self.explanation)

    def data(self, views: Sequence[str]) -> dict[str, object]:
        """What the page reads: a run without matrices, and the evidence of these views."""
        evidence: list[Evidence] = [self.evidence(view) for view in views]
        explanation = self.explanation if not evidence else replace(self.explanation, evidence=evidence[0])
        data = run_data(explanation)
        for name, entry in data["attention"].items():
            entry["packed"] = self._packed(name)
            if f"{name}.rollout" in self.tensors:
                entry["rollout"] = self._packed(f"{name}.rollout")
        data["evidence"]["has"] = list(views)
        words = "with the changes of the lab. " if self.changes else ""
        data["provenance"] = f"Made by cutaway {self.explanation.version}, live {words or 'on this machine. '}"
        return {"id": self.id, "run": data}

    def more(self, view: str) -> dict[str, object]:
        """The evidence of one more view, and the tensors that come with it."""
        evidence = self.evidence(view)
        found = run_data(replace(self.effects(view), evidence=evidence))
        entries = {
            name: {
                key: value
                for key, value in (
                    ("value_norms", found["attention"][name].get("value_norms")),
                    ("measures", found["attention"][name]["measures"] if view == "attention" else None),
                    ("rollout", self._packed(f"{name}.rollout") if f"{name}.rollout" in self.tensors else None),
                )
                if value is not None
            }
            for name in self.explanation.attention
        }
        return {"id": self.id, "evidence": found["evidence"], "attention": entries}

    def _packed(self, name: str) -> dict[str, object]:
        values = self.tensors[name]
        if isinstance(values, PatternRows):
            summary = self.run.summaries[name]
            broken, long = not summary.finite, {"sampled": summary.rows}
        else:
            broken, long = not bool(np.isfinite(values).all()), {}
        return {
            "shape": values.shape, "steps": [], "error": 0.0, "broken": broken, "blocks": [],
            "tensor": f"{self.id}/{name}", **long,
        }  # fmt: skip


def _pictures(explanation: Explanation, kind: str) -> Array:
    """Every head of an attention in few pixels, the largest weight of each part."""
    import torch
    import torch.nn.functional as F

    pattern = torch.from_numpy(explanation.attention[kind].pattern)
    sizes = [min(PIXELS, n) for n in pattern.shape[-2:]]
    return np.asarray(F.adaptive_max_pool2d(pattern, sizes).numpy())


@contextmanager
def threads_for(served: ServedModel, characters: int) -> Iterator[None]:
    """Inside, one thread computes where the work is small.

    The browser draws on the same cores: threads that wait for one of them that the browser has taken wait longer than
    the whole work takes.
    """
    import torch

    stack = served.model.architecture.stack
    products = 12 * stack.n_layers * stack.hidden_size**2 * max(characters // CHARACTERS, 1)
    before = torch.get_num_threads()
    if products > SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def evaluated(served: ServedModel, changes: Sequence[Change]) -> Iterator[None]:
    """Inside, the model is evaluated, with these changes."""
    with Evaluation(cast("nn.Module", served.model))(), changed(served, changes):
        yield
