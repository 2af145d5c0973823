"""Settings: one call's options, read by name and checked one at a time."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cutaway.errors import GenerationError
from cutaway.generate.settings import DEFAULTS, NOT_BUILT, GenerationConfig, model_settings, require_known

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


class Settings:
    """Reads one call's settings: those of the call, then `generation_config=`, then the model's, then the defaults."""

    def __init__(self, model: LanguageModel, config: GenerationConfig | None, call: Mapping[str, Any]) -> None:
        require_known(call)
        self.call = {n: v for n, v in call.items() if v is not None}
        asked = {} if config is None else config.to_dict()  # upstream's own writes what is unset as None
        self.call = {**{n: v for n, v in asked.items() if v is not None}, **self.call}
        self.off = {n for n, v in call.items() if v is None}  # top_k=None switches off what a file switched on
        self.stored = model_settings(model).to_dict()
        self.refuse_what_is_not_built()

    def __getitem__(self, name: str) -> Any:
        if name in self.call:
            return self.call[name]
        if name in self.off:
            return None
        return self.stored.get(name, DEFAULTS.get(name))

    def refuse_what_is_not_built(self) -> None:
        for name, off in NOT_BUILT.items():
            value = self.call.get(name, None if name in self.off else self.stored.get(name))
            if value is None or value == off or (not value and not off):
                continue
            where = "" if name in self.call else " in the model's generation_config.json"
            raise GenerationError(
                f"{name}={value!r}{where}: this comes later and is not built yet. "
                f"Pass {name}={off!r} to generate without."
            )

    def integer(self, name: str, low: int) -> int | None:
        value = self[name]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < low:
            raise GenerationError(f"{name}={value!r}: pass an integer of {low} or more.")
        return int(value)

    def number(self, name: str, low: float, high: float, rule: str, default: float = 0.0) -> float:
        """A finite number in [low, high]; None is the setting's default, `default` where it has none."""
        value: Any = DEFAULTS[name] if self[name] is None else self[name]
        value = default if value is None else value
        fits = not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)
        if not fits or not low <= value <= high:
            raise GenerationError(f"{name}={value!r}: {rule}.")
        return float(value)

    def above_zero(self, name: str, rule: str, high: float = math.inf) -> float:
        value = self.number(name, 0.0, high, rule)
        if value == 0.0:
            raise GenerationError(f"{name}=0: {rule}.")
        return value

    def flag(self, name: str) -> bool:
        value = DEFAULTS[name] if self[name] is None else self[name]
        if not isinstance(value, bool | numbers.Integral):
            raise GenerationError(f"{name}={value!r}: pass True or False.")
        return bool(value)

    def layers(self, name: str) -> bool | list[int]:
        value = self[name]
        return list(value) if isinstance(value, list | tuple | range) else self.flag(name)

    def ids(self, name: str, vocab_size: int | None) -> tuple[int, ...]:
        """One id or several; in a file, an id that the vocabulary does not have (-1, 50256 in a cut one) means none."""
        value = self[name]
        if hasattr(value, "tolist"):
            value = value.tolist()
        several = list(value) if isinstance(value, list | tuple | set) else [] if value is None else [value]
        if name in ("eos_token_id", "pad_token_id"):
            several = [i for i in several if i != -1]  # upstream's way to say that there is none
        if name not in self.call:
            several = [i for i in several if isinstance(i, int) and 0 <= i < (vocab_size or math.inf)]
        for i in several:
            if isinstance(i, bool) or not isinstance(i, numbers.Integral) or not 0 <= int(i) < (vocab_size or math.inf):
                raise GenerationError(
                    f"{name}={value!r}: {i!r} is not a token id of this model; ids are 0 to {(vocab_size or 0) - 1}."
                )
        return tuple(dict.fromkeys(int(i) for i in several))

    def one_id(self, name: str, vocab_size: int | None) -> int | None:
        ids = self.ids(name, vocab_size)
        if len(ids) > 1:
            raise GenerationError(f"{name}={self[name]!r}: pass one token id.")
        return ids[0] if ids else None
