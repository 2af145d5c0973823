"""Which methods of upstream's Trainer a subclass may override here, and what to do instead of the others.

A method that is overridden and never called would be a training that silently goes otherwise. So upstream's names are
all here, in one of two tables; a test compares them with the installed transformers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.nn.cpu.torch_private import without_torch_function

# called as upstream calls them, with its arguments
CALLED = frozenset(
    (
        "_clip_grad_norm", "_determine_best_metric", "_evaluate", "_get_collator_with_removed_columns",
        "_get_dataloader", "_get_eval_sampler", "_get_grad_norm", "_get_learning_rate", "_get_num_items_in_batch",
        "_get_output_dir", "_get_train_sampler", "_load_best_model", "_load_from_checkpoint",
        "_maybe_log_save_evaluate", "_move_model_to_device", "_pad_tensors_to_max_len", "_prepare_input",
        "_prepare_inputs", "_remove_unused_columns", "_save", "_save_checkpoint", "_set_signature_columns_if_needed",
        "_track_num_input_tokens", "_validate_args", "_wrap_model", "add_callback", "autocast_smart_context_manager",
        "call_model_init", "compute_loss", "compute_loss_context_manager", "create_model_card", "create_optimizer",
        "create_optimizer_and_scheduler", "create_scheduler", "end", "evaluate", "evaluation_loop",
        "floating_point_ops", "get_batch_samples", "get_decay_parameter_names", "get_eval_dataloader",
        "get_learning_rates", "get_num_trainable_parameters", "get_optimizer_cls_and_kwargs", "get_optimizer_group",
        "get_test_dataloader", "get_total_train_batch_size", "get_train_dataloader", "hyperparameter_search",
        "is_local_process_zero", "is_world_process_zero", "load_generation_config", "log", "log_metrics",
        "metrics_format", "num_examples", "pop_callback", "predict", "prediction_step", "push_to_hub",
        "remove_callback", "save_metrics", "save_model", "save_state", "store_flos", "train", "training_step",
    )
)  # fmt: skip

_STEP = "override training_step, compute_loss or get_batch_samples, or use a callback"
_RESUME = "a callback's state_dict and load_state_dict keep what a resume needs"
_PROCESSES = "torchrun starts several processes, and fsdp=True splits the weights"
_LOADER = "override get_train_dataloader"

# never called here -> the way out
NOT_CALLED: dict[str, str] = {
    **dict.fromkeys(
        (
            "_inner_training_loop", "_run_epoch", "_init_training_state", "_prepare_for_training", "_finalize_training",
            "set_initial_training_values",
        ),
        _STEP,
    ),
    **dict.fromkeys(
        (
            "_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state", "_load_optimizer_and_scheduler",
            "_load_scaler", "_load_rng_state", "_load_callback_state", "_issue_warnings_after_load",
        ),
        _RESUME + "; override _save_checkpoint or _load_from_checkpoint for files of your own",
    ),
    **dict.fromkeys(
        (
            "_build_accelerator_args", "create_accelerator_and_postprocess", "_defer_fsdp_gradient_reduction",
            "_sync_replicated_trainable_parameters", "_mixed_mesh_grad_norm", "_has_mixed_mesh_grads",
            "_prepare_context_parallel_inputs", "get_sp_size", "get_cp_size", "get_tp_size",
        ),
        _PROCESSES,
    ),
    "_update_auto_batch_size": _LOADER,
    **dict.fromkeys(
        ("_hp_search_setup", "_report_to_hp_search", "_tune_save_checkpoint"),
        "give hyperparameter_search its hp_space and compute_objective, or a callback",
    ),
    **dict.fromkeys(
        ("init_hf_repo", "_push_from_checkpoint", "_finish_current_push"),
        "override push_to_hub, or upload in a callback's on_save",
    ),
    # of releases before 5.23
    "prediction_loop": "override evaluation_loop or prediction_step",
    "_nested_gather": "override prediction_step",
    "_pad_across_processes": "override prediction_step",
}  # fmt: skip
FORMER = frozenset({"prediction_loop", "_nested_gather", "_pad_across_processes"})


def check_overrides(kind: type[Any]) -> None:
    """Refuse a subclass of Trainer whose own method nobody would call.

    Raises:
        ConfigError: it overrides such a method; the message names it and says what to do.
    """
    for cls in kind.__mro__:
        if _is_ours(cls.__module__):
            continue
        for name in vars(cls):
            if name in NOT_CALLED:
                raise ConfigError(
                    f"{cls.__name__} overrides {name}, which this Trainer never calls, so it would do nothing: "
                    f"{NOT_CALLED[name]}."
                )


def overridden(trainer: Any, name: str) -> bool:
    """Whether somebody has put a method of their own in the place of the library's, by a subclass or on the object."""
    if name in vars(trainer):
        return True
    for cls in type(trainer).__mro__:
        if name in vars(cls):
            return not _is_ours(cls.__module__)
    return False


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of this name."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _is_ours(module: str) -> bool:
    return module.startswith(("cutaway.train.", "builtins", "typing"))


# what looks at a number and calculates nothing with it
_LOOKS = frozenset(
    ("__get__", "__repr__", "__format__", "__bool__", "__deepcopy__", "__hash__", "dim", "size", "numel",
     *(name for compared in ("eq", "ne", "lt", "le", "gt", "ge") for name in (compared, f"__{compared}__")))
)  # fmt: skip


def _note(given: Iterable[object]) -> None:
    """Let each count among what a function is given, in lists too, know that it was calculated with."""
    for one in given:
        if isinstance(one, ItemCount):
            one.used = True
        elif isinstance(one, (list, tuple)):
            _note(one)


class ItemNumber(float):
    """`num_items_in_batch.item()`: a number that notes in its count when it is calculated with."""

    count: ItemCount

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*map(cls._plain, args), **{name: cls._plain(value) for name, value in (kwargs or {}).items()})

    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, cls):
            value.count.used = True
            return float(value)
        return type(value)(map(cls._plain, value)) if type(value) in (list, tuple) else value


def _calculating(name: str) -> Callable[..., Any]:
    of_float = getattr(float, name)

    def calculate(self: ItemNumber, *others: Any) -> Any:
        self.count.used = True
        return of_float(self, *others)

    return calculate


_SIDES = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
for _name in (*_SIDES, *(f"r{side}" for side in _SIDES), "neg", "abs"):
    setattr(ItemNumber, f"__{_name}__", _calculating(f"__{_name}__"))


class ItemCount(Tensor):
    """`num_items_in_batch` as a compute_loss of one's own gets it: a number that notes whether it was calculated with.

    A loss that was divided by it is a share of the update's loss already; any other is the mean of its own batch.
    """

    used: bool

    @classmethod
    def of(cls, n: float) -> ItemCount:
        """The number `n`, not yet used."""
        found = torch.tensor(n, dtype=torch.float32).as_subclass(cls)
        found.used = False
        return found

    def __format__(self, how: str) -> str:
        with without_torch_function():
            return format(super().item(), how)

    def item(self) -> ItemNumber:
        """The number; it is used once that is calculated with."""
        with without_torch_function():
            found = ItemNumber(super().item())
        found.count = self
        return found

    def tolist(self) -> ItemNumber:  # type: ignore[override]
        """As `item`."""
        return self.item()

    def __deepcopy__(self, memo: dict[int, Any]) -> ItemCount:
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        looks = getattr(func, "__name__", "") in _LOOKS
        if not looks:
            _note(args)
            _note((kwargs or {}).values())
        with without_torch_function():
            found = func(*args, **(kwargs or {}))
        return found.as_subclass(Tensor) if isinstance(found, ItemCount) and not looks else found
