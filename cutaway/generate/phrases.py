"""Rules about runs of tokens: pure functions on the logits [B, V] of one step and the text before it.

Texts are ids [B, L], the newest last; -1 stands for padding and matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cutaway.generate.sampling import MINUS_INF


def no_repeat_ngram(logits: Tensor, text: Tensor, n: int, source: Tensor | None = None) -> Tensor:
    """Rules out each token that would end a run of n tokens that was there before (Paulus, Xiong & Socher 2018,
    arXiv:1705.04304).

    Args:
        logits: [B, V].
        text: ids [B, L].
        n: length of the runs, at least 1.
        source: ids [B, S], where "before" is another text than this one.
    """
    before = text if source is None else source
    length, vocabulary = text.shape[1], logits.shape[-1]
    if length < n - 1 or before.shape[1] < n:
        return logits
    runs = before.unfold(1, n, 1)  # [B, runs, n]
    newest = text[:, length - (n - 1) :]  # [B, n - 1]
    again = (runs[..., :-1] == newest[:, None]).all(dim=-1) & (runs >= 0).all(dim=-1)  # [B, runs]
    ends = torch.where(again & (runs[..., -1] < vocabulary), runs[..., -1], vocabulary)
    ruled_out = torch.zeros(logits.shape[0], vocabulary + 1, dtype=torch.bool, device=logits.device)
    return logits.masked_fill(ruled_out.scatter_(1, ends, True)[:, :vocabulary], MINUS_INF)


class Phrases:
    """Phrases of one or more ids, each with what is added to the logit of its last token once the others stand there.

    Phrases of one length are compared with the text at once.
    """

    def __init__(self, phrases: Iterable[tuple[Sequence[int], float]], device: torch.device) -> None:
        by_length: dict[int, list[tuple[Sequence[int], float]]] = {}
        for ids, bias in phrases:
            by_length.setdefault(len(ids), []).append((ids, bias))
        self.groups = [
            (torch.tensor([ids for ids, _ in group], device=device), torch.tensor([b for _, b in group], device=device))
            for group in by_length.values()
        ]  # of each length: [N, length], [N]

    def bias(self, logits: Tensor, text: Tensor) -> Tensor:
        """The logits [B, V] with every bias that applies after the text [B, L] added."""
        total = torch.zeros_like(logits)
        for ids, bias in self.groups:
            before = ids.shape[1] - 1
            if before > text.shape[1]:
                continue
            stands = (text[:, None, text.shape[1] - before :] == ids[:, :-1]).all(dim=-1)  # [B, N]
            total.index_add_(1, ids[:, -1], torch.where(stands, bias.to(total.dtype), 0.0))
        return logits + total
