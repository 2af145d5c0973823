"""Small functions on tensors, arrays and files that upstream keeps in its `utils`."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cutaway.checkpoint.safetensors import SafetensorsFile
from cutaway.checkpoint.torch_pickle import TorchFile
from cutaway.errors import ConfigError, HubError
from cutaway.nn.decoder_inputs import shift_right, wrap_right


class ContextManagers:
    """Several `with` statements in one."""

    def __init__(self, context_managers: Iterable[AbstractContextManager[Any]]) -> None:
        self.context_managers, self.stack = list(context_managers), ExitStack()

    def __enter__(self) -> None:
        for one in self.context_managers:
            self.stack.enter_context(one)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, traceback)


def strtobool(value: object) -> int:
    """1 for y, yes, t, true, on, 1; 0 for n, no, f, false, off, 0; ConfigError for anything else."""
    word = str(value).lower()
    if word in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if word in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ConfigError(f"{value!r} says neither yes nor no.")


def is_torch_tensor(x: object) -> bool:
    """Whether it is a tensor of torch's."""
    return isinstance(x, Tensor)


is_tensor = is_torch_tensor


def is_numpy_array(x: object) -> bool:
    """Whether it is an array of NumPy's."""
    return isinstance(x, np.ndarray)


def is_torch_device(x: object) -> bool:
    """Whether it is a torch.device."""
    return isinstance(x, torch.device)


def is_torch_dtype(x: object) -> bool:
    """Whether it is a torch.dtype, or the name of one."""
    return isinstance(getattr(torch, x, None) if isinstance(x, str) else x, torch.dtype)


def to_py_obj(obj: object) -> Any:
    """The same structure in lists and numbers."""
    if isinstance(obj, Mapping):
        return {k: to_py_obj(v) for k, v in obj.items()}
    if isinstance(obj, list | tuple):
        return [to_py_obj(v) for v in obj]
    return obj.tolist() if hasattr(obj, "tolist") else obj


def to_numpy(obj: object) -> Any:
    """The same structure in NumPy's arrays."""
    if isinstance(obj, Mapping):
        return {k: to_numpy(v) for k, v in obj.items()}
    if isinstance(obj, list | tuple):
        return np.array(obj)
    return obj.detach().cpu().numpy() if isinstance(obj, Tensor) else obj


def flatten_dict(d: MutableMapping[str, Any], parent_key: str = "", delimiter: str = ".") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in d.items():
        name = f"{parent_key}{delimiter}{key}" if parent_key else str(key)
        if isinstance(value, MutableMapping) and value:
            found |= flatten_dict(value, name, delimiter)
        else:
            found[name] = value
    return found


def transpose(array: Tensor | NDArray[Any], axes: Sequence[int] | None = None) -> Tensor | NDArray[Any]:
    """The axes of a tensor or array in another order; by default turned round."""
    order = tuple(range(array.ndim))[::-1] if axes is None else tuple(axes)
    return array.permute(*order) if isinstance(array, Tensor) else np.transpose(array, order)


def reshape(array: Tensor | NDArray[Any], newshape: Sequence[int]) -> Tensor | NDArray[Any]:
    """Another shape of a tensor or array."""
    return array.reshape(*newshape) if isinstance(array, Tensor) else np.reshape(array, newshape)


def squeeze(array: Tensor | NDArray[Any], axis: int | None = None) -> Tensor | NDArray[Any]:
    """Without axes of length 1."""
    if isinstance(array, Tensor):
        return array.squeeze() if axis is None else array.squeeze(axis)
    return np.squeeze(array, axis=axis)


def expand_dims(array: Tensor | NDArray[Any], axis: int) -> Tensor | NDArray[Any]:
    """With one more axis of length 1."""
    return array.unsqueeze(axis) if isinstance(array, Tensor) else np.expand_dims(array, axis)


def tensor_size(array: Tensor | NDArray[Any]) -> int:
    """How many numbers it holds."""
    return int(array.numel()) if isinstance(array, Tensor) else int(np.size(array))


def torch_int(x: Tensor | float) -> Tensor | int:
    """A whole number; a tensor while torch traces."""
    return x.to(torch.int64) if isinstance(x, Tensor) else int(x)


def torch_float(x: Tensor | float) -> Tensor | float:
    """A number; a tensor while torch traces."""
    return x.to(torch.float32) if isinstance(x, Tensor) else float(x)


def find_labels(model_class: type[nn.Module]) -> list[str]:
    """The arguments of a model's forward that are labels."""
    takes = inspect.signature(model_class.forward).parameters
    span = ("start_positions", "end_positions") if "QuestionAnswering" in model_class.__name__ else ()
    return [name for name in takes if "label" in name or name in span]


def can_return_loss(model_class: type[nn.Module]) -> bool:
    """Whether a model's forward gives a loss without labels, where it is asked to."""
    takes = inspect.signature(model_class.forward).parameters
    return "return_loss" in takes and takes["return_loss"].default is True


def cached_file(path_or_repo_id: str | Path, filename: str, **kwargs: object) -> str | None:
    """The local path of a file of a folder or a repository on the hub.

    `revision`, `token`, `cache_dir`, `local_files_only` and `subfolder` say where. None where it is not there and
    `_raise_exceptions_for_missing_entries=False` is passed; HubError otherwise.
    """
    from cutaway.hub.files import hub_options, resolve

    strict = kwargs.get("_raise_exceptions_for_missing_entries", True)
    try:
        found: Path = resolve(path_or_repo_id, **hub_options(kwargs)).require(filename)
    except HubError:
        if strict:
            raise
        return None
    return str(found)


def find_adapter_config_file(model_id: str | Path, **kwargs: object) -> str | None:
    """The local path of the adapter_config.json of a folder or a repository on the hub; None where there is none."""
    return cached_file(model_id, "adapter_config.json", **kwargs, _raise_exceptions_for_missing_entries=False)


def http_user_agent(user_agent: Mapping[str, object] | str | None = None) -> str:
    """What a request to the hub says of who asks: versions, and what is passed here."""
    from importlib.metadata import version

    said = [f"cutaway/{version('cutaway')}", f"python/{platform.python_version()}", f"torch/{version('torch')}"]
    if isinstance(user_agent, str):
        said.append(user_agent)
    elif user_agent is not None:
        said += [f"{name}/{value}" for name, value in user_agent.items()]
    return "; ".join(said)


def id_tensor_storage(tensor: Tensor) -> tuple[torch.device, int, int]:
    """What tells the memory of a tensor: the device, the address of its storage, the bytes of it."""
    storage = tensor.untyped_storage()
    return tensor.device, storage.data_ptr(), storage.nbytes()


def load_state_dict(
    checkpoint_file: str | Path, map_location: str | torch.device = "cpu", weights_only: bool = True
) -> dict[str, Tensor]:
    """The tensors of one file, safetensors or PyTorch's; `weights_only`: code of a pickle is never run.

    Raises:
        CheckpointError: the file is damaged, or holds more than tensors.
    """
    path = Path(checkpoint_file)
    if path.suffix == ".safetensors":
        opened: SafetensorsFile | TorchFile = SafetensorsFile(path)
    else:
        opened = TorchFile(path)
    return {name: opened.read(name).to(map_location) for name in opened.names()}


def shift_tokens_right(input_ids: Tensor, pad_token_id: int, decoder_start_token_id: int | None = None) -> Tensor:
    """What a decoder reads when it must say `input_ids` [batch, length], labels of -100 as padding.

    Args:
        decoder_start_token_id: what it begins with; None for each text's own last token, as mBART does.
    """
    if decoder_start_token_id is None:
        return wrap_right(input_ids, pad_token_id)
    return shift_right(input_ids, decoder_start_token_id, pad_token_id)


def rotate_half(x: Tensor) -> Tensor:
    """[..., size] -> [..., size]: the second half negated, then the first (Su et al., 2021, for halves)."""
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def apply_rotary_pos_emb(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Queries and keys [batch, heads, length, size], turned by the angles whose cosines and sines are given.

    Args:
        cos, sin: [batch, length, size].
        unsqueeze_dim: where the heads stand in q and k.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)  # [batch, 1, length, size]
    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


def repeat_kv(hidden_states: Tensor, n_rep: int) -> Tensor:
    """[batch, n_kv_heads, length, size] -> [batch, n_kv_heads * n_rep, length, size], copies side by side."""
    return hidden_states.repeat_interleave(n_rep, 1)
