"""The command of each task: texts and tables."""

from __future__ import annotations

import json

import pytest

from cutaway.commands.task import COMMANDS
from cutaway.generate.settings import KNOWN
from cutaway.jobs import TASKS, TableReader
from cutaway.pipelines.factory import task_of
from cutaway.pipelines.generating import GeneratingPipeline


def test_every_task_has_one_command():
    assert sorted(spec.task for spec in COMMANDS) == sorted(TASKS)
    assert all(task_of(spec.task) for spec in COMMANDS)


@pytest.mark.parametrize("spec", COMMANDS, ids=lambda spec: spec.name)
def test_options_are_settings_of_the_pipeline(spec, call):
    import importlib

    _, entry = task_of(spec.task)
    pipeline = getattr(importlib.import_module(entry.module), entry.pipeline)
    generation = KNOWN if issubclass(pipeline, GeneratingPipeline) else frozenset()
    assert set(spec.own) <= {*pipeline.settings, *generation}
    code, out, _ = call(spec.name, "--help")
    assert code == 0
    assert spec.help.split()[0] in out


def test_a_table_is_classified(tmp_path, call):
    (tmp_path / "in.csv").write_text('id,review\n1,"A wonderful, warm film."\n2,Dull and far too long.\n')
    target = tmp_path / "out.jsonl"
    code, out, err = call("classify", "-i", str(tmp_path / "in.csv"), "-o", str(target), "--column", "review")
    assert (code, out) == (0, "")
    assert "2 rows" in err
    rows = [row.values for row in TableReader(target).rows()]
    assert [row["label"] for row in rows] == ["POSITIVE", "NEGATIVE"]
    assert [row["id"] for row in rows] == ["1", "2"]
    code, _, err = call("classify", "-i", str(tmp_path / "in.csv"), "-o", str(target), "--column", "review")
    assert code == 1
    assert "exists" in err


def test_a_text_that_is_too_long_keeps_its_row(tmp_path, call):
    (tmp_path / "in.txt").write_text("Good.\n" + "word " * 2000 + "\nBad.\n")
    code, out, _ = call("classify", "-i", str(tmp_path / "in.txt"))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["label"] for row in rows] == ["POSITIVE", None, "NEGATIVE"]
    assert "tokens" in rows[1]["error"]


def test_wrong_use_is_named_before_a_model_is_loaded(tmp_path, call):
    assert "--output needs --input" in call("classify", "a", "-o", str(tmp_path / "out.csv"))[2]
    assert "classify reads text, text_pair" in call("classify", "a", "--column", "x=y")[2]
    (tmp_path / "in.csv").write_text("review\na\n")
    code, _, err = call("classify", "--model", "no/model", "-i", str(tmp_path / "in.csv"))
    assert code == 1
    assert "no column 'text'" in err


def test_an_empty_answer_says_why(tmp_path, call):
    import tiny
    import torch

    import cutaway

    folder = tiny.encoder_decoder(tmp_path / "model")
    model = cutaway.AutoModelForSeq2SeqLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as likely: the first of them, padding, is no word
    model.save_pretrained(folder)
    code, out, err = call("rewrite", "--model", str(folder), "a good film", "--max-new-tokens", "2")
    assert code == 0 and not out.strip()
    assert "An answer is empty: the model ended it before the first word" in err
