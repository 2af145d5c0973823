"""What every measure returns: frozen fields with tensors, which JSON can hold."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Result:
    """Base of the measures' results."""

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain numbers, lists and texts; what is not finite is None."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=True)


def _plain(value: Any) -> Any:
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
