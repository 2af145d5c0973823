"""The values of one forward pass that are kept, in the form in which the engine had them.

A padded batch is computed packed, and a whole recording of it is padding to a large part, most of which nobody reads.
So a value is kept as it was computed, and laid out as the padded batch when it is first read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor


class LazyTensor:
    """A value that is laid out at the first reading, always the same tensor after that.

    `make` holds tensors that nothing else writes to.
    """

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make: Callable[[], Tensor] | None = make
        self._made: Tensor | None = None

    def __call__(self) -> Tensor:
        make = self._make
        if make is not None:
            self._made = make()
            self._make = None
        assert self._made is not None
        return self._made


class ActivationStore(Mapping[str, Tensor]):
    """{address: value} of one forward pass; values have the shapes of the padded batch."""

    def __init__(self, values: Mapping[str, Tensor | LazyTensor] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, address: str) -> Tensor:
        value = self._values[address]
        return value() if isinstance(value, LazyTensor) else value

    def __setitem__(self, address: str, value: Tensor | LazyTensor) -> None:
        self._values[address] = value

    def __contains__(self, address: object) -> bool:
        return address in self._values  # without laying it out

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def part(self, addresses: Iterable[str]) -> ActivationStore:
        """The same values at these of the addresses."""
        return ActivationStore({a: self._values[a] for a in addresses if a in self._values})

    def laid_out(self) -> list[Tensor]:
        """The values that did not wait for a reader, among them all that gradients flow through."""
        return [v for v in self._values.values() if not isinstance(v, LazyTensor)]
