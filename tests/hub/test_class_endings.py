"""The ends of published class names: one table, which the loaders, the pipelines and the local models read."""

from pathlib import Path

import pytest

import cutaway
from cutaway.hub.class_endings import CLASS_ENDINGS, ending_of
from cutaway.pipelines.factory import TASKS


@pytest.mark.parametrize("end", CLASS_ENDINGS)
def test_an_ending_is_that_of_the_class_that_loads_it(end):
    entry = CLASS_ENDINGS[end]
    loader = getattr(cutaway, entry.auto)
    assert end in {loader.ending, *loader.others.values()}
    assert entry.task in TASKS


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("GPT2LMHeadModel", "text-generation"),
        ("GPT2Model", "feature-extraction"),
        ("MarianMTModel", "text2text-generation"),
        ("BertForTokenClassification", "token-classification"),
        ("", None),
    ],
)
def test_the_task_of_a_class_is_told_by_its_end(name, task):
    end = ending_of(name)
    assert (None if end is None else end.task) == task


def test_the_table_stands_once():
    tables = [
        path.name
        for path in Path(cutaway.__file__).parent.rglob("*.py")
        if '"ForSequenceClassification": ' in path.read_text(encoding="utf-8")
    ]
    assert tables == ["class_endings.py"]
