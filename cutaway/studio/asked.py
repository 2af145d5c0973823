"""What a model is asked about a text: its inputs, where the answer stands, and what answers are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cutaway.errors import InputError
from cutaway.inspect.asked import check_explained, kind_of
from cutaway.studio.changes import batch_of
from cutaway.studio.writing import label_of

if TYPE_CHECKING:
    import torch

    from cutaway.serve.served_model import ServedModel


def asked_of(served: ServedModel, text: str) -> tuple[dict[str, torch.Tensor], int | None, Callable[[int], str]]:
    """(inputs [1, L], the answer's position or None, the name of an answer). InputError for a model without answers."""
    check_explained(served.model)
    kind = kind_of(served.model)
    if kind == "states":
        raise InputError(f"{served.name} gives vectors and no answer; take a model with a head.")
    inputs, position = batch_of(served, [text]), None
    if kind == "target":
        position = 0
    elif kind == "mask":
        at = (inputs["input_ids"][0] == served.explainer.mask_token_id).nonzero().flatten().tolist()
        position = at[0] if at else 0
    if kind == "labels":
        return inputs, position, lambda index: str(served.model.config.id2label[index])
    return inputs, position, lambda index: label_of(served, index)
