"""`TrainingArguments`: how a training goes, under the names that tutorials use, old and new."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import multiprocessing
import typing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

from cutaway.errors import ConfigError, nearest
from cutaway.train.accelerator_config import AcceleratorConfig
from cutaway.train.argument_setters import ArgumentSetters
from cutaway.train.field_types import fitting, from_text
from cutaway.train.ignored_arguments import NEEDLESS
from cutaway.train.process import ProcessFacts
from cutaway.train.strategy import IntervalStrategy, SaveStrategy, SchedulerType
from cutaway.train.upstream_arguments import UpstreamArguments

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
Optim = Literal["adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd"]

# old name -> today's
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
}


@dataclass(kw_only=True, init=False, repr=False)
class BatchArguments:
    """How rows become batches."""

    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    dataloader_drop_last: bool = False
    dataloader_num_workers: int = 0
    remove_unused_columns: bool = True
    label_names: list[str] | None = None
    auto_find_batch_size: bool = False
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = "random"
    length_column_name: str = "length"
    per_device_train_batch_tokens: int | None = None
    data_seed: int | None = None


@dataclass(kw_only=True, init=False, repr=False)
class OptimizationArguments:
    """What a step does to the weights, and to which of them."""

    learning_rate: float = 5e-5
    learning_rates: dict[str, float] | None = None
    layer_lr_decay: float = 1.0
    freeze: list[str] | None = None
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    optim: Optim = "adamw_torch_fused"
    optim_args: str | None = None
    lr_scheduler_type: SchedulerType = SchedulerType.LINEAR
    lr_scheduler_kwargs: dict[str, Any] | str | None = None
    warmup_steps: int | float = 0
    warmup_ratio: float = 0.0
    label_smoothing_factor: float = 0.0
    neftune_noise_alpha: float | None = None
    class_weights: list[float] | Literal["balanced"] | None = None
    ema_decay: float = 0.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    activation_checkpointing: bool | None = None
    match_upstream: bool = False


@dataclass(kw_only=True, init=False, repr=False)
class LengthArguments:
    """How long, from which random numbers, and on what: several processes are started by `torchrun`."""

    num_train_epochs: float = 3.0
    max_steps: int = -1
    seed: int = 42
    use_cpu: bool = False
    fsdp: bool | Literal["", "full_shard", "full_shard auto_wrap"] = False
    ddp_timeout: int | float = 1800
    ddp_find_unused_parameters: bool | None = None


@dataclass(kw_only=True, init=False, repr=False)
class EvaluationArguments:
    """When the model is evaluated, and what the best one is."""

    eval_strategy: IntervalStrategy = IntervalStrategy.NO
    eval_steps: int | float | None = None
    eval_delay: int | float = 0
    eval_on_start: bool = False
    prediction_loss_only: bool = False
    batch_eval_metrics: bool = False
    fp16_full_eval: bool = False
    bf16_full_eval: bool = False
    eval_do_concat_batches: bool = True
    include_for_metrics: list[Literal["inputs", "loss"]] = field(default_factory=list)
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None


@dataclass(kw_only=True, init=False, repr=False)
class SavingArguments:
    """When a checkpoint is written, how many are kept, and whether the model also goes to the hub."""

    save_strategy: SaveStrategy = SaveStrategy.STEPS
    save_steps: int | float = 500
    save_total_limit: int | None = None
    save_only_model: bool = False
    resume_from_checkpoint: str | bool | None = None
    restore_callback_states_from_checkpoint: bool = False
    enable_jit_checkpoint: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_strategy: Literal["every_save", "end"] = "every_save"
    hub_token: str | None = None
    hub_private_repo: bool | None = None


@dataclass(kw_only=True, init=False, repr=False)
class ReportArguments:
    """What is said on the way."""

    logging_strategy: IntervalStrategy = IntervalStrategy.STEPS
    logging_steps: int | float = 500
    logging_first_step: bool = False
    logging_nan_inf_filter: bool = True
    skip_memory_metrics: bool = True
    include_num_input_tokens_seen: bool | Literal["all", "non_padding", "no"] = "no"
    disable_tqdm: bool = False
    report_to: str | list[str] | None = None
    run_name: str | None = None
    project: str | None = None
    logging_dir: str | None = None


@dataclass(kw_only=True, init=False, repr=False)
class TrainingArguments(
    ArgumentSetters,
    ProcessFacts,
    UpstreamArguments,
    ReportArguments,
    SavingArguments,
    EvaluationArguments,
    LengthArguments,
    OptimizationArguments,
    BatchArguments,
):
    """All settings of a training; each group above says what its settings are for.

    Old names (`evaluation_strategy`, `no_cuda`) work. Names of the upstream library whose given value changes nothing
    here (`log_level="info"`, `fp16=False`) are accepted and can be read. Steps below 1
    (`eval_steps=0.1`) are a part of the whole training. `@dataclass class Mine(TrainingArguments)` adds fields of your
    own. `~` in output_dir is your home.

    `lr_scheduler_type` is one of `SchedulerType`, and `lr_scheduler_kwargs={"num_cycles": 2}` what else it takes.

    Weights are named by address in `freeze=["embed", "blocks.0-3"]` and in `learning_rates={"blocks.*.attn": 1e-5}`,
    where the last pattern that fits counts; `layer_lr_decay=0.9` makes each block learn at 0.9 of the rate of the one
    above it. `per_device_train_batch_tokens=4096` packs as many texts into a batch as it can hold tokens; padding is no
    token. `ema_decay=0.999` keeps a running average of the weights: that is what is evaluated, saved and left in the
    model at the end. `bf16=True` computes in bfloat16 on weights in float32. `neftune_noise_alpha=5` adds noise to the
    vectors of tokens while the model trains.

    A loss that is no number is left out of what is logged, and said, unless `logging_nan_inf_filter=False`.
    `include_num_input_tokens_seen="all"` (or "non_padding") counts the tokens; `include_for_metrics=["inputs", "loss"]`
    gives compute_metrics more; `optim_args="momentum=0.9"` is for the optimizer.

    `auto_find_batch_size=True` begins again with a tenth fewer rows in a batch while the memory does not suffice; a
    resume goes on with the size that was found. `save_only_model=True` leaves out of a checkpoint what a resume needs,
    so nothing can be resumed from it. `fp16_full_eval=True` and `bf16_full_eval=True` evaluate on weights of 16 bits,
    except while the model is trained. `skip_memory_metrics=False` adds the memory of each stage to its metrics.

    `report_to="tensorboard"`, "mlflow", "wandb", "trackio" or a list of these also writes what is logged there; the run
    is `run_name` in `project`, and TensorBoard's files lie in `logging_dir`. By default nothing is reported.

    `fsdp=True` (or "full_shard") leaves each process of `torchrun` a part of the weights and of the optimizer; one
    process has no parts. A process that waits `ddp_timeout` seconds for another gives up. Whether a step leaves weights
    unused is seen from the first one, unless `ddp_find_unused_parameters` says it (True where it changes later).

    `enable_jit_checkpoint=True` saves a checkpoint when SIGTERM or Ctrl-C comes, and stops. A resume gives callbacks
    their counts back; with `restore_callback_states_from_checkpoint=True` also what they were made with.

    `push_to_hub=True` uploads the model of each checkpoint to the repository `hub_model_id` (by default the name of
    output_dir); with `hub_strategy="end"` only `Trainer.push_to_hub()` does. `hub_token` is kept out of every file.

    `match_upstream=True` takes the accumulated loss as the upstream library does: the means of the parts are added, not
    weighed by what they hold, except for causal language models; and where an answer begins and ends is looked for in
    padding on the right too (in encoders with full attention), which is then computed. Use it only to reproduce an old
    training.

    Raises:
        ConfigError: an unknown name (its neighbours are listed), or a value that cannot be used.
    """

    output_dir: str = field(default="trainer_output", kw_only=False)

    def __init__(self, output_dir: str | Path | None = None, **settings: Any) -> None:
        fields = {f.name: f for f in dataclasses.fields(self)}
        if output_dir is not None:
            settings["output_dir"] = output_dir
        known = self._known(settings, fields)
        for name, one in fields.items():
            setattr(self, name, known[name] if name in known else _default(one))
        self.__post_init__()

    def __post_init__(self) -> None:
        """Every setting in its type, and what does not go together refused; a dataclass of your own ends here too."""
        kinds = _kinds(TrainingArguments)
        folder: object = self.output_dir
        folder = "trainer_output" if folder is None else str(folder)
        self.output_dir = str(Path(folder).expanduser()) if folder.startswith("~") else folder
        if self.activation_checkpointing is not None:
            self.gradient_checkpointing = self.activation_checkpointing
        for name, kind in kinds.items():
            if name in NEEDLESS:
                own = type(self).takes_itself
                if name not in own:
                    NEEDLESS[name].check(name, getattr(self, name))
            else:
                setattr(self, name, fitting(name, getattr(self, name), kind))
        self._check()
        self.do_eval = self.do_eval or self.eval_strategy != IntervalStrategy.NO
        if isinstance(self.include_num_input_tokens_seen, bool):
            self.include_num_input_tokens_seen = "all" if self.include_num_input_tokens_seen else "no"
        if self.use_cpu:
            self.dataloader_pin_memory = False

    @staticmethod
    def _known(settings: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if settings.pop("group_by_length", False):
            settings.setdefault("train_sampling_strategy", "group_by_length")
        for given, value in settings.items():
            name = RENAMED.get(given, given)
            if name not in fields:
                raise ConfigError(f"TrainingArguments has no setting {given!r}.{nearest(given, [*fields, *RENAMED])}")
            if name in found and found[name] != value:
                raise ConfigError(f"{given} is another name of {name}, and they differ; give one of them.")
            found[name] = value
        return found

    # settings that a command line gives as JSON; a subclass of other libraries adds its own
    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        "accelerator_config", "fsdp_config", "deepspeed", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs",
    ]  # fmt: skip
    takes_itself: ClassVar[tuple[str, ...]] = ()  # needless settings that a subclass has a use for

    def _check(self) -> None:
        if self.accelerator_config is not None:
            self.accelerator_config = AcceleratorConfig.read(self.accelerator_config)
            self.gradient_accumulation_steps = self.accelerator_config.parts(self.gradient_accumulation_steps)
        if isinstance(self.lr_scheduler_kwargs, str):
            self.lr_scheduler_kwargs = from_text("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        for name, value in vars(self).items():
            if isinstance(value, float) and math.isinf(value) and name != "max_grad_norm":  # which then clips nothing
                raise ConfigError(f"{name} is {value!r}; it must be finite.")
        positive = (
            "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
            "per_device_train_batch_tokens", "layer_lr_decay", "ddp_timeout",
        )  # fmt: skip
        for name in (*positive, "num_train_epochs", "logging_steps", "save_steps", "save_total_limit", "eval_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value!r}; it must be more than 0.")
        for name in ("logging_steps", "save_steps", "eval_steps"):
            value = getattr(self, name)
            if value is not None and value > 1 and value != int(value):
                raise ConfigError(f"{name} is {value!r}; give whole steps, or a part of the training below 1.")
        for name in (
            "learning_rate",
            "weight_decay",
            "max_grad_norm",
            "warmup_steps",
            "dataloader_num_workers",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be 0 or more.")
        for name in ("warmup_ratio", "label_smoothing_factor", "adam_beta1", "adam_beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be from 0 to below 1.")
        if self.fp16_full_eval and self.bf16_full_eval:
            raise ConfigError("fp16_full_eval and bf16_full_eval are two precisions for one evaluation; leave one out.")
        if self.auto_find_batch_size and self.per_device_train_batch_tokens is not None:
            raise ConfigError(
                "auto_find_batch_size finds rows, and per_device_train_batch_tokens says tokens; leave one out."
            )
        if self.neftune_noise_alpha is not None and self.neftune_noise_alpha <= 0:
            raise ConfigError(f"neftune_noise_alpha is {self.neftune_noise_alpha!r}; it must be more than 0, or None.")
        every = self.torch_empty_cache_steps
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise ConfigError(f"torch_empty_cache_steps is {every!r}; it must be a whole number from 1 up, or None.")
        method = self.dataloader_multiprocessing_context
        if method is not None and method not in multiprocessing.get_all_start_methods():
            listed = ", ".join(repr(name) for name in multiprocessing.get_all_start_methods())
            raise ConfigError(f"dataloader_multiprocessing_context is {method!r}; here it may be {listed}, or None.")
        if method is not None and not self.dataloader_num_workers:
            raise ConfigError(
                f"dataloader_multiprocessing_context is {method!r}, but nobody works ahead; set "
                "dataloader_num_workers, or leave it out."
            )
        if self.dataloader_prefetch_factor is not None and not self.dataloader_num_workers:
            raise ConfigError(
                f"dataloader_prefetch_factor is {self.dataloader_prefetch_factor!r}, but nobody works ahead; set "
                "dataloader_num_workers, or leave it out."
            )
        asked = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        self.report_to = [name for name in asked if name != "none"]
        for name in self.report_to:
            if name not in TRACKERS:
                raise ConfigError(f"report_to is {name!r}; it may be {', '.join(TRACKERS)}.{nearest(name, TRACKERS)}")
        if self.eval_strategy == IntervalStrategy.STEPS and self.eval_steps is None:
            self.eval_steps = self.logging_steps
        plateau = self.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU
        if plateau and self.eval_strategy == IntervalStrategy.NO:
            raise ConfigError("lr_scheduler_type 'reduce_lr_on_plateau' follows a metric, so it needs evaluations; set "
                              "eval_strategy to 'steps' or 'epoch'.")  # fmt: skip
        if self.metric_for_best_model is None and (plateau or self.load_best_model_at_end):
            self.metric_for_best_model = "loss"
        if self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST:
            self._check_best()
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")

    def _check_best(self) -> None:
        why = "load_best_model_at_end" if self.load_best_model_at_end else "save_strategy='best'"
        if self.eval_strategy == IntervalStrategy.NO:
            raise ConfigError(f"{why} needs evaluations; set eval_strategy to 'steps' or 'epoch'.")
        if self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if not self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST:
            return
        if self.save_strategy.value != self.eval_strategy.value:
            raise ConfigError(
                f"load_best_model_at_end needs a checkpoint at each evaluation: eval_strategy is "
                f"{self.eval_strategy.value!r} and save_strategy {self.save_strategy.value!r}; make them equal."
            )
        if self.eval_strategy == IntervalStrategy.STEPS and self.eval_steps is not None:
            times = self.save_steps / self.eval_steps
            if abs(times - round(times)) > 1e-9 or times < 1:
                raise ConfigError(
                    f"load_best_model_at_end needs save_steps ({self.save_steps}) to be a multiple of eval_steps "
                    f"({self.eval_steps})."
                )

    def __getattr__(self, name: str) -> Any:
        """Names the nearest settings to one that is not there."""
        raise AttributeError(f"{type(self).__name__} has no setting {name!r}.{nearest(name, self.__dict__)}")

    def steps(self, name: str, total: int) -> int:
        """The setting `name` as a number of steps, where it is a part of `total` steps."""
        value = getattr(self, name)
        return max(1, -int(-value * total // 1)) if 0 < value < 1 else int(value)

    def warmup(self, total: int) -> int:
        """How many steps the rate rises; warmup_steps goes before warmup_ratio."""
        if self.warmup_steps:
            return self.steps("warmup_steps", total)
        return -int(-self.warmup_ratio * total // 1)

    @property
    def evaluation_strategy(self) -> IntervalStrategy:
        """The old name of eval_strategy."""
        return self.eval_strategy

    def to_dict(self) -> dict[str, Any]:
        """Every setting, in plain values; a token is left out, because this is written and logged."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: None for name in values if name.endswith("_token") and isinstance(values[name], str)}
        return {k: _plain(v) for k, v in values.items()}

    def to_json_string(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """`to_dict` with a text for every value that is neither number nor text."""
        return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in self.to_dict().items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.to_dict().items())})"


def _signature(owner: type[Any]) -> inspect.Signature:
    fields = sorted(dataclasses.fields(owner), key=lambda f: f.name != "output_dir")
    kind = inspect.Parameter
    return inspect.Signature(
        [
            kind(
                f.name,
                kind.POSITIONAL_OR_KEYWORD if f.name == "output_dir" else kind.KEYWORD_ONLY,
                default=_default(f),
                annotation=f.type,
            )
            for f in fields
        ]
    )


class _Signature:
    """What `inspect.signature` shows of TrainingArguments and its kinds; a dataclass of one's own has its own."""

    def __get__(self, instance: object, owner: type[Any]) -> inspect.Signature:
        if "__init__" in vars(owner) and owner is not TrainingArguments:
            raise AttributeError("__signature__")
        return _signature(owner)


TrainingArguments.__signature__ = _Signature()  # type: ignore[attr-defined]


@functools.cache
def _kinds(kind: type[Any]) -> dict[str, Any]:
    """The type of each field."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _default(one: Any) -> Any:
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def _plain(value: object) -> object:
    """A value that JSON can hold."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value).removeprefix("torch.") if type(value).__name__ == "dtype" else str(value)
