#!/usr/bin/env bash
# transformers 5.23.0: where the hub cannot be reached, or a folder holds no vocabulary, BertTokenizer.from_pretrained(name) raises
# nothing and gives a tokenizer of five special tokens, which reads every word as [UNK]. A model behind it still answers, and
# tests that only compare shapes pass. AutoTokenizer of the same name is an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0
cat > "$folder/run.py" <<'PY'
import tempfile

from transformers import AutoTokenizer, BertTokenizer

for name in ("google-bert/bert-base-cased", tempfile.mkdtemp()):
    tokenizer = BertTokenizer.from_pretrained(name)
    ids = tokenizer("a film that nobody saw")["input_ids"]
    print(name, len(tokenizer), tokenizer.convert_ids_to_tokens(ids))
    assert len(tokenizer) == 5 and set(ids[1:-1]) == {tokenizer.unk_token_id}, "the behaviour changed"
    try:
        AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        print("AutoTokenizer:", str(error).splitlines()[0][:90])
    else:
        raise SystemExit("the behaviour changed")
PY
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" "$folder/venv/bin/python" "$folder/run.py" 2>/dev/null
