"""One kind of attention of a run, with its measures and the head that is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from cutaway.errors import ConfigError, InputError, nearest
from cutaway.inspect import measures
from cutaway.inspect.explanation import Attention, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def attention_of(
    name: str,
    address: str,
    values: Sequence[Tensor],
    rows: list[Token],
    columns: list[Token],
    row_name: Literal["tokens", "target"] = "tokens",
) -> Attention:
    """The attention of all layers, `values` one [1, heads, Lq, Lk] each; the head with the sharpest focus is shown."""
    if not values:
        raise ConfigError(f"The model returned no {name} attention; does it have layers at all?")
    pattern = np.stack([layer[0].detach().float().cpu().numpy() for layer in values])  # [layers, heads, Lq, Lk]
    same = rows is columns
    causal = same and pattern.shape[-1] > 1 and not pattern[:, :, 0, 1:].any()
    words = [[t.index for t in part if not t.special and not (causal and t.index == 0)] for part in (rows, columns)]
    computed = {
        "entropy": measures.entropy(pattern),
        "focus": measures.focus(pattern, words[0], words[1], same=same),
    }
    if same:
        computed["distance"] = measures.distance(pattern)
    layer, head = np.unravel_index(int(computed["focus"].argmax()), pattern.shape[:2])
    return Attention(
        name=name,
        address=address,
        rows=row_name,
        columns=row_name if same else "tokens",
        pattern=pattern,
        measures=computed,
        layer=int(layer),
        head=int(head),
        chosen="sharpest focus",
    )


def chosen(
    kinds: dict[str, Attention], attention: str | None, layer: int | None, head: int | None
) -> tuple[dict[str, Attention], str]:
    """The attentions with the head that is asked for, and the name of the one that is shown: "cross" unless given.

    Raises:
        InputError: an attention, a layer or a head that is not there.
    """
    shown = ("cross" if "cross" in kinds else next(iter(kinds))) if attention is None else attention
    if shown not in kinds:
        raise InputError(f"attention={attention!r} is not in this model.{nearest(shown, kinds)}")
    return {**kinds, shown: _with_head(kinds[shown], layer, head)}, shown


def _with_head(attention: Attention, layer: int | None, head: int | None) -> Attention:
    if layer is None and head is None:
        return attention
    layers, heads = attention.pattern.shape[:2]
    for name, value, count in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 0 <= value < count:
            raise InputError(f"{name}={value} is not there: {name}s go from 0 to {count - 1}.")
    focus = attention.measures["focus"]
    if layer is None:
        layer = int(focus[:, head].argmax())
    if head is None:
        head = int(focus[layer].argmax())
    return replace(attention, layer=layer, head=head, chosen="asked for")
