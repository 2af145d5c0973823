"""A batch is one batch, however it is cut: the same loss, the same gradients, the same weights."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity.pairs import FAMILIES, inputs, pair
from parity.tiny_models import ENCODER_DECODERS, HEADS
from training_samples import EVERY, LABELS, arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import ConfigError, InputError
from cutaway.nn import packed_batch
from cutaway.train.objective import Objective, balanced, joined, kind_of

# (rows in a part, parts in an update) over 16 rows: one batch, halves, and 6 + 6 + 4
LAYOUTS = ((16, 1), (8, 2), (6, 3))


def trained(name: str, folder: Path, size: int, parts: int, steps: int = 2, **more: Any) -> tuple[Any, list[Any]]:
    """(weights after some updates over 16 rows, what was logged)."""
    ours = model(name)
    settings: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.02, "lr_scheduler_type": "constant", **more}
    args = arguments(
        folder, per_device_train_batch_size=size, gradient_accumulation_steps=parts, max_steps=steps, **settings
    )
    pad = ours.config.pad_token_id or 0
    trainer = cutaway.Trainer(model=ours, args=args, train_dataset=rows(name, pad=pad))
    trainer.train()
    return weights(ours), trainer.state.log_history[:-1]


@pytest.mark.parametrize("name", EVERY)
def test_parts_of_a_batch_are_the_batch(name: str, tmp_path: Path) -> None:
    (whole, logs), *others = [trained(name, tmp_path, *layout) for layout in LAYOUTS]
    start = weights(model(name))
    assert furthest(whole, start) > 1e-4  # something was learned
    for cut, told in others:
        assert furthest(whole, cut) < 1e-6
        for one, other in zip(logs, told, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"label_smoothing_factor": 0.1}, {"class_weights": [1.0, 5.0, 0.5]}, {"class_weights": "balanced"}],
    ids=["smoothing", "weights", "balanced"],
)
def test_smoothing_and_weights_do_not_depend_on_the_cut(settings: dict[str, Any], tmp_path: Path) -> None:
    name = "BertForSequenceClassification"
    (whole, logs), *others = [trained(name, tmp_path, *layout, **settings) for layout in LAYOUTS]
    for cut, told in others:
        assert furthest(whole, cut) < 1e-6
        assert told[0]["loss"] == pytest.approx(logs[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "T5ForConditionalGeneration", "GPT2LMHeadModel"])
def test_smoothing_is_what_torch_says(name: str) -> None:
    ours = model(name).eval()
    batch = cutaway.default_data_collator(rows(name))
    logits, labels = ours(**batch).logits, batch["labels"]
    if name == "GPT2LMHeadModel":
        logits, labels = logits[:, :-1], labels[:, 1:]
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=0.2)
    objective = Objective(ours, smoothing=0.2)
    own = objective.sizes(batch)
    assert objective.loss_share(ours, batch, own, own).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_one_batch_has_the_loss_of_the_model(name: str) -> None:
    ours = model(name).eval()
    batch = cutaway.default_data_collator(rows(name, pad=ours.config.pad_token_id or 0))
    objective = Objective(ours)
    own = objective.sizes(batch)
    assert objective.loss_share(ours, batch, own, own).item() == pytest.approx(ours(**batch).loss.item(), rel=1e-5)
    assert kind_of(ours) != "unknown"


def test_a_part_without_labels_counts_nothing(tmp_path: Path) -> None:
    name = "BertForMaskedLM"
    some = rows(name, 4)
    none = [{**row, "labels": torch.full((10,), -100)} for row in rows(name, 4, seed=2)]

    def after(data: list[Any], size: int, parts: int) -> Any:
        ours = model(name)
        settings = {"optim": "sgd", "learning_rate": 0.02, "max_steps": 1, "train_sampling_strategy": "sequential"}
        args = arguments(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=parts, **settings)
        cutaway.Trainer(model=ours, args=args, train_dataset=data).train()
        return weights(ours)

    assert furthest(after(some, 4, 1), after([*none, *some], 4, 2)) < 1e-6
    assert furthest(after(none, 4, 1), weights(model(name))) == 0.0  # nothing to learn, and no NaN


def test_what_was_replaced_is_asked_of_real_tokens_alone() -> None:
    ours = model("ElectraForPreTraining").eval()
    found = rows("ElectraForTokenClassification")
    parts = [cutaway.default_data_collator(part) for part in (found, found[:5], found[5:])]
    for part in parts:
        part["labels"] = part["input_ids"] % 2  # at padding too
    objective = Objective(ours)
    sizes = [objective.sizes(part) for part in parts]
    assert [one["places"] for one in sizes] == [float(part["attention_mask"].sum()) for part in parts]
    whole, *cut = [objective.loss_share(ours, *one, sizes[0]).item() for one in zip(parts, sizes, strict=True)]
    assert sum(cut) == pytest.approx(whole, rel=1e-6)
    assert whole == pytest.approx(ours(**parts[0]).loss.item(), rel=1e-6)


def test_match_upstream_adds_the_parts_up_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "BertForSequenceClassification"
    with caplog.at_level(logging.WARNING, logger="cutaway"):
        _, whole = trained(name, tmp_path, 16, 1, steps=1, max_grad_norm=0.0)
        assert "match_upstream" not in caplog.text
        _, cut = trained(name, tmp_path, 2, 8, steps=1, max_grad_norm=0.0, match_upstream=True)
    assert "match_upstream" in caplog.text
    assert cut[0]["loss"] > 7 * whole[0]["loss"]
    assert cut[0]["grad_norm"] > 7 * whole[0]["grad_norm"]


@pytest.mark.parametrize(
    "name",
    [
        "BertForSequenceClassification", "BertForTokenClassification", "BertForMultipleChoice", "BertForMaskedLM",
        "GPT2LMHeadModel", "LlamaForCausalLM", "T5ForConditionalGeneration", "BertForQuestionAnswering",
    ],
)  # fmt: skip
def test_match_upstream_has_the_figures_of_upstreams_trainer(name: str, tmp_path: Path) -> None:
    cut = {"max_steps": 1, "max_grad_norm": 0.0, "train_sampling_strategy": "sequential"}
    cut |= {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 3}
    ours = model(name)
    ours.save_pretrained(tmp_path / "start")
    data = rows(name, pad=ours.config.pad_token_id or 0)
    told = []
    for match in (True, False):
        trainer = cutaway.Trainer(
            model=model(name), args=arguments(tmp_path / "ours", match_upstream=match, **cut), train_dataset=data
        )
        trainer.train()
        told.append(trainer.state.log_history[0])
    args = transformers.TrainingArguments(
        str(tmp_path / "theirs"), use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1,
        save_strategy="no", **cut,
    )  # fmt: skip
    fields = {"num_labels": 2} if name.endswith("QuestionAnswering") else {}  # upstream makes as many outputs
    start = getattr(transformers, name).from_pretrained(tmp_path / "start", **fields)
    theirs = transformers.Trainer(model=start, args=args, train_dataset=data)
    theirs.remove_callback(transformers.PrinterCallback)
    theirs.train()
    wanted = theirs.state.log_history[0]
    assert told[0]["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
    assert told[0]["grad_norm"] == pytest.approx(float(wanted["grad_norm"]), rel=1e-4)
    right = name == "LlamaForCausalLM"  # the one of these that upstream does not get wrong
    assert (told[1]["loss"] == pytest.approx(wanted["loss"], rel=1e-4)) == right


# DeBERTa computes no padding; upstream, GPT-Neo's words of padding without text in their window see what is hidden
SPANS = [f for f in FAMILIES if "ForQuestionAnswering" in HEADS.get(f, ()) and f not in ("deberta-v2", "gpt_neo")]


@pytest.mark.parametrize("small", [0, 128])
@pytest.mark.parametrize("family", SPANS)
def test_match_upstream_has_upstreams_loss_of_spans_in_every_family(
    family: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", small)
    fields = {"decoder_start_token_id": 0} if family in ENCODER_DECODERS else {}
    theirs, ours = pair(family, "ForQuestionAnswering", **fields)
    if family in ("modernbert", "mistral", "smollm3"):  # what sees nothing in its window gets zeros
        theirs.set_attn_implementation("sdpa")
    batch = inputs(family, (9, 4, 7), "right", ours.config.pad_token_id or 0)
    batch = {name: value for name, value in batch.items() if not name.startswith("decoder")}
    batch["start_positions"], batch["end_positions"] = torch.tensor([2, 1, 4]), torch.tensor([5, 3, 6])
    wanted = theirs(**batch).loss.item()
    matched, sizes = Objective(ours, match_upstream=True), {"start": 3.0, "end": 3.0}
    assert matched.loss_share(ours, batch, sizes, sizes).item() == pytest.approx(wanted, rel=1e-5)
    sums, _ = matched.sums(ours, batch, matched.sizes(batch))
    assert joined(sums, matched.sizes(batch)).item() == pytest.approx(wanted, rel=1e-5)


def test_match_upstream_is_refused_for_spans_where_no_padding_is_computed() -> None:
    _, ours = pair("deberta-v2", "ForQuestionAnswering")
    batch = inputs("deberta-v2", (9, 4, 7), "right", 0)
    batch["start_positions"], batch["end_positions"] = torch.tensor([2, 1, 4]), torch.tensor([5, 3, 6])
    matched = Objective(ours, match_upstream=True)
    with pytest.raises(InputError, match="match_upstream looks for answers in padding"):
        matched.sums(ours, batch, matched.sizes(batch))
    one_length = {name: value[:1] for name, value in batch.items()}
    assert matched.sums(ours, one_length, matched.sizes(one_length))[0]["start"] > 0


@pytest.mark.parametrize("small", [0, 128])
@pytest.mark.parametrize("name", ["BertForQuestionAnswering", "RobertaForQuestionAnswering"])
def test_match_upstream_looks_for_answers_in_padding_too(
    name: str, small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_batch, "SMALL", small)
    ours = model(name).eval()
    ours.save_pretrained(tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path, num_labels=2)
    batch = cutaway.default_data_collator(rows(name, pad=ours.config.pad_token_id or 0))
    assert not bool(batch["attention_mask"].all())
    matched, right = Objective(ours, match_upstream=True), Objective(ours)
    sizes = right.sizes(batch)
    wanted = theirs(**batch).loss.item()
    assert matched.loss_share(ours, batch, sizes, sizes).item() == pytest.approx(wanted, rel=1e-5)
    sums, _ = matched.sums(ours, batch, matched.sizes(batch))
    assert joined(sums, matched.sizes(batch)).item() == pytest.approx(wanted, rel=1e-5)
    assert right.loss_share(ours, batch, sizes, sizes).item() == pytest.approx(ours(**batch).loss.item(), rel=1e-5)
    assert abs(ours(**batch).loss.item() - wanted) > 1e-3


def test_balanced_weights_make_classes_count_alike() -> None:
    found = balanced([0, 0, 0, 1], 3)
    assert found.tolist() == pytest.approx([4 / 9, 4 / 3, 0.0])
    assert found[0] * 3 == pytest.approx(float(found[1]))


def test_weights_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    ours = model("BertForQuestionAnswering")
    with pytest.raises(ConfigError, match="class_weights"):
        Objective(ours, weights=torch.ones(LABELS))
    args = arguments(tmp_path, class_weights=[1.0])
    name = "BertForSequenceClassification"
    with pytest.raises(ValueError, match="class_weights has 1 values"):
        cutaway.Trainer(model=model(name), args=args, train_dataset=rows(name)).train()


def test_the_table_in_the_docs_is_what_its_recipe_writes() -> None:
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "accumulation.py"
    done = subprocess.run([sys.executable, str(recipe), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
