"""How much each key really brings: norms of weighted values (Kobayashi et al., 2020, arXiv 2004.10102)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, tower_of

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class ValueNorms(Result):
    """Weighted values of one layer's attention.

    Attributes:
        address: the pattern's. heads: [B, heads, Lq, Lk], the Euclidean norm of each head's part; together [B, Lq, Lk],
            the norm of the heads' sum.
    """

    address: str
    heads: Tensor
    together: Tensor


def weighted_values(pattern: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """alpha(q, k) v(k) W_h for every head, query and key (Kobayashi et al., 2020, eq. 5): [B, heads, Lq, Lk, H].

    Summed over heads and keys, with the output bias, it is the attention's output.

    Args:
        pattern: [B, heads, Lq, Lk]. values: [B, Lk, kv heads, d]. weight: the output matrix [H, heads * d].
    """
    heads, shared = pattern.shape[1], values.shape[2]
    values = values.repeat_interleave(heads // shared, 2)  # [B, Lk, heads, d]
    parts = weight.view(weight.shape[0], heads, -1)  # [H, heads, d]
    turned = torch.einsum("bkhd,ohd->bhko", values, parts)
    return pattern[..., None] * turned[:, :, None]


@torch.no_grad()
@measure
def value_norms(
    model: LanguageModel, inputs: Inputs, layer: int, *, tower: str | None = None, cross: bool = False
) -> ValueNorms:
    """||alpha(q, k) v(k) W|| of one layer, where a pattern alone would show alpha(q, k).

    A token with a large weight and a small value brings little: separators and first tokens often are such.
    """
    handle = tower_of(model, tower)
    name = "cross" if cross else "attn"
    at = handle.at(f"blocks.{layer}.{name}")
    with model.record(f"{at}.pattern", f"{at}.v") as r:
        model(**inputs)
    weight = getattr(handle.block(layer), name).output_layer().weight
    weighted = weighted_values(r[f"{at}.pattern"], r[f"{at}.v"], weight)
    return ValueNorms(f"{at}.pattern", weighted.norm(dim=-1), weighted.sum(1).norm(dim=-1))
