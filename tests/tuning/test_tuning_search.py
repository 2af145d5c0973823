"""Searches for settings: what a kill leaves, what is pruned, what is refused, and the tutorials' own call."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from training_samples import arguments, model, rows

import cutaway
from cutaway import cli
from cutaway.errors import ConfigError, InputError, MissingExtraError
from cutaway.train.study import Study
from cutaway.tuning import FineTuning, search
from cutaway.tuning.labelled import Labelled
from cutaway.tuning.report import write

WORDS = ["the", "film", "plot", "good", "warm", "bad", "dull"]
NAME = "BertForSequenceClassification"
# what `search` runs in a process of its own; it is killed in the first attempt at the third trial, after a checkpoint
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_tuning_search import find
from cutaway.train.signals import SignalStop

original = SignalStop.on_step_end

def killed(self, args, state, control, **kwargs):
    if Path(args.output_dir).name == "trial-2" and state.epoch > 1.5:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, args, state, control, **kwargs)

SignalStop.on_step_end = killed
find(Path({folder!r}), resume=False)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny encoder."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "base").mkdir()
    (folder / "base" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    config = cutaway.BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16,
    )  # fmt: skip
    cutaway.set_seed(0)
    cutaway.BertModel(config).save_pretrained(folder / "base")
    return folder


def space(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [4, 8]),
    }


def tuning(folder: Path) -> FineTuning:
    texts = [f"the film {WORDS[3 + i % 4]}" for i in range(24)]
    labels = [("yes", "no")[i % 4 > 1] for i in range(24)]
    data = Labelled("one", texts, None, labels, ("no", "yes"))
    return FineTuning(str(folder.parent / "base"), data, data.take(list(range(8))), {"num_train_epochs": 2})


def find(folder: Path, resume: bool, trials: int = 4):
    return search(tuning(folder), folder, trials, resume=resume, space=space)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_search_that_was_killed_ends_as_one_that_was_not(place):
    whole, killed = place / "whole", place / "killed"
    find(whole, resume=False)
    script = SCRIPT.format(tests=[str(Path(__file__).parents[1]), str(Path(__file__).parent)], folder=str(killed))
    run = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], env=os.environ)
    assert run.returncode == -signal.SIGKILL
    assert not (killed / "trials.csv").exists()
    assert [p.name for p in (killed / "trials" / "trial-2").glob("checkpoint-*")] != []
    outcome, tried = find(killed, resume=True)
    assert [one.state for one in tried if one.number == 2] == ["cut off"]
    left = [{**row, "trial": "", "seconds": ""} for row in table(killed) if row["state"] != "cut off"]
    assert left == [{**row, "trial": "", "seconds": ""} for row in table(whole)]
    again = next(one for one in tried if one.number == 3)
    assert again.settings == next(one.settings for one in tried if one.number == 2)
    best = [json.loads((folder / "best_settings.json").read_text()) for folder in (whole, killed)]
    assert best[0]["settings"] == best[1]["settings"] and best[0]["value"] == best[1]["value"]
    files = [(folder / "model.safetensors").read_bytes() for folder in (whole, killed)]
    assert files[0] == files[1]
    assert len(list((killed / "trials").iterdir())) == 1  # the best one's; the rest is not kept
    write(tuning(killed), outcome, killed, tried)
    page = (killed / "report.html").read_text()
    assert "Settings that were tried" in page and "<td>cut off</td>" in page
    with pytest.raises(InputError, match="go on with --resume"):
        find(killed, resume=False)
    assert len([one for one in find(killed, resume=True, trials=5)[1] if one.state != "cut off"]) == 5
    other = FineTuning(tuning(killed).model, tuning(killed).training, tuning(killed).training)
    with pytest.raises(InputError, match="study with another validation"):
        search(other, killed, 7, resume=True)


def test_the_command_searches(place, monkeypatch, capsys):
    out, data = place / "command", place / "rows.csv"
    data.write_text("text,label\n" + "".join(f"the film {WORDS[3 + i % 4]},{i % 4 > 1}\n" for i in range(16)))

    def call(*more: str) -> tuple[int, str]:
        given = ["cutaway", "train", str(place / "base"), str(data), "-o", str(out), "--validation", "0.25", *more]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().err

    code, said = call("--max-steps", "2", "--search", "2", "--study", str(place / "named.db"))
    assert code == 0 and "trial 0, finished, loss " in said and "warmup_ratio 0." in said
    assert (out / "report.html").is_file() and (out / "model.safetensors").is_file() and (place / "named.db").is_file()
    code, said = call("--study", "named.db")
    assert code == 1 and "say with --search how many" in said


def study(tmp_path: Path, **fields) -> Study:
    return Study(tmp_path / "study.db", tmp_path, **fields)


def line(trial):
    return {"x": trial.suggest_float("x", 0.0, 1.0)}


def test_what_kills_the_process_each_time_is_given_up(tmp_path):
    def interrupted(attempt):
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path).run(2, line, interrupted)
    held = study(tmp_path)
    held.run(2, line, lambda attempt: (attempt.settings["x"], {}))
    tried = held.tried()
    assert [one.state for one in tried] == ["cut off", "cut off", "cut off", "finished"]
    assert len({one.settings["x"] for one in tried[:3]}) == 1 != len({one.settings["x"] for one in tried})
    assert held.best().number == 3


def test_a_value_that_is_no_number_fails_its_trial_only(tmp_path):
    held = study(tmp_path, direction="maximize")
    held.run(3, line, lambda attempt: (float("nan") if attempt.number == 1 else attempt.settings["x"], {}))
    assert [one.state for one in held.tried()] == ["finished", "failed", "finished"]
    assert held.best().value == max(one.settings["x"] for one in held.tried() if one.value is not None)
    with pytest.raises(RuntimeError, match="broken"):
        held.run(4, line, lambda attempt: (_ for _ in ()).throw(RuntimeError("broken")))
    assert held.tried()[-1].state == "failed"


def test_a_study_is_one_process_s_and_one_task_s(tmp_path):
    held = study(tmp_path)
    with pytest.raises(InputError, match="is being written by this process"):
        held.run(1, line, lambda attempt: study(tmp_path).run(1, line, lambda inner: (0.0, {})) or (0.0, {}))
    with pytest.raises(InputError, match="another direction"):
        study(tmp_path, direction="maximize").tried()
    with pytest.raises(ConfigError, match="'minimize' or 'maximize'"):
        study(tmp_path / "other", direction="down").tried()
    with pytest.raises(InputError, match="no trial"):
        study(tmp_path).best()
    held.run(5, line, lambda attempt: (0.0, {}), timeout=0.0)
    assert len(held.tried()) == 1


def test_settings_that_are_worse_than_the_median_are_pruned(tmp_path):
    from optuna.pruners import MedianPruner

    def attempt(given):
        watch = given.watch
        state, control = SimpleNamespace(global_step=0, max_steps=3, log_history=[]), None
        watch.on_train_begin(None, state, control)
        for step in (1, 2, 3):
            state.global_step = step
            state.log_history.append({"eval_loss": float(given.number), "step": step})
            watch.on_evaluate(None, state, control)
        watch.on_train_end(None, state, control)
        watch.on_evaluate(None, state, control)
        return float(given.number), {}

    held = study(tmp_path, pruner=MedianPruner(n_startup_trials=2))
    held.run(4, line, attempt)
    assert [one.state for one in held.tried()] == ["finished", "finished", "pruned", "pruned"]


def test_the_tutorials_search(tmp_path):
    made = []

    def fresh(trial):
        made.append(trial)
        return model(NAME)

    def accuracy(given):
        return {"accuracy": float((given.predictions.argmax(-1) == given.label_ids).mean())}

    def hp_space(trial):
        return {**space(trial), "num_train_epochs": 2}

    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = cutaway.Trainer(
        model_init=fresh, args=arguments(tmp_path, **settings, metric_for_best_model="accuracy"),
        train_dataset=rows(NAME), eval_dataset=rows(NAME, 8), compute_metrics=accuracy,
        callbacks=[cutaway.EarlyStoppingCallback(2)],
    )  # fmt: skip
    with pytest.raises(ConfigError, match="direction is 'minimize'"):
        trainer.hyperparameter_search(hp_space=hp_space, n_trials=3)
    best = trainer.hyperparameter_search(hp_space=hp_space, n_trials=3, direction="maximize", backend="optuna")
    assert made[0] is None and made[-1].params.keys() == {"learning_rate", "per_device_train_batch_size"}
    assert best.hyperparameters.keys() == {"learning_rate", "per_device_train_batch_size", "num_train_epochs"}
    assert trainer.args.output_dir == str(tmp_path) and trainer.args.num_train_epochs == 3.0
    assert trainer.evaluate()["eval_accuracy"] == best.objective
    assert best.objective == max(float(row["value"]) for row in table(tmp_path) if row["value"])
    kept = cutaway.BertForSequenceClassification.from_pretrained(best.run_summary)
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), trainer.model.parameters(), strict=True))
    for name, value in best.hyperparameters.items():
        setattr(trainer.args, name, value)
    trainer.train()
    assert abs(trainer.evaluate()["eval_accuracy"] - best.objective) < 1e-6
    more = trainer.hyperparameter_search(
        hp_space, lambda metrics: -metrics["eval_loss"], 2, "maximize", storage=f"sqlite:///{tmp_path / 'other.db'}"
    )
    assert more.objective < 0


def test_a_search_in_several_directions_gives_those_that_none_beats(tmp_path):
    def fresh(trial):
        return model(NAME)

    def objective(metrics):
        return metrics["eval_loss"], float(len(seen))

    seen = []

    class Counts(cutaway.TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append(args.learning_rate)

    trainer = cutaway.Trainer(
        model_init=fresh, args=arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1),
        train_dataset=rows(NAME), eval_dataset=rows(NAME, 8), callbacks=[Counts],
    )  # fmt: skip
    rates = iter([3e-2, 1e-3, 1e-6])  # the longer it learns, the smaller the loss; the later, the more was seen

    def hp_space(trial):
        return {"learning_rate": next(rates)}

    with pytest.raises(ConfigError, match="compute_objective"):
        trainer.hyperparameter_search(hp_space=hp_space, direction=["minimize", "maximize"])
    front = trainer.hyperparameter_search(hp_space, objective, 3, ["minimize", "minimize"])
    values = {n: one["value"] for n, one in enumerate(table(tmp_path))}
    pairs = {n: tuple(float(v) for v in text.split()) for n, text in values.items()}
    beaten = {n for n, a in pairs.items() for b in pairs.values() if all(y <= x for x, y in zip(a, b)) and a != b}  # noqa: B905
    assert [int(best.run_id) for best in front] == sorted(pairs.keys() - beaten)
    for best in front:
        assert tuple(best.objective) == pairs[int(best.run_id)]
        cutaway.BertForSequenceClassification.from_pretrained(best.run_summary)
    with pytest.raises(ConfigError, match="2 values for 1 direction"):
        trainer.hyperparameter_search(lambda trial: {}, objective, 1, "minimize", storage=tmp_path / "other.db")
    for n, wrong in enumerate([("a", 1), "1", None, (1.0, torch.ones(2))]):
        with pytest.raises(ConfigError, match=re.escape(f"compute_objective gives {wrong!r}")):
            trainer.hyperparameter_search(
                lambda trial: {}, lambda metrics, wrong=wrong: wrong, 1, ["minimize"] * 2, storage=tmp_path / f"w{n}.db"
            )
    for trials in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match=f"n_trials is {trials!r}"):
            trainer.hyperparameter_search(lambda trial: {}, objective, trials, "minimize")
    with pytest.raises(ConfigError, match="a list of these"):
        trainer.hyperparameter_search(lambda trial: {}, objective, 1, ["up"], storage=tmp_path / "third.db")


@dataclasses.dataclass
class Named(cutaway.TrainingArguments):
    club: str = ""


def test_model_init_may_choose_and_settings_of_ones_own_stay(tmp_path):
    def fresh(trial):
        made = model(NAME)
        if trial is not None:
            made.config.mark = trial.suggest_int("mark", 1, 9)
        return made

    args = Named(**arguments(tmp_path, max_steps=1, eval_strategy="no").to_dict(), club="films")
    seen = []

    class Looks(cutaway.TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append(args.club)

    trainer = cutaway.Trainer(
        model_init=fresh, args=args, train_dataset=rows(NAME), eval_dataset=rows(NAME, 8), callbacks=[Looks]
    )
    best = trainer.hyperparameter_search(hp_space=lambda trial: {}, n_trials=2)
    assert best.hyperparameters == {"mark": trainer.model.config.mark}
    assert seen == ["films", "films"]


def test_searches_that_cannot_be(tmp_path, monkeypatch):
    trainer = cutaway.Trainer(model=model(NAME), args=arguments(tmp_path), train_dataset=rows(NAME))
    with pytest.raises(ConfigError, match="model_init="):
        trainer.hyperparameter_search()
    with pytest.raises(ConfigError, match="'ray'"):
        trainer.hyperparameter_search(backend="ray")
    with pytest.raises(ConfigError, match="neither model= nor optimizers="):
        cutaway.Trainer(model=model(NAME), model_init=lambda: model(NAME))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"cutaway\[search\]"):
        study(tmp_path).tried()
