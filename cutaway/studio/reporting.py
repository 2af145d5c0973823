"""The report of a table of texts that have a true label: the one that `cutaway evaluate --report` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cutaway.errors import InputError
from cutaway.serve.body import Body
from cutaway.studio.table import MOST, Text

if TYPE_CHECKING:
    from cutaway.serve.served_model import ServedModel

MISTAKES = 20
Label = Annotated[str, Field(max_length=1000)]


class ReportBody(Body):
    """Texts and the label that is right for each; `name` is what the table is called."""

    model: str
    texts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST)]
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=MOST)]
    name: Annotated[str, Field(max_length=400)] = "a table"


def report(served: ServedModel, body: ReportBody) -> str:
    """The report as one page of HTML.

    Raises:
        InputError: not one label for each text, a label that the model does not have, a model that labels nothing.
    """
    from cutaway.evaluate.baselines import majority
    from cutaway.evaluate.evaluation import evaluate
    from cutaway.evaluate.mistakes import Answer, confident_mistakes
    from cutaway.evaluate.report import Report, facts_of, html
    from cutaway.pipelines.factory import pipeline

    if len(body.labels) != len(body.texts):
        raise InputError(f"labels: {len(body.labels)} for {len(body.texts)} texts; give one for each.")
    if served.task != "text-classification":
        raise InputError(f"{served.name} gives no labels, so there is nothing to report; take a classifier.")
    pipe = pipeline("text-classification", served.model, served.explainer)
    rows = [{"text": text, "label": label} for text, label in zip(body.texts, body.labels, strict=True)]
    evaluation = evaluate(pipe, rows)
    lines = enumerate(zip(body.texts, evaluation.answers, strict=False), start=1)
    answers = [Answer(row, text, *answer) for row, (text, answer) in lines]
    mistakes = confident_mistakes(pipe, answers, MISTAKES) if answers else []
    baselines = [majority([answer.right for answer in answers])] if answers else []
    facts = facts_of(pipe.task, body.name, served.name, "") | {"rows": f"{evaluation.rows:,}"}
    return html(Report(f"{served.name} on {body.name}", facts, evaluation, answers, baselines, mistakes))
