"""What scripts write down around a training: figures of a part of the data, and where the training stands."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from cutaway.train.arguments import TrainingArguments
from cutaway.train.state import TrainerState

log = logging.getLogger("cutaway")


class Reporting:
    """The part of `Trainer` that tells figures. The files have upstream's names."""

    args: TrainingArguments
    state: TrainerState

    def log_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Say `metrics` of `split` ("train", "eval", "test") in the log of "cutaway", at level INFO."""
        log.info("%s", "\n".join([f"{split} metrics", *(f"  {k} = {metrics[k]}" for k in sorted(metrics))]))

    def save_metrics(self, split: str, metrics: dict[str, Any], combined: bool = True) -> None:
        """Write `metrics` to {split}_results.json and, `combined`, into all_results.json."""
        if not self.is_world_process_zero():
            return
        output = Path(self.args.output_dir)
        output.mkdir(parents=True, exist_ok=True)
        _write(output / f"{split}_results.json", metrics)
        if combined:
            path = output / "all_results.json"
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            _write(path, {**before, **metrics})

    def save_state(self) -> None:
        """Write trainer_state.json: where the training stands, with everything that was logged."""
        if not self.is_world_process_zero():
            return
        output = Path(self.args.output_dir)
        output.mkdir(parents=True, exist_ok=True)
        _write(output / "trainer_state.json", self.state.to_dict())

    def is_world_process_zero(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.state.is_world_process_zero)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
