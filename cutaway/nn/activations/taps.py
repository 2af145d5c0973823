"""Reading and changing activations while the model runs, by address.

`Taps` belong to one forward pass and hold what was asked for; the engine offers a tensor at each place, and where
nothing is asked the offer is a single test for None.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from cutaway.errors import AddressError
from cutaway.nn.activations.edits import Edits
from cutaway.nn.activations.lazy_values import ActivationStore, LazyTensor
from cutaway.nn.activations.recorder import PatternCheck, Recorder
from cutaway.nn.activations.sparse_features import AttachedSae

if TYPE_CHECKING:
    from torch import Tensor

    from cutaway.config.architecture import Architecture, Stack
    from cutaway.nn.packed_batch import PackedBatch

_ATTENTION = ("q", "k", "v", "scores", "pattern", "z", "out")


def stack_addresses(stack: Stack, prefix: str = "") -> list[str]:
    """Every address inside one stack, in the order in which the values come to be."""
    addresses = [f"{prefix}embed"]
    for i in range(stack.n_layers):
        block = f"{prefix}blocks.{i}"
        addresses += [f"{block}.attn.{part}" for part in _ATTENTION]
        addresses += [f"{block}.attn.head.{h}.out" for h in range(stack.attention.n_heads)]
        addresses.append(f"{block}.resid_mid")
        if stack.cross:
            addresses += [f"{block}.cross.{part}" for part in _ATTENTION]
            addresses += [f"{block}.cross.head.{h}.out" for h in range(stack.attention.n_heads)]
            addresses.append(f"{block}.resid_cross")
        if stack.feed_forward.experts is not None:
            addresses.append(f"{block}.mlp.router")
        addresses += [f"{block}.mlp.in", f"{block}.mlp.pre", f"{block}.mlp.act", f"{block}.mlp.out"]
        if stack.convolution is not None and i == 0:
            addresses.append(f"{block}.conv")
        addresses.append(f"{block}.resid")
    if stack.final_norm:
        addresses.append(f"{prefix}final_norm")
    if stack.projects_out:
        addresses.append(f"{prefix}project_out")
    return addresses


def model_addresses(architecture: Architecture) -> list[str]:
    """Every address of a model's body; heads add `logits`."""
    if architecture.decoder is None:
        found = stack_addresses(architecture.stack)
        return [*found, "pooler"] if architecture.pooler else found
    return [*stack_addresses(architecture.stack, "encoder."), *stack_addresses(architecture.decoder, "decoder.")]


def vector_width(architecture: Architecture, address: str) -> int:
    """How many numbers a token has at an address; heads stand side by side.

    Raises:
        AddressError: an address whose values are no vectors of tokens (patterns, scores, a text's own vector, ...).
    """
    stack = architecture.stack
    if address.startswith("decoder.") and architecture.decoder is not None:
        stack = architecture.decoder
    part = (
        address.removeprefix("encoder.").removeprefix("decoder.").partition("blocks.")[2].partition(".")[2] or address
    )
    last = part.rsplit(".", 1)[-1]
    hidden = ("embed", "resid", "resid_mid", "resid_cross", "in", "out", "final_norm", "conv")
    attention = stack.attention
    widths = {
        **dict.fromkeys(hidden, stack.hidden_size),
        **dict.fromkeys(("pre", "act"), stack.feed_forward.width),
        "z": attention.n_heads * attention.head_size,
        "v": attention.n_kv_heads * attention.head_size,
    }
    if last not in widths or address.startswith("sae."):
        raise AddressError(f"{address!r} holds no vectors of tokens that features could be read from.")
    return widths[last]


class Taps:
    """The values of one forward pass at the wanted addresses, and the edits of that pass.

    Attributes:
        start: the column of the padded input at which this pass begins (not 0 where a cache holds the columns before).
        certificate: what was checked of the sampled pattern.
        watched: whether somebody's hooks are shown the engine's own tensors, and might write into them.
        recorders: who gets the values at the end.
        front: what stands before the addresses of a base model that runs as a part of another.
    """

    def __init__(
        self,
        wanted: Iterable[str],
        edits: Sequence[Edits] = (),
        turn: int = 0,
        watched: bool = False,
        recorders: Sequence[Recorder] = (),
        front: str = "",
        saes: Sequence[AttachedSae] = (),
    ) -> None:
        self.wanted, self.watched, self.recorders = set(wanted), watched, recorders
        self._given, self.front, self._saes = edits, front, saes
        self.edits: dict[str, list[Edits]] = {}
        for edit in edits:
            for address in edit.changes:
                self.edits.setdefault(address, []).append(edit)
        # "blocks.3" -> the parts wanted in that block, so that an untouched block costs one dictionary look-up
        self._places: dict[str, set[str]] = {}
        asked = self.wanted | self.edits.keys()
        # those of which something is recorded or edited; the others cost nothing
        self._features = AskedFeatures([s for s in saes if not asked.isdisjoint(s.addresses)], self) if saes else None
        for address in asked if self._features is None else asked | self._features.addresses:
            place, part = _split(address)
            self._places.setdefault(place, set()).add(part)
        self.values = ActivationStore()
        self.start = 0
        self.certificate: PatternCheck | None = None
        self._turn = turn
        self._sampled: str | None = None

    def edits_alone(self) -> Taps:
        """Taps of another pass that is changed as this one, and of which nothing is kept."""
        return Taps((), self._given, front=self.front, saes=self._saes)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is wanted and nothing edited, anywhere."""
        return not self._places

    def at(self, place: str, rows: PackedBatch) -> Tap | None:
        """The tap for one block or for the stack itself (place `""`, or `"encoder."`), or None."""
        if not self._places:
            return None
        place = self.front + place
        parts = self._places.get(place)
        if parts and self._features is not None:
            self._features.rows = rows
        return Tap(self, place, parts, rows) if parts else None

    def is_live(self, address: str) -> bool:
        """Whether what follows must be computed from what is shown here: it is edited, or its gradient may be asked."""
        if address in self.edits or (address in self.wanted and torch.is_grad_enabled()):
            return True
        return self._features is not None and self._features.is_live(address)

    def show(
        self, address: str, value: Tensor, *, start: int | None = None, sole_owner: bool = False, edit: bool = True
    ) -> Tensor:
        """`value` of the padded batch as the edits leave it, kept if it is wanted.

        Args:
            start: the column at which `value` begins, where it is not that of the pass.
            sole_owner: nothing else holds this tensor, so it may be kept as it is.
            edit: whether edits are due; a value from the cache has had them.
        """
        for edits in self.edits.get(address, ()) if edit else ():
            changed = edits.apply(address, value, self.start if start is None else start)
            sole_owner, value = sole_owner or changed is not value, changed
        if self._features is not None and address in self._features.addresses:
            changed = self._features.through(address, value, self.start if start is None else start)
            sole_owner, value = sole_owner or changed is not value, changed
        if address in self.wanted:
            traced = torch.is_grad_enabled() and value.requires_grad  # what is kept must then be what leads on
            self.values[address] = value if sole_owner or traced else value.clone()
        return value

    def record_lazily(self, address: str, make: Callable[[], Tensor]) -> None:
        """Keep what `make` gives when it is read: a wanted value that nothing follows from."""
        lazy = LazyTensor(make)
        if self._features is not None and address in self._features.addresses:
            self._features.record_lazily(address, lazy)
        if address in self.wanted or self._features is None:
            self.values[address] = lazy

    def sampled(self, address: str) -> bool:
        """Whether this pattern is the one of this pass that is checked against the fast kernel."""
        if self._sampled is None:
            if address not in self.wanted:
                return False
            tower = address.partition("blocks.")[0]  # the others' run is another pass
            patterns = sorted(a for a in self.wanted if a.endswith(".pattern") and a.startswith(f"{tower}blocks."))
            self._sampled = random.Random(self._turn).choice(patterns)
        return address == self._sampled

    def check_pattern(self, address: str, head: int, open_: Tensor, fast: Tensor) -> None:
        """Note how far pattern times values is from the fast kernel's output, for one head."""
        error = (open_ - fast).abs().max() / fast.abs().max().clamp(min=1e-30)
        self.certificate = PatternCheck(address, head, float(error))

    def sampled_head(self, heads: int) -> int:
        """The head that is checked."""
        return random.Random(self._turn + 1).randrange(heads)


class AskedFeatures:
    """The sparse autoencoders of which one pass records or edits something.

    Attributes:
        addresses: the addresses that they read and write. rows: the layout of the batch that they read last.
    """

    def __init__(self, saes: Sequence[AttachedSae], taps: Taps) -> None:
        self.saes, self.taps = saes, taps
        self.addresses = {place for s in saes for place in (s.reads, s.writes)}
        self.rows: PackedBatch | None = None
        edited = [s for s in saes if not taps.edits.keys().isdisjoint(s.addresses)]
        self._edited = {place for s in edited for place in (s.reads, s.writes)}
        self._read: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # {name: x, features before and after their edits}
        self._read_lazily: dict[str, LazyTensor] = {}

    def is_live(self, address: str) -> bool:
        """Whether what follows an address must be computed from what is shown there."""
        return address in self._edited or (address in self.addresses and torch.is_grad_enabled())

    def through(self, address: str, value: Tensor, start: int) -> Tensor:
        """`value` of the padded batch after the edits of features that stand there; the value itself without."""
        for one in self.saes:
            if one.reads == address:
                self._take(one, value, start)
            if one.writes == address:
                value = self._put(one, value, start)
        return value

    def _take(self, one: AttachedSae, value: Tensor, start: int) -> None:
        """Read the features of `value`, show them and let them be edited."""
        x = one.flat(value)
        before = self._real(one.sae.on(x.device).encode(x))  # [B, L, n]
        if torch.is_grad_enabled() and one.features not in self.taps.edits:
            before = before.detach().requires_grad_()  # its gradient, with the error held, and that of x as without
        after = self.taps.show(one.features, before, start=start, sole_owner=True)
        self._read[one.name] = x, before, after

    def _put(self, one: AttachedSae, value: Tensor, start: int) -> Tensor:
        """`value`, which the features reconstruct, with what the edits of these and of the error change."""
        x, before, after = self._read[one.name]
        sae = one.sae.on(x.device)
        added = None
        if torch.is_grad_enabled():
            there = sae.change(after, x.detach() if after is before else x)
            added = there - (there.detach() if after is before else sae.change(before, x))  # exactly 0 without an edit
        elif after is not before:
            added = sae.change(after - before, x)
        if one.error in self.taps.edits or one.error in self.taps.wanted:
            missed = one.flat(value).to(before.dtype) - sae.decode(before, x)  # [B, L, d]
            shown = self.taps.show(one.error, missed, start=start, sole_owner=True)
            added = (0 if added is None else added) + (shown - missed) if shown is not missed else added
        return value if added is None else value + added.view(value.shape).to(value.dtype)

    def record_lazily(self, address: str, lazy: LazyTensor) -> None:
        """Let features and error be computed when somebody reads them, from a value that waits for its reader too."""
        for one in self.saes:
            if one.reads == address:
                self._lazily(one, lazy)
            if one.writes == address and one.error in self.taps.wanted:
                self.taps.record_lazily(one.error, partial(self._missed, one, self._read_lazily[one.name], lazy))

    def _lazily(self, one: AttachedSae, lazy: LazyTensor) -> None:
        rows = self.rows
        self._read_lazily[one.name] = lazy

        def features() -> Tensor:
            x = one.flat(lazy())
            return _real(one.sae.on(x.device).encode(x), rows)

        if one.features in self.taps.wanted:
            self.taps.record_lazily(one.features, features)

    @staticmethod
    def _missed(one: AttachedSae, read: LazyTensor, written: LazyTensor) -> Tensor:
        x = one.flat(read())
        sae = one.sae.on(x.device)
        return one.flat(written()).to(sae.encoder.dtype) - sae.decode(sae.encode(x), x)

    def _real(self, features: Tensor) -> Tensor:
        return _real(features, self.rows)


def _real(features: Tensor, rows: PackedBatch | None) -> Tensor:
    """Features [B, L, n] with zeros where padding was packed away."""
    if rows is None or not rows.packed:
        return features
    real = rows.pad(features.new_ones(rows.index.shape[0], 1))  # type: ignore[union-attr]  # [B, L, 1]
    return features * real


class Tap:
    """What is wanted at one place; values are padded to [batch, length, ...] as they are shown.

    `expose` and its kin return the value with which the engine goes on: the same tensor, unless the rest is computed
    from what is shown (see `is_live`).

    Which to call, by the value that the part has in its hand:
        `expose`: [rows, width] or [batch, length, width], what most parts have; padded or packed, it is laid out here.
        `take_heads`: [rows, heads, head_size], one row a token: queries, keys, values, `z`.
        `expose_padded`: what has its final shape already: patterns and scores, or what comes from a cache.
        `record_lazily`: what nothing follows from, and what costs something to make: it is made when it is read. Only
            after `wants`, and not where `is_live` says that an edit or a gradient needs the value itself.
    A new address is named in `stack_addresses`, and exposed in the file of its part.
    """

    def __init__(self, taps: Taps, prefix: str, parts: set[str], rows: PackedBatch) -> None:
        self.taps, self.prefix, self.parts, self.rows = taps, prefix, parts, rows

    def wants(self, *parts: str) -> bool:
        """Whether one of these is recorded or edited."""
        return any(p in self.parts for p in parts)

    def edits(self, *parts: str) -> bool:
        """Whether one of these is edited."""
        return any(self.prefix + p in self.taps.edits for p in parts)

    def is_live(self, *parts: str) -> bool:
        """Whether what follows one of these must be computed from what is shown there."""
        return any(p in self.parts and self.taps.is_live(self.prefix + p) for p in parts)

    def expose(self, part: str, value: Tensor) -> Tensor:
        """Show `value`, [rows, width] or [batch, length, width]."""
        return self._shown(part, value, self.rows.pad_hidden) if part in self.parts else value

    def take_heads(self, part: str, value: Tensor) -> Tensor:
        """Show `value`, [rows, heads, head_size]."""
        return self._shown(part, value, self.rows.pad) if part in self.parts else value

    def _shown(self, part: str, value: Tensor, pad: Callable[[Tensor], Tensor]) -> Tensor:
        packed = self.rows.packed
        if self.is_live(part):
            shown = self.taps.show(self.prefix + part, pad(value), sole_owner=packed)
            return self.rows.pack(shown).reshape(value.shape)
        if packed:
            self.record_lazily(part, partial(pad, self.snapshot(value)))
        else:
            self.taps.show(self.prefix + part, pad(value))
        return value

    def snapshot(self, value: Tensor) -> Tensor:
        """The engine's `value` as it may be kept: nobody writes to it, and it is not a part of a wider tensor."""
        return value if value.is_contiguous() and not self.taps.watched else value.clone()

    def expose_padded(
        self, part: str, value: Tensor, *, start: int | None = None, sole_owner: bool = False, edit: bool = True
    ) -> Tensor:
        """Show `value`, which already has its final shape; arguments as in `Taps.show`."""
        if part not in self.parts:
            return value
        return self.taps.show(self.prefix + part, value, start=start, sole_owner=sole_owner, edit=edit)

    def record_lazily(self, part: str, make: Callable[[], Tensor]) -> None:
        """Keep what `make` gives when it is read; only for a part that is wanted and does not lead."""
        self.taps.record_lazily(self.prefix + part, make)

    def sampled(self, part: str) -> bool:
        """Whether this pattern is the one of the pass that is checked."""
        return self.taps.sampled(self.prefix + part)

    def heads(self, prefix: str) -> list[int]:
        """The heads whose own output is wanted under `prefix` ("attn" or "cross")."""
        return sorted(int(part.split(".")[2]) for part in self.parts if part.startswith(f"{prefix}.head."))


class Peek(Tap):
    """Remembers the engine's own tensors at some parts of one block, and leaves everything as it is.

    Nothing is copied or laid out: what is remembered is right until the engine runs again.
    """

    def __init__(self, layer: int, parts: set[str], seen: dict[tuple[int, str], Tensor]) -> None:
        self.layer, self.parts, self.seen = layer, parts, seen

    def wants(self, *parts: str) -> bool:
        """As Tap.wants: nothing is to be computed for it."""
        return False

    def is_live(self, *parts: str) -> bool:
        """As Tap.is_live."""
        return False

    def heads(self, prefix: str) -> list[int]:
        """As Tap.heads."""
        return []

    def expose(self, part: str, value: Tensor) -> Tensor:
        """As Tap.expose."""
        if part in self.parts:
            self.seen[self.layer, part] = value
        return value

    take_heads = expose

    def expose_padded(
        self, part: str, value: Tensor, *, start: int | None = None, sole_owner: bool = False, edit: bool = True
    ) -> Tensor:
        """As Tap.expose_padded."""
        return value


class Peeks(Taps):
    """Taps that remember the engine's own tensors at (layer, part); see `Peek`.

    Attributes:
        peeked: these. seen: {(layer, part): value} of the last run, in the engine's own layout.
    """

    def __init__(self, peeked: Iterable[tuple[int, str]]) -> None:
        super().__init__(())
        self.peeked = frozenset(peeked)
        self.seen: dict[tuple[int, str], Tensor] = {}
        parts: dict[int, set[str]] = {}
        for layer, part in self.peeked:
            parts.setdefault(layer, set()).add(part)
        self._peeks = {layer: Peek(layer, of_layer, self.seen) for layer, of_layer in parts.items()}

    def at(self, place: str, rows: PackedBatch) -> Tap | None:
        """As Taps.at."""
        number = place.removesuffix(".").rpartition("blocks.")[2]
        return self._peeks.get(int(number)) if number.isdecimal() else None


def _split(address: str) -> tuple[str, str]:
    """Place and part of an address: "decoder.blocks.3.attn.q" -> ("decoder.blocks.3.", "attn.q")."""
    parts = address.split(".")
    n = 1 if parts[0] in ("encoder", "decoder") else 0
    if len(parts) > n and parts[n] == "blocks":
        n += 2
    return "".join(p + "." for p in parts[:n]), ".".join(parts[n:])
