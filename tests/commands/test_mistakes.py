"""Typical mistakes of every command end in one sentence with the way out, before the work.

A row is written as in test_every_command.py.
"""

from __future__ import annotations

import sys

import pytest

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
