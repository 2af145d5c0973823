"""Labels of your own choice, scored by a model that knows what follows from what (natural language inference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cutaway.errors import InputError
from cutaway.pipelines.base import Pipeline, text_only
from cutaway.pipelines.fit import longest_input
from cutaway.pipelines.plan import Row, shares
from cutaway.pipelines.text_classification import Classification


@dataclass(frozen=True)
class LabelledText(Classification):
    """The labels of a text and their scores, best first. text: the text. cut: how many of its tokens were left out.

    windows: how many windows it was read in.
    """

    text: str = ""


class ZeroShotClassificationPipeline(Pipeline):
    """`pipe(text, candidate_labels=[...])`: how well each label fits (Yin et al., 2019).

    Each label is put into `hypothesis_template` ("This example is {}."), and the model says whether the text entails
    it. Scores are a softmax over the labels, or with `multi_label=True` (or one label) entailment against contradiction
    for each label by itself.

    `long="window"` reads a long text in overlapping windows, the same for every label. A label's score is the mean of
    its scores in the windows, each weighted by the tokens that the window owns; `windows` says how many there were.

    A text gives {"sequence", "labels", "scores"}, best first; a list of texts a list of these.
    """

    settings: ClassVar[dict[str, Any]] = {
        "candidate_labels": None,
        "hypothesis_template": "This example is {}.",
        "multi_label": False,
        "long": None,
        "overlap": None,
    }
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate", "window")

    def __call__(self, inputs: object, *labels: object, batch_size: int | None = None, **settings: object) -> Any:
        """See the class; the labels may also be the second argument."""
        if labels:
            if len(labels) > 1 or "candidate_labels" in settings:
                raise InputError("zero-shot-classification takes the texts, then candidate_labels=[...] once.")
            settings["candidate_labels"] = labels[0]
        return super().__call__(inputs, batch_size=batch_size, **settings)

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        labels, template = settings["candidate_labels"], settings["hypothesis_template"]
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        labels = list(labels or ())
        if not labels or not all(isinstance(label, str) for label in labels):
            raise InputError("candidate_labels= must hold at least one label: candidate_labels=['sports', 'politics'].")
        if template.format(labels[0]) == template:
            raise InputError(f"hypothesis_template={template!r} has no place for the label. Write {{}} where it goes.")
        names = {str(name).lower(): int(index) for index, name in self.model.config.id2label.items()}
        entails = next((index for name, index in names.items() if name.startswith("entail")), None)
        if entails is None:
            raise InputError(
                f"None of the model's labels ({', '.join(names)}) is entailment, so it cannot say what follows from a "
                "text. Use a model for natural language inference; if this is one, name its labels in "
                "model.config.id2label."
            )
        against = next((index for name, index in names.items() if name.startswith("contradict")), None)
        if against is None:  # as upstream: the first label, or the last
            against = len(names) - 1 if entails == 0 else 0
        return {**settings, "candidate_labels": labels, "entails": entails, "against": against}

    def check(self, item: object) -> str:
        text = text_only(self.task, item)
        if not text.strip():
            raise InputError("zero-shot-classification got an empty text. Leave it out.")
        return text

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        hypotheses = [settings["hypothesis_template"].format(label) for label in settings["candidate_labels"]]
        longest, room = longest_input(self.model, self.tokenizer), None
        if settings["long"] == "window" and longest is not None:  # windows beside the longest hypothesis fit them all
            own = self.tokenizer(hypotheses, add_special_tokens=False)["input_ids"]
            room = max(1, longest - self.tokenizer.num_special_tokens_to_add(True) - max(map(len, own)))
        pairs = [(text, hypothesis) for text in items for hypothesis in hypotheses]
        rows = iter(self.fitted(pairs, settings, cutting="only_first", room=room))
        return [[row for _ in hypotheses for row in next(rows)] for _ in items]

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        logits = self.model(**self.batch(rows)).logits.float()  # [rows, labels of the model]
        pairs: list[Any] = logits[:, [settings["against"], settings["entails"]]].tolist()
        return pairs

    def finish(self, item: str, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> LabelledText:
        labels = settings["candidate_labels"]
        logits = torch.tensor(outputs).view(len(labels), -1, 2)  # [candidate labels, windows, 2]
        windows = logits.shape[1]
        alone = settings["multi_label"] or len(labels) == 1
        parts = logits.softmax(2)[..., 1] if alone else logits[..., 1].softmax(0)  # [candidate labels, windows]
        scores = (parts @ torch.tensor(shares(rows[:windows]))).tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        best = tuple(labels[i] for i in order)
        return LabelledText(best, tuple(scores[i] for i in order), max(row.cut for row in rows), windows, item)

    def shaped(self, result: LabelledText, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"sequence": result.text, "labels": list(result.labels), "scores": list(result.scores)}
