"""Few labelled film reviews: `cutaway train --task few-labels` beside SetFit, on the same base, rows and tests.

    python -m venv build/setfit && build/setfit/bin/pip install setfit
    python benchmarks/few_labels.py --setfit build/setfit/bin/python    # 8, 16 and 64 rows a label, five seeds

Each training runs in a process of its own, ours and theirs in turns, with the settings that each library has by itself.
Reported: accuracy on the same texts, its mean over seeds with a 95% interval (Student's t), the difference of pairs of
one seed, and the processor time of the training (pairs, steps and head; no imports, no loading, no test). Before a
figure counts, ours is read again from its folder and must say the same, and theirs must have trained as many rows.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
NAMES = ("negative", "positive")


def reviews() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(rows to draw from, rows to test on): film reviews and whether their mean rating is 0 or more."""
    import texts
    from reviews import Source, fetch, split

    films = Source(fetch(texts.DATA)).films()
    parts = split(films)
    near = set(parts.near)
    return tuple(  # type: ignore[return-value]
        [(films[row].text, int(films[row].rating >= 0)) for row in rows]
        for rows in (parts.train, [row for row in parts.held_out if row not in near])
    )


def drawn(rows: list[tuple[str, int]], each: int, seed: int) -> list[tuple[str, int]]:
    """So many rows of each label."""
    chance = random.Random(f"few {seed}")
    return [row for label in (0, 1) for row in chance.sample([one for one in rows if one[1] == label], each)]


def base_folder() -> str:
    """Where the files of all-MiniLM-L6-v2 lie."""
    from cutaway.hub.files import resolve

    return str(resolve("cutaway/minilm").require("config.json").parent)


def ours(task: dict[str, Any]) -> dict[str, Any]:
    """One training by cutaway."""
    import torch

    from cutaway.pipelines import pipeline
    from cutaway.tuning import FewLabels
    from cutaway.tuning.labelled import Labelled

    torch.set_num_threads(task["threads"])

    def labelled(rows: list[tuple[str, int]]) -> Labelled:
        return Labelled("one", [text for text, _ in rows], None, [NAMES[label] for _, label in rows], NAMES)

    rows = labelled(task["train"])
    tuning = FewLabels(task["base"], rows, rows, {"seed": task["seed"], "disable_tqdm": True})
    tuning.check()
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        outcome = tuning.run(Path(folder) / "out")
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        pipe = pipeline("text-classification", str(Path(folder) / "out"))
        tests = [text for text, _ in task["test"]]
        said = [NAMES.index(answer["label"]) for answer in pipe(tests)]
        before = pipeline("text-classification", outcome.trainer.model, outcome.trainer.processing_class)
        again = [NAMES.index(answer["label"]) for answer in before(tests[:50])]
        if said[:50] != again:
            raise SystemExit("the folder says something else than the model that was trained")
    return {"said": said, "seconds": seconds, "cpu": cpu, "steps": outcome.trainer.state.global_step}


def theirs(task: dict[str, Any]) -> dict[str, Any]:
    """One training by SetFit, with its own settings."""
    import datasets
    import torch
    from setfit import SetFitModel, Trainer, TrainingArguments

    torch.set_num_threads(task["threads"])
    datasets.disable_progress_bars()
    model = SetFitModel.from_pretrained(task["base"], device="cpu")
    rows = datasets.Dataset.from_dict(
        {
            "text": [text for text, _ in task["train"]],
            "label": [label for _, label in task["train"]],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        limit = {"max_steps": task["steps"]} if task["steps"] else {}
        args = TrainingArguments(
            output_dir=folder, seed=task["seed"], report_to="none", save_strategy="no", show_progress_bar=False, **limit
        )
        trainer = Trainer(model=model, args=args, train_dataset=rows)
        began, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    said = [int(label) for label in model.predict([text for text, _ in task["test"]], show_progress_bar=False)]
    return {"said": said, "seconds": seconds, "cpu": cpu, "steps": trainer.st_trainer.state.global_step}


def interval(values: list[float]) -> tuple[float, float]:
    """(mean, half of its 95% interval over seeds)."""
    n = len(values)
    half = T_95[n] * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return statistics.mean(values), half


def main() -> None:
    """Reads the command line; trains by turns and prints a line for each training and each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setfit", help="the python of an environment with setfit; without it only ours is measured")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 64], help="rows of each label")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tests", type=int, default=1000, help="held-out texts to measure on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--setfit-steps", type=int, default=0, help="stop SetFit after so many steps; 0: its own number"
    )
    parser.add_argument("--worker", choices=("ours", "setfit"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        task = json.load(sys.stdin)
        print("RESULT " + json.dumps({"ours": ours, "setfit": theirs}[given.worker](task)))
        return
    rows, tests = reviews()
    random.Random(0).shuffle(tests)
    tests = tests[: given.tests]
    pythons = {"ours": sys.executable, **({"setfit": given.setfit} if given.setfit else {})}
    for each in given.rows:
        scores: dict[str, list[float]] = {name: [] for name in pythons}
        spent: dict[str, list[float]] = {name: [] for name in pythons}
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            train = drawn(rows, each, seed)
            task = {"train": train, "test": tests, "seed": seed, "base": base_folder(), "threads": given.threads}
            task["steps"] = given.setfit_steps
            for name, python in pythons.items():
                command = [python, __file__, "--worker", name]
                run = subprocess.run(command, input=json.dumps(task), text=True, capture_output=True, check=False)
                line = next((one for one in run.stdout.splitlines() if one.startswith("RESULT ")), None)
                if line is None:
                    raise SystemExit(f"{name}: {run.stderr[-2000:]}")
                found = json.loads(line.removeprefix("RESULT "))
                right = [said == label for said, (_, label) in zip(found["said"], tests, strict=True)]
                scores[name].append(100 * statistics.mean(right))
                spent[name].append(found["cpu"])
                print(
                    f"{each} rows, seed {seed}, {name}: {scores[name][-1]:.2f}%, {found['steps']} steps, "
                    f"{found['cpu']:.1f} s of processor time, {found['seconds']:.1f} s",
                    flush=True,
                )
        for name in pythons:
            mean, half = interval(scores[name])
            print(f"{each} rows, {name}: {mean:.2f}% +- {half:.2f}, {statistics.median(spent[name]):.1f} s", flush=True)
        if len(pythons) > 1:
            mean, half = interval([a - b for a, b in zip(scores["ours"], scores["setfit"], strict=True)])
            ratio = statistics.median([b / a for a, b in zip(spent["ours"], spent["setfit"], strict=True)])
            print(f"{each} rows: ours - SetFit {mean:+.2f} +- {half:.2f} points; {ratio:.2f} x its speed", flush=True)


if __name__ == "__main__":
    main()
