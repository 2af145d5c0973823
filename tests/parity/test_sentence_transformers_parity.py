"""Folders that sentence-transformers saves: the same vectors, and its evaluators on our embedder."""

from __future__ import annotations

import enum
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from parity.pipes import checkpoints

from cutaway import Embedder
from cutaway.errors import InputError
from cutaway.pipelines import pipeline

with warnings.catch_warnings():  # what it imports is its own
    warnings.simplefilter("ignore")
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )

TEXTS = ["a good film", "bad", "I believe that the EU is trustworthy.", "not a very good one , and not bad !", "film"]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sentence_transformers|transformers|torch")
        yield


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.classifier(tmp_path_factory.mktemp("bert"), head="BertModel")


def saved(bert: Path, folder: Path, pooling: Any, *after: Any, **options: Any) -> tuple[Any, Path]:
    """Their model of the modules, and the folder that it was saved to."""
    width = 32 * (1 if isinstance(pooling, str) else len(pooling))
    torch.manual_seed(1)
    made = [modules.Dense(width, **one) if isinstance(one, dict) else one for one in after]
    parts = [modules.Transformer(str(bert), max_seq_length=20), modules.Pooling(32, pooling), *made]
    theirs = SentenceTransformer(modules=parts, device="cpu", **options)
    theirs.save(str(folder), create_model_card=False)
    return theirs, folder


def same(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", [*MODES, ("cls", "weightedmean", "max")])
def test_each_way_of_pooling(bert: Path, tmp_path: Path, pooling: Any) -> None:
    theirs, folder = saved(bert, tmp_path, pooling)
    pipe = pipeline("feature-extraction", folder, return_tensors="np")
    expected = theirs.encode(TEXTS)
    same(pipe(TEXTS, pooling="model"), expected)
    if isinstance(pooling, str):
        same(pipe(TEXTS, pooling=pooling), expected)
    same(pipeline("sentence-similarity", folder)(TEXTS[0], TEXTS), theirs.similarity(expected[:1], expected)[0])


@pytest.mark.parametrize(
    "after",
    [
        [{"out_features": 16}],
        [{"out_features": 32, "bias": False, "activation_function": torch.nn.Identity(), "use_residual": True}],
        [{"out_features": 24, "activation_function": torch.nn.GELU(), "use_residual": True}, modules.Normalize()],
        [modules.Normalize(), {"out_features": 8, "activation_function": torch.nn.ReLU()}],
    ],
)
def test_dense_layers_and_normalization_in_their_order(bert: Path, tmp_path: Path, after: list[Any]) -> None:
    theirs, folder = saved(bert, tmp_path, "mean", *after)
    expected = theirs.encode(TEXTS)
    same(pipeline("feature-extraction", folder, return_tensors="np")(TEXTS, pooling="model"), expected)
    unit = theirs.encode(TEXTS, normalize_embeddings=True)
    same(Embedder(folder).encode(TEXTS, normalize_embeddings=True), unit)
    same(pipeline("sentence-similarity", folder)(TEXTS[0], TEXTS), theirs.similarity(expected[:1], expected)[0])


def test_a_folder_of_the_older_form(bert: Path, tmp_path: Path) -> None:
    """The transformer in a folder of its own, pooling as flags, activations by their old names."""
    theirs, folder = saved(bert, tmp_path, "max", {"out_features": 16})
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in [path for path in folder.iterdir() if path.is_file()]:
        if file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(inner / file.name)
    names = ["Transformer", "Pooling", "Dense"]
    listed = [{"idx": i, "name": str(i), "path": f"{i}_{name}", "type": f"sentence_transformers.models.{name}"}
              for i, name in enumerate(names)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))
    flags = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 18, "do_lower_case": false}')
    pipe = pipeline("feature-extraction", folder, return_tensors="np")
    same(pipe(TEXTS, pooling="model"), theirs.encode(TEXTS))
    assert pipe.modules().longest == 18
    same(Embedder(folder).encode(TEXTS), SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Hardshrink"}, "Hardshrink"),
        ({"activation_function": "os.system"}, "os.system"),
        ({"out_features": 17}, r"linear.weight' of shape \[17, 32\]"),
        ({"module_input_name": "token_embeddings"}, "does not read the vector"),
    ],
)
def test_a_dense_layer_that_is_not_built_is_an_error(bert: Path, tmp_path: Path, change: Any, message: str) -> None:
    _, folder = saved(bert, tmp_path, "mean", {"out_features": 16})
    file = folder / "2_Dense" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        pipeline("feature-extraction", folder)("a", pooling="model")


class Kind(enum.Enum):
    """mteb's PromptType."""

    query = "query"
    document = "document"


PROMPTS = {"query": "a film : ", "document": "", "Sts": "one "}


def test_the_encode_interface(bert: Path, tmp_path: Path) -> None:
    """As mteb 1 (task_name, prompt_type) and mteb 2 (batches, task_metadata) call it, and sentence-transformers."""
    theirs, folder = saved(bert, tmp_path, "mean", modules.Normalize(), prompts=PROMPTS, default_prompt_name="query")
    ours = Embedder(folder)
    assert isinstance(ours.encode(TEXTS), np.ndarray)
    for call in ({}, {"prompt_name": "Sts"}, {"prompt": "bad "}, {"prompt_name": "document"}, {"truncate_dim": 7},
                 {"batch_size": 2, "show_progress_bar": False, "precision": "float32"}):  # fmt: skip
        same(ours.encode(TEXTS, **call), theirs.encode(TEXTS, **call))
    same(ours.encode(TEXTS[0]), theirs.encode(TEXTS[0]))
    same(ours.encode_query(TEXTS, convert_to_tensor=True), theirs.encode_query(TEXTS))
    same(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    named = theirs.encode(TEXTS, prompt_name="Sts")
    same(ours.encode(TEXTS, task_name="Sts", prompt_type=None, batch_size=32), named)
    same(ours.encode(TEXTS, task_name="Retrieval", prompt_type=Kind.document), theirs.encode_document(TEXTS))
    batches = torch.utils.data.DataLoader([{"text": text} for text in TEXTS], batch_size=2)
    metadata = SimpleNamespace(name="Sts")
    same(ours.encode(batches, task_metadata=metadata, hf_split="test", hf_subset="default", prompt_type=None), named)
    same(pipeline("feature-extraction", folder, return_tensors="np")(TEXTS, pooling="model"), theirs.encode(TEXTS))
    assert ours.encode([]).shape == (0,)
    assert ours.get_sentence_embedding_dimension() == 32
    for wrong in (
        {"precision": "int8"},
        {"prompt_name": "none"},
        {"normalise_embeddings": True},
        {"prompt_name": ["Sts"]},
        {"prompt": 2},
        {"truncate_dim": 2.5},
        {"truncate_dim": -1},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ours.encode(TEXTS, **wrong)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities(bert: Path, tmp_path: Path, name: str) -> None:
    theirs, folder = saved(bert, tmp_path, "mean", similarity_fn_name=name)
    ours, vectors = Embedder(folder), theirs.encode(TEXTS)
    assert ours.similarity_fn_name == name
    torch.testing.assert_close(ours.similarity(vectors, vectors[:2]), theirs.similarity(vectors, vectors[:2]))
    torch.testing.assert_close(
        ours.similarity_pairwise(list(vectors), vectors[::-1].copy()),
        theirs.similarity_pairwise(vectors, vectors[::-1].copy()),
    )


def test_its_evaluators(bert: Path, tmp_path: Path) -> None:
    theirs, folder = saved(bert, tmp_path, "mean", prompts=PROMPTS)
    ours: Any = Embedder(folder)
    ours.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *given: None)  # where they note their scores
    pairs = EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], [0.1, 0.9, 1.0, 0.3, 0.5], show_progress_bar=False)
    corpus = {str(i): text for i, text in enumerate(TEXTS)}
    queries = {"q": "a good one", "p": "bad film"}
    search = InformationRetrievalEvaluator(queries, corpus, {"q": {"0", "3"}, "p": {"1"}}, show_progress_bar=False)
    for evaluator in (pairs, search):
        expected = evaluator(theirs)
        assert len(expected) >= 2
        assert evaluator(ours) == pytest.approx(expected, abs=1e-5)


def test_rerank_is_their_cross_encoder(tmp_path: Path) -> None:
    folder = checkpoints.classifier(tmp_path, 1)
    theirs, pipe = CrossEncoder(str(folder), device="cpu"), pipeline("rerank", folder)
    for inputs in (TEXTS, TEXTS[:1]):
        expected = theirs.rank("a good film", inputs, return_documents=True, show_progress_bar=False)
        for ours, other in zip(pipe("a good film", inputs), expected, strict=True):
            assert (ours["index"], ours["text"]) == (other["corpus_id"], other["text"])
            assert ours["score"] == pytest.approx(float(other["score"]), abs=1e-5)
    logits = theirs.predict([("bad", text) for text in TEXTS], activation_fn=torch.nn.Identity())
    found = {one["index"]: one["score"] for one in pipe("bad", TEXTS, function_to_apply="none")}
    assert [found[i] for i in range(len(TEXTS))] == pytest.approx(logits.tolist(), abs=1e-5)


@pytest.mark.parametrize("activation", ["Identity", "Sigmoid"])
def test_rerank_reads_what_their_cross_encoder_keeps(tmp_path: Path, activation: str) -> None:
    plain = checkpoints.classifier(tmp_path / "plain", 1)
    how: dict[str, Any] = {"prompts": {"search": "a good film: "}, "default_prompt_name": "search"}
    made = CrossEncoder(str(plain), device="cpu", activation_fn=getattr(torch.nn, activation)(), **how)
    made.save_pretrained(str(tmp_path / "saved"))
    theirs, pipe = CrossEncoder(str(tmp_path / "saved"), device="cpu"), pipeline("rerank", tmp_path / "saved")
    for prompt in (None, "", "bad "):
        expected = theirs.predict([("trust", text) for text in TEXTS], prompt=prompt)
        found = {one["index"]: one["score"] for one in pipe("trust", TEXTS, prompt=prompt)}
        assert [found[i] for i in range(len(TEXTS))] == pytest.approx(expected.tolist(), abs=1e-5)
    with pytest.raises(InputError, match="prompt=5"):
        pipe("trust", TEXTS, prompt=5)


def test_a_cross_encoders_settings_that_are_not_built_are_errors(tmp_path: Path) -> None:
    plain = checkpoints.classifier(tmp_path / "plain", 1)
    CrossEncoder(str(plain), device="cpu", activation_fn=torch.nn.Tanh()).save_pretrained(str(tmp_path / "saved"))
    pipe = pipeline("rerank", tmp_path / "saved")
    with pytest.raises(InputError, match="function_to_apply='tanh'"):
        pipe("trust", TEXTS)
    path = tmp_path / "saved" / "sentence_bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "processing_kwargs": {"text": {"max_length": 4}}}))
    with pytest.raises(InputError, match=r"processing_kwargs is .*tokenizer_config"):
        pipeline("rerank", tmp_path / "saved")
