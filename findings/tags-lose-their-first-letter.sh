#!/usr/bin/env bash
# seqeval 1.2.2 takes the first letter of any tag for its position in a chunk. Part-of-speech tags are then reported as "OUN"
# and "ERB", two neighbouring nouns count as one item, and the report is about chunks that nobody annotated; the only sign is
# a UserWarning for each tag.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check seqeval==1.2.2
"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version
from seqeval.metrics import classification_report

tags = [["NOUN", "NOUN", "VERB", "NOUN"]]
report = classification_report(tags, tags, output_dict=True, zero_division=0)
print(f"seqeval {version('seqeval')}: three nouns and a verb, predicted perfectly")
for name, row in report.items():
    print(f"  {name:14} support {row['support']}")
assert report["OUN"]["support"] == 2 and report["ERB"]["support"] == 1 and "NOUN" not in report, "the behaviour changed"
PY
