"""Fine-tuning beside its peers: vectors, an adapter of a decoder, a reranker; and a search in many vectors.

    python -m venv build/peers && build/peers/bin/pip install "sentence-transformers[train]" peft datasets
    python benchmarks/tuning.py vectors lora rerank --peers build/peers/bin/python
    python benchmarks/tuning.py search

vectors: MiniLM learns that the two halves of a film review belong together (MultipleNegativesRankingLoss); beside
sentence-transformers' trainer on the same pairs. What both say before the training must agree.
lora: SmolLM2 with an adapter on q and v, on chat rows; beside plain PEFT with the same adapter on the same batches. The
losses of all steps must agree to 1e-4. Ours asks for the loss alone, as `cutaway.Trainer` does: logits of places
without a label are not computed then.
rerank: a reranker is trained on halves of reviews, with four wrong ones to each right one; the rankings of held-out
rows, beside the cosines of the base model, and sentence-transformers' trainer on the same rows for as many epochs, at
the same rate, with as many pairs a step. Ours keeps the epoch that ranks 100 other rows best, theirs its last.
search: `cutaway search` over 100,000 vectors, the query's own included, after loading.

Times are processor times of a step (batch, forward, backward, optimizer), the first left out. Ours and theirs run in
processes of their own, in turns.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

NEAR = 1e-4
TESTS, VALIDATION = 300, 100  # held-out queries of rerank, and those by which an epoch is chosen


def halves(count: int) -> list[tuple[str, str]]:
    """The two halves of film reviews of 14 words or more."""
    import texts

    found = []
    for text in texts.snippets():
        words = text.split()
        if len(words) >= 14:
            found.append((" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])))
        if len(found) == count:
            break
    return found


def folder_of(name: str) -> str:
    from cutaway.hub.files import resolve

    return str(resolve(name).require("config.json").parent)


def mrr(queries: np.ndarray, documents: np.ndarray) -> float:
    """The mean of 1 / place of each query's own document among all, by cosine."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents))
    scores = a @ b.T  # [texts, texts]
    places = (scores >= np.diag(scores)[:, None]).sum(1)
    return float((1 / places).mean())


def clock(base: Any) -> Any:
    """A callback that notes the processor seconds of each step but the first."""

    class Clock(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps: list[float] = []
            self.last: float | None = None

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.process_time()
            if self.last is not None:
                self.steps.append(now - self.last)
            self.last = now

    return Clock()


SETTINGS = {
    "num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 2e-5, "warmup_steps": 0,
    "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "logging_steps": 1000,
}  # fmt: skip


def vectors_ours(task: dict[str, Any]) -> dict[str, Any]:
    import cutaway
    from cutaway.pipelines.embedder import Embedder
    from cutaway.train.sentence_losses import MultipleNegativesRankingLoss
    from cutaway.tuning import SentenceTrainer

    tokenizer = cutaway.AutoTokenizer.from_pretrained(task["base"])
    model = cutaway.AutoModel.from_pretrained(task["base"])
    rows = [{"texts": tokenizer(list(pair), truncation=True, max_length=256)["input_ids"]} for pair in task["train"]]

    def measured() -> float:
        model.eval()
        embed = Embedder(model, tokenizer=tokenizer)
        return mrr(*(np.asarray(embed.encode([pair[i] for pair in task["test"]])) for i in (0, 1)))

    before, watch = measured(), clock(cutaway.TrainerCallback)
    with tempfile.TemporaryDirectory() as folder:
        args = cutaway.TrainingArguments(folder, seed=task["seed"], **SETTINGS)
        SentenceTrainer(
            model, args, train_dataset=rows, processing_class=tokenizer, loss=MultipleNegativesRankingLoss(),
            callbacks=[watch],
        ).train()  # fmt: skip
    return {"before": before, "after": measured(), "steps": watch.steps}


def vectors_theirs(task: dict[str, Any]) -> dict[str, Any]:
    import datasets
    import transformers
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(task["base"], device="cpu")
    rows = datasets.Dataset.from_dict(
        {name: [pair[i] for pair in task["train"]] for i, name in enumerate(("anchor", "positive"))}
    )

    def measured() -> float:
        return mrr(*(model.encode([pair[i] for pair in task["test"]], show_progress_bar=False) for i in (0, 1)))

    before, watch = measured(), clock(transformers.TrainerCallback)
    with tempfile.TemporaryDirectory() as folder:
        args = SentenceTransformerTrainingArguments(folder, seed=task["seed"], **SETTINGS)
        SentenceTransformerTrainer(
            model, args, train_dataset=rows, loss=MultipleNegativesRankingLoss(model), callbacks=[watch]
        ).train()
    return {"before": before, "after": measured(), "steps": watch.steps}


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {n: torch.tensor([row[n] + [fill[n]] * (longest - len(row[n])) for row in rows]) for n in fill}


def trained(model: Any, task: dict[str, Any], **more: bool) -> dict[str, Any]:
    """The losses and processor seconds of a plain loop over the batches; `more`: arguments of each call."""
    import torch

    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)
    losses, seconds = [], []
    for batch in task["batches"]:
        began = time.process_time()
        loss = model(**padded(batch), **more).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        seconds.append(time.process_time() - began)
    return {"losses": losses, "steps": seconds[1:]}


def lora_ours(task: dict[str, Any]) -> dict[str, Any]:
    import cutaway
    from cutaway.models.lm_heads import loss_only

    model = cutaway.AutoModelForCausalLM.from_pretrained(task["base"], dtype="float32")
    if not Path(task["adapter"]).exists():
        cutaway.set_seed(0)
        how = cutaway.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
        model.add_adapter(how, "start")
        model.save_adapter(task["adapter"])
    else:
        model.load_adapter(task["adapter"], "start", is_trainable=True)
    return trained(model, task, **loss_only(model))  # as cutaway's Trainer asks for a loss


def lora_theirs(task: dict[str, Any]) -> dict[str, Any]:
    import transformers
    from peft import PeftModel

    model = transformers.AutoModelForCausalLM.from_pretrained(task["base"], dtype="float32")
    return trained(PeftModel.from_pretrained(model, task["adapter"], is_trainable=True), task)


def run(python: str, job: str, who: int, task: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer."""
    command = [python, __file__, job, "--worker", str(who)]
    done = subprocess.run(command, input=json.dumps(task), text=True, capture_output=True, check=False)
    line = next((one for one in done.stdout.splitlines() if one.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"{job}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def in_turns(job: str, task: dict[str, Any], pythons: list[str], rounds: int) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = [[] for _ in pythons]
    for number in range(rounds):
        for who, python in enumerate(pythons):
            found[who].append(run(python, job, who, {**task, "seed": number}))
    return found


def said(job: str, found: list[list[dict[str, Any]]]) -> None:
    rates = [statistics.median(second for one in each for second in one["steps"]) for each in found]
    print(f"{job}: ours {rates[0]:.3f} s of processor time a step", flush=True)
    if len(rates) > 1:
        print(f"{job}: theirs {rates[1]:.3f} s; ours has {rates[1] / rates[0]:.2f} x the speed", flush=True)


def vectors(given: argparse.Namespace, pythons: list[str]) -> None:
    pairs = halves(given.size + 300)
    task = {"train": pairs[300:], "test": pairs[:300], "threads": given.threads, "base": folder_of("cutaway/minilm")}
    found = in_turns("vectors", task, pythons, given.rounds)
    for name, each in zip(("ours", "theirs"), found, strict=False):
        after = [round(one["after"], 4) for one in each]
        print(f"vectors, {name}: MRR {each[0]['before']:.4f} before, {after} after", flush=True)
    if len(found) > 1 and abs(found[0][0]["before"] - found[1][0]["before"]) > 1e-3:
        raise SystemExit("the base model's vectors differ")
    said("vectors", found)


def lora(given: argparse.Namespace, pythons: list[str]) -> None:
    import cutaway
    from cutaway.tuning.chat_rows import encoded

    with tempfile.TemporaryDirectory() as folder:
        cutaway.AutoModelForCausalLM.from_pretrained("cutaway/smollm2", dtype="float32").save_pretrained(folder)
        tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/smollm2")
        tokenizer.save_pretrained(folder)
        talk = [
            {"messages": [
                {"role": "user", "content": f"Go on with the review: {first}"},
                {"role": "assistant", "content": second},
            ]}
            for first, second in halves(500)
        ]  # fmt: skip
        rows = [encoded(row, tokenizer, 256) for row in talk[: given.steps * 8]]
        batches = [rows[i : i + 8] for i in range(0, len(rows), 8)]
        adapter = str(Path(folder) / "adapter")
        task = {"batches": batches, "base": folder, "adapter": adapter, "threads": given.threads}
        run(pythons[0], "lora", 0, {**task, "batches": batches[:1]})  # draws the adapter that both begin from
        found = in_turns("lora", task, pythons, given.rounds)
    if len(found) > 1:
        apart = [abs(a - b) for a, b in zip(found[0][0]["losses"], found[1][0]["losses"], strict=True)]
        print(f"lora: the losses differ by {apart[0]:.1e} in the first step, {max(apart):.1e} at most", flush=True)
        if apart[0] > NEAR:
            raise SystemExit("the losses differ in the first step")
    said("lora", found)


def reciprocal(scores: np.ndarray) -> float:
    """The mean of 1 / place of the first of each row's documents, scores [queries, documents]."""
    return float((1 / (scores >= scores[:, :1]).sum(1)).mean())


def rerank_ours(task: dict[str, Any]) -> dict[str, Any]:
    import cutaway
    from cutaway.pipelines import pipeline
    from cutaway.pipelines.embedder import Embedder
    from cutaway.tuning import READINGS, TaskTuning, read_task

    rows = {name: read_task(path, READINGS["rerank"], {}) for name, path in task["files"].items()}
    watch = clock(cutaway.TrainerCallback)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"seed": task["seed"], "disable_tqdm": True}
        how = {"callbacks": [watch], "task": "rerank"}
        tuning = TaskTuning(task["base"], rows["train"], rows["validation"], settings, **how)
        tuning.check()
        tuning.run(Path(folder) / "out")
        rank = pipeline("rerank", str(Path(folder) / "out"))
        said = []
        for row in rows["tests"].rows:
            scores = {one["index"]: one["score"] for one in rank(row["query"], row["documents"])}
            said.append([scores[i] for i in range(len(scores))])
        after = reciprocal(np.array(said))
    embed = Embedder(task["base"])
    cosines = []
    for row in rows["tests"].rows:
        query, *documents = np.asarray(embed.encode([row["query"], *row["documents"]], normalize_embeddings=True))
        cosines.append(np.stack(documents) @ query)
    return {"before": reciprocal(np.array(cosines)), "after": after, "steps": watch.steps}


def rerank_theirs(task: dict[str, Any]) -> dict[str, Any]:
    import datasets
    import torch
    import transformers
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    rows = {
        name: [json.loads(line) for line in Path(path).read_text().splitlines()] for name, path in task["files"].items()
    }
    transformers.set_seed(task["seed"])
    model = CrossEncoder(task["base"], num_labels=1, device="cpu")
    pairs = [
        (row["query"], text, float(i == 0))
        for row in rows["train"]
        for i, text in enumerate([row["positive"], *row["negatives"]])
    ]
    data = datasets.Dataset.from_dict(
        {name: [pair[i] for pair in pairs] for i, name in enumerate(("query", "document", "label"))}
    )
    loss = losses.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(4.0))  # as its examples weigh four negatives
    watch = clock(transformers.TrainerCallback)
    with tempfile.TemporaryDirectory() as folder:
        how = {**SETTINGS, "num_train_epochs": task["epochs"], "per_device_train_batch_size": 40, "warmup_steps": 0.1}
        args = CrossEncoderTrainingArguments(folder, seed=task["seed"], **{**how, "learning_rate": 1e-4})
        CrossEncoderTrainer(model=model, args=args, train_dataset=data, loss=loss, callbacks=[watch]).train()
    said = [
        model.predict([(row["query"], text) for text in [row["positive"], *row["negatives"]]], show_progress_bar=False)
        for row in rows["tests"]
    ]
    return {"before": 0.0, "after": reciprocal(np.array(said)), "steps": watch.steps}


def rerank(given: argparse.Namespace, pythons: list[str]) -> None:
    from cutaway.tuning.ranking_trainer import ranking_settings

    pairs = halves(given.size + TESTS + VALIDATION)
    chance = random.Random(0)

    def row(place: int, among: range) -> dict[str, Any]:
        others = chance.sample([i for i in among if i != place], 4)
        return {"query": pairs[place][0], "positive": pairs[place][1], "negatives": [pairs[i][1] for i in others]}

    rows = {"tests": [row(i, range(TESTS)) for i in range(TESTS)]}
    train, validation = range(TESTS, TESTS + given.size), range(TESTS + given.size, len(pairs))
    rows["train"] = [row(i, train) for i in train]
    rows["validation"] = [row(i, validation) for i in validation]
    epochs = ranking_settings(len(train), 5 * len(train))["num_train_epochs"]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.jsonl") for name in rows}
        for name, path in files.items():
            Path(path).write_text("".join(json.dumps(one) + "\n" for one in rows[name]))
        task = {"files": files, "threads": given.threads, "base": folder_of("cutaway/minilm"), "epochs": epochs}
        found = in_turns("rerank", task, pythons, given.rounds)
    print(f"rerank: MRR {found[0][0]['before']:.4f} by cosines, {np.mean([1 / p for p in range(1, 6)]):.4f} by chance")
    for name, each in zip(("ours", "theirs"), found, strict=False):
        after = [round(one["after"], 4) for one in each]
        print(f"rerank, {name}: {after} after {epochs:g} epochs of {len(rows['train'])} rows", flush=True)
    said("rerank", found)


def search(given: argparse.Namespace, pythons: list[str]) -> None:
    import torch

    from cutaway.pipelines.embedder import Embedder
    from cutaway.texts import TextSearch, TextTable
    from cutaway.texts.vectors import TextVectors

    torch.set_num_threads(given.threads)
    count = 100_000
    table = TextTable([f"text {i}" for i in range(count)], list(range(count)), [{}] * count, "text", ["text"])
    drawn = torch.nn.functional.normalize(torch.randn(count, 384, generator=torch.Generator().manual_seed(0)), dim=-1)
    find = TextSearch(table, TextVectors(drawn, 0), Embedder("cutaway/minilm"))
    queries = [first for first, _ in halves(60)]
    spent, clocked = [], []
    for query in queries:
        cpu, wall = time.process_time(), time.perf_counter()
        hits = find(query)
        spent.append(time.process_time() - cpu)
        clocked.append(time.perf_counter() - wall)
    vector = torch.as_tensor(np.asarray(Embedder("cutaway/minilm").encode(queries[-1], normalize_embeddings=True)))
    best = int((drawn @ vector).argmax())
    first = hits[0] if not isinstance(hits[0], list) else hits[0][0]
    if first.row != best:
        raise SystemExit(f"the nearest of all is row {best}, not {first.row}")
    print(f"search: {1e3 * statistics.median(spent[5:]):.1f} ms of processor time a query, "
          f"{1e3 * statistics.median(clocked[5:]):.1f} on the clock, over {count:,} vectors", flush=True)  # fmt: skip


WORKERS = {
    "vectors": (vectors_ours, vectors_theirs),
    "lora": (lora_ours, lora_theirs),
    "rerank": (rerank_ours, rerank_theirs),
}
JOBS = {"vectors": vectors, "lora": lora, "rerank": rerank, "search": search}


def main() -> None:
    """Reads the command line and runs the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", choices=JOBS)
    parser.add_argument("--peers", help="the python of an environment with sentence-transformers and PEFT")
    parser.add_argument("--size", type=int, default=1024, help="pairs of vectors, or rows of rerank, to train on")
    parser.add_argument("--steps", type=int, default=62, help="of lora, 8 rows each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        import torch

        task = json.load(sys.stdin)
        torch.set_num_threads(task["threads"])
        print("RESULT " + json.dumps(WORKERS[given.jobs[0]][given.worker](task)))
        return
    pythons = [sys.executable, *([given.peers] if given.peers else [])]
    for job in given.jobs or list(JOBS):
        JOBS[job](given, pythons)


if __name__ == "__main__":
    main()
