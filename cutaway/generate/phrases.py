"""Rules about runs of tokens: pure functions on the logits [B, V] of one step and the text before it.

Texts are ids [B, L], the newest last; -1 stands for padding and matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cutaway.generate.sampling import MINUS_INF


def no_repeat_ngram(
    logits: Tensor, text: Tensor, n: int, source: Tensor | None = None, *, in_place: bool = False
) -> Tensor:
    """Rules out each token that would end a run of n tokens that was there before (Paulus, Xiong & Socher 2018,
    arXiv:1705.04304).

    Args:
        logits: [B, V].
        text: ids [B, L].
        n: length of the runs, at least 1.
        source: ids [B, S], where "before" is another text than this one.
        in_place: write into `logits`.
    """
    before = text if source is None else source
    length, vocabulary = text.shape[1], logits.shape[-1]
    if length < n - 1 or before.shape[1] < n:
        return logits
    runs = before.unfold(1, n, 1)  # [B, runs, n]
    newest = text[:, length - (n - 1) :]  # [B, n - 1]
    again = (runs[..., :-1] == newest[:, None]).all(dim=-1) & (runs >= 0).all(dim=-1)  # [B, runs]
    rows, places = (again & (runs[..., -1] < vocabulary)).nonzero(as_tuple=True)
    out = logits if in_place else logits.clone()
    out[rows, runs[rows, places, -1]] = MINUS_INF
    return out


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
        ends = [ids[:, -1] for ids, _ in self.groups]
        self.ends, places = torch.cat(ends or [torch.zeros(0, dtype=torch.int64, device=device)]).unique(
            return_inverse=True
        )  # [M], the tokens that a bias may be for, each once
        self.places = places.split([len(end) for end in ends]) if ends else ()  # of each phrase, among those

    def bias(self, logits: Tensor, text: Tensor, *, in_place: bool = False) -> Tensor:
        """The logits [B, V] with every bias that applies after the text [B, L] added; `in_place`: written into them."""
        total = logits.new_zeros(len(logits), len(self.ends))
        for (ids, bias), places in zip(self.groups, self.places, strict=True):
            before = ids.shape[1] - 1
            if before > text.shape[1]:
                continue
            stands = (text[:, None, text.shape[1] - before :] == ids[:, :-1]).all(dim=-1)  # [B, N]
            total.index_add_(1, places, torch.where(stands, bias.to(total.dtype), 0.0))
        return (logits if in_place else logits.clone()).index_add_(1, self.ends, total)
