"""Write docs/accumulation.md: one update from 16 rows, cut in three ways, here and with transformers' Trainer.

    python recipes/accumulation.py [--check]

Every head of the families below, as a tiny random model without dropout; for each way of cutting the batch its loss and
gradient norm, as both libraries log them. `--check` compares a few lines with the file instead of writing it.
"""

from __future__ import annotations

import argparse
import logging
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
HEAD = """# One batch, cut in three ways

Sixteen rows of different lengths make one update: as one batch, as 8 parts of 2, and as 5 + 5 + 5 + 1. Each cell is the
loss and the gradient norm that the training logs; in bold where they are not those of the one batch. Tiny random models
without dropout, no clipping, rows in order; transformers {version}. Made by `python recipes/accumulation.py`.

Where the two differ in one batch: upstream's span loss takes padding for possible answers, and for `...LMHeadModel` it
divides by a label more for each text than is predicted (see the [log](log.md)).

| model | cutaway, 16 | 8 x 2 | 5 + 5 + 5 + 1 | transformers, 16 | 8 x 2 | 5 + 5 + 5 + 1 |
|---|---|---|---|---|---|---|
"""


def told(library: Any, start: Path, name: str, size: int, parts: int) -> tuple[float, float]:
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


def line(name: str) -> str:
    """The row of the table for one model class."""
    cells = [f"`{name}`"]
    with tempfile.TemporaryDirectory() as folder:
        # a span's head has two outputs, and upstream takes their number from num_labels
        model(name, **({"num_labels": 2} if name.endswith("QuestionAnswering") else {})).save_pretrained(folder)
        for library in (cutaway, transformers):
            if not hasattr(library, name):
                cells += ["-"] * len(LAYOUTS)
                continue
            found = [told(library, Path(folder), name, *layout) for layout in LAYOUTS]
            for loss, norm in found:
                cell = f"{loss:.4f}, {norm:.3f}"
                same = abs(loss / found[0][0] - 1) < 1e-4 and abs(norm / found[0][1] - 1) < 1e-3
                cells.append(cell if same else f"**{cell}**")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--check", action="store_true")
    given = ask.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = EVERY[::40] if given.check else EVERY
    lines = []
    for name in names:
        lines.append(line(name))
        sys.stderr.write(f"{lines[-1]}\n")
    if given.check:
        missing = [one for one in lines if one not in PAGE.read_text(encoding="utf-8").splitlines()]
        raise SystemExit(f"not in {PAGE.name}:\n" + "\n".join(missing) if missing else 0)
    PAGE.write_text(HEAD.format(version=transformers.__version__) + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
