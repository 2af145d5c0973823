"""The figures of benchmarks/results as text, as the README's table, and as a picture.

python benchmarks/report.py      # rewrites README.md between its two marks, and docs/images/{speed,growth}.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MARKS = ("<!-- benchmarks -->", "<!-- end of benchmarks -->")
JOBS = {
    "short": "short texts",
    "mixed": "mixed texts",
    "base_size": "BERT-base size, short texts",
    "smollm2_1": "SmolLM2, 1 sequence",
    "smollm2_8": "SmolLM2, 8 sequences",
    "smollm2_32": "SmolLM2, 32 sequences",
    "gpt2_1": "GPT-2 size, 1 sequence",
    "gpt2_8": "GPT-2 size, 8 sequences",
    "train_classify": "training, 6 layers of 384, a classifier",
    "train_dropout": "training, the same with dropout",
    "train_masked": "training, the same for masked words",
    "train_base": "training, BERT-base size, a classifier",
    **{
        f"{form}_{job}": f"SmolLM2 {form.upper()}, {what}"
        for form in ("q4_0", "q4_1", "q4_k_m", "q6_k", "q8_0")
        for job, what in (("1", "1 sequence"), ("8", "8 sequences"), ("prompt", "a prompt of 512"))
    },
    "own": "SmolLM2, 1 sequence, our own int8 and int4",
    **{
        f"{name}_{count}_beams_{beams}": f"{name} of a published size, texts: {count}, beams: {beams}"
        for name in ("t5", "bart", "marian")
        for count in (1, 8)
        for beams in (1, 4)
    },
    **{f"prompt_{length}": f"SmolLM2, a prompt of {length:,} tokens" for length in (512, 2048, 8192)},
}
STEP = ("step_seconds", "step_cpu_seconds")
GROWTH = {
    "length": "4,096 tokens in one batch, by texts x tokens of each",
    "batch": "texts of 32 tokens, by texts x tokens of each",
    "cache": "one new token, by tokens that the cache holds",
    "vocabulary": "one new token, by words of the vocabulary",
}


def ours(lines: list[dict[str, Any]], precision: str) -> float | None:
    """cutaway's rate at a precision, None where it was not measured."""
    return next((line["rate"] for line in lines if line["name"] == "cutaway" and line["precision"] == precision), None)


def share_of_text(line: dict[str, Any]) -> str:
    """How much of a text is the reference's, or how far numbers are from it, where a suite says so."""
    if line.get("same_text") is not None:
        return f"{100 * line['same_text']:.0f}% alike"
    return f"{line['error']:.1e}" if "error" in line else ""


def rows(lines: list[dict[str, Any]]) -> list[list[str]]:
    """Name, precision, tokens per second with its range, and how many times as fast cutaway's fp32 is."""
    base = ours(lines, "fp32")
    return [
        [
            line["name"],
            line["precision"],
            f"{line['rate']:,.0f} ({line['low']:,.0f}-{line['high']:,.0f})",
            "" if base is None else f"{line['rate'] / base:.2f}",
            share_of_text(line),
        ]
        for line in sorted(lines, key=lambda line: -line["rate"])
    ]


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table; the first two columns are words, the others figures."""
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *body])


def text(suite: str, record: dict[str, Any]) -> str:
    """One suite's figures for a terminal, which is Markdown too."""
    clock = "processor time" if record.get("clock") == "cpu" else "wall time"
    parts = [f"{suite}: {record['processor']}, {record['threads']} threads, {clock}, torch {record['torch']}"]
    if missing := record.get("left_out"):
        parts += ["", *(f"not measured: {name}: {why}" for name, why in missing.items())]
    for job, what in JOBS.items():
        if job in record:
            parts.append(f"\n{what}, tokens per second\n")
            parts.append(
                table(["library", "precision", "median (range)", "of cutaway fp32", "text or error"], rows(record[job]))
            )
    trained = [job for job in JOBS if job in record and STEP[1] in record[job][0]]
    if trained:
        cells = [
            [
                JOBS[job],
                line["name"],
                line["precision"],
                f"{line['step_seconds']:.2f}",
                f"{line['step_cpu_seconds']:.2f}",
            ]
            for job in trained
            for line in record[job]
        ]
        parts += ["\none step, seconds\n", table(["job", "library", "precision", "wall", "CPU"], cells)]
    started = [(job, line) for job in record if job.endswith("_starts") for line in record[job]]
    if started:
        cells = [
            [line["name"], job.removesuffix("_starts")]
            + [
                f"{line[key]:.{digits}f}"
                for key, digits in (("first_token_seconds", 2), ("memory_mb", 0), ("file_mb", 0))
            ]
            for job, line in started
        ]
        head = ["library", "format", "s to first token", "MB above imports after 16", "MB of the file"]
        parts += ["\nfrom process start, a file of few bits\n", table(head, cells)]
    if "queries" in record:
        cells = [[q["name"], q["precision"], f"{q['p50_ms']:.2f}", f"{q['p99_ms']:.2f}"] for q in record["queries"]]
        parts += ["\none short text, milliseconds\n", table(["library", "precision", "p50", "p99"], cells)]
    if "starts" in record:
        cells = [
            [s["name"], "fp32", f"{s['seconds']:.2f}", f"{s['load_mb']:.0f}", f"{s['scored_mb'] or 0:.0f}"]
            for s in record["starts"]
        ]
        head = ["library", "precision", "s to first vector", "MB then", "MB after 10,000 texts"]
        parts += ["\nfrom process start\n", table(head, cells)]
    if "growth" in record:
        for what, costs in record["growth"].items():
            cells = [[shape, "fp32", f"{cost:.1f}"] for shape, cost in costs.items()]
            parts += [f"\n{GROWTH[what]}\n", table(["shape", "precision", "us per token"], cells)]
    if "base_size_peak" in record:
        plain = record["recording"]["plain"]
        cells = [[what, "fp32", f"{1000 * s:.1f}", f"{s / plain:.2f}"] for what, s in record["recording"].items()]
        parts += ["\n64 mixed texts, recorded\n", table(["what", "precision", "CPU ms", "of plain"], cells)]
        peak = record["base_size_peak"]
        share = peak["model_gflops"] / peak["product_gflops"]
        parts.append(
            f"\nBERT-base size: {peak['model_gflops']:.0f} GFLOP/s in the whole model, "
            f"{peak['product_gflops']:.0f} in the bare product ({100 * share:.0f}%)"
        )
    return "\n".join(parts)


def summary(records: dict[str, dict[str, Any]]) -> str:
    """The README's table: each library's best at each precision, as a share of cutaway's at the same precision."""
    body = []
    for record in records.values():
        for job, what in JOBS.items():
            for precision in ("fp32", "bf16", "int8"):
                base = ours(record.get(job, []), precision)
                if base is None:
                    continue
                others = [line for line in record[job] if line["precision"] == precision and line["name"] != "cutaway"]
                cells = [
                    f"{line['name']} {base / line['rate']:.2f}x" for line in sorted(others, key=lambda o: -o["rate"])
                ]
                body.append([what, precision, f"{base:,.0f}", ", ".join(cells[:4])])
    return table(["job", "precision", "cutaway, tokens/s", "cutaway's rate over that of"], body)


def picture(records: dict[str, dict[str, Any]], target: Path) -> None:
    """Bars of the encoder jobs, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    jobs = [job for job in ("short", "mixed", "base_size") if job in records["encoder"]]
    figure, panels = plt.subplots(1, len(jobs), figsize=(5 * len(jobs), 5.0), squeeze=False, layout="constrained")
    for panel, job in zip(panels[0], jobs, strict=True):
        lines = sorted(records["encoder"][job], key=lambda line: line["rate"])
        labels = [f"{line['name']} {line['precision']}" for line in lines]
        colours = ["#0b6e99" if line["name"] == "cutaway" else "#b9c2c9" for line in lines]
        bars = panel.barh(labels, [line["rate"] / 1000 for line in lines], color=colours)
        panel.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        panel.set_title(JOBS[job], fontsize=10)
        panel.set_xlabel("thousand tokens per second", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.12)
    run = records["encoder"]
    figure.suptitle("MiniLM-L6 and a BERT of the base size: tokens per second, more is better", fontsize=12)
    told = f"{run['processor']} · {run['threads']} threads · torch {run['torch']} · {run['when'][:10]} · make bench"
    figure.supxlabel(told, fontsize=8, color="#5b6778")
    figure.savefig(target, dpi=110)
    plt.close(figure)


def growth_picture(record: dict[str, Any], target: Path) -> None:
    """How the cost of one token grows: with a text's length, with the batch, with the cache, with the vocabulary."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = {"length": "tokens of each text", "batch": "texts in the batch", "cache": "tokens in the cache",
             "vocabulary": "words of the vocabulary"}  # fmt: skip
    there = [what for what in names if what in record["growth"]]
    figure, panels = plt.subplots(1, len(there), figsize=(3.4 * len(there), 3.4), squeeze=False, layout="constrained")
    for panel, what in zip(panels[0], there, strict=True):
        costs = record["growth"][what]
        sizes = [int(shape.split("x")[-1 if what == "length" else 0]) for shape in costs]
        values = list(costs.values())
        panel.plot(sizes, values, marker="o", color="#0b6e99", linewidth=2, label="measured")
        if what != "batch":
            panel.plot(sizes, [values[0] * n / sizes[0] for n in sizes], ":", color="#9aa5ae", label="in proportion")
        panel.axhline(values[0], linestyle="--", color="#9aa5ae", linewidth=1, label="no growth")
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [f"{n:,}" for n in sizes], fontsize=8)
        panel.set_xticks([], minor=True)
        panel.set_ylim(0, 1.35 * max(values))
        panel.set_xlabel(names[what], fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("microseconds for each token", fontsize=9)
    panels[0][0].legend(fontsize=8, frameon=False)
    figure.suptitle("Cost of a token as it grows: MiniLM (left two), a new token of a small Llama", fontsize=11)
    clock = "processor time" if record.get("clock") == "cpu" else "wall time"
    told = f"{record['processor']} · {record['threads']} threads · {clock} · {record['when'][:10]} · make bench"
    figure.supxlabel(told, fontsize=8, color="#5b6778")
    figure.savefig(target, dpi=110)
    plt.close(figure)


def write() -> None:
    """README.md and the pictures, from the JSON files."""
    records = {}
    for name in ("encoder", "decoder"):
        file = HERE / "results" / f"{name}.json"
        if file.exists():
            records[name] = json.loads(file.read_text(encoding="utf-8"))
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n{summary(records)}\n{MARKS[1]}{after}", encoding="utf-8")
    picture(records, ROOT / "docs" / "images" / "speed.png")
    growth = HERE / "results" / "growth.json"
    if growth.exists():
        growth_picture(json.loads(growth.read_text(encoding="utf-8")), ROOT / "docs" / "images" / "growth.png")


if __name__ == "__main__":
    write()
