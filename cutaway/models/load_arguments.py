"""Arguments of `from_pretrained` that are no fields of the config: where the model goes, and what upstream has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from cutaway.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig
    from cutaway.models.configured import ConfiguredModel

# where a model goes, as `from_pretrained(device_map=...)` takes it
DeviceMap: TypeAlias = str | int | torch.device | Mapping[str, str | int | torch.device] | None

# whatever their value, they change nothing: code is never run, there is one attention, files are mapped
_NEEDLESS = (
    "trust_remote_code", "attn_implementation", "use_safetensors", "low_cpu_mem_usage", "weights_only", "_fast_init",
    "offload_folder", "offload_state_dict", "offload_buffers", "resume_download", "mirror", "local_dir_use_symlinks",
    "experts_implementation", "use_kernels", "_from_auto", "_from_pipeline",
)  # fmt: skip
# what is refused unless it is None or False -> what to do
_REFUSED = {
    "from_tf": "cutaway reads safetensors, PyTorch's files and GGUF; convert the checkpoint first",
    "from_flax": "cutaway reads safetensors, PyTorch's files and GGUF; convert the checkpoint first",
    "quantization_config": 'dtype="int8" computes with bytes, and gguf_file= loads weights of 4 to 8 bits',
    "load_in_8bit": 'dtype="int8" computes with bytes, and gguf_file= loads weights of 4 to 8 bits',
    "load_in_4bit": 'dtype="int8" computes with bytes, and gguf_file= loads weights of 4 to 8 bits',
    "max_memory": "a model is on one device; device_map= says which",
    "tp_plan": "start several processes with torchrun and train with fsdp=True",
    "key_mapping": "rename the tensors and pass them as state_dict=",
    "proxies": "set HTTPS_PROXY in the environment",
    "force_download": "remove the files from the hub's cache",
}


_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")


def check_attention(name: object) -> None:
    """ConfigError unless `name` is what some software calls its attention, or None."""
    base = str(name).removeprefix("paged|")
    if name is not None and base not in _ATTENTIONS and "/" not in base:  # "owner/name": kernels from the hub
        raise ConfigError(
            f'Specified `attn_implementation="{name}"` is not supported: there is one attention here, whatever it is '
            f"called; the names that are known are {', '.join(_ATTENTIONS)}."
        )


def take_arguments(arguments: dict[str, Any], who: str) -> torch.device | None:
    """Takes these arguments out of `arguments`; the device that the model goes to, or None to leave it on the CPU.

    Raises:
        ConfigError: a value that asks for something that is not built.
    """
    for name in _NEEDLESS:
        arguments.pop(name, None)
    for name, instead in _REFUSED.items():
        value = arguments.pop(name, None)
        if value:
            raise ConfigError(f"{who}.from_pretrained({name}={value!r:.60}) is not available: {instead}.")
    return read_device_map(arguments.pop("device_map", None))


def read_device_map(value: DeviceMap) -> torch.device | None:
    """The one device that a device_map names; None for the CPU.

    Args:
        value: "auto" (the first GPU if there is one), a device or its name, a number of a GPU, or {"": one of these}.
    """
    if isinstance(value, Mapping):
        places = {str(place) for place in value.values()}
        if len(places) != 1:
            raise ConfigError(f"device_map={dict(value)!r:.80}: a model is on one device; name one, such as 'cuda:0'.")
        value = next(iter(value.values()))
    if value is None:
        return None
    if value in ("auto", "balanced", "balanced_low_0", "sequential"):
        return torch.device("cuda", 0) if torch.cuda.is_available() else None
    try:
        device = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device_map={value!r} is no device: {error}") from None
    return None if device.type == "cpu" else device


def from_state(cls: type[Any], config: PretrainedConfig, state: object, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """A model with the weights of `state` (name -> tensor, published names or ours), and what was missing.

    Raises:
        ConfigError: no configuration, or no mapping of tensors.
        CheckpointError: a tensor of another shape.
    """
    if not hasattr(config, "to_dict"):
        raise ConfigError(f"{cls.__name__}.from_pretrained(None, ...) needs config=, a PretrainedConfig.")
    if not isinstance(state, Mapping):
        raise ConfigError(f"state_dict must be a mapping of tensors, not {type(state).__name__}.")
    model: ConfiguredModel = cls(config, **options)
    try:
        report = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"state_dict does not fit {cls.__name__}: {error}") from error
    return model.eval(), report
