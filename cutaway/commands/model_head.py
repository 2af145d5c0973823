"""Whether a checkpoint has the head that a command needs, known before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping

from cutaway.errors import InputError

# the task that a checkpoint's class must be for, by the task that a command asks of it
NEEDED = {
    "text-classification": "text-classification",
    "zero-shot-classification": "text-classification",
    "rerank": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
}


def config_of(name: str, options: Mapping[str, object]) -> object:
    """The model's config, which says its labels."""
    from cutaway.auto import AutoConfig
    from cutaway.commands.option import gguf_arguments

    load = {"revision": options["revision"]} if "revision" in options else {}
    more = options.get("model_kwargs")
    place, load = gguf_arguments(name, {**load, **(more if isinstance(more, dict) else {})})
    return AutoConfig.from_pretrained(place, **load)


def check_head(name: str, config: object, task: str, what: str) -> None:
    """InputError where the checkpoint says that it has no head for the task, so that one would be drawn at random.

    what: what cannot be done with it.
    """
    from cutaway.hub.class_endings import ending_of

    class_name = next(iter(getattr(config, "architectures", None) or ()), "")
    end = ending_of(class_name)
    if task not in NEEDED or not class_name or (end is not None and end.task == NEEDED[task]):
        return
    headless = end is None or end.task == "feature-extraction"
    has = "has no head that labels" if headless else f"is for {getattr(end, 'task', '')}"
    raise InputError(
        f"{name} ({class_name}) {has}, so it cannot be {what}. Give another model, or train this one: "
        f"cutaway train {name} TABLE -o FOLDER."
    )
