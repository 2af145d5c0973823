"""What a head looks at: the token before, an equal one, or what came after an equal one; and heads that look alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import tower_of
from cutaway.show.sheet import Scale

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class HeadScores(Result):
    """[layers, heads] each, from 0 to 1: the mean attention that goes where the name says.

    Attributes:
        previous: to the token before. duplicate: to earlier equal tokens. induction: to what came after these.
    """

    SCALES: ClassVar[dict[str, Scale]] = {"previous": "share", "duplicate": "share", "induction": "share"}

    previous: Tensor
    duplicate: Tensor
    induction: Tensor

    def best(self, which: str) -> tuple[int, int]:
        """(layer, head) of the highest score called `which`."""
        scores: Tensor = getattr(self, which)
        return divmod(int(scores.argmax()), scores.shape[1])


@measure
def head_scores(patterns: Tensor, ids: Tensor) -> HeadScores:
    """Mean share of attention at the places that a kind of head looks at, over the queries that have such a place.

    previous: k = q - 1. duplicate: k < q with the same token as q. induction: k with the same token at k - 1 as q has
    (Olsson et al., 2022, "In-context Learning and Induction Heads", 2209.11895).

    Args:
        patterns: [layers, heads, L, L]. ids: [L], the tokens.
    """
    length = len(ids)
    if patterns.shape[-2:] != (length, length):
        raise InputError(f"patterns {list(patterns.shape)} do not belong to {length} tokens.")
    q, k = torch.arange(length)[:, None], torch.arange(length)[None]
    ids = ids.cpu()
    equal = (ids[:, None] == ids[None]) & (k < q)
    after = torch.zeros_like(equal)
    after[:, 1:] = equal[:, :-1]  # k - 1 holds an equal token, so k <= q
    places = {"previous": k == q - 1, "duplicate": equal, "induction": after}
    return HeadScores(**{name: _share(patterns, where.to(patterns.device)) for name, where in places.items()})


def _share(patterns: Tensor, where: Tensor) -> Tensor:
    rows = where.any(1)
    if not bool(rows.any()):
        return patterns.new_zeros(patterns.shape[:2])
    return (patterns * where).sum(-1)[..., rows].mean(-1)


@torch.no_grad()
@measure
def find_heads(
    model: LanguageModel, *, length: int = 25, texts: int = 4, seed: int = 0, first: int | None = None
) -> HeadScores:
    """`head_scores` of a decoder on random tokens said twice, where nothing but repetition can be followed.

    Args:
        length: tokens before they come again. first: the token that begins each text, config.bos_token_id unless given.
    """
    tower = tower_of(model)
    draw = torch.Generator().manual_seed(seed)
    half = torch.randint(tower.spec.embedding.vocab_size, (texts, length), generator=draw)
    begin = getattr(model.config, "bos_token_id", None) if first is None else first
    start = half[:, :0] if begin is None else torch.full((texts, 1), int(begin))
    ids = torch.cat((start, half, half), 1).to(model.device)
    with model.record(tower.at("blocks.*.attn.pattern")) as r:
        model(input_ids=ids)
    per_text = [head_scores(torch.stack([r[a][b] for a in r]), ids[b]) for b in range(texts)]
    return HeadScores(
        *(torch.stack([getattr(f, name) for f in per_text]).mean(0) for name in ("previous", "duplicate", "induction"))
    )


@dataclass(frozen=True)
class HeadClusters(Result):
    """`group` [layers, heads]: the number of each head's group; `distance` [n, n] between heads, layer by layer."""

    group: Tensor
    distance: Tensor


@measure
def head_clusters(patterns: Tensor, groups: int) -> HeadClusters:
    """Heads that look alike: average linkage over the Jensen-Shannon distance of their rows (Clark et al., 2019, 6).

    distance(a, b) = mean over queries of JS(a(q, .), b(q, .)), with JS(p, r) = H((p + r) / 2) - (H(p) + H(r)) / 2 in
    bits: 0 for equal heads, at most 1.

    Args:
        patterns: [layers, heads, L, L]. groups: how many to form.
    """
    layers, heads = patterns.shape[:2]
    flat = patterns.flatten(0, 1)  # [n, L, L]
    n = len(flat)
    if not 1 <= groups <= n:
        raise InputError(f"groups={groups} must lie in 1..{n}, the number of heads.")
    bits = _bits(flat)  # [n, L]
    distance = torch.stack(
        [(_bits((flat + head) / 2) - (bits + of_head) / 2).mean(-1) for head, of_head in zip(flat, bits, strict=True)]
    )
    members = [[i] for i in range(n)]
    while len(members) > groups:
        gaps = {
            (a, b): float(distance[members[a]][:, members[b]].mean())
            for a in range(len(members))
            for b in range(a + 1, len(members))
        }
        a, b = min(gaps, key=lambda pair: gaps[pair])
        members[a] += members.pop(b)
    group = torch.zeros(n, dtype=torch.int64)
    for number, heads_of_group in enumerate(members):
        group[heads_of_group] = number
    return HeadClusters(group.view(layers, heads), distance)


def _bits(p: Tensor) -> Tensor:
    """Entropy of the last axis, in bits."""
    nats: Tensor = -torch.special.xlogy(p, p).sum(-1)
    return nats / math.log(2.0)
