"""Reading activations while the model runs, by address.

`Taps` belong to one forward pass and hold what was asked for; the engine offers a tensor at each place, and where
nothing is asked the offer is a single test for None.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cutaway.errors import AddressError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from cutaway.architecture import Architecture, Stack
    from cutaway.model.rows import Rows

_ATTENTION = ("q", "k", "v", "scores", "pattern", "z", "out")


def stack_addresses(stack: Stack, prefix: str = "") -> list[str]:
    """Every address inside one stack, in the order in which the values come to be."""
    found = [f"{prefix}embed"]
    for i in range(stack.n_layers):
        block = f"{prefix}blocks.{i}"
        found += [f"{block}.attn.{part}" for part in _ATTENTION]
        found += [f"{block}.attn.head.{h}.out" for h in range(stack.attention.n_heads)]
        found.append(f"{block}.resid_mid")
        if stack.cross:
            found += [f"{block}.cross.{part}" for part in _ATTENTION]
            found += [f"{block}.cross.head.{h}.out" for h in range(stack.attention.n_heads)]
            found.append(f"{block}.resid_cross")
        found += [f"{block}.mlp.pre", f"{block}.mlp.act", f"{block}.mlp.out", f"{block}.resid"]
    if stack.final_norm:
        found.append(f"{prefix}final_norm")
    return found


def model_addresses(architecture: Architecture) -> list[str]:
    """Every address of a model's body; heads add `logits`."""
    if architecture.decoder is None:
        found = stack_addresses(architecture.stack)
        return [*found, "pooler"] if architecture.pooler else found
    return [*stack_addresses(architecture.stack, "encoder."), *stack_addresses(architecture.decoder, "decoder.")]


def resolve(patterns: Iterable[str], known: list[str]) -> list[str]:
    """The addresses that `patterns` (with `*` for any run of characters) name.

    Raises:
        AddressError: a pattern that names nothing; the message lists the nearest addresses.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = fnmatch.filter(known, pattern) if "*" in pattern else [a for a in known if a == pattern]
        if not hits:
            raise AddressError(f"No activation has the address {pattern!r}.{nearest(pattern, known)}")
        found.update(dict.fromkeys(hits))
    return list(found)


class Taps:
    """The values of one forward pass at the wanted addresses."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self.wanted = set(wanted)
        # "blocks.3" -> the parts wanted in that block, so that an untouched block costs one dictionary look-up
        self._places: dict[str, set[str]] = {}
        for address in self.wanted:
            place, part = _split(address)
            self._places.setdefault(place, set()).add(part)
        self.values: dict[str, Any] = {}

    def at(self, place: str, rows: Rows) -> Tap | None:
        """The tap for one block or for the stack itself (place `""`, or `"encoder."`), or None."""
        parts = self._places.get(place)
        return Tap(self, place, parts, rows) if parts else None

    def offer(self, address: str, make: Callable[[], Tensor]) -> None:
        """Keep make() under `address` if it is wanted."""
        if address in self.wanted:
            self.values[address] = make()


class Tap:
    """What is wanted at one place; values are padded back to [batch, length, ...] as they are taken."""

    def __init__(self, taps: Taps, place: str, parts: set[str], rows: Rows) -> None:
        self.taps, self.place, self.parts, self.rows = taps, place, parts, rows

    def wants(self, *parts: str) -> bool:
        return any(p in self.parts for p in parts)

    def take(self, part: str, value: Tensor) -> None:
        """Keep `value`, [rows, width] or [batch, length, width], if `part` is wanted."""
        if part in self.parts:
            self.keep(part, self.rows.pad_hidden(value))

    def take_heads(self, part: str, value: Tensor) -> None:
        """Keep `value`, [rows, heads, head_size], if `part` is wanted."""
        if part in self.parts:
            self.keep(part, self.rows.pad(value))

    def keep(self, part: str, value: Tensor) -> None:
        """Keep `value`, which already has its final shape."""
        if part in self.parts:
            self.taps.values[self.place + part] = value

    def heads(self, prefix: str) -> Iterator[int]:
        """The heads whose own output is wanted under `prefix` ("attn" or "cross")."""
        for part in self.parts:
            if part.startswith(f"{prefix}.head."):
                yield int(part.split(".")[2])


def _split(address: str) -> tuple[str, str]:
    """Place and part of an address: "decoder.blocks.3.attn.q" -> ("decoder.blocks.3.", "attn.q")."""
    parts = address.split(".")
    n = 1 if parts[0] in ("encoder", "decoder") else 0
    if len(parts) > n and parts[n] == "blocks":
        n += 2
    return "".join(p + "." for p in parts[:n]), ".".join(parts[n:])


class Recorder:
    """The result of `with model.record(...) as r`: `r[address]` is the value in the latest forward pass.

    `r.runs` holds one dictionary per forward pass, oldest first (a generated text takes one pass per token).
    """

    def __init__(self, wanted: list[str]) -> None:
        self.wanted = wanted
        self.runs: list[dict[str, Tensor]] = []

    def __getitem__(self, address: str) -> Tensor:
        if address not in self.wanted:
            raise AddressError(f"{address!r} was not asked for.{nearest(address, self.wanted)}")
        for run in reversed(self.runs):
            if address in run:
                return run[address]
        raise AddressError(f"{address!r} was asked for, but no forward pass has reached it yet; call the model first.")

    def __contains__(self, address: object) -> bool:
        return any(address in run for run in self.runs)

    def keys(self) -> list[str]:
        """The addresses that have a value, in the order of the model."""
        return [a for a in self.wanted if a in self]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        shown = ", ".join(f"{a} {list(self[a].shape)}" for a in self.keys()[:6])
        more = f", and {len(self) - 6} more" if len(self) > 6 else ""
        return f"Recorder({len(self.runs)} passes: {shown}{more})"
