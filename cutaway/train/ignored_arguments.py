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

    def check(self, name: str, value: object) -> None:
        """ConfigError where the value asks for something that is not built."""
        if self.values is None or value is None or value in ([], "", {}):
            return
        if any(type(value) is type(v) and value == v for v in self.values):
            return
        listed = " or ".join(repr(v) for v in self.values) or "left out"
        raise ConfigError(f"{name}={value!r} is not available; it may be {listed}: {self.instead}.")


_OFF, _NOTHING = IgnoredArgument((False,)), IgnoredArgument(())
_PROCESSES = "start several processes with torchrun; fsdp=True gives each a part of the weights"

# why -> names whose value, whatever it is, changes no result here
_FORGOTTEN = {
    "a script's own switches; the library never looks at them": (
        "do_train", "do_predict", "local_rank",
    ),
    "an output folder is never overwritten": ("overwrite_output_dir",),
    "the library says only what is wrong": ("log_on_each_node",),
    "how batches are made ahead, which changes none": (
        "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
        "dataloader_in_order",
    ),
    "speed or memory of something that works in another way here": (
        "dataloader_pin_memory", "activation_checkpointing_kwargs", "use_cache", "eval_accumulation_steps",
        "torch_empty_cache_steps", "gradient_checkpointing_kwargs", "half_precision_backend",
        "ddp_bucket_cap_mb", "eval_use_gather_object",
    ),
    "the loss of an update is always the mean over the labelled places of all devices": (
        "average_tokens_across_devices",
    ),
}  # fmt: skip

NEEDLESS: dict[str, IgnoredArgument] = {
    **{name: IgnoredArgument(None) for names in _FORGOTTEN.values() for name in names},
    **dict.fromkeys(
        (
            "torch_compile", "full_determinism", "save_on_each_node", "include_tokens_per_second",
            "use_mps_device", "tf32", "use_ipex", "jit_mode_eval", "predict_with_generate",
            "hub_always_push", "ignore_data_skip", "ddp_static_graph", "use_liger_kernel",
        ),
        _OFF,
    ),
    **dict.fromkeys(
        (
            "torch_compile_backend", "torch_compile_mode", "liger_kernel_config", "optim_target_modules",
            "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "hub_revision", "debug",
            "ddp_broadcast_buffers",
        ),
        _NOTHING,
    ),
    **dict.fromkeys(
        ("parallelism_config", "fsdp_config", "deepspeed"), IgnoredArgument((), _PROCESSES)
    ),
    "accelerator_config": IgnoredArgument(None),  # AcceleratorConfig checks it
    "ddp_backend": IgnoredArgument((), "NCCL is used on GPUs and gloo on CPUs"),
    "fp16": IgnoredArgument((False,), "train in float32, or with bf16=True"),
    "save_safetensors": IgnoredArgument((True,), "checkpoints are always safetensors"),
    "past_index": IgnoredArgument((-1,)),
    # a level that is not one of upstream's is a slip of the pen
    "log_level": IgnoredArgument(("passive", "debug", "info", "warning", "error", "critical", "detail")),
    "log_level_replica": IgnoredArgument(("passive", "debug", "info", "warning", "error", "critical", "detail")),
}  # fmt: skip
