"""Texts of a batch that begin alike: what they share is computed once while a model learns.

In a causal model a token's vectors depend on the tokens before it alone. So texts with the same first tokens (the
system prompt of a chat, a question with several answers) have the same vectors there in every layer, and of these rows
one is computed for all. Attention is given each text whole again; gradients of the rows that stand for several add up.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cutaway.config.architecture import Stack as Spec
from cutaway.nn.attention import Attention
from cutaway.nn.call_context import current, evaluating, scopes_of
from cutaway.nn.cpu.ops import transformed
from cutaway.nn.cpu.torch_private import calls_are_watched
from cutaway.nn.linear import hooked
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.packed_batch import PackedBatch, SharedRows, filled_up

LEAST = 16  # one row of so many must be saved, or what is gathered costs as much


def shared_rows(stack: NamedModule, rows: PackedBatch, ids: Tensor, positions: Tensor | None) -> SharedRows | None:
    """Which rows of a batch stand for others in a pass of `stack`; None where each is its own, or may differ.

    Only while it learns on a processor, where nobody watches a module, and no row has a dropout of its own.

    Args:
        ids: [batch, length]. positions: the same, where they are not counted from each text's first token.
    """
    if not torch.is_grad_enabled() or not stack.training or evaluating() or ids.device.type != "cpu":
        return None
    if len(rows.lengths) < 2 or rows.whole or rows.key_mask is not None or rows.holes:
        return None
    if not _by_rows(stack) or transformed(ids) or calls_are_watched():
        return None
    starts, lengths = (x.numpy() for x in rows.spans())
    flat = rows.pack(ids).flatten().numpy().astype(np.int64)  # [rows]
    if positions is not None:
        places = rows.pack(positions).flatten().numpy().astype(np.int64)
        flat = flat * (int(places.max()) + 1) + places
    same = _first_alike(flat, starts, lengths)
    computed = np.flatnonzero(same[: rows.used] == np.arange(rows.used))
    if (rows.used - len(computed)) * LEAST < rows.used:
        return None
    among = np.cumsum(same == np.arange(len(same))) - 1  # of each row that is computed, its place among these
    of = among[same]
    of[rows.used :] = of[rows.used - 1]
    return SharedRows(filled_up(torch.from_numpy(computed)), torch.from_numpy(of))


def _first_alike(
    flat: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The first row with the same tokens up to it, itself where there is none, [rows]; `flat` [rows]: its token."""
    same = np.arange(len(flat))
    alike, kinds = np.arange(len(starts)), np.zeros(len(starts), dtype=np.int64)
    step, bound = 0, int(flat.max()) + 1
    while len(alike) > 1:  # texts that share all tokens so far with another
        ends = lengths[alike] > step
        alike, kinds = alike[ends], kinds[ends]
        at = starts[alike] + step
        _, first, kinds, counts = np.unique(
            kinds * bound + flat[at], return_index=True, return_inverse=True, return_counts=True
        )
        same[at] = at[first][kinds]
        several = counts[kinds] > 1
        alike, kinds, step = alike[several], kinds[several], step + 1
    return same


def _by_rows(stack: NamedModule) -> bool:
    """Whether all but attention is computed row by row, the same for equal rows, and nobody is shown it."""
    spec: Spec = stack.spec
    rates = (
        spec.dropout, spec.embedding.dropout, spec.feed_forward.dropout,
        spec.attention.dropout, spec.attention.out_dropout,
    )  # fmt: skip
    if not spec.causal or spec.convolution is not None or stack.by_length or any(rates):
        return False
    call = current().adapters
    if (call is not None and len(set(call.names)) > 1) or any(scope.vectors is not None for scope in scopes_of(stack)):
        return False
    if any(type(block.attn) is not Attention for block in stack.blocks):
        return False
    return all(_same_for_equal_rows(module) for block in stack.blocks for module in block.engine.modules())


def _same_for_equal_rows(module: nn.Module) -> bool:
    """Whether a module is the library's own, unwatched, and no adapter of it drops out."""
    kind = type(module)
    if hooked(module) or not (kind.__module__.startswith("cutaway.nn.") or kind in (nn.ModuleList, nn.Identity)):
        return False
    part, site = module.__dict__.get("part"), module.__dict__.get("site")
    if part is not None and not part.is_plain:
        return False
    return site is None or not any(getattr(held, "dropout", 0.0) for held in site.held.values())
