"""What every measure returns: frozen fields with tensors, which JSON can hold, and which show themselves."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from torch import Tensor

from cutaway.show.sheet import Bars, Grid, Part, Scale, Sheet, Table, figure
from cutaway.show.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cutaway.tokenization.protocols import TokenizerLike


@dataclass(frozen=True)
class Names:
    """What positions and ids are called: the text's tokens, and the name of any token."""

    tokens: list[str]
    label: Callable[[int], str]


@dataclass(frozen=True)
class Result(Shown):
    """Base of the measures' results.

    A subclass says what its numbers are in `SCALES` (a field's scale, if it is not "measure"), which fields hold ids of
    tokens in `IDS`, and which field names the rows of the others in `ROWS`.
    """

    SCALES: ClassVar[dict[str, Scale]] = {}
    IDS: ClassVar[tuple[str, ...]] = ()
    ROWS: ClassVar[str] = "places"
    _names: ClassVar[Names | None] = None

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain numbers, lists and texts; what is not finite is None."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=True)

    def named(self, tokenizer: TokenizerLike, ids: Tensor | Iterable[int]) -> Self:
        """The same, showing the tokens of the text and not their numbers; `ids` [L] or [1, L]."""
        from cutaway.show.label import numbered_masks, token_label

        def label(id: int) -> str:
            special = id in tokenizer.all_special_ids
            return token_label(tokenizer, tokenizer.convert_ids_to_tokens(id), id, special)

        flat = ids.flatten().tolist() if isinstance(ids, Tensor) else [int(id) for id in ids]
        renamed = copy.copy(self)
        tokens = numbered_masks([label(id) for id in flat], flat, getattr(tokenizer, "mask_token_id", None))
        object.__setattr__(renamed, "_names", Names(tokens, label))
        return renamed

    def summary(self) -> str:
        """Texts and numbers as they are, tensors by their shape."""
        return ", ".join(f"{entry.name}={_short(getattr(self, entry.name))}" for entry in fields(self))

    def sheet(self) -> Sheet:
        """Every field: single numbers in one line, vectors of one length in one table, matrices as grids."""
        lines: list[str] = []
        columns: dict[int, list[tuple[str, Tensor]]] = {}
        parts: list[Part] = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            title = entry.name.replace("_", " ")
            if isinstance(value, Tensor) and value.dim() == 1 and len(value) > 1:
                columns.setdefault(len(value), []).append((entry.name, value))
            elif isinstance(value, Tensor) and value.dim() > 1 and value.numel():
                parts.append(self.grid(title, value, self.SCALES.get(entry.name, "measure")))
            elif not (isinstance(value, list | dict) or value is None or value == ""):
                lines.append(f"{title} {_short(value)}")
        return Sheet(_words(type(self).__name__), "; ".join(lines), [*self._vectors(columns), *parts])

    def grid(self, title: str, value: Tensor, scale: Scale = "measure") -> Grid:
        """The last matrix of a tensor of two axes or more, with the names that belong to its axes."""
        while value.dim() > 2:
            title = f"{title}, {len(value) - 1}" if len(value) > 1 else title
            value = value[-1]
        rows, columns = value.shape
        return Grid(title, _numbers(value), self.axis(rows), self.axis(columns, places=False), scale)

    def axis(self, length: int, *, places: bool = True) -> list[str]:
        """Names of an axis of this length: places, tokens, or numbers."""
        own = getattr(self, self.ROWS, None)
        if places and isinstance(own, list) and len(own) == length:
            return [str(name) for name in own]
        if self._names is not None and len(self._names.tokens) == length:
            return self._names.tokens
        return [str(i) for i in range(length)]

    def label(self, id: int) -> str:
        """A token's name, where `named` gave the tokenizer; else its number."""
        return str(id) if self._names is None else self._names.label(id)

    def _vectors(self, columns: dict[int, list[tuple[str, Tensor]]]) -> list[Part]:
        tables: list[Part] = []
        for length, vectors in columns.items():
            names = self.axis(length)
            if len(vectors) == 1 and vectors[0][0] not in self.IDS:
                tables.append(Bars(vectors[0][0].replace("_", " "), names, _numbers(vectors[0][1])))
                continue
            heads = ["", *(f"{name.replace('_', ' ')}{'' if name in self.IDS else '>'}" for name, _ in vectors)]
            cells = [
                [self.label(int(v)) if name in self.IDS else figure(float(v)) for v in values.tolist()]
                for name, values in vectors
            ]
            tables.append(Table("", heads, [list(row) for row in zip(names, *cells, strict=True)]))
        return tables


def _words(name: str) -> str:
    """CausalTrace -> causal trace"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _numbers(value: Tensor) -> NDArray[np.float64]:
    return np.asarray(value.detach().float().cpu().numpy(), np.float64)


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape)) if value.dim() else figure(float(value))
    if isinstance(value, float):
        return figure(value)
    if is_dataclass(value) and not isinstance(value, type):
        field_values = {e.name: getattr(value, e.name) for e in fields(value)}
        listed = ", ".join(f"{name}={_short(part)}" for name, part in field_values.items() if part not in (None, False))
        return f"{type(value).__name__}({listed})"
    if isinstance(value, list | tuple | dict) and len(value) > 3:
        return f"{len(value)} of them"
    text = str(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return _plain(value.detach().cpu().tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
