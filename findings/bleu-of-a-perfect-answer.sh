#!/usr/bin/env bash
# sacrebleu 2.6.0: a perfect hypothesis of three words has a corpus BLEU of 0.0 and a sentence BLEU of 100, since only the
# second leaves out the orders that no n-gram can fill. A perfect Chinese sentence has 0.0 with the default tokenizer, which
# takes it for one word, and 100 with tokenize="zh". A test set of short answers scores low however good it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check sacrebleu==2.6.0
"$folder/venv/bin/python" - <<'PY'
import sacrebleu

three, chinese = "Good morning all", "今天天气很好"
scores = {
    "corpus, three words": sacrebleu.corpus_bleu([three], [[three]]).score,
    "sentence, three words": sacrebleu.sentence_bleu(three, [three]).score,
    "corpus, Chinese": sacrebleu.corpus_bleu([chinese], [[chinese]]).score,
    "corpus, Chinese, zh": sacrebleu.corpus_bleu([chinese], [[chinese]], tokenize="zh").score,
}
print(f"sacrebleu {sacrebleu.__version__}, each hypothesis equal to its reference:")
for name, score in scores.items():
    print(f"  {name:24} {score:.1f}")
assert [round(score) for score in scores.values()] == [0, 100, 0, 100], "the behaviour changed"
PY
