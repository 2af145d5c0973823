"""Batches for language models, tokens and target texts, and the cosine schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import TEXT, wordpiece
from training_samples import model

import cutaway
from cutaway.errors import ConfigError, InputError
from cutaway.train.masking import continuations


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    wordpiece().save_pretrained(tmp_path)
    return cutaway.AutoTokenizer.from_pretrained(tmp_path)


def encoded(tokenizer: Any, n: int = 8) -> list[dict[str, Any]]:
    words = TEXT.split()
    return [dict(tokenizer(" ".join(words[i : i + 3 + i % 5]))) for i in range(n)]


def test_masks_fall_where_they_may_and_as_often_as_asked(tokenizer: Any) -> None:
    rows = encoded(tokenizer) * 60
    collate = cutaway.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=1)
    batch = collate(rows)
    plain = tokenizer.pad([dict(r) for r in rows], return_tensors="pt")["input_ids"]
    chosen = batch["labels"] != -100
    special = torch.isin(plain, torch.tensor(tokenizer.all_special_ids))
    assert not (chosen & special).any()
    assert (batch["labels"][chosen] == plain[chosen]).all()
    assert (batch["input_ids"][~chosen] == plain[~chosen]).all()
    assert chosen.sum().item() / (~special).sum().item() == pytest.approx(0.3, abs=0.05)
    now = batch["input_ids"][chosen]
    assert (now == tokenizer.mask_token_id).float().mean().item() == pytest.approx(0.8, abs=0.06)
    assert (now == plain[chosen]).float().mean().item() == pytest.approx(0.1, abs=0.05)


def test_masks_are_new_each_time_and_the_same_for_a_seed(tokenizer: Any) -> None:
    def masks(seed: int) -> list[torch.Tensor]:
        collate = cutaway.DataCollatorForLanguageModeling(tokenizer, seed=seed, mlm_probability=0.5)
        return [collate(encoded(tokenizer))["labels"] for _ in range(2)]

    one, again, other = masks(1), masks(1), masks(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], other[0])
    marked = [{**row, "special_tokens_mask": [1] * len(row["input_ids"])} for row in encoded(tokenizer)]
    collate = cutaway.DataCollatorForLanguageModeling(tokenizer, mlm_probability=1.0)
    assert (collate(marked)["labels"] == -100).all()
    assert (collate(encoded(tokenizer))["labels"] != -100).any()


def test_whole_words_are_hidden_whole(tokenizer: Any) -> None:
    words = [dict(tokenizer(t)) for t in ("the trustworthy eu and", "goodness is a filmed thing", "i believe it")] * 90
    collate = cutaway.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=1, whole_word_mask=True)
    batch = collate(words)
    plain = tokenizer.pad([dict(r) for r in words], return_tensors="pt")["input_ids"]
    chosen, hidden = batch["labels"] != -100, batch["input_ids"] == tokenizer.mask_token_id
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    goes_on = torch.tensor([t.startswith("##") for t in tokens])[plain]
    assert goes_on.any()
    for mark in (chosen, hidden):
        assert (mark[:, 1:] == mark[:, :-1])[goes_on[:, 1:]].all()
    begins = ~goes_on & ~torch.isin(plain, torch.tensor(tokenizer.all_special_ids))
    assert chosen[begins].float().mean().item() == pytest.approx(0.3, abs=0.05)
    spaced = continuations(["<s>", "\u0120the", "re", "\u0120is", None])
    assert spaced.tolist() == [True, False, True, False, False]


def test_a_causal_model_learns_the_text_but_no_padding(tokenizer: Any) -> None:
    collate = cutaway.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    batch = collate(encoded(tokenizer))
    assert ((batch["labels"] == -100) == (batch["attention_mask"] == 0)).all()
    assert torch.equal(collate([[5, 6], [7]])["labels"], torch.tensor([[5, 6], [7, -100]]))
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="mlm=False"):
        cutaway.DataCollatorForLanguageModeling(tokenizer)
    for wrong in ({"mlm_probability": 1.5}, {"mask_replace_prob": 0.9, "random_replace_prob": 0.2}):
        with pytest.raises(ConfigError, match="_prob"):
            cutaway.DataCollatorForLanguageModeling(tokenizer, mlm=False, **wrong)
    with pytest.raises(InputError, match="no examples"):
        collate([])


def test_token_labels_are_padded_like_upstream(tokenizer: Any) -> None:
    rows = [{**row, "labels": list(range(len(row["input_ids"])))} for row in encoded(tokenizer, 4)]
    for side in ("right", "left"):
        tokenizer.padding_side = side
        upstream = wordpiece()
        upstream.padding_side = side
        ours = cutaway.DataCollatorForTokenClassification(tokenizer)(rows)
        theirs = transformers.DataCollatorForTokenClassification(upstream)(rows)
        assert torch.equal(ours["labels"], theirs["labels"])
        assert torch.equal(ours["input_ids"], theirs["input_ids"])
    with pytest.raises(InputError, match="2 labels but"):
        cutaway.DataCollatorForTokenClassification(tokenizer)([{**rows[0], "labels": [1, 2]}])
    assert "labels" not in cutaway.DataCollatorForTokenClassification(tokenizer)(encoded(tokenizer, 2))


def test_targets_are_padded_and_shifted_right(tokenizer: Any) -> None:
    ours = model("T5ForConditionalGeneration", vocab_size=len(tokenizer))
    rows = [{**row, "labels": [7 + i] * (2 + i)} for i, row in enumerate(encoded(tokenizer, 3))]
    rows = [{k: v for k, v in row.items() if k != "token_type_ids"} for row in rows]
    batch = cutaway.DataCollatorForSeq2Seq(tokenizer, model=ours, pad_to_multiple_of=8)(rows)
    assert batch["labels"].tolist()[0] == [7, 7, *[-100] * 6]
    assert batch["decoder_input_ids"].tolist()[0] == [0, 7, 7, *[0] * 5]
    assert batch["input_ids"].shape[1] % 8 == 0
    given = ours(**batch).loss.item()
    del batch["decoder_input_ids"]
    assert ours(**batch).loss.item() == given
    with pytest.raises(ConfigError, match="no decoder"):
        cutaway.DataCollatorForSeq2Seq(tokenizer, model=model("BertForMaskedLM"))(rows)
    assert "labels" not in cutaway.DataCollatorForSeq2Seq(tokenizer)(encoded(tokenizer, 2))


def test_rows_of_one_length_are_stacked() -> None:
    batch = cutaway.default_data_collator(
        [{"x": [1, 2], "label": 0, "text": "a"}, {"x": [3, 4], "label": 1, "text": "b"}]
    )
    assert batch["x"].tolist() == [[1, 2], [3, 4]]
    assert batch["labels"].tolist() == [0, 1]
    assert "text" not in batch
    assert cutaway.default_data_collator([{"x": 0.5}])["x"].dtype == torch.float32
    with pytest.raises(InputError, match="'x'"):
        cutaway.default_data_collator([{"x": [1, 2]}, {"x": [3]}])
    with pytest.raises(InputError, match="no examples"):
        cutaway.default_data_collator([])


@pytest.mark.parametrize(("warm", "total", "waves"), [(0, 7, 0.5), (3, 20, 0.5), (2, 10, 1.5)])
def test_cosine_equals_transformers(warm: int, total: int, waves: float) -> None:
    made = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5) for _ in range(2)]
    ours = cutaway.get_cosine_schedule_with_warmup(made[0], warm, total, waves)
    theirs = transformers.get_cosine_schedule_with_warmup(made[1], warm, total, waves)
    assert [ours.lr_lambdas[0](s) for s in range(25)] == [theirs.lr_lambdas[0](s) for s in range(25)]
    assert cutaway.get_constant_schedule(made[0]).lr_lambdas[0](9) == 1.0
