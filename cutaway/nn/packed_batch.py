"""The layout of a batch: padding is taken out before the first block and put back after the last.

A padded batch is packed: the real tokens of all texts in one row after another, texts sorted by length, so that each
run of equally long texts is one contiguous, unpadded block [texts, length, ...] without a copy. A batch without padding
stays [batch, length, ...] and is one such block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cutaway.errors import InputError

# A right-padded batch of at most this many positions is computed whole, with masked keys: there the padding is cheaper
# than packing, and positions under the mask get the values that upstream gives them.
SMALL = 128
# Beyond MANY, packed rows are rounded up to a multiple of STEP: each row count that oneDNN has not seen costs it
# milliseconds, so there had better be few. The rows that fill up repeat the last one and are dropped on the way out.
MANY, STEP = 256, 32


@dataclass(frozen=True)
class TextLengths:
    """How many places each text of a batch takes, its hidden words included.

    Attributes:
        lengths: one number for each text.
        owners: the text of each position; its shape spreads to that of the positions.
    """

    lengths: list[int]
    owners: Tensor


@dataclass(frozen=True)
class LengthGroup:
    """Texts `texts` of the batch (None: all, in order), `n` of them, each `length` rows, from row `start`."""

    start: int
    n: int
    length: int
    texts: Tensor | None

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.n * self.length)


@dataclass(frozen=True)
class SharedRows:
    """Rows of a batch that are computed once for several.

    Attributes:
        computed: [n], the rows that are computed. of: [rows], the place among these of each row.
    """

    computed: Tensor
    of: Tensor

    def select(self, x: Tensor) -> Tensor:
        """[rows, ...] -> [n, ...]."""
        return x.index_select(0, self.computed)

    def spread(self, x: Tensor) -> Tensor:
        """[n, ...] -> [rows, ...]."""
        return x.index_select(0, self.of)


def filled_up(index: Tensor) -> Tensor:
    """Rows [n], the last one repeated up to a multiple of `STEP` where there are many."""
    n_filler = -len(index) % STEP if len(index) > MANY else 0
    return torch.cat((index, index[-1:].expand(n_filler))) if n_filler else index


class PackedBatch:
    """The layout of one batch.

    Attributes:
        batch, length: the shape [batch, length] of the padded input.
        index: None where rows are simply [batch, length]; else [rows], the flat padded position of each packed row.
        n_filler: packed rows at the end that only fill up.
        used: the rows before them, which are tokens.
        groups: runs of equally long texts that cover all rows in order.
        key_mask: which keys each query sees where the batch is not packed though it holds padding, bool [batch, 1, 1,
            length]; or what the caller gave for that, [batch, 1 or heads, 1 or length, length] of bool or added to the
            scores. None otherwise.
        sees_by_mask: whether `key_mask` alone says what is seen: neither causality nor a window is added.
        whole: whether words that the mask hides are computed as well.
        lengths: the number of real tokens of each text.
        mask: None where all tokens are real, else [batch, length] bool.

    A text reaches from its first real token to its last. A token between them that the mask hides (a hole) is not
    packed, and keeps its place: the positions of those after it do not move.
    """

    def __init__(
        self,
        batch: int,
        length: int,
        mask: Tensor | None,
        *,
        may_stay_padded: bool = False,
        whole: bool = False,
    ) -> None:
        self.batch, self.length = batch, length
        self.index: Tensor | None = None
        self._spans: tuple[Tensor, Tensor] | None = None
        self._first: Tensor | None = None
        self._positions: Tensor | None = None
        self._visible: tuple[Tensor, Tensor, Tensor] | None = None
        self._holes: bool | None = None
        self.n_filler, self.used = 0, batch * length
        self.key_mask: Tensor | None = None
        self.sees_by_mask = self.whole = False
        self.mask: Tensor | None = None
        self.groups = [LengthGroup(0, batch, length, None)]
        self.lengths: list[int] = [length] * batch
        if mask is None or (
            mask.device.type == "cpu" and bool(mask.all())
        ):  # on a GPU, one answer to wait for is enough
            return
        real = mask != 0  # [batch, length]
        lengths = real.sum(1)
        self.lengths = lengths.tolist()
        if all(n == length for n in self.lengths):
            return
        self.mask = real
        steps = torch.arange(length, device=mask.device)
        if whole and 0 not in self.lengths:
            self.whole, self._holes = True, False  # every word has its column, so columns tell places
            self.key_mask = real[:, None, None, :]  # [batch, 1, 1, length]
            self._positions = (steps - self.first()[:, None]).clamp(min=0)
            return
        may_stay = may_stay_padded and batch * length <= SMALL and 0 not in self.lengths
        if may_stay and bool((real == (steps < lengths[:, None])).all()):  # right padding only
            self.key_mask = real[:, None, None, :]  # [batch, 1, 1, length]
            return
        order = torch.argsort(lengths, stable=True)  # [batch]
        flat = torch.arange(batch * length, device=mask.device).view(batch, length)
        self._pack(flat[order][real[order]], order)

    @classmethod
    def from_lengths(cls, lengths: list[int], device: torch.device) -> PackedBatch:
        """Texts of these lengths one after another in a batch of one row."""
        rows = cls(1, sum(lengths), None)
        rows.lengths = lengths
        order = torch.argsort(torch.tensor(lengths, device=device), stable=True)  # [texts]
        spans = torch.arange(rows.length, device=device).split(lengths)
        rows._pack(torch.cat([spans[i] for i in order.tolist()]), order)
        return rows

    def _pack(self, index: Tensor, order: Tensor) -> None:
        """Lay the texts out in `order`; index [rows]: the flat padded position of each of their tokens."""
        self.index = filled_up(index)
        self.n_filler = len(self.index) - len(index)
        self.used = len(index)
        by_length = [self.lengths[i] for i in order.tolist()]
        self.groups = []
        start = first = 0
        while first < len(by_length):
            n = by_length[first]
            last = first
            while last < len(by_length) and by_length[last] == n:
                last += 1
            if n:
                self.groups.append(LengthGroup(start, last - first, n, order[first:last]))
                start += (last - first) * n
            first = last

    def starts_and_lengths(self) -> list[tuple[int, int]]:
        """(first row, number of rows) of each text, in the order of the rows."""
        return [(g.start + i * g.length, g.length) for g in self.groups for i in range(g.n)]

    def spans(self) -> tuple[Tensor, Tensor]:
        """`starts_and_lengths` as two tensors, both int64 [texts]."""
        if self._spans is None:
            starts, lengths = torch.tensor(self.starts_and_lengths(), device="cpu").T.contiguous()  # [texts] each
            self._spans = starts, lengths
        return self._spans

    @property
    def packed(self) -> bool:
        return self.index is not None

    def pack(self, x: Tensor) -> Tensor:
        """[batch, length, ...] -> [rows, ...] where packed, unchanged otherwise."""
        if self.index is None:
            return x
        return x.reshape(self.batch * self.length, *x.shape[2:])[self.index]

    def pack_rows(self, x: Tensor) -> Tensor:
        """[batch * length, ...] -> [rows, ...] where packed, unchanged otherwise."""
        return x if self.index is None else x[self.index]

    def pad(self, x: Tensor) -> Tensor:
        """[rows, ...] -> [batch, length, ...]; where packed, padded positions are zeros."""
        if self.index is None:
            return x.view(self.batch, self.length, *x.shape[1:])
        out = x.new_zeros(self.batch * self.length, *x.shape[1:])
        index = self.index
        if self.n_filler:
            index, x = index[: -self.n_filler], x[: -self.n_filler]
        return out.index_copy_(0, index, x).view(self.batch, self.length, *x.shape[1:])

    def pad_hidden(self, x: Tensor) -> Tensor:
        """[rows, hidden] or [batch, length, hidden] -> [batch, length, hidden]."""
        if self.index is None and x.dim() == 3:
            return x  # the tensor itself: a recorded one is part of the graph that leads to the result
        return self.pad(x.flatten(0, -2))

    def positions(self, device: torch.device) -> Tensor:
        """The place of each row in its own text, counted from its first real token: [batch, length] or [rows]."""
        if self._positions is not None:
            return self._positions
        steps = torch.arange(self.length, device=device)
        if self.mask is None or self.index is None:  # no padding, or all of it on the right
            return steps.expand(self.batch, self.length)
        self._positions = self.pack(steps - self.first()[:, None])
        return self._positions

    def set_positions(self, positions: Tensor) -> None:
        """Say where in their texts the rows stand, [batch, length] or [rows], where the mask does not tell."""
        self._positions, self._holes = positions, None

    def counts(self, device: torch.device) -> Tensor:
        """As `positions`, but counted over real tokens alone."""
        if self.mask is None or (self.index is None and not self.whole):
            return torch.arange(self.length, device=device).expand(self.batch, self.length)
        if self.whole:  # as upstream numbers a word that is hidden: by the one before the first
            return self.mask.cumsum(1) * self.mask - 1
        return self.pack((self.mask.cumsum(1) - 1).clamp(min=0))

    def stored(self) -> PackedBatch:
        """How the keys and values of these rows lie in a cache, which holds what the mask shows and nothing else."""
        return PackedBatch(self.batch, self.length, self.mask) if self.whole else self

    @property
    def holes(self) -> bool:
        """Whether a text has hidden words between its real ones."""
        if self._holes is None:
            self._holes = False
            if self._positions is not None:
                # n tokens that stand side by side have the positions 0 to n - 1, and any others sum to more
                positions = self._positions.flatten()
                positions = positions[: -self.n_filler] if self.n_filler else positions
                self._holes = int(positions.sum()) != sum(n * (n - 1) // 2 for n in self.lengths)
            elif self.mask is not None and self.index is not None:  # of a text without holes, one token begins a run
                runs = int((self.mask[:, 1:] > self.mask[:, :-1]).sum()) + int(self.mask[:, 0].sum())
                self._holes = runs != sum(map(bool, self.lengths))
        return self._holes

    def group_positions(self, group: LengthGroup) -> Tensor:
        """[n, length]: the places of a group's tokens in their texts."""
        device = self.index.device if self.index is not None else torch.device("cpu")
        return self.positions(device).flatten()[group.rows].view(group.n, group.length)

    def reaches(self, positions: Tensor) -> TextLengths:
        """How far each text reaches when its rows stand at `positions`, [batch, length] or [rows]."""
        n = len(self.lengths)
        if self.index is None:
            owners = torch.arange(self.batch, device=positions.device)[:, None]
            last = positions.amax(1) if self.mask is None else (positions * self.mask).amax(1)
        else:
            parts = [
                torch.arange(g.n, device=positions.device) if g.texts is None else g.texts for g in self.groups
            ]  # [n] each
            owners = torch.cat([x.repeat_interleave(g.length) for x, g in zip(parts, self.groups, strict=True)])
            if self.n_filler:
                owners = torch.cat((owners, owners[-1:].expand(self.n_filler)))
            last = positions.new_zeros(n).scatter_reduce(0, owners, positions, "amax")
        return TextLengths((last + 1).tolist(), owners)

    @property
    def reach(self) -> int:
        """The places of the text that takes most, its hidden words included."""
        if self.whole:
            return self.length
        if self.mask is None or self.index is None:
            return max(self.lengths, default=0)
        return int(self.positions(self.index.device).max()) + 1 if len(self.index) else 0

    def visible(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The first padded position of each text, the one after its last, both [batch], and `length` as [1], all int64.

        None where that does not say what each text has: hidden words in the middle, or a text without a word.
        """
        if self._visible is None and len(self.lengths) == self.batch and min(self.lengths, default=0) > 0:
            first, end = self.first().long(), self.last().long() + 1
            if (end - first).tolist() == self.lengths:
                self._visible = first, end, torch.tensor([self.length])
        return self._visible

    def positions_by_text(self) -> list[tuple[int, Tensor]]:
        """(row of the batch, the padded positions of its tokens there) of each text."""
        if self.mask is not None:
            return [(i, row.nonzero()[:, 0]) for i, row in enumerate(self.mask)]
        assert self.index is not None  # several texts in one row
        return [(0, span) for span in torch.arange(self.length, device=self.index.device).split(self.lengths)]

    def first(self) -> Tensor:
        """[batch]: the padded position of each text's first real token (0 for a text without one)."""
        if self._first is None:
            if self.mask is None:
                return torch.zeros(self.batch, dtype=torch.int64)
            self._first = self.mask.byte().argmax(1)
        return self._first

    def last(self) -> Tensor:
        """[batch]: the padded position of each text's last real token (0 for a text without one)."""
        if self.mask is None:
            return torch.full((self.batch,), self.length - 1)
        steps = torch.arange(self.length, device=self.mask.device)
        return (self.mask * steps).amax(1)


def packed_sequence_lengths(position_ids: Tensor | None, attention_mask: Tensor | None) -> list[int] | None:
    """The lengths of the texts that stand one after another in a batch of one row; None where there is one.

    As upstream has it for causal models: without a mask, positions that do not go on by one begin another text.
    """
    if attention_mask is not None or not isinstance(position_ids, Tensor) or position_ids.shape[:-1] != (1,):
        return None
    begins = (position_ids[0].diff() != 1).nonzero()[:, 0] + 1
    if not len(begins):
        return None
    bounds = [0, *begins.tolist(), position_ids.shape[1]]
    return [b - a for a, b in pairwise(bounds)]


def check_texts(rows: PackedBatch) -> None:
    """InputError where the mask hides every token of a text: such a text has no result."""
    if rows.mask is not None and 0 in rows.lengths:
        raise InputError(
            f"attention_mask hides every token of text {rows.lengths.index(0)}; a text needs at least one token. Leave "
            "empty texts out of the batch."
        )


def check_seen_keys(mask: Tensor, batch: int, queries: int, keys: int, n_heads: int) -> Tensor:
    """The mask that says for each query what it sees, [batch, heads, queries, keys] or 1 in place of all but keys.

    Raises:
        InputError: another shape, or a mask that is neither of bool nor added to the scores.
    """
    wanted = ((1, batch), (1, n_heads), (1, queries), (keys,))
    if mask.dim() != 4 or any(n not in allowed for n, allowed in zip(mask.shape, wanted, strict=True)):
        raise InputError(
            f"attention_mask has shape {list(mask.shape)}, but it must be [batch, length] or, where it says what each "
            f"query sees, [{batch}, 1 or {n_heads}, {queries}, {keys}]."
        )
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(
            f"attention_mask [batch, heads, queries, keys] is of {mask.dtype}; give bool (True where a key is seen, "
            "mask.bool() makes it of zeros and ones), or floating-point numbers that are added to the scores."
        )
    return mask


def check_mask(mask: Tensor | None, batch: int, length: int, name: str = "attention_mask") -> Tensor | None:
    """The mask as given, if it is [batch, length] of zeros and ones.

    Raises:
        InputError: another shape, or values other than 0 and 1.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise InputError(
            f"{name} must be a tensor [batch, length], not {type(mask).__name__}; use return_tensors='pt'."
        )
    if tuple(mask.shape) != (batch, length):
        raise InputError(
            f"{name} has shape {list(mask.shape)}, but the input is [batch, length] = [{batch}, {length}]; "
            "pass the mask that the tokenizer made with these ids."
        )
    if mask.dtype == torch.int64 and mask.is_cpu and mask.numel():
        low, high = mask.aminmax()
        fits = 0 <= int(low) <= int(high) <= 1
    else:
        fits = mask.dtype == torch.bool or bool(((mask == 0) | (mask == 1)).all())
    if not fits:
        raise InputError(f"{name} may hold only 0 (padding) and 1 (token); it holds {mask.unique()[:5].tolist()}.")
    return mask
