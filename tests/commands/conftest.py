"""The models and files that rows of commands name, and a row run in this process."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import sys

import pytest
import tiny


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """The models and files of the table, made once."""
    root = tmp_path_factory.mktemp("every")
    models = root / "models"
    found = {"MODELS": models}
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    made = {
        "ENC": (2, "BertForSequenceClassification", {"id2label": names}),
        "NUMBER": (1, "BertForSequenceClassification", {"problem_type": "regression"}),
        "SEVERAL": (2, "BertForSequenceClassification", {"problem_type": "multi_label_classification"}),
        "NLI": (3, "BertForSequenceClassification", {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}),
        "RANK": (1, "BertForSequenceClassification", {}),
        "TAGS": (3, "BertForTokenClassification", {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}),
        "QA": (2, "BertForQuestionAnswering", {}),
        "CHOICE": (2, "BertForMultipleChoice", {}),
        "MASK": (2, "BertForMaskedLM", {}),
        "BASE": (2, "BertModel", {}),
    }
    for name, (labels, head, more) in made.items():
        found[name] = tiny.classifier(models / name.lower(), labels, head, **more)
    found["DEC"], found["T5"] = tiny.decoder(models / "dec"), tiny.encoder_decoder(models / "t5")
    found["CHAT"] = tiny.decoder(models / "chat")
    settings = json.loads((found["CHAT"] / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (found["CHAT"] / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))

    def file(name, ending, text, encoding="utf-8"):
        found[name] = root / (name.lower() + ending)
        found[name].write_text(text, encoding=encoding)

    def lines(name, rows):
        file(name, ".jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    texts = ["a good film", "a bad film", "not very good", "the film was bad"] * 3
    file("LINES", ".txt", "a good film\na bad film\n")
    file("MASKED", ".txt", "a [MASK] film\n")
    file("TABLE", ".csv", "id,review\n1,a good film\n2,a bad film\n3,\n")
    labelled = [{"text": text, "label": ["POSITIVE", "NEGATIVE"][i % 2]} for i, text in enumerate(texts)]
    lines("LABELLED", labelled)
    file("SEMICOLONS", ".csv", "text;label\n" + "".join(f"{r['text']} ü;{r['label']}\n" for r in labelled), "cp1252")
    gaps = [f"{r['text']},{r['label']}\n" for r in labelled]
    file("GAPS", ".csv", "text,label\n" + "\n".join(gaps[:2]) + "".join(gaps[2:]) + "\n\n")
    file("RATED", ".csv", "id,text,ann,ben,cy\n1,a good film,3,3,2\n2,a bad film,1,2,\n3,bad,1,1,1\n")
    lines("NUMBERS", [{"text": text, "label": i / 3 + 0.25} for i, text in enumerate(texts)])
    file("WHOLE", ".tsv", "text\tlabel\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(texts)))
    sets = [["LABEL_0"], ["LABEL_0", "LABEL_1"], [], ["LABEL_1"]] * 3
    lines("SETS", [{"text": text, "label": labels} for text, labels in zip(texts, sets, strict=True)])
    lines("PAIRS", [{"first": text, "second": "good", "same": i % 2} for i, text in enumerate(texts)])
    lines("SPANS", [{"said": text, "spans": [{"start": 2, "end": 5, "label": "X"}]} for text in texts[:2]] * 4)
    file("CONLL", ".conll", "# a comment\ngood B-PER\nfilm O\n\n-DOCSTART- O\n\nbad\tB-PER\nfilm\tI-PER\n\n" * 4)
    lines("ANSWERED", [{"prompt": "is it good", "answer": "very"}] * 8)
    said = [{"role": "user", "content": "is it good"}, {"role": "assistant", "content": "very"}]
    lines("TALKED", [{"messages": said}] * 8)
    found_pairs = [("good film", "great film"), ("bad film", "not very good"), ("the eu", "trust")] * 3
    lines("FOUND", [{"anchor": a, "positive": b} for a, b in found_pairs])
    lines("APART", [{"anchor": a, "positive": b, "negative": "[UNK]"} for a, b in found_pairs])
    lines("SCORED", [{"sentence1": a, "sentence2": b, "score": i / 9} for i, (a, b) in enumerate(found_pairs)])
    lines("ANSWERS", [{"query": a, "positive": b, "negatives": ["bad", "is"]} for a, b in found_pairs])
    lines("TAGGED", [{"tokens": ["good", "film"], "tags": ["B-PER", "O"]}])
    lines("ASKED", [{"question": "is it good", "context": "a good film", "answers": ["good"]}])
    lines("WRITTEN", [{"text": "a good film", "target": "good"}])
    lines("SIMILAR", [{"source_sentence": "good", "sentences": ["good film", "bad"]}])
    lines("RANKED", [{"query": "good", "documents": ["good film", "bad"]}])
    lines("CHOSEN", [{"prompt": "a film", "choices": ["good", "bad"]}])
    odds = found["ODDS"] = root / "odds"
    odds.mkdir()
    for name, content in {
        "t.csv.gz": b"", "t.zip": b"", "t.xls": b"", "t.json": b"{}", "gzip.csv": gzip.compress(b"text\na\n"),
        "pdf.csv": b"%PDF-1.4\n", "zip.csv": b"PK\x03\x04", "list.jsonl": b'[{"text": "a", "label": "b"}]\n',
        "pretty.jsonl": b'{\n "text": "a"\n}\n', "empty.csv": b"", "twice.csv": b"text,text\na,b\n",
        "header.csv": b"text,label\n", "nested.jsonl": b'{"text": ["a"]}\n', "capital.csv": b"Text,Label\na,b\nb,c\n",
        "quote.csv": b'text,n\n"a good film,1\na bad film,2\n',
    }.items():  # fmt: skip
        (odds / name).write_bytes(content)
    file("SCHEMA", ".json", '{"enum": ["a"]}')
    file("GRAMMAR", ".lark", 'start: "a"')
    found["TRACE"], found["DECTRACE"] = root / "enc.trace.safetensors", root / "dec.trace.safetensors"
    return found


@pytest.fixture
def invoke(call, places, tmp_path, monkeypatch):
    """A row of the table, run in this process."""
    from cutaway.commands import evaluate
    from cutaway.tuning import report

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "MISTAKES", 1)  # each is an attribution
    monkeypatch.setattr(evaluate, "MISTAKES", 1)

    def run(row, *more):
        line, _, source = row.partition(" < ")
        stdin = places[source].read_bytes() if source else b""
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        words = [
            str(places.get(word, word)).replace("OUT/", f"{tmp_path}/").replace("ODDS/", f"{places['ODDS']}/")
            for word in shlex.split(line.replace(";", "';'"))
        ]
        return call(*words, *more)

    return run
