"""A run to show: of a model on a text, or one that was saved as a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.commands.subject import read_text

if TYPE_CHECKING:
    from cutaway.inspect.explanation import Explanation
    from cutaway.inspect.trace.trace import Trace


def observed(
    text: str | None, model: str, asked: dict[str, Any], load: dict[str, Any], *, kept: bool = False, **more: Any
) -> tuple[Explanation, Trace | None]:
    """The explanation, and the trace where there is one: `text` is the name of a saved trace, or it is to be `kept`.

    Args:
        text: the argument of the command. asked: layer, head, attention and (perhaps) token, as `explain` takes them.
        more: what only a run on a text heeds.
    """
    from cutaway.inspect.trace.trace import Trace, is_trace

    if text is not None and is_trace(text):
        trace = Trace.open(text)
        return trace.showing(**asked), trace
    given = read_text(text)
    if kept:
        trace = Trace.of(model, None, given, **asked, **{**more, "evidence": True}, **load)
        return trace.explanation, trace
    from cutaway.inspect.asked import Asked
    from cutaway.inspect.explainer import observe

    return observe(given, model, None, Asked(**asked, **more), load)[0], None
