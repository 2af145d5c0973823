from __future__ import annotations

import random

import pytest
import tiny

from cutaway.errors import InputError
from cutaway.pipelines import pipeline
from cutaway.pipelines.plan import batches, windows


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 57, 200])
@pytest.mark.parametrize("overlap", [0, 1, 4, 9])
def test_every_token_is_owned_once(n, overlap):
    found = list(windows(n, 10, overlap))
    owned = [token for _, _, a, b in found for token in range(a, b)]
    assert owned == list(range(n))
    for (start, end, a, b), (after, *_) in zip(found, [*found[1:], (n,)], strict=True):
        assert start <= a <= b <= end <= start + 10
        assert end - after in (overlap, 0)


def test_an_overlap_that_leaves_nothing_new():
    with pytest.raises(InputError, match="0 to 9"):
        list(windows(20, 10, 10))


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_batches_hold_each_row_once_within_their_bounds(rows):
    lengths = [random.Random(0).randrange(60) for _ in range(200)] + [500]
    found = list(batches(lengths, 128, rows))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 128
        assert rows is None or len(batch) <= rows
    assert list(batches([], 128)) == []


def test_500_texts_alone_padded_shuffled_and_in_any_batch(tmp_path):
    pipe = pipeline("text-classification", tiny.classifier(tmp_path))
    draw = random.Random(1)
    texts = [" ".join(draw.choices(tiny.WORDS, k=draw.randrange(0, 50))) for _ in range(500)]
    alone = [pipe(text, top_k=None) for text in texts]
    for size in (None, 1, 7, 500):
        order = draw.sample(range(500), 500)
        answers = pipe([texts[i] for i in order], top_k=None, batch_size=size)
        for i, answer in zip(order, answers, strict=True):
            assert [entry["label"] for entry in answer] == [entry["label"] for entry in alone[i]]
            assert [e["score"] for e in answer] == pytest.approx([e["score"] for e in alone[i]], abs=1e-5)
