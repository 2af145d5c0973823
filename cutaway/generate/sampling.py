"""What turns the logits of one step into the next tokens: pure functions on logits [B, V] -> [B, V], and the draw.

A token that a function rules out gets -inf. Nothing here keeps state or reads a model, and arguments stay as they are
unless a call says `in_place`, so each formula can be checked, reused and combined by itself. What concerns a few tokens
takes `in_place=True`: then it costs those, and not a copy of the vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MINUS_INF = float("-inf")
# A full sort of a vocabulary costs milliseconds; the nucleus is nearly always this small.
NUCLEUS_PREFIXES = (128, 2048)
TIES = 16  # candidates beyond the k-th, so that those as likely as the k-th are among them
BLOCK = 256  # tokens per partial sum of a draw: sums of a whole vocabulary in float64 are mostly memory traffic


def temperature(logits: Tensor, value: float) -> Tensor:
    """softmax(logits / T): T < 1 sharpens, T > 1 flattens, T -> 0 is greedy (Ackley, Hinton & Sejnowski 1985).

    Args:
        logits: [B, V].
        value: T, above 0.
    """
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keeps the k most likely tokens (Fan, Lewis & Dauphin 2018, arXiv:1805.04833).

    Ties: every token as likely as the k-th stays, so that the result does not depend on an order of sorting.

    Args:
        logits: [B, V].
        k: how many to keep, at least 1; k >= V keeps all.
    """
    if k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1).values[:, -1:]  # [B, 1]
    return logits.masked_fill(logits < threshold, MINUS_INF)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the nucleus: the fewest most likely tokens whose probability adds up to at least p
    (Holtzman et al. 2020, arXiv:1904.09751).

    A token stays while the probability of those before it, most likely first, is below p; so one always stays.
    Ties: every token as likely as the last one of the nucleus stays.

    Args:
        logits: [B, V].
        p: in (0, 1]; 1 keeps all.
    """
    if p >= 1.0:
        return logits
    vocabulary = logits.shape[-1]
    total = logits.logsumexp(dim=-1, keepdim=True)  # [B, 1]
    # Sorting it all is quick on an accelerator, where asking whether a prefix was enough would make it wait.
    prefixes = NUCLEUS_PREFIXES if logits.device.type == "cpu" else ()
    for size in (*(n for n in prefixes if 4 * n < vocabulary), vocabulary):
        is_all = size == vocabulary
        likely = (logits.sort(dim=-1, descending=True) if is_all else logits.topk(size, dim=-1)).values  # [B, size]
        probability = (likely - total).exp()
        below = probability.cumsum(dim=-1)
        if is_all or bool((below[:, -1] >= p).all()):
            break
    kept = (below - probability < p).sum(dim=-1, keepdim=True).clamp_(min=1)  # [B, 1]
    return logits.masked_fill(logits < likely.gather(1, kept - 1), MINUS_INF)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the tokens that are at least p times as likely as the most likely one (Nguyen et al. 2024,
    arXiv:2407.01082): logit >= max logit + log p.

    Args:
        logits: [B, V].
        p: in [0, 1]; 0 keeps all.
    """
    if p <= 0.0:
        return logits
    threshold = logits.amax(dim=-1, keepdim=True) + math.log(p)  # [B, 1]
    return logits.masked_fill(logits < threshold, MINUS_INF)


def typical_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the tokens whose information is nearest to what is expected of the next one, H, until their probability
    adds up to p (Meister et al. 2023, arXiv:2202.00666).

    Args:
        logits: [B, V].
        p: in (0, 1]; 1 keeps all.
    """
    if p >= 1.0:
        return logits
    information = -logits.log_softmax(dim=-1)
    probability = (-information).exp()
    entropy = (probability * information).nansum(dim=-1, keepdim=True)  # [B, 1]
    distance = (information - entropy).abs()
    near, order = distance.sort(dim=-1)
    before = (probability.gather(1, order).cumsum(dim=-1) < p).sum(dim=-1, keepdim=True)  # [B, 1]
    return logits.masked_fill(distance > near.gather(1, before.clamp_(max=logits.shape[-1] - 1)), MINUS_INF)


def epsilon_cutoff(logits: Tensor, epsilon: float | Tensor) -> Tensor:
    """Keeps the tokens of a probability of at least epsilon, and the most likely one (Hewitt, Manning & Liang 2022,
    arXiv:2210.15191).

    Args:
        logits: [B, V].
        epsilon: in [0, 1), or one for each row [B, 1]; 0 keeps all.
    """
    rare = (logits.softmax(dim=-1) < epsilon) & (logits < logits.amax(dim=-1, keepdim=True))
    return logits.masked_fill(rare, MINUS_INF)


def eta_cutoff(logits: Tensor, epsilon: float) -> Tensor:
    """`epsilon_cutoff` at min(epsilon, sqrt(epsilon) * exp(-H)): lower where many tokens are likely (the same paper).

    Args:
        logits: [B, V].
        epsilon: in [0, 1); 0 keeps all.
    """
    information = -logits.log_softmax(dim=-1)
    entropy = ((-information).exp() * information).nansum(dim=-1, keepdim=True)  # [B, 1]
    return epsilon_cutoff(logits, (math.sqrt(epsilon) * (-entropy).exp()).clamp(max=epsilon))


def at_least(narrowed: Tensor, logits: Tensor, n: int) -> Tensor:
    """`narrowed` with the n most likely tokens of `logits` kept in any case; both [B, V]."""
    threshold = logits.topk(min(n, logits.shape[-1]), dim=-1).values[:, -1:]  # [B, 1]
    return torch.where(logits >= threshold, logits, narrowed)


def exponential_decay(logits: Tensor, eos: Tensor, steps: int, factor: float, *, in_place: bool = False) -> Tensor:
    """Makes the end likelier with every step: logit + |logit| * (factor ** steps - 1) for the tokens `eos`.

    Args:
        logits: [B, V].
        eos: ids [N].
        steps: steps beyond the length at which it begins, at least 1.
        factor: above 1 to end sooner.
        in_place: write into `logits`.
    """
    score = logits[:, eos]  # [B, N]
    more = (score.abs() * (factor**steps - 1)).masked_fill(~score.isfinite(), 0.0)
    return (logits if in_place else logits.clone()).index_copy_(1, eos, score + more)


def guide(logits: Tensor, other: Tensor, scale: float) -> Tensor:
    """Away from what the model says to another prompt: other + scale * (logits - other), in log-probabilities (Sanchez
    et al. 2023, arXiv:2306.17806, after Ho & Salimans 2022).

    Args:
        logits: [B, V] after the prompt.
        other: [B, V] after the negative prompt.
        scale: 1 changes nothing, above 1 moves away from the negative prompt.
    """
    theirs = other.log_softmax(dim=-1)
    return theirs + scale * (logits.log_softmax(dim=-1) - theirs)


def finite(logits: Tensor) -> Tensor:
    """NaN becomes 0, and infinities the largest numbers that there are; [B, V]."""
    return logits.nan_to_num(nan=0.0)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float, *, in_place: bool = False) -> Tensor:
    """Makes the tokens of `seen` less likely: logit / penalty where it is positive, logit * penalty where it is
    negative (Keskar et al. 2019, arXiv:1909.05858, section 4.1).

    Args:
        logits: [B, V].
        seen: ids [B, L] of the text so far; an id that is there twice is penalized once.
        penalty: above 0; 1 changes nothing, below 1 favours repetition.
        in_place: write into `logits`.
    """
    score = logits.gather(1, seen)  # [B, L]
    changed = torch.where(score < 0, score * penalty, score / penalty)
    return (logits if in_place else logits.clone()).scatter_(1, seen, changed)


def forbid(logits: Tensor, ids: Tensor, *, in_place: bool = False) -> Tensor:
    """Rules out the tokens `ids` [N] in every row of logits [B, V]; `in_place`: writes into them."""
    return (logits if in_place else logits.clone()).index_fill_(1, ids, MINUS_INF)


def force(logits: Tensor, ids: Tensor) -> Tensor:
    """Rules out every token but `ids` [N], which become equally likely (logit 0), in every row of logits [B, V]."""
    return torch.full_like(logits, MINUS_INF).index_fill_(1, ids, 0.0)


def shortlist(logits: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """The entries that `top_k` can keep, so that what follows need not go through the whole vocabulary.

    Args:
        logits: [B, V].
        k: as for `top_k`.

    Returns:
        logits [B, n] and their ids [B, n], ids ascending; None where it would leave out an entry that `top_k` keeps, or
        would spare nothing.
    """
    size = k + TIES
    if 2 * size > logits.shape[-1]:
        return None
    likely, ids = logits.topk(size, dim=-1)
    if bool((likely[:, k - 1] == likely[:, -1]).any()):
        return None
    ids, order = ids.sort(dim=-1)
    return likely.gather(1, order), ids


def greedy(logits: Tensor) -> Tensor:
    """The most likely token of each row: [B, V] -> ids [B]; the lowest id among equals, -1 where none is finite."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        ids = torch.from_numpy(logits.numpy().argmax(-1))  # ten times as fast as torch's
    else:
        ids = logits.argmax(dim=-1)
    best = logits.gather(-1, ids[..., None])[..., 0]
    return torch.where(best.isfinite(), ids, -1)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token per row with probability softmax(logits), by inverting the cumulative distribution (Devroye 1986,
    III.2): the first token at which it passes u.

    One random number per row makes a row's draw independent of the rest of the batch, and costs a tenth of
    `torch.multinomial`, which draws one number per entry of the vocabulary. Sums are float64: with float32 the rounding
    of 50,000 sums would be as large as the rarest tokens. First the block of tokens is found, then the token in it.

    Args:
        logits: [B, V].
        uniform: u in [0, 1), float64 [B].

    Returns:
        ids [B]; never a token whose logit is -inf; -1 where the logits are no distribution (NaN, inf, or all -inf).
    """
    probability = logits.softmax(dim=-1)
    rows, vocabulary = probability.shape
    full = vocabulary // BLOCK * BLOCK
    sums = probability[:, :full].view(rows, -1, BLOCK).sum(dim=-1, dtype=torch.float64)  # [B, full blocks]
    rest = probability[:, full:].sum(dim=-1, keepdim=True, dtype=torch.float64)
    ends = torch.cat([sums, rest], dim=1).cumsum(dim=-1)  # [B, blocks]
    target = uniform[:, None] * ends[:, -1:]  # [B, 1]; below the last sum, as u is at most 1 - 2**-53
    block = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)  # [B, 1]
    ids = block * BLOCK + torch.arange(BLOCK, device=logits.device)  # [B, BLOCK]
    inside = probability.gather(1, ids.clamp(max=vocabulary - 1)).masked_fill_(ids >= vocabulary, 0.0)
    within = inside.cumsum(dim=-1, dtype=torch.float64)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_(min=0)), 0.0)
    # The two ways of summing a block may differ in the last bit; a token of probability 0 must not be reached by it.
    target = torch.minimum(target - before, within[:, -1:] * (1 - 2.0**-53))
    token = block * BLOCK + torch.searchsorted(within, target, right=True)  # [B, 1]
    return torch.where(ends[:, -1].isfinite(), token[:, 0], -1)
