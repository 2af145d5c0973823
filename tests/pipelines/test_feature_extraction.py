from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch

from cutaway.errors import InputError
from cutaway.pipelines import pipeline

TEXTS = [f"{'good ' * (i % 9)}film {i}" for i in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.classifier(tmp_path_factory.mktemp("encoder"), head="BertModel")


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("feature-extraction", folder)


def hidden(pipe, text):
    """[tokens, hidden] from the model itself."""
    with torch.no_grad():
        return pipe.model(**pipe.tokenizer(text, return_tensors="pt")).last_hidden_state[0]


COUNT = torch.arange(1, 1000)
POOL = {
    "mean": lambda h: h.mean(0),
    "cls": lambda h: h[0],
    "max": lambda h: h.amax(0),
    "lasttoken": lambda h: h[-1],
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / len(h) ** 0.5,
    "weightedmean": lambda h: (h * COUNT[: len(h), None]).sum(0) / COUNT[: len(h)].sum(),
}


@pytest.mark.parametrize("pooling", POOL)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_is_that_of_the_tokens(pipe, pooling, normalize):
    vectors = pipe(TEXTS, pooling=pooling, normalize=normalize, return_tensors="pt")
    assert vectors.shape == (len(TEXTS), 32)
    for text, vector in zip(TEXTS, vectors, strict=True):
        expected = POOL[pooling](hidden(pipe, text))
        expected = expected / expected.norm() if normalize else expected
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)


def test_arrays_never_were_lists(pipe, monkeypatch):
    listed = pipe(TEXTS, pooling="mean")
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda self: pytest.fail("a list") if self.is_floating_point() else tolist(self)
    )
    array = pipe(TEXTS, pooling="mean", return_tensors="np")
    assert isinstance(array, np.ndarray) and array.dtype == np.float32
    np.testing.assert_allclose(array, np.array(listed, dtype=np.float32), atol=1e-6)
    assert pipe(TEXTS[0], pooling="cls", return_tensors="np").shape == (32,)
    assert pipe(TEXTS[3], return_tensors="np").shape[::2] == (1, 32)


def test_vectors_can_be_trained_on(pipe):
    vectors = pipe(TEXTS[:2], pooling="mean", return_tensors="pt")
    weight = torch.zeros(32, requires_grad=True)
    (vectors @ weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("size", [1, 4, None])
def test_batches_change_nothing(pipe, size):
    whole = pipe(TEXTS, pooling="mean", return_tensors="pt", batch_size=size)
    alone = torch.stack([pipe(text, pooling="mean", return_tensors="pt") for text in TEXTS])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)


def test_a_stream_is_read_in_bounded_pieces(pipe, monkeypatch):
    from cutaway.pipelines import base

    monkeypatch.setattr(base, "WINDOW_TOKENS", 200)
    read = []

    def stream():
        for i in range(10_000):
            read.append(i)
            yield "good film"

    answers = pipe(stream(), pooling="mean", return_tensors="pt")
    for i in range(100):
        next(answers)
        assert len(read) <= i + 1 + 2 * base.READ_AT_ONCE


def test_each_gives_one_typed_result_per_input(pipe):
    for inputs in ("good", ["good", "bad film"], iter(["good"] * 3)):
        results = list(pipe.each(inputs, pooling="mean"))
        assert all(type(result).__name__ == "Features" and result.vectors.shape == (32,) for result in results)
    assert len(results) == 3


def test_a_long_text(pipe, caplog):
    text = " ".join(["good bad film not"] * 40)  # 160 tokens, 64 fit
    with pytest.raises(InputError, match=r'162 tokens.*takes 64.*long="truncate".*long="window"'):
        pipe(["good", text])
    [result] = pipe.each([text], long="truncate", pooling="mean")
    assert result.cut == 98
    assert "98 tokens were cut in all" in caplog.text
    assert len(pipe(text, long="window")[0]) == 162


@pytest.mark.parametrize("overlap", [0, 7, 30, None])
def test_windows_give_each_token_once_from_the_window_with_most_context(pipe, overlap):
    words = [f"{a}{b}" for a in ("good", "bad", "film", "not", "one") for b in "abcdefghijklmnopqrstuvwxyz"]
    text = " ".join(words)
    tokens = pipe.tokenizer(text)["input_ids"]
    got = pipe(text, long="window", overlap=overlap, return_tensors="pt")[0]
    assert len(got) == len(tokens)
    step = 62 - (15 if overlap is None else overlap)
    body, n, best = tokens[1:-1], len(tokens) - 2, {}
    for start in range(0, n, step):
        end = min(start + 62, n)
        with torch.no_grad():
            out = pipe.model(input_ids=torch.tensor([[tokens[0], *body[start:end], tokens[-1]]])).last_hidden_state[0]
        for place in range(start, end):
            left = place - start if start else n
            right = end - 1 - place if end < n else n
            best.setdefault(place, []).append((min(left, right), out[place - start + 1]))
        if end == n:
            break
    for place in range(n):
        reach = max(near for near, _ in best[place])
        close = [vector for near, vector in best[place] if near >= reach - 1]
        assert min(float((got[place + 1] - vector).abs().max()) for vector in close) < 1e-5
    vectors = {name: pipe(text, long="window", overlap=overlap, pooling=name, return_tensors="pt") for name in POOL}
    for name in POOL.keys() - {"cls"}:
        torch.testing.assert_close(vectors[name], POOL[name](got), atol=1e-5, rtol=1e-5)


def sentence_folder(folder, modules, pooling=None, **bert):
    (folder / "modules.json").write_text(json.dumps([{"type": f"st.models.{m}", "path": f"{i}_{m}" if i else ""}
                                                     for i, m in enumerate(modules)]))  # fmt: skip
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps(bert))


def test_a_sentence_transformers_folder_is_read_as_it_is(tmp_path):
    folder = tiny.classifier(tmp_path, head="BertModel")
    sentence_folder(folder, ["Transformer", "Pooling", "Normalize"],
                    {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, max_seq_length=8)  # fmt: skip
    pipe = pipeline("feature-extraction", folder, pooling="model", return_tensors="pt")
    h = hidden(pipe, "a good film")
    expected = torch.nn.functional.normalize(torch.cat([h[0], h.amax(0)]), dim=0)
    torch.testing.assert_close(pipe("a good film"), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="takes 8"):
        pipe("good " * 10)


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (["Transformer", "Pooling", "LSTM"], None, "'LSTM' at place 2"),
        (["Transformer", "Dense"], None, "'Dense' at place 1"),
        (["Transformer", "Pooling"], {"pooling_mode": "median"}, "median"),
        (["Transformer", "Pooling"], {"include_prompt": False}, "leaves prompts out"),
    ],
)
def test_modules_that_are_not_built_are_named(tmp_path, modules, pooling, message):
    folder = tiny.classifier(tmp_path, head="BertModel")
    sentence_folder(folder, modules, pooling)
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    with pytest.raises(InputError, match=message):
        pipeline("feature-extraction", folder)("good", pooling="model")


@pytest.mark.parametrize(
    "call", [{"pooling": "meen"}, {"return_tensors": "tf"}, {"long": "windw"}, {"long": "window", "overlap": 62}]
)
def test_wrong_settings_are_named(pipe, call):
    with pytest.raises(InputError, match=str(next(reversed(call.values())))):
        pipe("good " * 70, **call)


def test_a_column_of_a_table_goes_in_and_comes_out():
    import datasets
    import pandas

    from cutaway.pipelines.base import _column

    assert _column(pandas.Series(["a", "b"])) == ["a", "b"]
    assert _column(np.array(["a", "b"])) == ["a", "b"]
    assert _column(datasets.Dataset.from_dict({"text": ["a", "b"]})["text"]) == ["a", "b"]
    assert _column(iter("ab")) is None
