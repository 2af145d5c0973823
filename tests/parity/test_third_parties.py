"""bertviz and captum, shap and lime, unchanged, on our outputs, our modules and our pipelines."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from parity.pairs import gap, inputs, pair
from parity.pipes import checkpoints, upstream
from torch import Tensor

from cutaway.pipelines import pipeline

with warnings.catch_warnings():  # what they import is theirs
    warnings.simplefilter("ignore")
    from bertviz import head_view, model_view
    from captum.attr import IntegratedGradients, LayerIntegratedGradients

ATTRIBUTION = 1e-4


def numbers(page: Any) -> list[float]:
    """Every number with a fraction in a bertviz page: its attention weights."""
    return [float(n) for n in re.findall(r"(?<![\w.])\d\.\d+(?:e-\d+)?(?![\w.])", page.data)]


def same_page(ours: Any, theirs: Any) -> None:
    a, b = numbers(ours), numbers(theirs)
    assert len(a) == len(b) > 100
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-5


@pytest.mark.parametrize("view", [head_view, model_view])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_bertviz_on_one_stack(view: Any, family: str) -> None:
    theirs, ours = pair(family)
    given = inputs(family, (5,))
    tokens = [f"t{i}" for i in given["input_ids"][0].tolist()]
    pages = []
    for model in (ours, theirs):
        with torch.no_grad():
            out = model(**given, output_attentions=True)
        pages.append(view(out.attentions, tokens, html_action="return"))
    same_page(*pages)
    with torch.no_grad():
        parts = ours(**given, output_attentions=True, return_dict=False)
    assert numbers(view(parts[-1], tokens, html_action="return")) == numbers(pages[0])


@pytest.mark.parametrize("view", [head_view, model_view])
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_bertviz_on_an_encoder_and_a_decoder(view: Any, family: str) -> None:
    # bertviz wants as many layers and heads on both sides
    even = {"num_decoder_layers": 3} if family == "t5" else {"decoder_layers": 3, "decoder_attention_heads": 4}
    theirs, ours = pair(family, "ForConditionalGeneration", **even)
    given = inputs(family, (6,))
    pages = []
    for model in (ours, theirs):
        with torch.no_grad():
            out = model(**given, output_attentions=True)
        pages.append(
            view(
                encoder_attention=out.encoder_attentions,
                decoder_attention=out.decoder_attentions,
                cross_attention=out.cross_attentions,
                encoder_tokens=list("abcdef"),
                decoder_tokens=list("wxyz"),
                html_action="return",
            )
        )
    same_page(*pages)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="captum|torch|bertviz|shap|lime|numba|skimage|transformers")
        yield


def test_captum_on_the_embedding_layer() -> None:
    theirs, ours = pair("bert", "ForSequenceClassification", num_labels=3)
    given = inputs("bert", (7,))
    found = []
    for model in (ours, theirs):

        def score(ids: Tensor, mask: Tensor, model: Any = model) -> Tensor:
            return model(input_ids=ids, attention_mask=mask).logits

        for layer in (model.bert.embeddings, model.bert.embeddings.word_embeddings, model.bert.encoder.layer[1]):
            attribution = LayerIntegratedGradients(score, layer).attribute(
                given["input_ids"],
                baselines=torch.zeros_like(given["input_ids"]),
                additional_forward_args=(torch.ones_like(given["input_ids"]),),
                target=1,
                n_steps=8,
                internal_batch_size=4,
            )
            found.append(attribution[0] if isinstance(attribution, tuple) else attribution)
    for mine, yours in zip(found[:3], found[3:], strict=True):
        assert gap(mine.flatten(), yours.flatten()) < ATTRIBUTION


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "gpt2", "llama"])
def test_captum_on_vectors(family: str) -> None:
    theirs, ours = pair(family, "ForSequenceClassification", num_labels=3, pad_token_id=0)
    ids = inputs(family, (7,))["input_ids"]
    found = []
    for model in (ours, theirs):
        vectors = model.get_input_embeddings()(ids).detach()
        mask = torch.ones_like(ids)

        def score(x: Tensor, model: Any = model, mask: Tensor = mask) -> Tensor:
            return model(inputs_embeds=x, attention_mask=mask.expand(x.shape[0], -1)).logits

        found.append(IntegratedGradients(score).attribute(vectors, target=2, n_steps=8))
    assert gap(*found) < ATTRIBUTION


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_gradients_through_recorded_values(family: str) -> None:
    theirs, ours = pair(family)
    given = inputs(family, (7, 7))
    found = []
    for model in (ours, theirs):
        out = model(**given, output_hidden_states=True, output_attentions=True)
        found.append(torch.autograd.grad(out.last_hidden_state.square().sum(), out.hidden_states[1])[0])
    assert gap(*found) < ATTRIBUTION


REVIEWS = ["a good film, not a bad one", "I believe that the EU is trust worthy."]
NAMES = {"id2label": {0: "bad", 1: "so-so", 2: "good"}, "label2id": {"bad": 0, "so-so": 1, "good": 2}}


@pytest.mark.parametrize("rescale", [False, True])
def test_shap_on_a_pipeline(tmp_path: Any, rescale: bool) -> None:
    shap = pytest.importorskip("shap")
    folder = checkpoints.classifier(tmp_path, **NAMES)
    theirs = upstream("text-classification", folder, top_k=None)
    expected = shap.Explainer(shap.models.TransformersPipeline(theirs, rescale))(REVIEWS, silent=True)
    ours = pipeline("text-classification", folder, top_k=None)
    masker = shap.maskers.Text(ours.tokenizer)
    found = shap.Explainer(shap.models.TransformersPipeline(ours, rescale), masker)(REVIEWS, silent=True)
    assert list(found.output_names) == list(expected.output_names) == ["bad", "so-so", "good"]
    for text in range(len(REVIEWS)):
        assert list(found.data[text]) == list(expected.data[text])
        np.testing.assert_allclose(found.values[text], expected.values[text], atol=1e-5)
        np.testing.assert_allclose(found.base_values[text], expected.base_values[text], atol=1e-5)
    if not rescale:
        by_function = shap.Explainer(ours.predict_proba, masker)(REVIEWS[:1], silent=True)
        np.testing.assert_allclose(by_function.values[0], found.values[0], atol=1e-5)


def test_lime_on_a_pipeline(tmp_path: Any) -> None:
    lime_text = pytest.importorskip("lime.lime_text")
    folder = checkpoints.classifier(tmp_path, **NAMES)
    theirs, ours = upstream("text-classification", folder, top_k=None), pipeline("text-classification", folder)

    def of_theirs(texts: list[str]) -> Any:
        found = [{entry["label"]: entry["score"] for entry in one} for one in theirs(texts)]
        return np.array([[one[name] for name in NAMES["label2id"]] for one in found])

    found = []
    for scores in (ours.predict_proba, of_theirs):
        explainer = lime_text.LimeTextExplainer(class_names=list(NAMES["label2id"]), random_state=0)
        explained = explainer.explain_instance(REVIEWS[0], scores, num_features=5, num_samples=60, labels=(0, 2))
        found.append([pair for label in (0, 2) for pair in explained.as_list(label=label)])
    for (word, weight), (other, expected) in zip(*found, strict=True):
        assert word == other
        assert weight == pytest.approx(expected, abs=1e-5)
