#!/usr/bin/env bash
# rouge-score 0.1.2 keeps only a-z and 0-9 of a text before it counts. A perfect answer in Russian scores 0.0, and an answer
# that shares nothing but a number with the reference scores 1.0. A mean over a test set is then a number about its digits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check rouge-score==0.1.2
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version
from rouge_score import rouge_scorer

scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"])
same = scorer.score("мама мыла раму", "мама мыла раму")
other = scorer.score("мама купила 2 билета", "папа продал 2 машины")
print(f"rouge-score {version('rouge-score')}")
print("a perfect Russian answer:            ", {name: score.fmeasure for name, score in same.items()})
print("one that shares only the number 2:   ", {name: score.fmeasure for name, score in other.items()})
assert all(score.fmeasure == 0 for score in same.values()), "the behaviour changed"
assert all(score.fmeasure == 1 for score in other.values()), "the behaviour changed"
PY
