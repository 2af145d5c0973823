"""Every command x documented input x option runs; typical mistakes end in one sentence with the way out.

`RUNS` is the table. Capital words are places: of models (`models`), or of files (`files`); OUT/name is a file to write.
A new option needs a row: `test_every_option_has_a_row`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import sys
import typing
from pathlib import Path

import pytest
import tiny

from cutaway.commands.examples import EXAMPLES
from cutaway.commands.task import COMMANDS, SHARED

TASKS = {spec.name: spec for spec in COMMANDS}
TEXT = "'a good film'"

RUNS = [
    # what looks inside: a text, stdin, a trace; every file it writes
    "explain film -m ENC --layer 1 --head 1 --token film --measure focus -o OUT/a.svg -o OUT/a.html --dark",
    "explain good -m ENC -o OUT/a.trace.safetensors -o OUT/a.json -o OUT/a.npz --truncation",
    "explain TRACE --layer 0 --head 1 -o OUT/b.html",
    f"explain {TEXT} -m DEC --max-new-tokens 2",
    f"explain {TEXT} -m T5 --attention cross --max-new-tokens 2",
    f"explain {TEXT} -m TAGS -o OUT/tags.html",
    "explain 'is it good' -m QA --context 'a good film' -o OUT/qa.html",
    "explain 'a film is' -m CHOICE --choice good --choice 'not good' -o OUT/choice.html",
    "explain - -m ENC < LINES",
    f"attend {TEXT} -m ENC --layer 1 --head 1 --view lines -o OUT/a.png",
    f"attend {TEXT} -m T5 --attention decoder --view atlas --measure distance --max-new-tokens 2 -o OUT/b.svg --dark",
    f"attend {TEXT} -m ENC --view rollout -o OUT/c.html",
    "attend TRACE",
    f"lens {TEXT} -m DEC --last 3 -o OUT/a.html -o OUT/a.svg --dark",
    f"lens {TEXT} -m DEC --view states -o OUT/b.npz",
    "lens DECTRACE",
    f"attribute {TEXT} -m ENC --method occlusion --method gradient --target POSITIVE --against NEGATIVE -o OUT/a.svg",
    f"attribute {TEXT} -m DEC --method direct --position 3 -o OUT/a.json --dark",
    "attribute TRACE --method integrated",
    "patch 'a good film' 'a bad film' -m ENC --place blocks.0.resid --target POSITIVE --against NEGATIVE -o OUT/a.html",
    "patch 'a good film' 'a bold film' -m DEC --position 3 --dark -o OUT/b.svg",
    "compare 'a good film' 'a bad film' -m ENC --tolerance 0.1 -o OUT/a.html --dark",
    "compare 'a good film' -m ENC --against NLI",
    "compare TRACE TRACE",
    f"tokenize {TEXT} 'bad' -m ENC --truncation",
    "tokenize - -m ENC < LINES",
    f"generate {TEXT} -m DEC --max-new-tokens 3 --raw",
    f"generate {TEXT} -m DEC --max-new-tokens 3 --sample --temperature 0.9 --top-k 5 --top-p 0.9 --seed 1",
    f"generate {TEXT} -m DEC --max-new-tokens 3 --num-beams 2",
    f"generate {TEXT} -m CHAT --max-new-tokens 3 --system film",
    f"generate {TEXT} -m DEC --max-new-tokens 9 --regex a",
    f"generate {TEXT} -m DEC --max-new-tokens 9 --json-schema SCHEMA",
    f"generate {TEXT} -m DEC --max-new-tokens 9 --grammar GRAMMAR",
    f"generate {TEXT} -m T5 --max-new-tokens 3",
    "models --folder MODELS",
    "models get ENC",
    "convert DEC OUT/a.gguf --quantize q8_0", "convert ENC OUT/half --dtype float16",
    # how good, how fast
    "evaluate ENC LABELLED -o OUT/a.png -o OUT/a.json --against ENC --truncation",
    "evaluate ENC LABELLED --column label=label --column text",
    "evaluate ENC LABELLED --report OUT/r.html --report OUT/r.md",
    "evaluate SEVERAL SETS --report OUT/s.html --overwrite", "evaluate NUMBER NUMBERS",
    "evaluate TAGS TAGGED --task token-classification",
    "evaluate QA ASKED --task question-answering",
    "evaluate T5 WRITTEN --task summarization --tokenizer unicode",
    "evaluate T5 WRITTEN --task translation_en_to_fr --tokenizer char",
    "evaluate T5 WRITTEN --task text2text-generation",
    "evaluate DEC LINES --task perplexity",
    "bench ENC --dtype float32 --input TABLE --column review --texts 2 --rounds 1",
    "bench ENC --dtype float32 --texts 2 --rounds 1",
    "bench DEC --dtype float32 --input LINES --texts 1 --rounds 1",
    # training: every kind of label, file and model
    "train BASE LABELLED -o OUT/one --max-steps 1 --validation 0.25 --balanced --freeze embed --max-length 12",
    "train ENC LABELLED -o OUT/own --max-steps 1 --validation LABELLED --column text --column label=label",
    "train BASE NUMBERS -o OUT/number --epochs 0.1 --patience 1 --learning-rate 1e-3 --warmup 0 --weight-decay 0",
    "train BASE NUMBERS -o OUT/said --max-steps 1 --labels number --seed 1 --batch-size 4",
    "train BASE WHOLE -o OUT/whole --max-steps 1 --labels number",
    "train BASE SETS -o OUT/several --max-steps 1 --bf16",
    "train DEC PAIRS -o OUT/pairs --max-steps 1 --text first --text-pair second --label same",
    "train BASE LABELLED -o OUT/found --max-steps 1 --search 1 --study OUT/found.sqlite",
    "train BASE LABELLED -o OUT/logged --max-steps 1 --report-to tensorboard --split train --report OUT/r.md",
    "train BASE SEMICOLONS -o OUT/de --max-steps 1 --encoding cp1252 --delimiter ;",
    "train BASE TAGGED -o OUT/tags --task token-classification --max-steps 1 --validation TAGGED",
    "train BASE CONLL -o OUT/conll --task token-classification --max-steps 1 --validation 0.25",
    "train BASE SPANS -o OUT/spans --task token-classification --max-steps 1 --column text=said --validation 0.25",
    "train BASE ASKED -o OUT/qa --task question-answering --max-steps 1 --validation ASKED --max-length 12",
    "train T5 WRITTEN -o OUT/short --task summarization --max-steps 1 --validation WRITTEN",
    "train T5 WRITTEN -o OUT/other --task translation --max-steps 1 --validation WRITTEN",
    "train T5 WRITTEN -o OUT/any --task text2text-generation --max-steps 1 --validation WRITTEN --lora 2",
    "train MASK LABELLED -o OUT/mask --task fill-mask --max-steps 1 --validation LABELLED",
    "train DEC LABELLED -o OUT/next --task text-generation --max-steps 1 --validation 0.25",
    "train DEC ANSWERED -o OUT/chat --task text-generation --max-steps 1 --validation 0.25 --lora 2 --pack",
    "train CHAT TALKED -o OUT/talk --task text-generation --max-steps 1 --validation 0.25 --search 1",
    "train BASE FOUND -o OUT/vec --task sentence-similarity --max-steps 1 --validation FOUND --pooling mean",
    "train BASE APART -o OUT/apart --task sentence-similarity --max-steps 1 --validation 0.25 --loss TripletLoss",
    "train BASE SCORED -o OUT/sts --task sentence-similarity --max-steps 1 --validation SCORED --loss CoSENTLoss",
    "train BASE ANSWERS -o OUT/rank --task rerank --max-steps 1 --validation 0.25",
    # texts without labels
    "search LABELLED 'a bad film' film -m BASE --top-k 2 --least -1 -o OUT/a.csv --overwrite --half --index exact",
    "search TABLE film -m BASE --column review --vectors OUT/kept.vectors -o OUT/b.jsonl",
    "search SEMICOLONS - -m BASE --encoding cp1252 --delimiter ; < LINES",
    "cluster LABELLED -m BASE --topics 2 --words 3 --map pca --title T --dark -o OUT/a.html -o OUT/a.png -o OUT/a.csv",
    "cluster SEMICOLONS -m BASE --method hdbscan --encoding cp1252 --delimiter ; --vectors OUT/v --half --column text",
    "cluster LABELLED -m BASE -o OUT/b.jsonl --overwrite --loose leave",
    "label LABELLED --label-column label --journal OUT/j --by ann --column text --no-page -o OUT/a.csv --overwrite",
    "label SEMICOLONS --encoding cp1252 --delimiter ; --label a --label b --label-column label --no-page -o OUT/b.csv",
    "label LINES -m ENC --no-page -o OUT/c.jsonl",
    "dedupe LABELLED -m BASE --threshold 0.99 --keep longest -o OUT/a.csv --overwrite --vectors OUT/v --half",
    "dedupe TABLE --column review --exact -o OUT/b.parquet --drop",
    "dedupe SEMICOLONS --exact --encoding cp1252 --delimiter ;",
    "agree LABELLED LABELLED --label label --level nominal -o OUT/a.csv --overwrite",
    "agree RATED RATED RATED --label ann --label ben --label cy --key id --level interval --column text -o OUT/b.jsonl",
    "agree SEMICOLONS SEMICOLONS --encoding cp1252 --delimiter ;",
    "agree LABELLED ENC",
    # tasks: texts, and options of their own
    f"classify {TEXT} 'bad' -m ENC --top-k 1", f"classify {TEXT} -m SEVERAL", f"classify {TEXT} -m NUMBER",
    "classify - -m ENC < LINES",
    f"sort {TEXT} -m NLI --label film --label bad --multi-label --hypothesis-template 'it was {{}}'",
    f"entities {TEXT} -m TAGS --aggregation-strategy none",
    f"answer {TEXT} -m QA --question 'is it good' --top-k 2 --handle-impossible-answer",
    "fill-mask 'a [MASK] film' -m MASK --top-k 2",
    f"embed {TEXT} -m BASE --pooling cls --normalize",
    "similar 'good film' 'bad' -m BASE --source-sentence film --pooling mean",
    "rerank 'good film' 'bad' -m RANK --query film --top-k 1",
    "choose 'good film' 'bad' -m CHOICE --prompt 'the film is'",
    f"perplexity {TEXT} -m DEC",
    f"summarize {TEXT} -m T5 --max-new-tokens 2 --num-beams 2",
    f"translate {TEXT} -m T5 --max-new-tokens 2 --num-beams 2",
    f"rewrite {TEXT} -m T5 --max-new-tokens 2 --num-beams 2",
    f"continue {TEXT} -m DEC --max-new-tokens 2 --do-sample --seed 1",
    # tables: every kind of file, every shared option
    "classify -m ENC -i TABLE --column review -o OUT/a.csv --columns --prefix m_",
    "classify -m ENC -i TABLE --column review -o OUT/a.tsv --overwrite --long truncate",
    "classify -m ENC -i TABLE --column text=review --truncation",
    "classify -m ENC -i SEMICOLONS -o OUT/b.jsonl --encoding cp1252 --delimiter ; --prefix m_",
    "classify -m ENC -i LINES -o OUT/c.parquet",
    "classify -m ENC -i - -o OUT/d.jsonl < LINES",
    "sort -m NLI --label film --label bad -i LINES -o OUT/e.csv --columns",
    "entities -m TAGS -i LINES -o OUT/f.jsonl",
    "answer -m QA -i ASKED -o OUT/g.jsonl --prefix m_", "answer -m QA -i LINES --question film --column context=text",
    "fill-mask -m MASK -i MASKED -o OUT/h.csv", "embed -m BASE -i LINES -o OUT/i.parquet",
    "similar -m BASE -i SIMILAR -o OUT/j.csv", "rerank -m RANK -i RANKED -o OUT/k.csv",
    "choose -m CHOICE -i CHOSEN -o OUT/l.jsonl", "perplexity -m DEC -i LINES -o OUT/m.csv",
    "summarize -m T5 -i LINES -o OUT/n.csv --max-new-tokens 2",
    "translate -m T5 -i LINES -o OUT/o.csv --max-new-tokens 2",
    "rewrite -m T5 -i LINES -o OUT/p.csv --max-new-tokens 2",
    "continue -m DEC -i LINES -o OUT/q.csv --max-new-tokens 2",
]  # fmt: skip

# Not in a row of every command: what is the same in all of them, and is given together to one row of each.
COMMON = {"--offline": [], "--threads": ["1"], "--dtype": ["float32"], "--json": []}
ELSEWHERE = {  # options that other tests run, and where
    "--revision": "tests/hub/test_files.py", "--on": "tests/distributed", "--workers": "tests/distributed",
    "--address": "tests/distributed", "--resume": "tests/tuning/test_tuning.py",
    "--encoding": "tests/jobs/test_tables.py",
    "--port": "tests/texts/test_labelling.py", "--open": "tests/texts/test_labelling.py",
    "--delimiter": "tests/jobs/test_tables.py", "--src-lang": "tests/pipelines/test_translation.py",
    "--tgt-lang": "tests/pipelines/test_translation.py", "--help": "test_help_ends_with_an_example",
}  # fmt: skip


@pytest.fixture(scope="module")
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


@pytest.fixture
def traces(invoke, places):
    if not places["TRACE"].exists():
        for model, name in (("ENC", "TRACE"), ("DEC", "DECTRACE")):
            code, _, err = invoke(f"explain good -m {model} --max-new-tokens 1 -o {places[name]}")
            assert code == 0, err


@pytest.mark.parametrize("row", RUNS)
def test_every_row_runs(invoke, places, tmp_path, row, request):
    if "TRACE" in row:
        request.getfixturevalue("traces")
    code, out, err = invoke(row)
    assert (code, "Traceback" in err) == (0, False), err
    written = [tmp_path / path for path in re.findall(r"-o OUT/(\S+)", row)]
    assert [path for path in written if not path.exists()] == []
    assert out or written or "train" in row
    for path in (path for path in written if path.suffix in (".csv", ".tsv", ".jsonl") and "train" not in row):
        from cutaway.jobs import TableReader

        if row.split()[0] in WITHOUT_ERRORS:
            assert [row.error for row in TableReader(path).rows() if row.error] == []
            continue
        errors = [value for r in TableReader(path).rows() for key, value in r.values.items() if key.endswith("error")]
        assert errors and not any(errors)
    if row.startswith("train"):
        assert (written[0] / "report.html").exists()
        task = re.search(r"--task (\S+)", row)
        command = ANSWERED_BY[task[1] if task else "text-classification"]
        assert invoke(command.replace("MODEL", str(written[0])))[0] == 0  # what was trained answers


ANSWERED_BY = {
    "text-classification": f"classify {TEXT} -m MODEL",
    "token-classification": f"entities {TEXT} -m MODEL",
    "question-answering": f"answer {TEXT} -m MODEL --question good",
    "summarization": f"summarize {TEXT} -m MODEL --max-new-tokens 2",
    "translation": f"translate {TEXT} -m MODEL --max-new-tokens 2",
    "text2text-generation": f"rewrite {TEXT} -m MODEL --max-new-tokens 2",
    "fill-mask": "fill-mask 'a [MASK] film' -m MODEL",
    "text-generation": f"perplexity {TEXT} -m MODEL",
    "sentence-similarity": f"embed {TEXT} -m MODEL",
    "rerank": "rerank 'good film' 'bad' -m MODEL --query film",
}
# their tables hold what was found, not a row's answer or error
WITHOUT_ERRORS = {"search", "cluster", "dedupe", "agree", "label"}
RUN_ON = {"serve", "chat", "studio"}  # they run until they are stopped: tests/serve and tests/studio have them


def commands():
    import typer

    from cutaway.cli import app

    return typer.main.get_command(app).commands


def options(command):
    return {max(p.opts, key=len) for p in commands()[command].params if p.param_type_name == "option"}


@pytest.mark.parametrize(
    "row",
    [
        "evaluate ENC GAPS --column text --report OUT/r.md",
        "train BASE GAPS -o OUT/gaps --max-steps 1 --validation GAPS",
        "agree GAPS LABELLED",
        "search GAPS film -m BASE",
        "classify -m ENC -i GAPS --prefix m_ -o OUT/a.csv",
        "dedupe GAPS --exact",
    ],
)
def test_blank_lines_of_a_table_are_no_rows(invoke, places, tmp_path, row):
    """They are skipped, and count in the numbers of the rows after them."""
    from cutaway.jobs import TableReader

    code, _, err = invoke(row)
    assert code == 0, err
    assert "row has" not in err and "left out" not in err
    rows = list(TableReader(places["GAPS"]).rows())
    assert [one.number for one in rows] == [1, *range(3, 14)]
    if row.startswith("classify"):
        assert len(list(TableReader(tmp_path / "a.csv").rows())) == len(rows) == 12
    if row.startswith("evaluate"):
        said = [one.values["row"] for one in TableReader(tmp_path / "r.predictions.csv").rows()]
        assert said == [str(one.number) for one in rows]


def test_an_error_names_the_row_of_the_file_past_blank_lines(invoke, tmp_path):
    (tmp_path / "bad.csv").write_text("text,label\ngood,POSITIVE\n\n\nbad,NEITHER\n")
    assert "Row 4 has the label 'NEITHER'" in invoke(f"evaluate ENC {tmp_path}/bad.csv")[2]
    (tmp_path / "bad.csv").write_text("text,label\ngood,POSITIVE\n\n\n,NEGATIVE\n")
    assert "row 4: 'text' holds ''" in invoke(f"train BASE {tmp_path}/bad.csv -o OUT/x")[2]


BLANK_CELLS = {
    "text": ["a good film", "", "  ", None, float("nan"), "a bad film", "not very good", "the film was bad"],
    "rows": "rows 2, 3, 4, 5",
}
ON_BLANKS = [
    *(f"{task} -i BLANKS -o OUT/a.jsonl" for task in (
        "classify -m ENC", "sort -m NLI --label film --label bad", "entities -m TAGS", "embed -m BASE",
        "answer -m QA --question film --column context=text", "perplexity -m DEC",
        "summarize -m T5 --max-new-tokens 2", "translate -m T5 --max-new-tokens 2", "rewrite -m T5 --max-new-tokens 2",
        "continue -m DEC --max-new-tokens 2", "similar -m BASE --source-sentence good --column sentences=listed",
        "rerank -m RANK --query good --column documents=listed",
        "choose -m CHOICE --prompt film --column choices=listed",
        "fill-mask -m MASK --column masked",
    )),
    "classify -m ENC -i BLANKS", "embed -m BASE -i BLANKS",
    "search BLANKS film -m BASE -o OUT/a.jsonl", "cluster BLANKS -m BASE --topics 2 -o OUT/a.jsonl",
    "dedupe BLANKS --exact -o OUT/a.jsonl", "label BLANKS --label POSITIVE --label NEGATIVE --label-column label "
    "--no-page -o OUT/a.jsonl",
    "evaluate ENC BLANKS", "evaluate DEC BLANKS --task perplexity", "evaluate T5 BLANKS --task summarization",
    "train BASE BLANKS -o OUT/x --max-steps 1", "train DEC BLANKS -o OUT/x --task text-generation --max-steps 1",
]  # fmt: skip


@pytest.mark.parametrize("row", ON_BLANKS)
def test_a_blank_cell_is_no_text(invoke, tmp_path, monkeypatch, row):
    """One rule: its row keeps its place and has no answer, and the command names it. Nothing is trained on it."""
    from cutaway.pipelines.base import Pipeline

    texts = BLANK_CELLS["text"]
    there = [isinstance(text, str) and bool(text.strip()) for text in texts]
    rows = [
        {
            "text": text, "label": "POSITIVE" if i % 2 else "NEGATIVE", "target": "good",
            "listed": ["good", "bad"] if here else text, "masked": "a [MASK] film" if here else text,
        }
        for i, (text, here) in enumerate(zip(texts, there, strict=True))
    ]  # fmt: skip
    path = tmp_path / "blanks.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    check = Pipeline.check
    monkeypatch.setattr(Pipeline, "check", lambda self, item: no_blank(check(self, item)))
    code, out, err = invoke(row.replace("BLANKS", str(path)))
    said = " ".join(f"{out} {err}".split())
    assert "row 2" in said or BLANK_CELLS["rows"] in said, said
    if row.startswith("train"):
        assert (code, "cannot be trained on" in said) == (1, True)
        return
    assert code == 0, err
    assert "4 rows have no text" in said
    if not (tmp_path / "a.jsonl").exists():
        if row.startswith(("classify", "embed")):
            assert len(out.splitlines()) == len(texts)
        return
    written = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    if row.startswith("search"):
        assert {one["row"] for one in written} <= {1, 6, 7, 8}
        return
    assert [one["text"] for one in written] == [None if text != text else text for text in texts]
    own = set(written[0]) - set(rows[0]) - {"error", "keep"}
    if own:
        answered = [any(one[name] is not None and one[name] != "" for name in own) for one in written]
        assert answered == there or row.startswith("dedupe")
    assert not any(one.get("error") for one in written)


def no_blank(item):
    from cutaway.pipelines.row_faults import is_blank

    texts = item.values() if isinstance(item, dict) else [item]
    assert not any(is_blank(text) for text in texts if not isinstance(text, list))
    return item


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "parquet", "txt"])
def test_a_blank_cell_is_one_in_every_kind_of_table(invoke, tmp_path, ending):
    path = tmp_path / f"blanks.{ending}"
    if ending == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for line in (["text", "n"], ["good", 1], [None, 2], ["  ", 3], ["bad", 4]):
            book.active.append(line)
        book.save(path)
    elif ending == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": ["good", None, "  ", "bad"]}), path)
    else:
        between = {"csv": ",", "tsv": "\t", "txt": ""}[ending]
        lines = [f"{text}{between}{i if between else ''}\n" for i, text in enumerate(["good", "", "  ", "bad"])]
        path.write_text((f"text{between}n\n" if between else "") + "".join(lines))
    code, out, err = invoke(f"classify -m ENC -i {path}")
    assert code == 0 and "2 rows have no text and no answer (rows 2, 3)." in err, err
    assert [bool(json.loads(line)["label"]) for line in out.splitlines()] == [True, False, False, True]


def test_blank_texts_of_the_command_line_and_blank_lines_of_stdin_are_said(invoke, places, monkeypatch):
    code, _, err = invoke("classify good '  ' -m ENC")
    assert code == 2 and "text 2 of 2 is empty" in " ".join(err.split())
    code, _, err = invoke("answer -m QA -i LINES --question ' ' --column context=text")
    assert code == 2 and "--question is empty" in " ".join(err.split())
    lines = places["LINES"].with_name("gaps.txt")
    lines.write_text("a good film\n\n  \na bad film\n")
    monkeypatch.setitem(places, "LINEGAPS", lines)
    code, out, err = invoke("classify - -m ENC < LINEGAPS")
    assert code == 0 and len(out.splitlines()) == 2
    assert "2 lines of stdin are left out: they are blank (lines 2, 3)." in err
    lines.write_text("\n \n")
    code, out, err = invoke("classify - -m ENC < LINEGAPS")
    assert (code, out, "Only blank lines came" in err) == (1, "", True)


def test_rows_that_have_an_error_are_said_without_an_output_too(invoke):
    code, out, err = invoke("classify -m ENC -i ODDS/quote.csv --prefix m_")
    assert code == 0 and "the row has 1 field, the header has 2; is a quotation mark not closed?" in out
    assert "1 row with an error (see the column 'm_error')." in err


def test_agree_with_a_model_takes_a_blank_text_for_a_row_without_a_label(invoke, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na good film,POSITIVE\n ,NEGATIVE\na bad film,NEGATIVE\nnot bad,POSITIVE\n")
    code, _, err = invoke(f"agree {path} ENC -o OUT/b.csv")
    assert code == 0 and ": 3 rows" in err, err


def test_agree_says_where_labels_differ_in_case_or_spaces_only(invoke, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\ngood,Good one\nbad,bad\n")
    (tmp_path / "b.csv").write_text("text,label\ngood,good  one\nbad,bad\n")
    code, _, err = invoke(f"agree {tmp_path}/a.csv {tmp_path}/b.csv")
    assert code == 0 and "differ only in case or spaces" in err and "'Good one' and 'good  one'" in err
    assert "differ only" not in invoke(f"agree {tmp_path}/a.csv {tmp_path}/a.csv")[2]


def test_evaluate_says_what_it_wrote_and_overwrites_only_when_told(invoke, tmp_path):
    row = "evaluate ENC LABELLED --report OUT/r.html -o OUT/m.json"
    code, _, err = invoke(row)
    assert code == 0 and "r.html: the report" in err and "r.predictions.csv" in err and "m.json: all measures" in err
    code, _, err = invoke(row)
    assert (code, "m.json exists" in err, "--overwrite" in err) == (1, True, True)
    assert invoke(row, "--overwrite")[0] == 0
    (tmp_path / "s.predictions.csv").write_text("mine")
    assert "s.predictions.csv exists" in invoke("evaluate ENC LABELLED --report OUT/s.md")[2]


def test_a_count_of_one_is_no_plural(invoke, tmp_path):
    (tmp_path / "one.csv").write_text("text,label\na good film,POSITIVE\n,NEGATIVE\n")
    err = invoke(f"search {tmp_path}/one.csv film -m BASE")[2]
    assert "1 row has no text and is left out" in err
    (tmp_path / "one.csv").write_text("text,label\na good film,POSITIVE\n")
    assert ": 1 row\n" in invoke(f"evaluate ENC {tmp_path}/one.csv")[2]


def test_a_missing_package_has_the_name_that_pip_knows(invoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    assert "needs scikit-learn: pip install" in invoke("evaluate ENC LABELLED")[2]
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "needs scikit-learn: pip install" in invoke("train BASE LABELLED -o OUT/x")[2]


def test_every_option_has_a_row():
    rows = [shlex.split(row.partition(" < ")[0].replace(";", "';'")) for row in RUNS]
    short = {"-i": "--input", "-o": "--output", "-m": "--model"}
    shared = {"--" + name.replace("_", "-").replace("as-json", "json") for name in SHARED}
    of_tasks = {short.get(word, word) for row in rows if row[0] in TASKS for word in row}
    for command in commands().keys() - RUN_ON:
        given = {short.get(word, word) for row in rows if row[0] == command for word in row}
        lacking = options(command) - given - set(COMMON) - set(ELSEWHERE)
        if command in TASKS:
            lacking -= shared & of_tasks
        assert lacking == set(), command
    assert {row[0] for row in rows} == commands().keys() - RUN_ON


FIRST = {row.split()[0]: row for row in reversed(RUNS) if "OUT" not in row or row.startswith("train")}


@pytest.mark.parametrize("command", sorted(FIRST))
def test_the_common_options(invoke, command, request):
    row, own = FIRST[command], options(command)
    if "TRACE" in row:
        request.getfixturevalue("traces")
    more = [word for name, values in COMMON.items() if name in own and name not in row for word in (name, *values)]
    import torch

    threads = torch.get_num_threads()
    try:
        code, out, err = invoke(row, *more)
    finally:
        torch.set_num_threads(threads)
    assert code == 0, err
    if "--json" in more:
        assert all(json.loads(line) is not None for line in out.splitlines())


MISTAKES = [
    # a wrong file
    ("classify -m ENC -i nothing.csv", "there is no such file"),
    ("classify -m ENC -i notes.docx", "no such file"),
    ("evaluate ENC nothing.csv", "there is no such file"),
    ("train BASE nothing.csv -o OUT/x", "there is no such file"),
    ("train BASE LABELLED -o SCHEMA", "is a file"),
    ("explain nothing.trace.safetensors -m ENC", "looks like the name of a file"),
    ("classify TABLE -m ENC", "--input"),
    ("models --folder nothing", "no such folder"),
    ("evaluate ENC LABELLED -o nothing/a.png", "there is no folder"),
    ("evaluate T5 WRITTEN --task summarization -o OUT/a.png", "write the measures as .json"),
    ("classify -m ENC -i LINES -o OUT/a.txt", "answers have columns"),
    ("evaluate ENC LABELLED --report OUT/r.docx", "ends in .html or .md"),
    ("train BASE LABELLED -o OUT/x --report OUT/nothing/r.md", "there is no folder"),
    ("search nothing.csv film -m BASE", "there is no such file"),
    ("search LABELLED TABLE -m BASE", "the table comes first"),
    ("search LABELLED film -m BASE -o OUT/a.txt", "answers have columns"),
    ("search LABELLED film -m BASE --vectors OUT/nothing/v", "there is no folder"),
    ("cluster nothing.csv", "there is no such file"),
    ("cluster LABELLED -m BASE -o OUT/a.gif", "the name must end in"),
    ("cluster LABELLED -m BASE -o OUT/nothing/a.html", "there is no folder"),
    ("label nothing.csv --label a --label b", "there is no such file"),
    ("label LABELLED --label a --label b --label-column label --journal SCHEMA", "this is no answer"),
    ("dedupe nothing.csv", "there is no such file"),
    ("dedupe LABELLED --exact --drop", "give --output"),
    ("agree LABELLED nothing.csv", "there is no such file"),
    ("agree LABELLED", "two tables or more"),
    ("classify -m ENC -i MODELS", "is a folder, and a table was expected"),
    ("evaluate LABELLED ENC", "is a folder, and a table was expected"),
    ("train LABELLED BASE -o OUT/x", "is a table or a text file, and a model was expected"),
    ("classify good -m LABELLED", "is a table or a text file, and a model was expected"),
    ("search ODDS/t.csv.gz film -m BASE", "Unpack it first: gunzip t.csv.gz."),
    ("cluster ODDS/t.zip -m BASE", "Unpack it first"),
    ("dedupe ODDS/t.xls --exact", "Save it as .xlsx"),
    ("classify -m ENC -i ODDS/t.json", "JSON is read as lines"),
    ("evaluate ENC ODDS/gzip.csv", "is packed by gzip: unpack it first"),
    ("classify -m ENC -i ODDS/pdf.csv", "is a PDF"),
    ("train BASE ODDS/zip.csv -o OUT/x", "is a zip or Office file"),
    *((f"{command} ODDS/{name}.jsonl {more}", "one object a line") for name in ("list", "pretty") for command, more in (
        ("classify -m ENC -i", ""), ("search", "film -m BASE"), ("cluster", "-m BASE"), ("dedupe", "--exact"),
        ("evaluate ENC", ""), ("train BASE", "-o OUT/x"), ("label", "--label a --label b"), ("agree LABELLED", ""),
    )),
    ("classify -m ENC -i ODDS/empty.csv", "is empty: the first line must name the columns"),
    ("classify -m ENC -i ODDS/twice.csv", "'text' stands there twice"),
    ("cluster ODDS/header.csv -m BASE", "has no text in the column 'text': it has no row"),
    ("dedupe ODDS/nested.jsonl --exact", "row 1: 'text' is ['a'], not a text"),
    ("classify good -m ENC -i LINES", "'good' is a text, and --input a table; give one of them"),
    ("classify -m ENC -i LINES -o OUT/x.json", "must end in .csv, .tsv, .jsonl or .parquet"),
    # a wrong column
    *((f"{command} ODDS/capital.csv {more}", "Did you mean 'Text'?") for command, more in (
        ("classify -m ENC -i", ""), ("search", "film -m BASE"), ("cluster", "-m BASE"), ("dedupe", "--exact"),
        ("evaluate ENC", ""), ("train BASE", "-o OUT/x"), ("label", "--label a --label b"), ("bench ENC -i", ""),
    )),
    ("agree LABELLED ODDS/capital.csv", "Did you mean 'Label'?"),
    ("search TABLE film -m BASE", "no column 'text'"),
    ("search SEMICOLONS film -m BASE --encoding cp1252", "--delimiter"),
    ("cluster TABLE", "no column 'text'"),
    ("label TABLE --label a --label b", "no column 'text'"),
    ("label LABELLED --label-column stars", "no column 'stars'"),
    ("label LABELLED --label a --label b --no-page -o OUT/a.csv", "--label-column"),
    ("dedupe TABLE --column revue --exact", "Did you mean 'review'"),
    ("agree LABELLED LABELLED --label stars", "no column 'stars'"),
    ("agree LABELLED LABELLED --key number", "no column 'number'"),
    ("agree LABELLED RATED --label label --label ann", "different numbers of rows"),
    ("agree RATED ENC --label ann --column words", "no texts in 'words'"),
    ("classify -m ENC -i TABLE", "no column 'text'"),
    ("classify -m ENC -i TABLE --column revue", "no column 'revue'"),
    ("classify -m ENC -i SEMICOLONS --encoding cp1252", "--delimiter"),
    ("classify -m ENC -i TABLE --column words=review", "classify reads text"),
    ("evaluate ENC TABLE --column review", "no column 'label'"),
    ("evaluate BASE LABELLED", "has no head that labels"),
    ("evaluate MASK LABELLED", "is for fill-mask"),
    ("evaluate ENC LABELLED -o SCHEMA", "--overwrite"),
    ("search LABELLED '' -m BASE", "the text is empty"),
    ("cluster LABELLED -m BASE -o OUT/a.xyz", ".html, .png, .svg, .pdf, .csv, .tsv, .jsonl, .parquet"),
    ("convert nothing.gguf OUT/a.gguf", "nothing.gguf: there is no such file"),
    ("convert nothing.gguf OUT/folder", "nothing.gguf: there is no such file"),
    ("evaluate ENC LABELLED --column stars=label", "not on 'stars'"),
    ("train BASE TABLE -o OUT/x", "no column 'text'"),
    ("train BASE LABELLED -o OUT/x --column stars=label", "train reads text"),
    ("train BASE LABELLED -o OUT/x --label label --column label=text", "already"),
    ("bench ENC -i TABLE", "--column"),
    # what all texts go with
    ("choose good bad -m CHOICE", "the prompt is missing: choose takes the choices as arguments and it as --prompt"),
    ("choose -m CHOICE -i TABLE", "give one for all rows: --prompt TEXT"),
    ("choose -m CHOICE -i TABLE --prompt film", 'Name the one that holds the choices (a JSON list: ["a", "b"])'),
    ("rerank good bad -m RANK", "the query is missing: rerank takes the documents as arguments and it as --query"),
    ("similar good bad -m BASE", "the source sentence is missing"),
    ("answer 'a good film' -m QA", "the question is missing: answer takes the texts as arguments and it as --question"),
    # a wrong label, language or setting
    ("evaluate SEVERAL LABELLED", "not a list"),
    ("evaluate NLI LABELLED", "the model's labels are contradiction"),
    ("evaluate ENC LABELLED --against NLI", "the model's labels are contradiction"),
    ("evaluate T5 WRITTEN --task translation --tokenizer jieba", "it can be 13a"),
    ("evaluate ENC LABELLED --task sorting", "is not evaluated"),
    ("train BASE LABELLED -o OUT/x --labels number", "is not a number"),
    ("train BASE LABELLED -o OUT/x --validation 2", "between 0 and 1"),
    ("train BASE LABELLED -o OUT/x --lora 4", "--lora is not of text-classification"),
    ("train BASE TAGGED -o OUT/x --task token-classification --pack", "--pack belongs to --task text-generation"),
    ("train BASE FOUND -o OUT/x --task sentence-similarity --loss TripleLoss", "Did you mean 'TripletLoss'"),
    ("train BASE FOUND -o OUT/x --task sentence-similarity --loss CoSENTLoss", "needs the columns sentence1"),
    ("train BASE SCORED -o OUT/x --task sentence-similarity --loss TripletLoss", "CosineSimilarityLoss"),
    ("train BASE FOUND -o OUT/x --task sentence-similarity --pooling middle", "mean, cls, lasttoken, max"),
    ("train BASE LABELLED -o OUT/x --task rerank", "needed are query, positive"),
    ("train BASE CONLL -o OUT/x --task rerank", "belongs to --task token-classification"),
    ("train BASE TAGGED -o OUT/x --task token-classification --balanced", "--balanced is of text classification"),
    ("train BASE FOUND -o OUT/x --task sentence-similarity --text words", "sentence-similarity reads anchor"),
    ("attribute 'a film' -m ENC --target GOOD", "the labels are"),
    ("translate -m T5 -i LINES -o OUT/a.csv --tgt-lang xx", "language code"),
    ("embed -m BASE -i LINES -o OUT/a.csv --pooling middle", "pooling"),
    ("entities -m TAGS -i LINES --aggregation-strategy most", "aggregation_strategy"),
    ("classify -m ENC -i LINES --long no", "error, truncate or window"),
    ("perplexity -m DEC -i LINES --long foo", "error, truncate or window"),
    ("summarize -m T5 -i LINES --long window", "not a way that this task has"),
    ("classify -m ENC -i LINES --columns --top-k 1", "give one"),
    ("embed -m BASE -i LINES --columns", "no scores"),
    ("cluster LABELLED -m BASE --topics 1", "--topics"),
    ("cluster LABELLED -m BASE --topics 99", "too few"),
    ("cluster LABELLED -m BASE --topics 3 --method hdbscan", "by itself"),
    ("label LINES", "which labels there are"),
    ("label LINES --label one", "2 to 100"),
    ("label LINES --label one --label two --no-page", "give --output"),
    ("label LINES --label one --label two -m ENC", "none of these labels"),
    ("dedupe LABELLED --threshold 95", "between 0 and 1"),
    ("dedupe LABELLED --exact -m BASE", "runs no model"),
    ("agree LABELLED LABELLED --level interval", "labels are numbers"),
    ("agree RATED RATED --label ann --label ben --label cy", "3 times for 2 tables"),
    ("explain 'a film is' -m CHOICE --choice '' --choice ''", "choice 1 of 2 is empty: ''"),
    ("explain 'a film is' -m CHOICE --choice bad --choice good --choice bad", "choices 1 and 3 are the same: 'bad'"),
    # a wrong model
    ("search LABELLED film -m nothing/there", "cannot be reached"),
    ("agree LABELLED nothing/there", "cannot be reached"),
    ("cluster LABELLED -m nothing/there", "cannot be reached"),
    ("label LINES -m nothing/there", "cannot be reached"),
    ("label LINES -m NUMBER", "no classifier"),
    ("generate 'a film' -m ENC", "writes no text"),
    ("lens 'a film' -m ENC", "language model"),
    ("fill-mask 'a [MASK] film' -m DEC", "ForMaskedLM"),
    ("classify 'a film' -m nothing/there", "cannot be reached"),
    ("classify 'a film' -m nothing.gguf", "nothing.gguf"),
    ("train nothing/there LABELLED -o OUT/x", "cannot be reached"),
    ("train cutaway/smollm2 LABELLED -o OUT/x", "GGUF"),
    ("train some.gguf LABELLED -o OUT/x", "GGUF"),
    ("convert ENC OUT/a.gguf", "bert"),
    ("convert DEC OUT/a.gguf --quantize q9", "q8_0"),
    ("convert DEC OUT/folder --quantize q8_0", ".gguf"),
    ("convert DEC OUT/a.gguf --dtype float16", "--quantize"),
    ("convert DEC OUT/folder --dtype int8", "bfloat16"),
    ("convert DEC DEC", "own folder"),
    ("evaluate nothing/there LABELLED", "cannot be reached"),
    ("models get nothing/there", "cannot be reached"),
    ("models remove nothing/there", "has no model"),
    ("models remove ENC", "Remove it yourself"),
    ("models remove cutaway/sentiment", "stays"),
    ("models get", "name the model"),
    # a model without the head that the task needs
    ("classify 'a film' -m TAGS", "is for token-classification, so it cannot be used by cutaway classify"),
    ("classify 'a film' -m DEC", "cannot be used by cutaway classify"),
    ("classify -m BASE -i LINES", "has no head that labels"),
    ("entities 'a film' -m ENC", "is for text-classification"),
    ("answer 'a film' -m ENC --question film", "is for text-classification"),
    ("sort 'a film' -m BASE --label a --label b", "has no head that labels"),
    ("rerank 'a film' film -m BASE --query film", "has no head that labels"),
    ("choose good bad -m ENC --prompt film", "is for text-classification"),
    ("search LABELLED film -m T5", "gives no vectors of what it reads"),
    ("embed 'a film' -m T5", "gives no vectors of what it reads"),
    # no hub
    ("choose a b --prompt c", "no default model"),
    ("summarize 'a film'", "Pass model="),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), MISTAKES, ids=[row for row, _ in MISTAKES])
def test_a_mistake_ends_in_one_sentence_before_the_work(invoke, monkeypatch, row, said):
    from cutaway.pipelines.base import Pipeline

    monkeypatch.setattr(Pipeline, "_compute", lambda *a, **k: pytest.fail("the model ran before the mistake was seen"))
    code, out, err = invoke(row)
    assert code in (1, 2)
    assert out == ""
    assert said in " ".join(err.split()), err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith(("Usage:", "Try ", "step "))]
    assert len([line for line in lines if line.strip()]) <= 2


@pytest.mark.parametrize(
    ("package", "row"),
    [
        ("sklearn", "train BASE LABELLED -o OUT/x"),
        ("optuna", "train BASE LABELLED -o OUT/x --search 2"),
        ("wandb", "train BASE LABELLED -o OUT/x --report-to wandb"),
        ("sklearn.metrics", "evaluate ENC LABELLED"),
        ("matplotlib", "evaluate ENC LABELLED -o OUT/a.png"),
        ("pyarrow.parquet", "classify -m ENC -i LINES -o OUT/a.parquet"),
        ("seqeval.metrics", "evaluate TAGS TAGGED --task token-classification"),
        ("sacrebleu", "evaluate T5 WRITTEN --task translation"),
        ("rouge_score", "evaluate T5 WRITTEN --task summarization"),
        ("matplotlib", "cluster LABELLED -m BASE -o OUT/a.png"),
        ("sklearn", "cluster LABELLED -m BASE"),
        ("umap", "cluster LABELLED -m BASE --map umap"),
        ("starlette", "label LINES --label a --label b"),
        ("usearch", "search LABELLED film -m BASE --index usearch"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named_before_the_work(invoke, monkeypatch, package, row):
    from cutaway.pipelines.base import Pipeline

    monkeypatch.setattr(Pipeline, "_compute", lambda *a, **k: pytest.fail("the model ran"))
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = invoke(row)
    assert (code, "pip install" in err) == (1, True), err


def test_no_room_for_a_training_is_said_before_it(invoke, monkeypatch):
    from collections import namedtuple

    from cutaway.tuning import fine_tuning

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fine_tuning.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    code, _, err = invoke("train BASE LABELLED -o OUT/x")
    assert (code, "Make room" in err) == (1, True)


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_help_ends_with_an_example(call, command):
    """`-h` is `--help`, and the example is one that the command takes."""
    code, out, err = call(command, "-h")
    assert (code, err) == (0, "")
    assert "".join(EXAMPLES[command].split()) in "".join(out.split())
    name, *words = shlex.split(EXAMPLES[command].removeprefix("cutaway "))
    assert name == command
    commands()[command].make_context(command, words)  # raises where an option or a value is none


def test_every_command_has_an_example():
    assert set(EXAMPLES) == set(commands())


def test_ctrl_c_in_a_table_says_how_to_go_on(invoke, tmp_path, monkeypatch):
    from cutaway.jobs import Job, TableReader

    (tmp_path / "many.txt").write_text("a good film\n" * 5)
    row = f"classify -m ENC -i {tmp_path}/many.txt -o OUT/a.csv"
    scored, seen = Job.scored, []

    def interrupted(self, rows):
        if seen:
            raise KeyboardInterrupt
        seen.append(len(rows))
        return scored(self, rows)

    monkeypatch.setattr(Job, "_chunks", lambda self, reader, start: iter([[r] for r in reader.rows(start)]))
    monkeypatch.setattr(Job, "scored", interrupted)
    code, _, err = invoke(row)
    assert code == 130
    assert "Stopped. 1 row kept in" in err and "the same command goes on" in err
    monkeypatch.setattr(Job, "scored", scored)
    code, _, err = invoke(row)
    assert (code, "Going on after 1 row done" in err) == (0, True)
    assert sum(1 for _ in TableReader(tmp_path / "a.csv").rows()) == 5


def test_progress_says_total_percent_and_time_left(capsys, monkeypatch):
    from cutaway.commands import job_progress

    clock = iter([0.0, 0.0, 100.0])
    monkeypatch.setattr(job_progress.time, "monotonic", lambda: next(clock))
    progress = job_progress.JobProgress(0, 4000)
    progress(1000, 2)
    assert capsys.readouterr().err == "1,000 of 4,000 rows, 25%, 10 a second, 5 min 0 s left, 2 with an error\n"
    assert [job_progress.spell(s) for s in (5, 61, 7260)] == ["5 s", "1 min 1 s", "2 h 1 min"]


def test_a_column_for_each_label(invoke, tmp_path):
    from cutaway.jobs import TableReader

    code, _, err = invoke("classify -m ENC -i TABLE --column review -o OUT/a.csv --columns")
    assert code == 0, err
    for row in TableReader(tmp_path / "a.csv").rows():
        if not row.values["review"]:
            assert not any(row.values[name] for name in ("label", "score_NEGATIVE", "score_POSITIVE"))
            continue
        scores = {name: float(row.values[f"score_{name}"]) for name in ("NEGATIVE", "POSITIVE")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert max(scores, key=scores.get) == row.values["label"]
        assert "labels" not in row.values


def test_models_lists_folders_and_gguf_files(invoke, places, tmp_path):
    entries = {Path(e["name"]).name: e for e in json.loads(invoke("models --folder MODELS --json")[1])}
    assert (entries["enc"]["source"], entries["enc"]["task"]) == ("folder", "text-classification")
    assert entries["enc"]["parameters"] > 1000
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"\3\0\0\0" + bytes(16))
    assert "a.gguf" in invoke("models")[1]
    assert (tmp_path / "a.gguf").exists()


def numbers() -> list[tuple[str, str]]:
    """Each option of a command that is a float."""
    from cutaway.cli import app

    callbacks = {info.name or info.callback.__name__: info.callback for info in app.registered_commands}
    found = []
    for name, command in commands().items():
        kinds = typing.get_type_hints(callbacks[name])
        found += [
            (name, option.opts[0])
            for option in command.params
            if option.name in kinds and float in (kinds[option.name], *typing.get_args(kinds[option.name]))
        ]
    return found


@pytest.mark.parametrize(("command", "option"), numbers())
@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_number_of_a_command_is_nan_or_infinite(call, command, option, number):
    # texts, tables, models, of which none is looked at before
    required = [p for p in commands()[command].params if p.required]
    needed = [f"{p.opts[0]}=it" if p.param_type_name == "option" else "it" for p in required]
    code, out, err = call(command, *needed, f"{option}={number}")
    assert code == 2, err
    assert out == ""
    assert option in err
    assert "Traceback" not in err
