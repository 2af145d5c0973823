"""Settings of the upstream library that change nothing here: accepted as long as that is true of their value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cutaway.errors import ConfigError


@dataclass(frozen=True)
class IgnoredArgument:
    """What a needless setting may be (None: anything), and what to do instead of the rest."""

    values: tuple[Any, ...] | None
    instead: str = "leave it out"

    @property
    def plain(self) -> Any:
        """The value where none is given."""
        return self.values[0] if self.values else None

    def check(self, name: str, value: Any) -> None:
        """ConfigError where the value asks for something that is not built."""
        if self.values is None or value is None or value == [] or value == "":
            return
        if any(type(value) is type(v) and value == v for v in self.values):
            return
        listed = " or ".join(repr(v) for v in self.values)
        raise ConfigError(f"{name}={value!r} is not available; it may be {listed}: {self.instead}.")


_OFF = IgnoredArgument((False,))

# why -> names whose value, whatever it is, changes no result here
_FORGOTTEN = {
    "a script's own switches; the library never looks at them": (
        "do_train", "do_eval", "do_predict", "local_rank",
    ),
    "an output folder is never overwritten": ("overwrite_output_dir",),
    "the library says only what is wrong": ("log_level", "log_level_replica"),
    "speed or memory of something that works in another way here": (
        "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
        "eval_accumulation_steps", "torch_empty_cache_steps", "gradient_checkpointing_kwargs", "half_precision_backend",
    ),
    "a loss that is no number is logged as such": ("logging_nan_inf_filter",),
}  # fmt: skip

NEEDLESS: dict[str, IgnoredArgument] = {
    **{name: IgnoredArgument(None) for names in _FORGOTTEN.values() for name in names},
    **dict.fromkeys(
        (
            "torch_compile", "full_determinism", "save_on_each_node", "include_tokens_per_second",
            "auto_find_batch_size", "save_only_model", "use_mps_device", "tf32", "use_ipex", "fp16_full_eval",
            "bf16_full_eval", "jit_mode_eval", "predict_with_generate", "include_inputs_for_metrics",
        ),
        _OFF,
    ),
    "include_num_input_tokens_seen": IgnoredArgument((False, "no")),
    "fp16": IgnoredArgument((False,), "train in float32, or with bf16=True"),
    "save_safetensors": IgnoredArgument((True,), "checkpoints are always safetensors"),
    "deepspeed": IgnoredArgument((), "start several processes with torchrun; fsdp=True shares out the weights"),
    "past_index": IgnoredArgument((-1,)),
}  # fmt: skip
