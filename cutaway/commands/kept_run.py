"""A run that was saved as a trace, in the place of a model and a text: what it holds can be shown, nothing computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cutaway.errors import InputError
from cutaway.inspect.plots.canvas import Origin
from cutaway.show.label import printable

if TYPE_CHECKING:
    from cutaway.inspect.explanation import Evidence, Explanation
    from cutaway.inspect.trace.trace import Trace


@dataclass(frozen=True)
class KeptRun:
    """A trace as a command looks into it; it has `name`, `kind`, `origin` and `answer` as a `Subject` has."""

    trace: Trace

    @classmethod
    def of(cls, text: str | None) -> KeptRun | None:
        """The run that `text` names, if it is the name of a saved trace."""
        from cutaway.inspect.trace.trace import Trace, is_trace

        return cls(Trace.open(text)) if text is not None and is_trace(text) else None

    @property
    def it(self) -> Explanation:
        return self.trace.explanation

    @property
    def name(self) -> str:
        return self.it.model.name

    @property
    def kind(self) -> str:
        return self.it.kind

    def origin(self, text: str, error: float | None = None) -> Origin:
        from cutaway.inspect.plots.generation import origin_of

        return replace(origin_of(self.it), text=text, error=error)

    def labels(self, which: str) -> list[str]:
        """The names of the strip "tokens" or "target"."""
        return [token.label for token in self.it.strip(which)]

    def evidence(self, what: str) -> Evidence:
        """What was gathered beside the run; InputError where `what` is asked for, and nothing was."""
        found = self.it.evidence
        if found is None:
            raise InputError(f"the trace was saved without evidence, so it has no {what}; give the text and the model.")
        return found

    def lacks(self, what: str, why: str = "") -> InputError:
        """The error for something that only the model could give."""
        reason = f": {printable(why)}" if why else ""
        return InputError(f"the trace holds no {what}{reason}; give the text and the model in its place.")

    @cached_property
    def _known(self) -> dict[int, str]:
        """Names of answers: classes, or the tokens that stand anywhere in the trace."""
        it = self.it
        if it.kind == "labels":
            return {answer.id: answer.label for answer in it.answers}
        found = {token.id: token.label for token in (*it.tokens, *it.target)}
        if it.evidence is not None and it.evidence.lens is not None:
            found.update({int(id): label for id, label in it.evidence.lens.labels.items()})
        found.update({c.id: c.label for step in it.steps for c in (step.picked, *step.candidates)})
        return found

    def answer(self, index: int) -> str:
        """The name of an answer; its number, where the trace does not say the name."""
        return self._known.get(index, f"#{index}")


def only_texts(command: str, *texts: str | None) -> None:
    """InputError where one of the texts is the name of a saved trace, and the command runs the model."""
    from cutaway.inspect.trace.trace import is_trace

    for text in texts:
        if text is not None and is_trace(text):
            raise InputError(f"{text} is a saved trace, but {command} has to run the model; give the text itself.")


def no_options(run: KeptRun, **given: object) -> None:
    """InputError where an option asks a trace for another answer than the one that it explains."""
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"--{name} asks for another answer than the one that {run.name} was saved with; give the text and the "
                "model in place of the trace."
            )
