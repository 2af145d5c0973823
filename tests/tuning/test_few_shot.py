"""Few labels: pairs, batches, the head, the folder, and what is refused before anything is trained."""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from interrupted_training import interrupted_after

import cutaway
from cutaway.errors import ConfigError, InputError
from cutaway.train import TrainingArguments
from cutaway.train.sentence_losses import CosineSimilarityLoss
from cutaway.tuning import FewLabels, read
from cutaway.tuning.few_shot import BalancedBatches, SameLabelLoss, check_classes, logistic_head
from cutaway.tuning.fine_tuning import without_short_warmup

WORDS = ["the", "film", "story", "plot", "actor", "scene", "good", "fine", "warm", "bad", "dull", "poor"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder without a head, and its vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    config = cutaway.BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=24,
    )  # fmt: skip
    cutaway.set_seed(0)
    cutaway.BertModel(config).save_pretrained(folder)
    return str(folder)


def reviews(n: int = 24) -> list[dict[str, str]]:
    draw = random.Random(0)
    kinds = {"good": WORDS[6:9], "bad": WORDS[9:]}
    return [
        {"text": " ".join([*draw.choices(WORDS[:6], k=3), draw.choice(kinds[label])]), "label": label}
        for i in range(n)
        for label in [("good", "bad")[i % 2]]
    ]


def table(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_loss_is_that_of_all_pairs_with_both_kinds_counting_the_same():
    cutaway.set_seed(0)
    vectors, labels = torch.randn(5, 7), torch.tensor([0, 1, 0, 1, 1])
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    one = CosineSimilarityLoss()

    def of(same):
        chosen = [(i, j) for i, j in pairs if (labels[i] == labels[j]) == same]
        first, second = ([vectors[pair[k]] for pair in chosen] for k in (0, 1))
        return one([torch.stack(first), torch.stack(second)], torch.full((len(chosen),), float(same)))

    torch.testing.assert_close(SameLabelLoss()([vectors], labels), (of(True) + of(False)) / 2)
    torch.testing.assert_close(
        SameLabelLoss()([vectors[:2]], torch.tensor([1, 1])), one([vectors[:1], vectors[1:2]], torch.ones(1))
    )


@pytest.mark.parametrize("size", [4, 7, 32])
def test_batches_hold_each_label_as_often_and_no_row_twice(size):
    labels = [0] * 20 + [1] * 3 + [2] * 5
    made = BalancedBatches(labels, size, seed=1)
    seen: Counter[int] = Counter()
    for epoch in range(30):
        made.set_epoch(epoch)
        batches = list(made)
        assert len(batches) == len(made) == -(-28 // size)
        for batch in batches:
            assert 4 <= len(batch) == len(set(batch)) <= size
            counts = Counter(labels[row] for row in batch)
            assert len(counts) >= 2 and min(counts.values()) >= 2
            seen.update(batch)
        assert batches == list(made)  # the same for the same seed and epoch
    assert set(seen) == set(range(28))
    with pytest.raises(ConfigError, match="give 4 rows or more"):
        BalancedBatches(labels, 3, seed=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_says_what_scikit_learn_s_regression_says(classes):
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(30, 6)), draw.integers(0, classes, 30)
    weight, bias = logistic_head(x, y.tolist(), classes)
    said = torch.as_tensor(x @ weight.T + bias).softmax(-1).numpy()
    np.testing.assert_allclose(said, LogisticRegression(max_iter=1000).fit(x, y).predict_proba(x), atol=1e-6)


def test_a_folder_that_every_command_loads_and_sentence_transformers_reads(tmp_path, base, call):
    data, out = table(tmp_path / "a.jsonl", reviews()), tmp_path / "out"
    code, said, err = call(
        "train", base, data, "-o", str(out), "--task", "few-labels", "--validation", "0.25", "--max-steps", "80",
        "--learning-rate", "5e-3",
    )  # fmt: skip
    assert code == 0, err
    assert "18 rows to train on, 6 to validate with" in err and "--validation TABLE" in err
    assert "accuracy 1.0000" in said
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".bin", ".joblib")]
    page = (out / "report.html").read_text()
    assert "few labels" in page and "calibration" in page
    answers = [
        json.loads(line)
        for line in call("classify", "--model", str(out), "--json", "the good film", "a bad plot")[1].splitlines()
    ]
    assert [answer["labels"][0]["label"] for answer in answers] == ["good", "bad"]
    texts = ["the good film", "scene plot dull"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = pytest.importorskip("sentence_transformers")
        vectors = reference.SentenceTransformer(str(out), device="cpu").encode(texts, convert_to_tensor=True)
    model = cutaway.AutoModelForSequenceClassification.from_pretrained(out).eval()
    batch = cutaway.AutoTokenizer.from_pretrained(out)(texts, padding=True, return_tensors="pt")
    head = model.get_submodule("classifier")
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, head(vectors), rtol=1e-5, atol=1e-5)


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, base, call, monkeypatch):
    data = table(tmp_path / "a.jsonl", reviews())
    given = ["train", base, data, "--task", "few-labels", "--max-steps", "6", "--batch-size", "8", "-o"]
    assert call(*given, str(tmp_path / "whole"))[0] == 0
    with interrupted_after(3, monkeypatch):
        code, _, err = call(*given, str(tmp_path / "out"))
    assert code == 130 and "--resume goes on" in err
    assert call(*given, str(tmp_path / "out"), "--resume")[0] == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert files[0] == files[1]


def test_an_ordinary_training_of_few_rows_names_the_other_way(tmp_path, base, call):
    data = table(tmp_path / "a.jsonl", reviews(12))
    _, _, err = call("train", base, data, "-o", str(tmp_path / "a"), "--max-steps", "1")
    assert "--task few-labels" in err


def test_what_cannot_be_learned_is_said_before_the_work(tmp_path, base, call):
    rows = reviews(8)
    out = str(tmp_path / "out")

    def said(rows, *more):
        code, _, err = call("train", base, table(tmp_path / "a.jsonl", rows), "-o", out, "--task", "few-labels", *more)
        assert code == 1
        return err

    assert "only the label good" in said([row for row in rows if row["label"] == "good"])
    assert "only one row to train on has the label 'odd'" in said([*rows, {"text": "plot", "label": "odd"}])
    assert "no column 'text'" in said([{"mail": row["text"], "label": row["label"]} for row in rows])
    assert "one label of one text" in said([{**row, "label": [row["label"]]} for row in rows])
    assert "whose batches are balanced" in said(rows, "--balanced")
    assert "--lora is not of few-labels" in said(rows, "--lora", "4")
    assert "few rows cannot tell settings apart" in said(rows, "--search", "3")
    assert "give 4 rows or more" in said(rows, "--batch-size", "2")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="nothing to tell apart"):
        check_classes([0, 0])
    labelled = read(table(tmp_path / "a.jsonl", rows), "text", "label")
    pairs = FewLabels(base, labelled.take([0, 1, 2, 3]), labelled, {}, pooling="sum")
    with pytest.raises(ConfigError, match="--pooling sum"):
        pairs.check()


def test_no_warm_up_is_shorter_than_a_step() -> None:
    """Its one step would be at a rate of 0; by epochs as by steps."""
    none = {"warmup_ratio": 0.0, "warmup_steps": 0}
    for asked, said in (
        ({"max_steps": 5, "warmup_ratio": 0.1}, none),
        ({"max_steps": 5, "warmup_steps": 0.1}, none),  # a share, too
        ({"max_steps": 5, "warmup_steps": 1}, {}),  # a number that is asked for stays
        ({"max_steps": 20, "warmup_ratio": 0.1}, {}),
        ({"num_train_epochs": 2, "warmup_ratio": 0.1}, none),
        ({"num_train_epochs": 9, "warmup_ratio": 0.1}, {}),
        ({"num_train_epochs": 9, "warmup_ratio": 0.1, "gradient_accumulation_steps": 2}, none),
        ({"max_steps": 5}, {}),
    ):
        args = TrainingArguments("out", per_device_train_batch_size=32, **asked)
        assert without_short_warmup(args, 64) == said, asked  # two batches an epoch
