"""`accelerator_config`, of which a training here uses the number of parts of an update."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cutaway.errors import ConfigError

_PARTS = ("num_steps", "adjust_scheduler", "sync_with_dataloader", "sync_each_batch")


@dataclass
class AcceleratorConfig:
    """How accelerate would hand out batches.

    Attributes:
        split_batches, dispatch_batches, even_batches: how several processes share batches; one process has them all,
            whatever they say, and with several they must be what they are by default.
        use_seedable_sampler, non_blocking: without effect: the order follows from the seed and the epoch.
        gradient_accumulation_kwargs: num_steps is gradient_accumulation_steps; its other keys are without effect.
        use_configured_state: must be False; there is no state of accelerate.
    """

    split_batches: bool = False
    dispatch_batches: bool | None = None
    even_batches: bool = True
    use_seedable_sampler: bool = True
    non_blocking: bool = False
    gradient_accumulation_kwargs: dict[str, Any] | None = None
    use_configured_state: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "gradient_accumulation_kwargs":
                self._check_parts(value)
                continue
            if isinstance(value, str) and value.lower() in ("true", "false"):  # from a command line
                value = value.lower() == "true"
                setattr(self, field.name, value)
            if not isinstance(value, bool) and not (value is None and field.name == "dispatch_batches"):
                raise ConfigError(f"accelerator_config: {field.name} is {value!r}; it must be True or False.")
        if self.use_configured_state:
            raise ConfigError(
                "accelerator_config: use_configured_state=True asks for a state of accelerate, which is not used."
            )

    @staticmethod
    def _check_parts(value: object) -> None:
        if value is None:
            return
        if not isinstance(value, Mapping):
            raise ConfigError(f"accelerator_config: gradient_accumulation_kwargs is {value!r}; it must be a dict.")
        if strange := sorted(map(str, value.keys() - {*_PARTS})):
            raise ConfigError(f"gradient_accumulation_kwargs has {strange[0]!r}; it may hold {', '.join(_PARTS)}.")
        n = value.get("num_steps", 1)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"gradient_accumulation_kwargs: num_steps is {n!r}; it must be a whole number from 1 up.")

    @classmethod
    def read(cls, value: object) -> AcceleratorConfig:
        """One of them, a dict of its fields, JSON of such a dict, or a JSON file."""
        if isinstance(value, AcceleratorConfig):
            return value
        if isinstance(value, (str, Path)):
            try:
                text = str(value) if str(value).lstrip().startswith("{") else Path(value).read_text(encoding="utf-8")
                value = json.loads(text)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"accelerator_config={str(value)!r:.80} is neither JSON nor a JSON file: {error}"
                ) from error
        if not isinstance(value, Mapping):
            raise ConfigError(f"accelerator_config is {value!r:.80}; give a dict, an AcceleratorConfig or a JSON file.")
        if strange := sorted(map(str, value.keys() - {field.name for field in fields(cls)})):
            raise ConfigError(
                f"accelerator_config has {strange[0]!r}; it may hold {', '.join(f.name for f in fields(cls))}."
            )
        return cls(**value)

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> AcceleratorConfig:
        """From a JSON file."""
        return cls.read(Path(json_file))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def parts(self, given: int) -> int:
        """How many parts an update has, where gradient_accumulation_steps says `given`.

        Raises:
            ConfigError: both say it, and not the same.
        """
        n = int((self.gradient_accumulation_kwargs or {}).get("num_steps", given))
        if given not in (1, n):
            raise ConfigError(
                f"accelerator_config says num_steps = {n} and gradient_accumulation_steps is {given}; give one of them."
            )
        return n

    def check_processes(self, n: int) -> None:
        """ConfigError where several processes were to share batches in another way than they do."""
        if n > 1 and (self.split_batches or self.dispatch_batches or not self.even_batches):
            raise ConfigError(
                "accelerator_config: split_batches, dispatch_batches and even_batches are as they are by default where "
                "several processes train: leave them out."
            )
