"""Where a training stands, and what should happen next."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutaway.errors import CheckpointError
from cutaway.jsonfile import read_json, write_text


@dataclass
class TrainerState:
    """Where a training stands.

    Attributes:
        epoch: how many times the data was seen, with a fraction.
        global_step: how many updates of the weights were made; max_steps: of how many.
        log_history: everything that was logged, oldest first; each entry has its step and epoch.
        best_metric, best_global_step, best_model_checkpoint: the best evaluation so far, and the folder of its weights.
        total_flos: floating point operations of all updates. num_input_tokens_seen: where the arguments count them.
        is_hyper_param_search, trial_name, trial_params: of the search that this training belongs to.
    """

    epoch: float = 0.0
    global_step: int = 0
    max_steps: int = 0
    num_train_epochs: int = 0
    train_batch_size: int = 0
    logging_steps: int = 0
    eval_steps: int = 0
    save_steps: int = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_world_process_zero: bool = True
    is_local_process_zero: bool = True
    num_input_tokens_seen: int = 0
    total_flos: float = 0.0
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def compute_steps(self, args: object, max_steps: int) -> None:
        """Take the steps between logs, evaluations and saves from `args`; below 1 they are a part of `max_steps`."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            value = getattr(args, name)
            if value is not None:
                setattr(self, name, math.ceil(max_steps * value) if value < 1 else value)

    def save_to_json(self, json_path: str | Path) -> None:
        """Write the fields to a JSON file."""
        write_text(Path(json_path), json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load_from_json(cls, json_path: str | Path) -> TrainerState:
        """What `save_to_json` wrote; CheckpointError for a damaged file."""
        return cls.from_dict(read_json(Path(json_path), CheckpointError))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainerState:
        """What `to_dict` gave; names of another version are passed over."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


@dataclass
class TrainerControl:
    """What callbacks ask for: set a field to True."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False

    def _new_training(self) -> None:
        self.should_training_stop = False

    def _new_epoch(self) -> None:
        self.should_epoch_stop = False

    def _new_step(self) -> None:
        self.should_save = self.should_evaluate = self.should_log = False

    def state(self) -> dict[str, Any]:
        """The fields, in the form in which upstream keeps a callback's state."""
        return {"args": dataclasses.asdict(self), "attributes": {}}
