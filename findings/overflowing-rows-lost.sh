#!/usr/bin/env bash
# tokenizers 0.23.1 and 0.23.2, truncation with a stride: what does not fit the first row is dropped. `overflowing` is
# empty for a single text, so a long document that is cut into windows keeps its first window only, without a warning.
# 0.23.3 gives all windows. Windows of question answering and of long classifications depend on them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.23.1 0.23.2 0.23.3; do
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/$version" "tokenizers==$version"
done
cat > "$folder/run.py" <<'PY'
import sys
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

backend = Tokenizer(models.WordLevel({"[UNK]": 0, **{str(i): i + 1 for i in range(40)}}, unk_token="[UNK]"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
backend.enable_truncation(10, stride=3)
whole = backend.encode(" ".join(map(str, range(33))))
rows = [whole.tokens, *(row.tokens for row in whole.overflowing)]
lost = sorted(set(map(str, range(33))) - {token for row in rows for token in row}, key=int)
print(f"tokenizers {tokenizers.__version__}: {len(rows)} rows of 33 words, {len(lost)} words lost")
assert tokenizers.__version__ == sys.argv[1]
assert (len(rows), len(lost)) == ((1, 23) if sys.argv[1] in ("0.23.1", "0.23.2") else (5, 0)), "the behaviour changed"
PY
for version in 0.23.1 0.23.2 0.23.3; do
  PYTHONPATH="$folder/$version" python3 "$folder/run.py" "$version"
done
