"""The convention of the labels near neutral, and a second opinion on the teacher's vectors that follows it.

A text counts as positive when its mean rating is at least 0, so a plain statement of fact, rated 0, is positive. A
teacher that was fine-tuned on film reviews alone calls most such texts negative. Small networks on its mean hidden
states, fitted on films and on other kinds of text with targets that jump at 0, judge them anew at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from student import STEEPNESS
from torch import Tensor, nn

JUMP = 1.5  # of the target logit at a rating of 0, to both sides: P(positive) goes from 0.18 to 0.82
NETWORKS, HIDDEN, DROPOUT = 3, 128, 0.2
STEPS, BATCH, RATE, WEIGHT_DECAY = 300, 512, 2e-3, 0.1


def target(rating: Tensor) -> Tensor:
    """The logit to learn for a mean rating: on the right side of 0 even where the rating is close to it."""
    return STEEPNESS * rating + JUMP * ((rating >= 0).float() * 2 - 1)


class Opinion:
    """The mean of a few small networks over vectors of the teacher.

    Args:
        vectors: [texts, size], one of each rated text.
        rating: [texts], their mean ratings.
    """

    def __init__(self, vectors: Tensor, rating: Tensor) -> None:
        self._networks = [_fit(vectors.float(), target(rating), seed) for seed in range(NETWORKS)]

    @torch.no_grad()
    def judge(self, vectors: Tensor) -> Tensor:
        """The logit of P(positive), [texts], for vectors [texts, size]."""
        found = [network(vectors.float()).squeeze(1) for network in self._networks]  # each [texts]
        return torch.stack(found).mean(0)


def _fit(vectors: Tensor, wanted: Tensor, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(vectors.shape[1], HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        batch = torch.randint(len(vectors), (BATCH,))
        out = network(vectors[batch]).squeeze(1)  # [batch]
        unit = 2 * STEEPNESS
        loss = F.binary_cross_entropy_with_logits(out, wanted[batch].sigmoid())
        loss = loss + F.mse_loss(out / unit, wanted[batch] / unit)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def blend(rating: Sequence[float], judged: Tensor, share: float) -> Tensor:
    """The logits to learn for rated texts: `share` of the opinion's, the rest from the rating; [texts]."""
    return (1 - share) * target(torch.tensor(rating)) + share * judged
