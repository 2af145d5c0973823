"""What scripts write down around a training: figures of a part of the data, and where the training stands."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

from cutaway.jsonfile import write_text
from cutaway.train.session import TrainingSession

log = logging.getLogger("cutaway")


def log_metrics(split: str, metrics: dict[str, Any]) -> None:
    """Say `metrics` of `split` ("train", "eval", "test") in the log of "cutaway", at level INFO."""
    log.info("%s", "\n".join([f"{split} metrics", *(f"  {k} = {metrics[k]}" for k in sorted(metrics))]))


def save_metrics(session: TrainingSession, split: str, metrics: dict[str, Any], combined: bool = True) -> None:
    """Write `metrics` to {split}_results.json and, `combined`, into all_results.json."""
    if not session.ranks.first:
        return
    output = Path(session.args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    _write(output / f"{split}_results.json", metrics)
    if combined:
        path = output / "all_results.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        _write(path, {**before, **metrics})


def save_state(session: TrainingSession) -> None:
    """Write trainer_state.json: where the training stands, with everything that was logged."""
    if not session.ranks.first:
        return
    output = Path(session.args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "trainer_state.json", session.state.to_dict())


class CardFields(TypedDict, total=False):
    """What a model card says beside the evaluations and the settings."""

    language: str | list[str] | None
    license: str | None
    tags: str | list[str] | None
    model_name: str | None
    finetuned_from: str | None
    tasks: str | list[str] | None
    dataset_tags: str | list[str] | None
    dataset: str | list[str] | None
    dataset_args: str | list[str] | None


def create_model_card(
    session: TrainingSession,
    language: str | list[str] | None = None,
    license: str | None = None,
    tags: str | list[str] | None = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tasks: str | list[str] | None = None,
    dataset_tags: str | list[str] | None = None,
    dataset: str | list[str] | None = None,
    dataset_args: str | list[str] | None = None,
) -> None:
    """Write README.md, a model card: what is given here as its fields, the evaluations, and the settings."""
    if not session.ranks.first:
        return
    output = Path(session.args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    start = finetuned_from or getattr(session.model, "name_or_path", None) or None
    given = {
        "language": language, "license": license, "base_model": start, "tags": tags, "pipeline_tag": _one(tasks),
        "datasets": dataset_tags,
    }  # fmt: skip
    fields = [f"{name}: {json.dumps(value)}" for name, value in given.items() if value]  # JSON is YAML
    lines = ["---", "library_name: cutaway", *fields, "---", "", f"# {model_name or output.name}", ""]
    lines += [f"Fine-tuned from {start}.", ""] if start else []
    lines += [f"Data: {', '.join(_all(dataset) + _all(dataset_args))}.", ""] if dataset or dataset_args else []
    told = [entry for entry in session.state.log_history if any(name.startswith("eval_") for name in entry)]
    if told:
        names = [n for n in told[-1] if n.startswith("eval_") and not n.endswith(("runtime", "per_second"))]
        rows = [["step", *(n.removeprefix("eval_") for n in names)], ["---"] * (len(names) + 1)]
        rows += [[str(e["step"]), *(f"{e[n]:.4g}" if n in e else "" for n in names)] for e in told]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    lines += ["Settings:", "", *(f"- {name}: {value}" for name, value in session.args.to_dict().items())]
    write_text(output / "README.md", "\n".join(lines) + "\n")


def metrics_format(metrics: dict[str, Any]) -> dict[str, Any]:
    """`metrics` as a person reads them."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if name.endswith("_runtime"):
            found[name] = str(timedelta(seconds=int(value))) + f".{int(value * 100) % 100:02d}"
        elif name == "total_flos":
            found[name] = f"{int(value) / 2**30:.0f}GF"
        else:
            found[name] = round(value, 4) if isinstance(value, float) else value
    return found


def _all(given: str | list[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _one(given: str | list[str] | None) -> str | None:
    """The first, if there is one."""
    return next(iter(_all(given)), None)


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
