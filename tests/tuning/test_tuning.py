"""`cutaway train`: what a table must be, the split, the training, its stop and its report."""

from __future__ import annotations

import json
import random
import re

import pytest
from interrupted_training import interrupted_after

import cutaway
from cutaway.errors import InputError
from cutaway.pipelines.row_faults import faults
from cutaway.tuning import FineTuning, read
from cutaway.tuning.labelled import Labelled
from cutaway.tuning.measures import measures_of
from cutaway.tuning.report import write
from cutaway.tuning.split import stratified

WORDS = ["the", "film", "story", "plot", "actor", "scene", "good", "fine", "warm", "bad", "dull", "poor"]
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder without a head, and its vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "<", ">", "script"])
    )
    config = cutaway.BertConfig(
        vocab_size=len(WORDS) + 8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=24,
    )  # fmt: skip
    cutaway.set_seed(0)
    cutaway.BertModel(config).save_pretrained(folder)
    return str(folder)


def reviews(n: int = 40) -> list[dict[str, str]]:
    draw = random.Random(0)
    rows = []
    for i in range(n):
        words = [*draw.choices(WORDS[:6], k=3), draw.choice(WORDS[6:9] if i % 2 else WORDS[9:])]
        said = i % 2 if i % 10 else 1 - i % 2
        rows.append({"text": " ".join(words), "label": ("good", HOSTILE)[said]})
    return rows


def table(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_labels_are_what_they_look_like(tmp_path):
    def kind(*labels):
        data = read(table(tmp_path / "a.jsonl", [{"text": "a", "label": x} for x in labels]), "text", "label")
        return data.kind, data.names

    assert kind("b", "a", "b") == ("one", ("a", "b"))
    assert kind(10, 9, 9) == ("one", ("9", "10"))
    assert kind(1.0, 0.0) == ("one", ("0", "1"))
    assert kind("1.5", 2) == ("number", ())
    assert kind(["x"], [], ["y", "x"]) == ("several", ("x", "y"))
    assert kind('["x"]', "[]") == ("several", ("x",))


def test_rows_that_cannot_be_used_are_named(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "", "label": "x"}, {"text": "b", "label": None}]
    with pytest.raises(InputError, match=r"row 2: 'text' holds '', no text; row 3: 'label' is empty\. Correct them"):
        read(table(tmp_path / "a.jsonl", rows), "text", "label")
    with pytest.raises(InputError, match=r"no column 'lable'; it has 'text', 'label'\. Did you mean 'label'"):
        read(str(tmp_path / "a.jsonl"), "text", "lable")
    with pytest.raises(InputError, match="only the label x"):
        read(table(tmp_path / "a.jsonl", rows[:1]), "text", "label")
    with pytest.raises(InputError, match="'x', which no training row has"):
        read(table(tmp_path / "a.jsonl", rows[:1]), "text", "label", names=("y", "z"))
    (tmp_path / "a.csv").write_text("text,label\na,b,c\n")
    with pytest.raises(InputError, match="row 1: the row has 3 fields"):
        read(str(tmp_path / "a.csv"), "text", "label")


def test_a_folder_of_datasets_with_named_classes(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "set"))
    assert read(str(tmp_path / "set"), "text", "label").labels == ["yes", "no"]
    with pytest.raises(InputError, match="no part 'dev'; it has train"):
        read(str(tmp_path / "set"), "text", "label", split="dev")


def test_each_label_gives_its_share():
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 9 + ["d"]
    data = Labelled("one", [str(i) for i in range(100)], None, labels, ("a", "b", "c", "d"))
    first, second = stratified(data, 0.2, seed=1)
    assert sorted(first + second) == list(range(100))
    assert data.take(second).counts() == {"a": 12, "b": 6, "c": 2, "d": 0}
    assert stratified(data, 0.2, seed=1) == (first, second) != stratified(data, 0.2, seed=2)
    with pytest.raises(InputError, match="cannot be split"):
        stratified(data.take([0, 99]), 0.1, seed=1)


def test_a_table_becomes_a_model_and_a_report(tmp_path, base, call):
    data, out = table(tmp_path / "a.jsonl", reviews()), tmp_path / "out"
    code, said, err = call(
        "train", base, data, "-o", str(out), "--epochs", "2", "--learning-rate", "1e-3", "--validation", "0.25",
        "--balanced", "--freeze", "embed", "--patience", "5",
    )  # fmt: skip
    assert code == 0
    assert "30 rows to train on, 10 to validate with; one label each" in err
    assert re.search(r"^accuracy 0\.\d+$|^accuracy 1", said, re.M)
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": HOSTILE, "1": "good"}
    answers = call("classify", "--model", str(out), "--json", "the good film")
    assert {entry["label"] for entry in json.loads(answers[1])["labels"]} == {HOSTILE, "good"}
    page = (out / "report.html").read_text()
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"https?://|src=\"(?!data:)| style=", page)
    assert "The most confident mistakes" in page and re.search(r'class="t [af]4"', page)
    assert (out / "curves.png").stat().st_size > 1000 < (out / "validation.png").stat().st_size
    code, _, err = call("train", base, data, "-o", str(out))
    assert code == 1 and "go on with --resume" in err


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, base, call, monkeypatch):
    data = table(tmp_path / "a.jsonl", reviews())
    given = ["train", base, data, "--max-steps", "6", "--batch-size", "8", "-o"]
    assert call(*given, str(tmp_path / "whole"))[0] == 0
    with interrupted_after(3, monkeypatch):
        code, _, err = call(*given, str(tmp_path / "out"))
    assert code == 130 and "--resume goes on" in err
    assert (tmp_path / "out" / "checkpoint-3").is_dir()
    other = {"--max-steps": ("9", "max_steps = 6, now it is 9"), "--warmup": ("0.5", "warmup_ratio"),
             "--weight-decay": ("0.5", "weight_decay"), "--seed": ("1", "seed"),
             "--max-length": ("9", "max_length = null, now it is 9")}  # fmt: skip
    for option, (value, fault) in other.items():  # the last of an option counts
        code, _, err = call(*given, str(tmp_path / "out"), "--resume", option, value)
        assert code == 1 and fault in " ".join(err.split()), err
    assert call(*given, str(tmp_path / "out"), "--resume")[0] == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert files[0] == files[1]
    code, _, err = call(
        "train", base, table(tmp_path / "a.jsonl", reviews(50)), "-o", str(tmp_path / "out"), "--resume"
    )
    assert code == 1 and "another training and validation" in err


def test_a_short_warm_up_is_left_out_in_python_too_and_a_resume_keeps_it_so(tmp_path, base):
    data = Labelled("one", [f"the {WORDS[i % 12]}" for i in range(24)], None, ["a", "b"] * 12, ("a", "b"))
    settings = {"max_steps": 3, "disable_tqdm": True, "warmup_ratio": 0.1}
    trainer = FineTuning(base, data, data, settings).run(tmp_path / "out").trainer
    assert trainer.args.warmup_ratio == 0.0
    again = FineTuning(base, data, data, settings).run(tmp_path / "out", resume=True)
    assert again.trainer.state.global_step == 3
    with pytest.raises(InputError, match=r"learning_rate = 5e-05, now it is 0\.1: --resume"):
        FineTuning(base, data, data, {**settings, "learning_rate": 0.1}).run(tmp_path / "out", resume=True)


@pytest.mark.parametrize("kind", ["several", "number"])
def test_several_labels_numbers_and_pairs(tmp_path, base, kind):
    draw = random.Random(1)
    labels = [("a",), ("a", "b"), ()] * 8 if kind == "several" else [draw.random() for _ in range(24)]
    names = ("a", "b") if kind == "several" else ()
    data = Labelled(kind, [f"the {WORDS[i % 12]}" for i in range(24)], ["film"] * 24, labels, names)
    tuning = FineTuning(base, data, data, {"max_steps": 3, "disable_tqdm": True, "num_train_epochs": 1})
    outcome = tuning.run(tmp_path / "out")
    write(tuning, outcome, tmp_path / "out")
    assert "eval_loss" in outcome.metrics
    answer = cutaway.pipeline("text-classification", str(tmp_path / "out"))({"text": "the film", "text_pair": "film"})
    assert answer["label"] in ("a", "b", "LABEL_0")
    page = (tmp_path / "out" / "report.html").read_text()
    mean = sum(labels) / 24 if kind == "number" else 0
    off = sum(abs(mean - label) for label in labels) / 24 if kind == "number" else 0
    assert (f"would be off by {off:.4f} on average" in page) == (kind == "number")


def test_a_head_for_the_same_labels_is_kept(tmp_path):
    data = Labelled("one", ["good", "bad"], None, ["POSITIVE", "NEGATIVE"], ("NEGATIVE", "POSITIVE"))
    model = FineTuning("cutaway/sentiment", data, data)._model()
    own = cutaway.AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment")
    assert (model.state_dict()["classifier.weight"] == own.state_dict()["classifier.weight"]).all()


def test_measures_by_their_definitions():
    import numpy as np

    logits, labels = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    assert measures_of("several")((logits, labels)) == {"micro_f1": 0.8, "exact": 0.5}
    assert measures_of("one")((logits, np.array([0, 0]))) == {"accuracy": 0.5}
    assert measures_of("number")((np.array([[1.0], [3.0]]), np.array([1.0, 2.0]))) == {
        "mean_absolute_error": 0.5, "pearson": pytest.approx(1.0),
    }  # fmt: skip


def test_each_evaluation_notes_what_is_wrong_and_how_sure_it_was(base, tmp_path):
    """validation.json after each epoch: the confusion's counts, whose diagonal is the accuracy that was logged."""
    data = read(table(tmp_path / "a.jsonl", reviews()), "text", "label")
    tuning = FineTuning(base, data, data, settings={"num_train_epochs": 2, "report_to": [], "disable_tqdm": True})
    outcome = tuning.run(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert told["labels"] == list(data.names)
    history = [e for e in outcome.trainer.state.log_history if "eval_accuracy" in e]
    by_step = {entry["step"]: entry["eval_accuracy"] for entry in history}
    assert [one["step"] for one in told["evaluations"]] == sorted(by_step)
    for one in told["evaluations"]:
        confusion = one["confusion"]
        assert sum(map(sum, confusion)) == len(data.texts)
        right = sum(confusion[i][i] for i in range(len(confusion))) / len(data.texts)
        assert right == pytest.approx(by_step[one["step"]])
        bins = one["reliability"]
        assert sum(one_bin["share"] for one_bin in bins) == pytest.approx(1)
        assert sum(one_bin["share"] * one_bin["accuracy"] for one_bin in bins) == pytest.approx(right)
        assert all(0.5 <= one_bin["confidence"] <= 1 for one_bin in bins)


def test_the_same_fault_is_said_once_with_the_first_rows_that_have_it(tmp_path):
    rows = [{"text": "a", "label": "x"}, *[{"text": "", "label": "x"}] * 8, {"text": "b", "label": None}]
    said = r"rows 2, 3, 4, 5, 6 and 3 more: 'text' holds '', no text; row 10: 'label' is empty\. Correct"
    with pytest.raises(InputError, match=said):
        read(table(tmp_path / "a.jsonl", rows), "text", "label")
    different = [{"text": "a", "label": float("inf")}, *[{"text": f"{i}", "label": ""} for i in range(2)]]
    assert faults([(i, f"fault {i}") for i in range(9)]).endswith("row 4: fault 4; and 4 rows with other faults")
    with pytest.raises(InputError, match="row 1: 'label' is inf; rows 2, 3: 'label' is empty"):
        read(table(tmp_path / "a.jsonl", different), "text", "label")


def test_a_warm_up_shorter_than_a_step_is_left_out(tmp_path, base, call):
    data = table(tmp_path / "a.jsonl", reviews())
    code, _, err = call("train", base, data, "-o", str(tmp_path / "out"), "--max-steps", "3")
    assert code == 0
    assert "rate 5e-05" in next(line for line in err.splitlines() if line.startswith("step 1/3"))


def test_a_misspelt_task_names_those_like_it(tmp_path, base, call):
    code, _, err = call("train", base, "a.jsonl", "-o", str(tmp_path / "out"), "--task", "token-clasification")
    assert code == 2 and "Did you mean 'token-classification'" in err


def test_labels_that_only_look_like_numbers_are_words(tmp_path) -> None:
    """They are put in order as words: Python reads neither "--5" nor thousands of digits as a number."""
    path = tmp_path / "a.csv"
    path.write_text("text,label\ngood film,--5\nbad plot,5\nlong,{}\n".format("9" * 5000), encoding="utf-8")
    assert set(read(path, text="text", label="label").names) == {"--5", "5", "9" * 5000}
    path.write_text("text,label\ngood film,-5\nbad plot,10\nlong,9\n", encoding="utf-8")
    assert read(path, text="text", label="label").names == ("-5", "9", "10")
