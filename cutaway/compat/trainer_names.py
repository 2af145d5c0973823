"""Small functions that upstream keeps beside its Trainer, for loops and metrics of one's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple
from warnings import WarningMessage

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.train.batch_size import lacks_memory, release_memory, smaller
from cutaway.train.rng import set_seed
from cutaway.train.saving import numbered

log = logging.getLogger("cutaway")

PREFIX_CHECKPOINT_DIR = "checkpoint"


class HubStrategy(StrEnum):
    """When a training pushes to the hub."""

    END = "end"
    EVERY_SAVE = "every_save"
    CHECKPOINT = "checkpoint"
    ALL_CHECKPOINTS = "all_checkpoints"


class EvalLoopOutput(NamedTuple):
    """What an evaluation loop of one's own gives."""

    predictions: Any
    label_ids: Any
    metrics: dict[str, float] | None
    num_samples: int | None


class BestRun(NamedTuple):
    """The best of a search."""

    run_id: str
    objective: float | list[float]
    hyperparameters: dict[str, Any]
    run_summary: object = None


def get_last_checkpoint(folder: str | Path) -> str | None:
    """The newest `checkpoint-N` in a folder, by its number; None where there is none."""
    found = [path for _, path in numbered(Path(folder)) if re.fullmatch(r"checkpoint-\d+", path.name)]
    return str(found[-1]) if found else None


def enable_full_determinism(seed: int, warn_only: bool = False) -> None:
    """Seed everything, and let torch refuse (or, `warn_only`, name) operations that may differ from run to run."""
    import os

    set_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # read when CUDA begins
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def seed_worker(worker_id: int, num_workers: int, rank: int) -> None:
    """Seed a worker of a DataLoader: its `worker_init_fn`."""
    set_seed(num_workers * rank + torch.initial_seed() % 2**32)


def has_length(dataset: object) -> bool:
    """Whether a data set knows how many rows it has."""
    try:
        return len(dataset) is not None  # type: ignore[arg-type]
    except TypeError:
        return False


def is_main_process(local_rank: int) -> bool:
    """Whether this is the first process of its machine."""
    return local_rank in (-1, 0)


def speed_metrics(
    split: str,
    start_time: float,
    num_samples: int | None = None,
    num_steps: int | None = None,
    num_tokens: float | None = None,
) -> dict[str, float]:
    """How fast something was that began at `start_time` (time.time())."""
    import time

    seconds = time.time() - start_time
    found: dict[str, float] = {f"{split}_runtime": round(seconds, 4)}
    if seconds == 0:
        return found
    counts = (("samples", num_samples, 3), ("steps", num_steps, 3), ("tokens", num_tokens, 3))
    return found | {
        f"{split}_{what}_per_second": round(float(n) / seconds, digits) for what, n, digits in counts if n is not None
    }


def denumpify_detensorize(metrics: object) -> Any:
    """The same structure with plain numbers for NumPy's and torch's single ones."""
    if isinstance(metrics, list | tuple):
        return type(metrics)(denumpify_detensorize(m) for m in metrics)
    if isinstance(metrics, dict):
        return {k: denumpify_detensorize(v) for k, v in metrics.items()}
    if isinstance(metrics, np.generic) or (isinstance(metrics, Tensor) and metrics.numel() == 1):
        return metrics.item()
    return metrics


def default_compute_objective(metrics: dict[str, float]) -> float:
    """The loss where it is the only metric, else the sum of the others; speeds do not count."""
    left = dict(metrics)
    loss = left.pop("eval_loss", None)
    left.pop("epoch", None)
    left = {k: v for k, v in left.items() if not k.endswith(("_runtime", "_per_second"))}
    if not left and loss is None:
        raise InputError("the evaluation gave neither a loss nor a metric; return one from compute_metrics.")
    return sum(left.values()) if left else loss  # type: ignore[return-value]


# -- structures of tensors ---------------------------------------------------------------------------------------------


def _mapped(value: object, function: Callable[[Any], Any]) -> object:
    if isinstance(value, list | tuple):
        return type(value)(_mapped(v, function) for v in value)
    if isinstance(value, Mapping):
        return {k: _mapped(v, function) for k, v in value.items()}
    return function(value)


def nested_detach(tensors: object) -> Any:
    """The same structure without gradients."""
    return _mapped(tensors, lambda x: x.detach() if isinstance(x, Tensor) else x)


def nested_numpify(tensors: object) -> Any:
    """The same structure in NumPy; bfloat16, which it does not know, as float32."""

    def array(x: Tensor) -> NDArray[Any]:
        x = x.cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()

    return _mapped(tensors, array)


def nested_truncate(tensors: object, limit: int) -> Any:
    """The same structure, of each the first `limit` rows."""
    return _mapped(tensors, lambda x: x[:limit])


def atleast_1d(value: Tensor | ArrayLike) -> Any:
    """A tensor or array with at least one axis."""
    return torch.atleast_1d(value) if isinstance(value, Tensor) else np.atleast_1d(value)


def torch_pad_and_concatenate(tensor1: Tensor, tensor2: Tensor, padding_index: int = -100) -> Tensor:
    """Two batches as one; where their second axes differ, the shorter is filled up."""
    a, b = atleast_1d(tensor1), atleast_1d(tensor2)
    if a.dim() == 1 or a.shape[1] == b.shape[1]:
        return torch.cat((a, b))
    shape = (a.shape[0] + b.shape[0], max(a.shape[1], b.shape[1]), *a.shape[2:])
    whole: Tensor = a.new_full(shape, padding_index)
    whole[: a.shape[0], : a.shape[1]] = a
    whole[a.shape[0] :, : b.shape[1]] = b
    return whole


def numpy_pad_and_concatenate(array1: ArrayLike, array2: ArrayLike, padding_index: int = -100) -> NDArray[Any]:
    """The same of NumPy's arrays."""
    a, b = np.atleast_1d(array1), np.atleast_1d(array2)
    if a.ndim == 1 or a.shape[1] == b.shape[1]:
        return np.concatenate((a, b))
    shape = (a.shape[0] + b.shape[0], max(a.shape[1], b.shape[1]), *a.shape[2:])
    whole = np.full(shape, padding_index, dtype=a.dtype)
    whole[: a.shape[0], : a.shape[1]] = a
    whole[a.shape[0] :, : b.shape[1]] = b
    return whole


def nested_concat(tensors: Any, new_tensors: Any, padding_index: int = -100) -> Any:
    """Two structures of batches as one."""
    if isinstance(tensors, list | tuple):
        return type(tensors)(nested_concat(a, b, padding_index) for a, b in zip(tensors, new_tensors, strict=True))
    if isinstance(tensors, Tensor):
        return torch_pad_and_concatenate(tensors, new_tensors, padding_index)
    if isinstance(tensors, Mapping):
        return {k: nested_concat(v, new_tensors[k], padding_index) for k, v in tensors.items()}
    return numpy_pad_and_concatenate(tensors, new_tensors, padding_index)


def find_batch_size(tensors: object) -> int | None:
    """The number of rows of the first tensor in a structure."""
    if isinstance(tensors, Tensor | np.ndarray):
        return int(tensors.shape[0]) if len(tensors.shape) else None
    parts = tensors.values() if isinstance(tensors, Mapping) else tensors if isinstance(tensors, list | tuple) else ()
    return next((n for part in parts if (n := find_batch_size(part)) is not None), None)


def distributed_concat(tensor: object, num_total_examples: int | None = None) -> Any:
    """The tensors of all processes as one, cut to `num_total_examples` rows."""

    def gathered(x: Tensor) -> Tensor:
        x = atleast_1d(x).contiguous()
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x)
        return torch.cat(parts)[:num_total_examples]

    return _mapped(tensor, gathered)


# -- weights -----------------------------------------------------------------------------------------------------------


def get_parameter_names(
    model: nn.Module, forbidden_layer_types: list[type], forbidden_layer_names: list[str] | None = None
) -> list[str]:
    """The names of a model's weights, without those of layers of these types, or whose name fits a pattern."""
    patterns = [re.compile(p) for p in forbidden_layer_names or ()]
    found: list[str] = []
    for name, child in model.named_children():
        if not isinstance(child, tuple(forbidden_layer_types)):
            inner = get_parameter_names(child, forbidden_layer_types, forbidden_layer_names)
            found += [f"{name}.{n}" for n in inner if not any(p.search(f"{name}.{n}".lower()) for p in patterns)]
    return found + [k for k in model._parameters if not any(p.search(k.lower()) for p in patterns)]


def get_model_param_count(model: nn.Module, trainable_only: bool = False) -> int:
    """How many numbers the weights hold."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def unwrap_model(model: nn.Module, recursive: bool = False) -> nn.Module:
    """The model inside DataParallel and DistributedDataParallel."""
    while hasattr(model, "module") and isinstance(model.module, nn.Module):
        model = model.module
    return model


class LabelSmoother:
    """The loss with label smoothing: 1 - epsilon on the label, epsilon spread over all classes.

    Attributes:
        epsilon: what is spread. ignore_index: labels that do not count.
    """

    epsilon: float = 0.1
    ignore_index: int = -100

    def __init__(self, epsilon: float = 0.1, ignore_index: int = -100) -> None:
        self.epsilon, self.ignore_index = epsilon, ignore_index

    def __call__(self, model_output: Any, labels: Tensor, shift_labels: bool = False) -> Tensor:
        """The mean over labelled places; `shift_labels`: each place is to say the next label."""
        logits = model_output["logits"] if isinstance(model_output, dict) else model_output[0]
        if shift_labels:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        log_probability = logits.float().log_softmax(-1)
        here = labels != self.ignore_index
        picked = -log_probability.gather(-1, labels.clamp(min=0)[..., None])[..., 0][here]
        spread = -log_probability.mean(-1)[here]
        found: Tensor = ((1.0 - self.epsilon) * picked + self.epsilon * spread).sum() / here.sum()
        return found


# -- processes ---------------------------------------------------------------------------------------------------------


@contextmanager
def torch_distributed_zero_first(local_rank: int) -> Iterator[None]:
    """Inside, the first process of a machine goes before the others, which then find what it has made."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if several and local_rank not in (-1, 0):
        torch.distributed.barrier()
    yield
    if several and local_rank == 0:
        torch.distributed.barrier()


def reissue_pt_warnings(caught_warnings: Iterable[WarningMessage]) -> None:
    """Warn again of what was caught."""
    import warnings

    for warning in caught_warnings or ():
        warnings.warn(warning.message, warning.category, stacklevel=2)


# -- layers ------------------------------------------------------------------------------------------------------------


class Conv1D(nn.Module):
    """A linear layer whose weight is [inputs, outputs], as GPT-2 publishes its own.

    Args:
        nf: outputs. nx: inputs.
    """

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.02)

    def __repr__(self) -> str:
        return f"Conv1D(nf={self.nf}, nx={self.nx})"

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return x @ self.weight + self.bias


def apply_chunking_to_forward(
    forward_fn: Callable[..., Tensor], chunk_size: int, chunk_dim: int, *input_tensors: Tensor
) -> Tensor:
    """`forward_fn(*input_tensors)`, computed over pieces of `chunk_size` along an axis; 0 for all at once."""
    if chunk_size <= 0:
        return forward_fn(*input_tensors)
    length = input_tensors[0].shape[chunk_dim]
    if any(x.shape[chunk_dim] != length for x in input_tensors):
        raise InputError(f"the inputs differ in axis {chunk_dim}: {[list(x.shape) for x in input_tensors]}.")
    if length % chunk_size:
        raise InputError(f"axis {chunk_dim} has {length} places, which chunks of {chunk_size} do not divide.")
    parts = zip(*(x.split(chunk_size, chunk_dim) for x in input_tensors), strict=True)
    return torch.cat([forward_fn(*part) for part in parts], chunk_dim)


def prune_linear_layer(layer: nn.Linear, index: Tensor, dim: int = 0) -> nn.Linear:
    """A linear layer of the outputs (`dim` 0) or inputs (1) `index` of another."""
    index = index.to(layer.weight.device)
    weight = layer.weight.index_select(dim, index).detach().clone()
    new = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None).to(weight)
    new.weight = nn.Parameter(weight)
    if layer.bias is not None:
        bias = layer.bias.detach() if dim == 1 else layer.bias.detach()[index]
        new.bias = nn.Parameter(bias.clone())
    return new


ALL_LAYERNORM_LAYERS = [nn.LayerNorm]


def sort_checkpoints(
    output_dir: str | Path,
    checkpoint_prefix: str = PREFIX_CHECKPOINT_DIR,
    use_mtime: bool = False,
    best_model_checkpoint: str | Path | None = None,
) -> list[str]:
    """The checkpoints of a folder, the oldest first; the best one stands last but one, unless it is the last.

    Args:
        use_mtime: by the time of the last change, not by the number in the name.
    """
    named = re.compile(rf"{re.escape(checkpoint_prefix)}-(\d+)")
    found = [(path, m) for path in Path(output_dir).iterdir() if path.is_dir() and (m := named.fullmatch(path.name))]
    found.sort(key=lambda one: one[0].stat().st_mtime if use_mtime else int(one[1][1]))
    paths = [path for path, _ in found]
    best = None if best_model_checkpoint is None else Path(best_model_checkpoint)
    if best in paths[:-1]:
        paths.remove(best)
        paths.insert(-1, best)
    return [str(path) for path in paths]


def rotate_checkpoints(
    output_dir: str | Path,
    save_total_limit: int | None = None,
    best_model_checkpoint: str | Path | None = None,
    use_mtime: bool = False,
    checkpoint_prefix: str = PREFIX_CHECKPOINT_DIR,
) -> None:
    """Remove the oldest checkpoints over the limit; the newest and the best one always stay."""
    import shutil

    if save_total_limit is None or save_total_limit <= 0:
        return
    paths = sort_checkpoints(output_dir, checkpoint_prefix, use_mtime, best_model_checkpoint)
    best = None if best_model_checkpoint is None else str(Path(best_model_checkpoint))
    spared = {*paths[-1:], *([best] if best in paths else [])}
    removable = [path for path in paths if path not in spared]
    for path in removable[: max(0, len(paths) - save_total_limit)]:
        shutil.rmtree(path)


def find_executable_batch_size(
    function: Callable[..., Any] | None = None, starting_batch_size: int = 128, auto_find_batch_size: bool = False
) -> Callable[..., Any]:
    """Calls `function(batch_size, ...)` with ever smaller batches, a tenth less each time, while memory lacks.

    Without `auto_find_batch_size` it is called once. Used as a decorator, with or without arguments.

    Raises:
        RuntimeError: not even one row fits.
    """
    if function is None:
        return partial(
            find_executable_batch_size,
            starting_batch_size=starting_batch_size,
            auto_find_batch_size=auto_find_batch_size,
        )
    if not auto_find_batch_size:
        return partial(function, starting_batch_size)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        size = starting_batch_size
        while size > 0:
            try:
                return function(size, *args, **kwargs)
            except Exception as error:
                if not lacks_memory(error):
                    raise
            release_memory()
            size = smaller(size)
        raise RuntimeError("No executable batch size found, reached zero.")

    return call


class RemoveColumnsCollator:
    """A collator that hands on only the columns that a model takes.

    Args:
        data_collator: gets what is left. signature_columns: the names that stay.
        logger, model_name, description: for one line in the log about what is left out.
    """

    def __init__(
        self,
        data_collator: Callable[[list[Any]], Any],
        signature_columns: Sequence[str],
        logger: logging.Logger | None = None,
        model_name: str | None = None,
        description: str | None = None,
    ) -> None:
        self.data_collator, self.signature_columns = data_collator, signature_columns
        self.logger, self.model_name, self.description = logger, model_name, description
        self.message_logged = False

    def _remove_columns(self, feature: Any) -> Any:
        if not isinstance(feature, dict):
            return feature
        left_out = [name for name in feature if name not in self.signature_columns]
        if left_out and not self.message_logged and self.logger is not None and self.model_name:
            self.message_logged = True
            where = "" if self.description is None else f" of the {self.description} set"
            # one text: a logger of a script's own may take no more
            self.logger.info(f"{self.model_name}.forward takes no {', '.join(left_out)}{where}: left out.")
        return {name: value for name, value in feature.items() if name in self.signature_columns}

    def __call__(self, features: list[Any]) -> Any:
        """The batch of the rows without those columns."""
        return self.data_collator([self._remove_columns(feature) for feature in features])


class EvalLoopContainer:
    """Gathers what an evaluation loop of one's own gives, batch by batch, in nested lists, tuples and dicts.

    Args:
        do_nested_concat: one array of all batches, padded to one length with `padding_index`; else a list of them.
    """

    def __init__(self, do_nested_concat: bool = True, padding_index: int = -100) -> None:
        self.do_nested_concat, self.padding_index = do_nested_concat, padding_index
        self.tensors: Any = None
        self.arrays: Any = None

    def add(self, tensors: Any) -> None:
        """One batch."""
        if self.tensors is None:
            self.tensors = tensors if self.do_nested_concat else [tensors]
        elif self.do_nested_concat:
            self.tensors = nested_concat(self.tensors, tensors, padding_index=self.padding_index)
        else:
            self.tensors.append(tensors)

    def to_cpu_and_numpy(self) -> None:
        """Takes what was added so far off the device."""
        if self.tensors is None:
            return
        fresh = nested_numpify(self.tensors)
        if self.arrays is None:
            self.arrays = fresh
        elif self.do_nested_concat:
            self.arrays = nested_concat(self.arrays, fresh, padding_index=self.padding_index)
        else:
            self.arrays.extend(fresh)
        self.tensors = None

    def get_arrays(self) -> Any:
        """Everything, as NumPy's arrays; None where nothing was added."""
        self.to_cpu_and_numpy()
        return self.arrays


def check_target_module_exists(
    optim_target_modules: str | Sequence[str], key: str, return_is_regex: bool = False
) -> bool | tuple[bool, bool]:
    """Whether a module's name is meant by a pattern, or by one of several names or patterns.

    Args:
        return_is_regex: also say whether it was a pattern, and not a name or a part of one, that fits.
    """
    if isinstance(optim_target_modules, str):
        fits = re.fullmatch(optim_target_modules, key) is not None
        is_regex = optim_target_modules != key
    elif key in optim_target_modules or any(part in key for part in optim_target_modules):
        fits, is_regex = True, False
    else:
        fits = is_regex = any(re.fullmatch(pattern, key) is not None for pattern in optim_target_modules)
    return (fits, is_regex) if return_is_regex else fits
