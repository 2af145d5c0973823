"""Special tokens that a tokenizer has otherwise than its model's config: training makes them one."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("cutaway")

_NAMES = ("eos_token_id", "bos_token_id", "pad_token_id")


def align_special_tokens(model: object, tokenizer: object) -> dict[str, Any]:
    """Give the config of `model`, and that of its generation, the ids of the tokenizer's special tokens.

    What the tokenizer ends texts with is what the model learns to end them with, so the saved model must know it. Other
    ids at which generation ends stay beside it. What changed is said once, in the log of "cutaway".

    Args:
        tokenizer: None, or anything that has no such ids, changes nothing.

    Returns:
        {name: its new value}.
    """
    config, settings = getattr(model, "config", None), getattr(model, "generation_config", None)
    changed: dict[str, Any] = {}
    if config is None:
        return changed
    for name in _NAMES:
        own = getattr(tokenizer, name, None)
        if not isinstance(own, int) or isinstance(own, bool):
            continue
        inside, stops = _ids(config, name), _ids(settings, name)
        if own in inside and (settings is None or own in stops):
            continue
        changed[name] = own
        several = name == "eos_token_id"
        listed = several and isinstance(getattr(config, name, None), list)
        setattr(config, name, [own, *(i for i in inside if i != own)] if listed else own)
        if settings is not None:
            setattr(settings, name, [own, *(i for i in stops if i != own)] if several else own)
    if changed:
        told = ", ".join(f"{name} = {value}" for name, value in changed.items())
        log.warning("the tokenizer has other special tokens than the model's config, which takes them over: %s.", told)
    return changed


def _ids(config: object, name: str) -> list[int]:
    found = getattr(config, name, None)
    return [] if found is None else list(found) if isinstance(found, list) else [found]
