"""Topics of 20,000 texts: `cutaway.texts.cluster` beside BERTopic, on the same vectors.

    python -m venv build/bertopic && build/bertopic/bin/pip install bertopic
    python benchmarks/topics.py --bertopic build/bertopic/bin/python

The texts are the halves of film reviews, their vectors MiniLM's. Each run is a process of its own, ours and theirs in
turns, and has clustered a tenth of the texts before it is measured, so that nothing is compiled meanwhile. BERTopic has
the settings that it has by itself, but for its list of function words (English, as ours) and the number of topics.
Reported: processor time, by the clock, and the mean coherence of the topics' ten words (NPMI over all texts), which is
measured here for both. Diversity is the share of different words among those of all topics: coherence is easily had
with a few common words. BERTopic leaves texts without a topic out of its topics; how many is said. `--whole` takes the
reviews as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = 10


def halves(count: int, whole: bool = False) -> list[str]:
    """Halves of film reviews, of three words or more; with `whole`, the reviews."""
    import texts

    if whole:
        return [text for text in texts.snippets() if len(text.split()) >= 6][:count]

    found: list[str] = []
    for text in texts.snippets():
        words = text.split()
        if len(words) >= 6:
            found += [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
        if len(found) >= count:
            break
    return found[:count]


def ours(texts: list[str], vectors: np.ndarray, topics: int | None, method: str) -> dict[str, Any]:
    import torch

    from cutaway.texts import TextTable, TextVectors, cluster

    table = TextTable(texts, list(range(len(texts))), [{}] * len(texts), "text", ["text"])
    found = cluster(table, vectors=TextVectors(torch.from_numpy(vectors), 0), map="pca", n_topics=topics, method=method)
    return {"words": [[word for word, _ in topic.words] for topic in found.topics], "left": int((found.of == 0).sum())}


def theirs(texts: list[str], vectors: np.ndarray, topics: int | None, method: str) -> dict[str, Any]:
    from bertopic import BERTopic
    from sklearn.feature_extraction.text import CountVectorizer

    number = None if topics is None else topics + 1  # the texts without a topic count as one
    model = BERTopic(embedding_model=None, vectorizer_model=CountVectorizer(stop_words="english"), nr_topics=number)
    of, _ = model.fit_transform(texts, vectors)
    words = [[word for word, _ in model.get_topic(i)] for i in sorted(set(of)) if i >= 0]
    return {"words": words, "left": sum(one == -1 for one in of)}


def worker(who: str, task: dict[str, Any]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(task["threads"])
    vectors, texts = np.load(task["vectors"]), task["texts"]
    call = {"ours": ours, "bertopic": theirs}[who]
    call(texts[: len(texts) // 10], vectors[: len(texts) // 10].copy(), None, task["method"])
    cpu, wall = time.process_time(), time.perf_counter()
    found = call(texts, vectors, task["topics"], task["method"])
    return {**found, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def run(python: str, who: str, task: dict[str, Any]) -> dict[str, Any]:
    command = [python, __file__, "--worker", who]
    # scikit-learn takes OpenMP's own number, and a thread that waits counts as work on a processor's clock
    threads = {**os.environ, "OMP_NUM_THREADS": str(task["threads"])}
    done = subprocess.run(command, input=json.dumps(task), text=True, capture_output=True, check=False, env=threads)
    line = next((one for one in done.stdout.splitlines() if one.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"{who}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def main() -> None:
    """Reads the command line; runs both in turns and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bertopic", help="the python of an environment with bertopic; without it only ours is run")
    parser.add_argument("--size", type=int, default=20_000, help="texts")
    parser.add_argument("--topics", type=int, default=20, help="0: as many as BERTopic finds, for both")
    parser.add_argument("--method", choices=("kmeans", "hdbscan"), default="kmeans", help="of ours")
    parser.add_argument("--whole", action="store_true", help="reviews, not halves of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=("ours", "bertopic"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print("RESULT " + json.dumps(worker(given.worker, json.load(sys.stdin))))
        return
    from cutaway.pipelines.embedder import Embedder
    from cutaway.texts.topic_words import WordCounts

    texts = halves(given.size, given.whole)
    counts = WordCounts(texts)
    pythons = {**({"bertopic": given.bertopic} if given.bertopic else {}), "ours": sys.executable}
    spent: dict[str, list[float]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        np.save(path, np.asarray(Embedder("cutaway/minilm").encode(texts, normalize_embeddings=True)))
        task = {"texts": texts, "vectors": str(path), "threads": given.threads, "method": given.method}
        for _ in range(given.rounds):
            topics = given.topics or None
            for name, python in pythons.items():
                found = run(
                    python, name, {**task, "topics": topics if name == "bertopic" or given.method == "kmeans" else None}
                )
                topics = topics or len(found["words"])
                each = [counts.coherence(words[:WORDS]) for words in found["words"]]
                known = [one for one in each if math.isfinite(one)]
                spent[name].append(found["cpu"])
                named = [word for words in found["words"] for word in words[:WORDS]]
                print(
                    f"{name}: {len(each)} topics, coherence {statistics.mean(known):+.4f}, diversity "
                    f"{len(set(named)) / len(named):.2f}, {found['left']:,} texts without a topic, "
                    f"{found['cpu']:.1f} s of processor time, {found['wall']:.1f} s",
                    flush=True,
                )
    if len(pythons) > 1:
        ratio = statistics.median(b / a for a, b in zip(spent["ours"], spent["bertopic"], strict=True))
        print(f"{len(texts):,} texts: ours has {ratio:.2f} x BERTopic's speed", flush=True)


if __name__ == "__main__":
    main()
