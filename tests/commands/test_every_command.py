"""Every command x documented input x option runs; what typical mistakes say stands in test_mistakes.py.

`RUNS` is the table. Capital words are places: of models (`models`), or of files (`files`); OUT/name is a file to write.
A new option needs a row: `test_every_option_has_a_row`.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

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
