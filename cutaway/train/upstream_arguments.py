"""Settings that scripts give and read, and that change nothing here; `ignored_arguments` says which values go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cutaway.train.accelerator_config import AcceleratorConfig


@dataclass(kw_only=True, init=False, repr=False)
class UpstreamArguments:
    """Fields of upstream's TrainingArguments that are known to be without effect, at upstream's defaults.

    They are fields so that a command line, a JSON file and a script's own look at them work.
    """

    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False
    overwrite_output_dir: bool = False
    local_rank: int = -1
    log_level: str = "passive"
    log_level_replica: str = "warning"
    log_on_each_node: bool = True
    dataloader_pin_memory: bool = True
    dataloader_persistent_workers: bool = False
    dataloader_prefetch_factor: int | None = None
    dataloader_multiprocessing_context: str | None = None
    dataloader_in_order: bool = True
    eval_accumulation_steps: int | None = None
    eval_use_gather_object: bool = False
    torch_empty_cache_steps: int | None = None
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = None
    activation_checkpointing_kwargs: dict[str, Any] | str | None = None
    half_precision_backend: str = "auto"
    fp16: bool = False
    tf32: bool | None = None
    torch_compile: bool = False
    torch_compile_backend: str | None = None
    torch_compile_mode: str | None = None
    jit_mode_eval: bool = False
    use_ipex: bool = False
    use_mps_device: bool = False
    use_cache: bool = False
    use_liger_kernel: bool = False
    liger_kernel_config: dict[str, Any] | str | None = None
    full_determinism: bool = False
    average_tokens_across_devices: bool = True
    optim_target_modules: str | None = None
    save_on_each_node: bool = False
    save_safetensors: bool = True
    ignore_data_skip: bool = False
    hub_always_push: bool = False
    hub_revision: str | None = None
    trackio_space_id: str | None = None
    trackio_bucket_id: str | None = None
    trackio_static_space_id: str | None = None
    include_tokens_per_second: bool = False
    include_inputs_for_metrics: bool = False
    accelerator_config: AcceleratorConfig | dict[str, Any] | str | None = None
    parallelism_config: str | None = None
    deepspeed: dict[str, Any] | str | None = None
    fsdp_config: dict[str, Any] | str | None = None
    ddp_backend: str | None = None
    ddp_bucket_cap_mb: int | None = None
    ddp_broadcast_buffers: bool | None = None
    ddp_static_graph: bool | None = None
    debug: str = ""
    past_index: int = -1
    predict_with_generate: bool = False
