from __future__ import annotations

import pytest
import tiny

from cutaway.errors import HubError, InputError
from cutaway.pipelines import factory, pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.classifier(tmp_path_factory.mktemp("classifier"))


@pytest.mark.parametrize("task", ["text-classification", "sentiment-analysis", None])
def test_a_task_and_its_other_name(folder, task):
    pipe = pipeline(task, model=str(folder))
    assert pipe.task == "text-classification"
    assert set(pipe("a good film")[0]) == {"label", "score"}


def test_a_folder_a_path_and_an_object_give_the_same(folder):
    from cutaway.auto import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    answers = [
        pipeline("text-classification", model=folder)("a good film"),
        pipeline("text-classification", model=str(folder), tokenizer=str(folder))("a good film"),
        pipeline("text-classification", model=model, tokenizer=tokenizer)("a good film"),
    ]
    assert answers[0] == answers[1] == answers[2]


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(InputError, match="sentiment-analysis"):
        pipeline("sentiment-analisys")


@pytest.mark.parametrize(
    ("head", "task"),
    [
        ("BertForTokenClassification", "token-classification"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("BertForMaskedLM", "fill-mask"),
        ("BertModel", "feature-extraction"),
    ],
)
def test_the_task_of_a_model_that_is_given_without_one(tmp_path, head, task):
    pipe = pipeline(model=tiny.classifier(tmp_path, head=head))
    assert pipe.task == task
    assert pipeline(model=pipe.model, tokenizer=pipe.tokenizer).task == task


def test_a_task_without_a_default_model_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="Pass model="):
        pipeline("multiple-choice")
    with pytest.raises(HubError, match=r"distilroberta-base.*Pass model="):
        pipeline("fill-mask")


def test_no_task_and_no_model():
    with pytest.raises(InputError, match="a task or a model"):
        pipeline()


def test_the_default_model_out_of_reach_names_the_builtin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="cutaway/sentiment") as caught:
        pipeline("sentiment-analysis")
    assert "distilbert-base-uncased-finetuned-sst-2-english" in str(caught.value)


@pytest.mark.parametrize("name", factory.TASKS["text-classification"].models)
def test_a_local_folder_of_the_default_name_wins(tmp_path, monkeypatch, name):
    tiny.classifier(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert pipeline("sentiment-analysis")("good")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_kk": 2}, "top_k"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"trust_remote_code": True}, "never runs code"),
        ({"framework": "tf"}, "PyTorch"),
        ({"function_to_apply": "softmaxx"}, "softmax"),
    ],
)
def test_wrong_settings_are_named(folder, settings, message):
    with pytest.raises(InputError, match=message):
        pipeline("text-classification", model=folder, **settings)("good")


def test_dtype_and_device(folder):
    pipe = pipeline("text-classification", model=folder, torch_dtype="bfloat16", device=-1)
    assert str(pipe.model.dtype) == "torch.bfloat16"
    assert pipe.device.type == "cpu"
    assert 0 <= pipe("good")[0]["score"] <= 1


def test_the_function_stays_the_function_after_a_pipeline_was_made(folder):
    import cutaway

    pipeline("text-classification", model=folder)
    assert cutaway.pipeline is cutaway.pipelines.pipeline is pipeline
