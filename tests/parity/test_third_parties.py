"""bertviz and captum, unchanged, on our outputs and our modules."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from parity.pairs import gap, inputs, pair
from torch import Tensor

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
        warnings.filterwarnings("ignore", module="captum|torch|bertviz")
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
