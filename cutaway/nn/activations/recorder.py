"""What `with model.record(...) as r` keeps: the values of every forward pass, in memory or in files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cutaway.errors import AddressError, CheckpointError, InputError, nearest
from cutaway.jsonfile import MEGABYTE, read_json, sync_file, write_aside, write_text
from cutaway.locks.fork_lock import ForkLock
from cutaway.locks.output_lock import OutputLock
from cutaway.nn.activations.foreign_names import LIBRARIES, ForeignNames, Library
from cutaway.nn.activations.lazy_values import ActivationStore
from cutaway.show.sheet import Part, Sheet, Table
from cutaway.show.shown import Shown

INDEX = "recording.json"
_NUMBERING = ForkLock()


@dataclass(frozen=True)
class PatternCheck:
    """That a shown pattern is the one that was used.

    Attributes:
        address: the pattern. head: the head that was sampled.
        error: the largest difference between pattern times values and the fast kernel's output, for that head, as a
            part of the output's largest number.
    """

    address: str
    head: int
    error: float


class StoredPass(Mapping[str, Tensor]):
    """One forward pass in a safetensors file; a value is read when it is asked for."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path, self.names = path, names

    def __getitem__(self, address: str) -> Tensor:
        if address not in self.names:
            raise KeyError(address)
        try:
            with safe_open(self.path, framework="pt") as file:
                return file.get_tensor(address)  # type: ignore[no-any-return]
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{self.path} is damaged, or not of this recording: {str(error)[:300]}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Recorder(Shown):
    """The result of `with model.record(...) as r`: `r[address]` is the value in the latest forward pass.

    `r.runs` holds one mapping per forward pass, oldest first (a generated text takes one pass per token).
    `r.certificates` holds what was checked of recorded patterns, one head of one layer per pass.
    """

    def __init__(
        self, wanted: list[str], to: str | Path | None = None, names: Callable[[], ForeignNames] | None = None
    ) -> None:
        self.wanted, self._make_names = wanted, names
        self.runs: list[Mapping[str, Tensor]] = []
        self.certificates: list[PatternCheck] = []
        self.folder = None if to is None else Path(to)
        self._lock: OutputLock | None = None
        self._names: ForeignNames | None = None
        self._lost = False  # whether a pass could not be written
        # {thread: its latest pass, which may still get its logits, and its number}: threads may share a context
        self._open: dict[int, tuple[int, ActivationStore]] = {}
        if self.folder is not None:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock = OutputLock(self.folder).acquire()
            try:
                self.folder.mkdir(exist_ok=True)
                if any(self.folder.iterdir()):
                    raise InputError(f"record(to={str(self.folder)!r}): the folder is not empty; name a new one.")
            except BaseException:
                self._lock.release()
                raise

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A recording that `record(..., to=folder)` wrote; values are read when they are asked for.

        Raises:
            CheckpointError: the folder holds no finished recording.
        """
        if not isinstance(folder, (str, os.PathLike)):
            raise InputError(f"Recorder.load({folder!r:.60}): give the folder that record(to=) wrote.")
        path = Path(folder) / INDEX
        try:
            index = read_json(path, CheckpointError, max_bytes=64 * MEGABYTE)
            recorder = cls([str(a) for a in index["addresses"]])
            recorder.runs = [
                StoredPass(Path(folder) / _file(i), [str(a) for a in names]) for i, names in enumerate(index["passes"])
            ]
            recorder.certificates = [PatternCheck(str(a), int(h), float(e)) for a, h, e in index["certificates"]]
        except Exception as error:  # a file may be damaged in any way
            raise CheckpointError(
                f"{path} is not a finished recording of model.record(..., to=): {str(error)[:300]}"
            ) from error
        return recorder

    def begin(self, values: ActivationStore, certificate: PatternCheck | None) -> None:
        """Take the values of a new pass."""
        for value in values.laid_out():
            self._trace(value)
        thread = threading.get_ident()
        self._store(thread)
        with _NUMBERING:
            number = len(self.runs)
            self.runs.append(values)
        self._open[thread] = number, values
        if certificate is not None:
            self.certificates.append(certificate)

    def add(self, address: str, value: Tensor) -> None:
        """Take one more value of this thread's latest pass."""
        number_and_pass = self._open.get(threading.get_ident())
        if address in self.wanted and number_and_pass is not None:
            self._trace(value)
            number_and_pass[1][address] = value

    def close(self) -> None:
        """Write what is left to write; a recording of which a pass could not be written stays unfinished."""
        try:
            if not self._lost:
                for thread in list(self._open):
                    self._store(thread)
                if self.folder is not None:
                    self._write_index(self.folder)
        finally:
            if self._lock is not None:
                self._lock.release()

    def _write_index(self, folder: Path) -> None:
        for number in range(len(self.runs)):  # here, at once: a sync for each pass would cost more than the pass
            sync_file(folder / _file(number))
        index = {
            "addresses": self.wanted,
            "passes": [list(run) for run in self.runs],
            "certificates": [[c.address, c.head, c.error] for c in self.certificates],
        }
        write_text(folder / INDEX, json.dumps(index))

    def _trace(self, value: Tensor) -> None:
        if self.folder is None and value.requires_grad and value.grad_fn is not None:
            value.retain_grad()

    def _store(self, thread: int) -> None:
        """Write the latest pass of a thread, which gets no more values."""
        latest = self._open.get(thread)
        if latest is None:
            return
        number, values = latest
        if self.folder is not None:
            path = self.folder / _file(number)
            tensors = {a: v.detach().cpu().contiguous() for a, v in values.items()}
            try:
                write_aside(path, lambda aside: save_file(tensors, aside), sync=False)
            except BaseException:
                self._lost = True
                raise
            self.runs[number] = StoredPass(path, list(tensors))
        del self._open[thread]

    def __getitem__(self, address: str) -> Tensor:
        ours = self._ours(address)
        return self._latest(ours[0]) if len(ours) == 1 else side_by_side([self._latest(a) for a in ours])

    def _latest(self, address: str) -> Tensor:
        for run in reversed(self.runs):
            if address in run:
                return run[address]
        raise AddressError(f"{address!r} was asked for, but no forward pass has reached it yet; call the model first.")

    def at(self, address: str, turn: int) -> Tensor:
        """The value in the pass number `turn`, of those that reached the address; of one pass, always that one."""
        ours = self._ours(address)
        if len(ours) > 1:
            return side_by_side([self.at(a, turn) for a in ours])
        (address,) = ours
        runs = [run for run in self.runs if address in run]
        if not runs:
            return self._latest(address)
        if len(runs) > 1 and turn >= len(runs):
            raise InputError(f"the recording of {address!r} has {len(runs)} passes, but pass {turn + 1} asks for it.")
        return runs[min(turn, len(runs) - 1)][address]

    def grad(self, address: str) -> Tensor:
        """The gradient of what `.backward()` was called on, with respect to `r[address]`; of the same shape.

        Raises:
            InputError: gradients were off, backward was not called, or the value leads nowhere.
        """
        gradient = self[address].grad if self.folder is None else None
        if gradient is None:
            why = "call .backward() on the loss first, with gradients on"
            if self.folder is not None:
                why = "a recording in files has none; leave to= out"
            raise InputError(f"{address!r} has no gradient: {why}.")
        return gradient

    def _ours(self, address: str) -> tuple[str, ...]:
        """The recorded addresses that a name means: its own, or what it is called by others.

        Raises:
            AddressError: what was not asked for.
        """
        if address in self.wanted:
            return (address,)
        names = self.names
        addresses = () if names is None or not isinstance(address, str) else names.ours.get(address, ())
        if not addresses or any(a not in self.wanted for a in addresses):
            meant = f" (here {', '.join(addresses)})" if addresses else ""
            raise AddressError(f"{address!r}{meant} was not asked for.{nearest(str(address), self.wanted)}")
        return addresses

    @property
    def names(self) -> ForeignNames | None:
        """What other libraries call the places of the model; None for a recording from files."""
        if self._names is None and self._make_names is not None:
            self._names = self._make_names()
        return self._names

    def named(self, library: Library) -> dict[str, Tensor]:
        """The latest values under another library's names, those that have one there.

        Args:
            library: "transformer_lens", "interp_engine" or "nnterp". Shapes are ours (interp-engine has heads side by
                side in the last axis; `cutaway.inspect.to_interp_engine` lays them out so).

        Raises:
            InputError: another library, or a recording from files, which does not know its model.
        """
        if library not in LIBRARIES:
            raise InputError(f"named({library!r:.60}): the libraries are {', '.join(map(repr, LIBRARIES))}.")
        if self.names is None:
            raise InputError("a recording from files does not know its model; take the names from model.record(...).")
        there = set(self.keys())
        return {
            name: self._latest(ours[0]) if len(ours) == 1 else side_by_side([self._latest(a) for a in ours])
            for name, ours in self.names.of(library).items()
            if there.issuperset(ours)
        }

    def __contains__(self, address: object) -> bool:
        try:
            ours = self._ours(address) if isinstance(address, str) else ()
        except AddressError:
            return False
        return bool(ours) and all(any(a in run for run in self.runs) for a in ours)

    def keys(self) -> list[str]:
        """The addresses that have a value, in the order of the model."""
        return [a for a in self.wanted if a in self]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def summary(self) -> str:
        """The passes, and the first addresses."""
        shown = ", ".join(f"{a} {list(self[a].shape)}" for a in self.keys()[:6])
        more = f", and {len(self) - 6} more" if len(self) > 6 else ""
        return f"{len(self.runs)} passes: {shown}{more}"

    def sheet(self) -> Sheet:
        """Each address with the latest value's shape, mean and spread, and the certificates."""
        rows = []
        for address in self.keys():
            value = self[address].detach()
            real = value[value.isfinite()].double()  # masked scores are not finite
            figures = (f"{real.mean():.3g}", f"{real.std(unbiased=False):.3g}") if real.numel() else ("", "")
            rows.append([address, " x ".join(map(str, value.shape)), str(value.dtype).removeprefix("torch."), *figures])
        parts: list[Part] = [Table("", ["address", "shape", "dtype", "mean>", "deviation>"], rows)]
        if self.certificates:
            checks = [[c.address, str(c.head), f"{c.error:.1g}"] for c in self.certificates]
            parts.append(Table("certificates", ["pattern", "head>", "error>"], checks))
        return Sheet(f"recording of {len(self.runs)} passes", parts=parts)


def side_by_side(heads: Sequence[Tensor]) -> Tensor:
    """[B, L, H] of each head -> [B, L, heads, H]."""
    return torch.stack(list(heads), dim=2)


def _file(number: int) -> str:
    return f"pass-{number:06d}.safetensors"
