"""What each token of a text did to a label, beside the answer of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike


def attributions(
    model: LanguageModel, tokenizer: TokenizerLike, item: str | Mapping[str, str], label: str
) -> dict[str, Any]:
    """Integrated gradients of one text, or pair {"text", "text_pair"}, for `label`; called by the engine."""
    from cutaway.inspect.gradients import integrated_gradients
    from cutaway.inspect.target import Target
    from cutaway.show.label import token_label

    texts = (item,) if isinstance(item, str) else (item["text"], item["text_pair"])
    encoding = tokenizer(
        texts[0], texts[1] if len(texts) > 1 else None, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    ids = encoding["input_ids"]
    offsets, special = encoding["offset_mapping"], encoding["special_tokens_mask"]
    keep = [name for name in encoding if name not in ("offset_mapping", "special_tokens_mask")]
    inputs = {name: torch.tensor([encoding[name]], device=model.device) for name in keep}
    place = next(int(i) for i, name in model.config.id2label.items() if name == label)
    found = integrated_gradients(model, inputs, Target(index=place), steps=8, most=64)
    tokens = []
    for id, (start, end), hidden, score in zip(ids, offsets, special, found.scores.tolist(), strict=True):
        name = token_label(tokenizer, tokenizer.convert_ids_to_tokens(id), id, bool(hidden))
        tokens.append({"token": name, "start": start, "end": end, "special": bool(hidden), "score": score})
    return {
        "method": found.method, "label": label, "value": found.value, "base": found.base,
        "residual": found.residual, "note": found.note, "tokens": tokens,
    }  # fmt: skip
