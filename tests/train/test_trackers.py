"""Trackers of experiments: what they hold is what was logged, over a resume too; nothing is imported unasked."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from training_samples import arguments, model, rows

import cutaway
from cutaway.errors import ConfigError, MissingExtraError
from cutaway.train.trackers import BY_NAME

NAME = "BertForSequenceClassification"


def trainer(folder: Path, name: Any, steps: int, **more: Any) -> Any:
    args = arguments(
        folder / "out", report_to=name, run_name="first", project="ours", max_steps=steps, eval_strategy="steps",
        eval_steps=2, save_strategy="steps", save_steps=2, **more,
    )  # fmt: skip
    return cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME), eval_dataset=rows(NAME, 4))


def told(folder: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """What was logged under two names by a training that is stopped after three of four steps, and goes on."""
    first = trainer(folder, name, 4)
    stop = type("Stop", (cutaway.TrainerCallback,), {"on_step_end": _stop})
    first.add_callback(stop)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = trainer(folder, name, 4)
    second.train(resume_from_checkpoint=True)  # from step 2
    second.evaluate()
    history = second.state.log_history
    return {
        "train/loss": [(entry["step"], entry["loss"]) for entry in history if "loss" in entry],
        "eval/loss": [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry],
    }


def _stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    if state.global_step == 3:
        raise KeyboardInterrupt


def near(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> bool:
    """Each wanted pair is there, and no other step; float32 in TensorBoard's files."""
    steps = {step for step, _ in found} == {step for step, _ in wanted}
    return steps and all(any(s == step and abs(v - value) < 1e-6 for s, v in found) for step, value in wanted)


def test_tensorboard(tmp_path: Path) -> None:
    wanted = told(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(tmp_path / "out" / "runs" / "first"))
    held.Reload()
    for name, pairs in wanted.items():
        assert near([(event.step, event.value) for event in held.Scalars(name)], pairs)
    assert [event.step for event in held.Scalars("train/loss")] == [1, 2, 3, 4]  # what the kill lost is hidden
    assert held.Tags()["tensors"] == ["settings/text_summary"]
    trainer(tmp_path, ["tensorboard"], 1, logging_dir=str(tmp_path / "logs")).train()
    assert list((tmp_path / "logs" / "first").glob("events.out.tfevents.*"))


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():  # what it imports is its own
        warnings.simplefilter("ignore")
        mlflow = pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
        wanted = told(tmp_path, "mlflow")
        client = mlflow.MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("ours").experiment_id])
        assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
        assert run.data.params["model/model_type"] == "bert" and run.data.params["max_steps"] == "4"
        for name, pairs in wanted.items():
            assert near([(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)], pairs)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("wandb")
        for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        wanted = told(tmp_path, "wandb")
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1 < len(files)  # one run, as often begun as it was
    held = b"".join(file.read_bytes() for file in files)
    for name, pairs in wanted.items():
        assert name.encode() in held and all(repr(value).encode() in held for _, value in pairs)


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
        pytest.importorskip("trackio")
        wanted = told(tmp_path, "trackio")
    import orjson

    with sqlite3.connect(tmp_path / "ours.db") as held:
        found = held.execute("select run_name, step, metrics from metrics").fetchall()
        settings = [orjson.loads(text) for (text,) in held.execute("select config from configs")]
    assert {name for name, _, _ in found} == {"first"} and settings[-1]["max_steps"] == 4
    for name, pairs in wanted.items():
        logged = [(step, orjson.loads(row)) for _, step, row in found]
        assert near([(step, row[name]) for step, row in logged if name in row], pairs)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_missing_package_is_one_clear_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, BY_NAME[name].package, None)
    with pytest.raises(MissingExtraError, match=rf"report_to='{name}'.*cutaway\[{name}\]"):
        trainer(tmp_path, name, 1)


def test_nothing_is_imported_unasked(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_trackers import trainer
trainer(Path({str(tmp_path)!r}), None, 1)
from cutaway.train.trackers import BY_NAME
assert not [kind.package for kind in BY_NAME.values() if kind.package in sys.modules]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(ConfigError, match=r"report_to is 'all'; it may be tensorboard, mlflow, wandb, trackio"):
        cutaway.TrainingArguments(report_to="all")
