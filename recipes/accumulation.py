"""Write docs/accumulation.md: one update from 16 rows, cut in several ways, here and with transformers' Trainer.

    python recipes/accumulation.py [--check]

Every head of every family, as a tiny random model without dropout; for each way of cutting the batch its loss and
gradient norm, as both libraries log them, by one process and by several (`torchrun`, gloo). `--check` compares what one
process says of a few models with the file, instead of writing it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

import transformers  # noqa: E402
from training_samples import EVERY, arguments, model, rows  # noqa: E402

import cutaway  # noqa: E402

PAGE = ROOT / "docs" / "accumulation.md"
# (rows in a part, parts in an update): all at once, eight parts of two, and 5 + 5 + 5 + 1
LAYOUTS = ((16, 1), (2, 8), (5, 4))
# (library, processes, rows in a part, parts in each process)
SHARED = (("cutaway", 2, 8, 1), ("cutaway", 3, 6, 1), ("transformers", 2, 8, 1))
HEAD = """# One batch, cut in many ways

Sixteen rows of different lengths make one update: as one batch, as 8 parts of 2, as 5 + 5 + 5 + 1, as 8 + 8 on two
processes (`torchrun`), and as 6 + 6 + 4 on three. Each cell is the loss and the gradient norm that the training logs;
in bold where they are not those of the one batch. Tiny random models without dropout, no clipping, rows in order;
transformers {version}. Made by `python recipes/accumulation.py`.

Where the two differ in one batch: upstream's span loss takes padding for possible answers, and for `...LMHeadModel` it
divides by a label more for each text than is predicted (see the [log](log.md)).

| model | cutaway, 16 | 8 x 2 | 5 + 5 + 5 + 1 | transformers, 16 | 8 x 2 | 5 + 5 + 5 + 1 \
| cutaway, 2 processes | 3 processes | transformers, 2 processes |
|---|---|---|---|---|---|---|---|---|---|
"""
Figures = tuple[float, float]


def told(library: Any, start: Path, name: str, size: int, parts: int) -> Figures:
    """(loss, gradient norm) of the first update."""
    ours = library is cutaway
    settings: dict[str, Any] = {
        "max_steps": 1, "max_grad_norm": 0.0, "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
    }  # fmt: skip
    if ours:
        args = arguments(start / "out", **settings)
    else:
        args = transformers.TrainingArguments(
            str(start / "out"), use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1,
            save_strategy="no", **settings,
        )  # fmt: skip
    made = getattr(library, name).from_pretrained(start).train()
    trainer = library.Trainer(model=made, args=args, train_dataset=rows(name, pad=made.config.pad_token_id or 0))
    if not ours:
        trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    entry = trainer.state.log_history[0]
    return float(entry["loss"]), float(entry["grad_norm"])


def started(name: str, folder: Path) -> None:
    """Write the model that all begin with."""
    # a span's head has two outputs, and upstream takes their number from num_labels
    model(name, **({"num_labels": 2} if name.endswith("QuestionAnswering") else {})).save_pretrained(folder)


def cell(found: Figures, one: Figures) -> str:
    """In bold where it is not the figures of the `one` batch."""
    shown = f"{found[0]:.4f}, {found[1]:.3f}"
    same = abs(found[0] / one[0] - 1) < 1e-4 and abs(found[1] / one[1] - 1) < 1e-3
    return shown if same else f"**{shown}**"


def line(name: str) -> tuple[str, dict[str, Figures]]:
    """What one process says of a model class, as the beginning of its row; the figures of the one batch by library."""
    cells, ones = [f"`{name}`"], {}
    with tempfile.TemporaryDirectory() as folder:
        started(name, Path(folder))
        for library in (cutaway, transformers):
            if not hasattr(library, name):
                cells += ["-"] * len(LAYOUTS)
                continue
            found = [told(library, Path(folder), name, *layout) for layout in LAYOUTS]
            ones[library.__name__] = found[0]
            cells += [cell(one, found[0]) for one in found]
    return f"| {' | '.join(cells)} |", ones


def share(library: str, size: int, parts: int, out: Path) -> None:
    """One of several processes: the figures of every model, written by the first."""
    found = {}
    for name in EVERY:
        if hasattr(globals()[library], name):
            with tempfile.TemporaryDirectory() as folder:
                started(name, Path(folder))
                found[name] = told(globals()[library], Path(folder), name, size, parts)
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps(found), encoding="utf-8")


def shared(library: str, processes: int, size: int, parts: int) -> dict[str, Figures]:
    """{model class: figures} by several processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        subprocess.run(
            [*command, __file__, "--share", library, str(size), str(parts), str(out)],
            check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return {name: (one[0], one[1]) for name, one in json.loads(out.read_text(encoding="utf-8")).items()}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--check", action="store_true")
    ask.add_argument("--share", nargs=4, help=argparse.SUPPRESS)
    given = ask.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if given.share:
        library, size, parts, out = given.share
        share(library, int(size), int(parts), Path(out))
        return
    lines = []
    for name in EVERY[::40] if given.check else EVERY:
        lines.append(line(name))
        sys.stderr.write(f"{lines[-1][0]}\n")
    if given.check:
        held = PAGE.read_text(encoding="utf-8").splitlines()
        missing = [one for one, _ in lines if not any(row.startswith(one) for row in held)]
        raise SystemExit(f"not in {PAGE.name}:\n" + "\n".join(missing) if missing else 0)
    others = [shared(*layout) for layout in SHARED]
    table = []
    for name, (beginning, ones) in zip(EVERY, lines, strict=True):
        cells = [
            cell(found[name], ones[layout[0]]) if name in found else "-"
            for layout, found in zip(SHARED, others, strict=True)
        ]
        table.append(f"{beginning} {' | '.join(cells)} |")
    PAGE.write_text(HEAD.format(version=transformers.__version__) + "\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
