"""`TrainingArguments`: how a training goes, under the names that tutorials use, old and new."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import ConfigError, nearest
from cutaway.train.ignored_arguments import NEEDLESS
from cutaway.train.strategy import IntervalStrategy, SaveStrategy

Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup"]
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
    optim: Optim = "adamw_torch"
    lr_scheduler_type: Schedule = "linear"
    warmup_steps: int | float = 0
    warmup_ratio: float = 0.0
    label_smoothing_factor: float = 0.0
    class_weights: list[float] | Literal["balanced"] | None = None
    ema_decay: float = 0.0
    bf16: bool = False
    gradient_checkpointing: bool = False
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
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None


@dataclass(kw_only=True, init=False, repr=False)
class SavingArguments:
    """When a checkpoint is written, how many are kept, and whether the model also goes to the hub."""

    save_strategy: SaveStrategy = SaveStrategy.STEPS
    save_steps: int | float = 500
    save_total_limit: int | None = None
    resume_from_checkpoint: str | bool | None = None
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
    disable_tqdm: bool = False
    report_to: str | list[str] | None = None
    run_name: str | None = None
    project: str | None = None
    logging_dir: str | None = None


@dataclass(kw_only=True, init=False, repr=False)
class TrainingArguments(
    ReportArguments, SavingArguments, EvaluationArguments, LengthArguments, OptimizationArguments, BatchArguments
):
    """All settings of a training; each group above says what its settings are for.

    Old names (`evaluation_strategy`, `no_cuda`) work. Names of the upstream library whose given value changes nothing
    here (`log_level="info"`, `fp16=False`) are accepted and can be read. Steps below 1
    (`eval_steps=0.1`) are a part of the whole training.

    Weights are named by address in `freeze=["embed", "blocks.0-3"]` and in `learning_rates={"blocks.*.attn": 1e-5}`,
    where the last pattern that fits counts; `layer_lr_decay=0.9` makes each block learn at 0.9 of the rate of the one
    above it. `per_device_train_batch_tokens=4096` packs as many texts into a batch as it can hold tokens; padding is no
    token. `ema_decay=0.999` keeps a running average of the weights: that is what is evaluated, saved and left in the
    model at the end. `bf16=True` computes in bfloat16 on weights in float32.

    `report_to="tensorboard"`, "mlflow", "wandb", "trackio" or a list of these also writes what is logged there; the run
    is `run_name` in `project`, and TensorBoard's files lie in `logging_dir`. By default nothing is reported.

    `fsdp=True` (or "full_shard") leaves each process of `torchrun` a part of the weights and of the optimizer; one
    process has no parts. A process that waits `ddp_timeout` seconds for another gives up. Whether a step leaves weights
    unused is seen from the first one, unless `ddp_find_unused_parameters` says it (True where it changes later).

    `push_to_hub=True` uploads the model of each checkpoint to the repository `hub_model_id` (by default the name of
    output_dir); with `hub_strategy="end"` only `Trainer.push_to_hub()` does. `hub_token` is kept out of every file.

    `match_upstream=True` takes the accumulated loss as the upstream library does: the means of the parts are added, not
    weighed by what they hold, except for causal language models. Use it only to reproduce an old training.

    Raises:
        ConfigError: an unknown name (its neighbours are listed), or a value that cannot be used.
    """

    output_dir: str = "trainer_output"

    def __init__(self, output_dir: Any = None, **settings: Any) -> None:
        if output_dir is not None:
            settings["output_dir"] = str(output_dir)
        kinds = typing.get_type_hints(type(self))
        fields = {f.name: f for f in dataclasses.fields(self)}
        known = self._known(settings, fields)
        self._forgotten = {name: known.pop(name) for name in NEEDLESS if name in known}
        for name, value in known.items():
            setattr(self, name, _fitting(name, value, kinds[name]))
        for name, field in fields.items():
            if name not in self.__dict__:
                setattr(self, name, field.default)
        self._check()

    @staticmethod
    def _known(settings: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if settings.pop("group_by_length", False):
            settings.setdefault("train_sampling_strategy", "group_by_length")
        for given, value in settings.items():
            name = RENAMED.get(given, given)
            if name in NEEDLESS:
                NEEDLESS[name].check(name, value)
            elif name not in fields:
                known = [*fields, *RENAMED, *NEEDLESS]
                raise ConfigError(f"TrainingArguments has no setting {given!r}.{nearest(given, known)}")
            if name in found and found[name] != value:
                raise ConfigError(f"{given} is another name of {name}, and they differ; give one of them.")
            found[name] = value
        return found

    def _check(self) -> None:
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
        asked = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        self.report_to = [name for name in asked if name != "none"]
        for name in self.report_to:
            if name not in TRACKERS:
                raise ConfigError(f"report_to is {name!r}; it may be {', '.join(TRACKERS)}.{nearest(name, TRACKERS)}")
        if self.eval_strategy == IntervalStrategy.STEPS and self.eval_steps is None:
            self.eval_steps = self.logging_steps
        if self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST:
            self._check_best()

    def _check_best(self) -> None:
        why = "load_best_model_at_end" if self.load_best_model_at_end else "save_strategy='best'"
        if self.eval_strategy == IntervalStrategy.NO:
            raise ConfigError(f"{why} needs evaluations; set eval_strategy to 'steps' or 'epoch'.")
        if self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if self.greater_is_better is None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")
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
        """What was given under a name that changes nothing: a script may ask for its own switches."""
        if name in NEEDLESS:
            return self.__dict__.get("_forgotten", {}).get(name, NEEDLESS[name].plain)
        raise AttributeError(f"TrainingArguments has no setting {name!r}.{nearest(name, [*self.__dict__, *NEEDLESS])}")

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

    @property
    def train_batch_size(self) -> int:
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        return self.per_device_eval_batch_size

    def to_dict(self) -> dict[str, Any]:
        """Every setting, in plain values; a token is left out, because this is written and logged."""
        values = dataclasses.asdict(self)
        values["hub_token"] = None
        return {k: v.value if isinstance(v, (IntervalStrategy, SaveStrategy)) else v for k, v in values.items()}

    def __repr__(self) -> str:
        return f"TrainingArguments({', '.join(f'{k}={v!r}' for k, v in self.to_dict().items())})"


def _signature() -> inspect.Signature:
    fields = sorted(dataclasses.fields(TrainingArguments), key=lambda f: f.name != "output_dir")
    kind = inspect.Parameter
    return inspect.Signature(
        [
            kind(
                f.name,
                kind.POSITIONAL_OR_KEYWORD if f.name == "output_dir" else kind.KEYWORD_ONLY,
                default=f.default,
                annotation=f.type,
            )
            for f in fields
        ]
    )


TrainingArguments.__signature__ = _signature()  # type: ignore[attr-defined]


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """The value in the type of its field; whole numbers serve as floats, strings as members of an enumeration."""
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) or _is_union(kind) else (kind,)
    said: list[str] = []
    for choice in choices:
        origin = typing.get_origin(choice)
        if choice is type(None):
            if value is None:
                return None
        elif origin is Literal:
            if value in typing.get_args(choice):
                return value
            said += [repr(v) for v in typing.get_args(choice)]
        elif isinstance(choice, type) and issubclass(choice, (IntervalStrategy, SaveStrategy)):
            members = [m.value for m in choice]
            plain = getattr(value, "value", value)
            if isinstance(plain, str) and plain in members:
                return choice(plain)
            said += [repr(m) for m in members]
        elif origin is list:
            part = typing.get_args(choice)[0]
            if hasattr(value, "tolist"):
                value = value.tolist()
            if isinstance(value, (list, tuple)):
                return [_fitting(name, v, part) for v in value]
            said.append(f"a list of {part.__name__}")
        elif origin is dict:
            if isinstance(value, dict) and all(isinstance(k, str) for k in value):
                return {k: _fitting(f"{name}[{k!r}]", v, float) for k, v in value.items()}
            said.append("a dict of numbers by name")
        elif choice is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif isinstance(choice, type) and isinstance(value, choice) and (choice is bool or not isinstance(value, bool)):
            return value
        else:
            said.append({str: "text", int: "a whole number", float: "a number", bool: "True or False"}[choice])
    raise ConfigError(f"{name} is {value!r}; it must be {' or '.join(said)}.")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Union
