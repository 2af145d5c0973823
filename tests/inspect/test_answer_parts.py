"""An answer shared out through the head: the parts sum to it, whatever stands between the last state and the answer."""

from __future__ import annotations

import pytest
import torch
from inspect_models import gap, texts, tiny

from cutaway.errors import InputError
from cutaway.inspect import (
    ChoiceTarget,
    SpanTarget,
    Target,
    VectorTarget,
    ablate,
    direct_logit_attribution,
    gate_slopes,
    head_attribution,
    integrated_gradients,
    last_state,
    most_effective,
    occlude,
)

HEADS = [
    ("bert", "ForSequenceClassification", None),
    ("bert", "ForTokenClassification", Target(position=3)),
    ("bert", "ForMaskedLM", Target(position=2)),
    ("bert", "ForQuestionAnswering", SpanTarget()),
    ("bert", "ForMultipleChoice", ChoiceTarget()),
    ("bert", "Model", VectorTarget()),
    ("gpt2", "LMHeadModel", None),
    ("gpt2", "ForSequenceClassification", None),
    ("gpt2", "Model", VectorTarget()),
    ("llama", "ForCausalLM", None),
    ("llama", "ForQuestionAnswering", SpanTarget()),
    ("llama", "ForTokenClassification", Target(position=3)),
    ("t5", "ForConditionalGeneration", None),
    ("bart", "ForConditionalGeneration", None),
    ("xlnet", "ForSequenceClassification", None),
    ("xlnet", "ForMultipleChoice", ChoiceTarget()),
    ("xlnet", "ForTokenClassification", Target(position=3)),
    ("xlnet", "LMHeadModel", None),
]


@pytest.mark.parametrize(("family", "ending", "target"), HEADS)
@torch.no_grad()
def test_the_parts_sum_to_the_answer(family, ending, target) -> None:
    model, given = tiny(family, ending), texts(family, (6,))
    found = head_attribution(model, given, target)
    assert found.residual < 1e-9
    assert found.base + float(found.values.sum()) == pytest.approx(found.value, abs=1e-9)
    assert len(found.names) == len(found.values) > 2 * model.base_model.architecture.stack.n_layers
    assert found.value == pytest.approx(float(found.target.number(model, given)), abs=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
def test_of_a_head_of_one_matrix_the_shares_are_the_direct_ones(family) -> None:
    model, given = tiny(family), texts(family, (6,))
    direct, ours = direct_logit_attribution(model, given), head_attribution(model, given)
    if family == "bart":
        assert len(ours.names) > len(direct.names)  # of a post-norm stack the direct ones are the last block's
        return
    kept = direct.values[: len(ours.values)]  # the rest is the matrix' bias, which is the head's own
    assert ours.names == direct.names[: len(ours.names)]
    assert gap(ours.values, kept) < 1e-9


@pytest.mark.parametrize("family", ["bert", "bart", "gpt2", "t5"])
def test_every_block_is_taken_apart_and_the_state_stays(family) -> None:
    model, given = tiny(family), texts(family, (6,))
    whole, some = (
        last_state(model, given, every_block=True),
        last_state(model, given, every_block=True, positions=[2, 4]),
    )
    assert gap(whole.parts.sum(0), whole.state) < 1e-9
    assert gap(whole.state, last_state(model, given).state) < 1e-12
    assert gap(some.parts, whole.parts[:, :, [2, 4]]) == 0
    assert any("blocks.0." in name for name in whole.names)


def test_the_layer_of_the_head_is_followed_and_not_left_out() -> None:
    """Without the pooler's tanh the shares would be others: they are its mean slope on the way from 0."""
    model, given = tiny("bert", "ForSequenceClassification"), texts("bert", (6,))
    found = head_attribution(model, given)
    state = last_state(model, given, every_block=True, positions=[0])
    x, index = state.state[0, 0], found.target.index
    dense = model.base_model.pooler.dense
    # the mean of tanh' between two points is the chord's slope
    z, c = dense(x), dense(torch.zeros_like(x))
    slope = (z.tanh() - c.tanh()) / (z - c)
    want = (state.parts[:, 0, 0] @ dense.weight.T) * slope @ model.classifier.weight[index]
    assert gap(found.values, want.detach()) < 1e-9


def test_a_span_is_checked_and_its_end_is_not_before_its_start() -> None:
    model, given = tiny("bert", "ForQuestionAnswering"), texts("bert", (7,))
    best = SpanTarget().fixed(model, given)
    assert isinstance(best, SpanTarget)
    with torch.no_grad():
        out = model(**given)
        sums = out.start_logits[0][:, None] + out.end_logits[0][None]
        best_sum = float(best.number(model, given))
    assert best_sum == pytest.approx(max(float(sums[i, j]) for i in range(7) for j in range(i, 7)), abs=1e-12)
    assert best.start <= best.end
    with pytest.raises(InputError, match="start=9"):
        SpanTarget(start=9).fixed(model, given)
    with pytest.raises(InputError, match="start_logits"):
        SpanTarget().fixed(tiny("bert"), given)


@pytest.mark.parametrize(("ending", "target"), [("ForQuestionAnswering", SpanTarget()), ("Model", VectorTarget())])
def test_tokens_account_for_a_span_and_for_a_vector(ending, target) -> None:
    model, given = tiny("bert", ending), texts("bert", (6,))
    found = integrated_gradients(model, given, target)
    assert found.residual < 0.05
    assert float(found.scores.sum()) == pytest.approx(found.value - found.base, rel=0.05)
    without = occlude(model, given, target)
    assert without.scores.shape == given["input_ids"][0].shape
    if ending == "Model":
        assert without.value == pytest.approx(1, abs=1e-9) and bool((without.scores >= -1e-9).all())


@torch.no_grad()
def test_a_choice_is_scored_as_the_model_scores_it() -> None:
    model, given = tiny("bert", "ForMultipleChoice"), texts("bert", (6, 6))
    both = {name: value[None] for name, value in given.items()}  # [1, 2, L]
    want = model(**both).logits[0]
    target = ChoiceTarget().fixed(model, given)
    assert gap(target.number(model, given), want) < 1e-9


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_the_most_effective_head_is_that_without_which_most_is_lost(family) -> None:
    model, given = tiny(family), texts(family, (6,))
    target = Target(position=2).fixed(model, given)
    slopes, layer, head, fall = most_effective(model, given, target.log_share, tried=1000)
    prefix = "decoder." if family == "t5" else ""
    lost = {}
    with torch.no_grad():
        whole = float(target.log_share(model(**given)))
    for at in model.find_addresses([f"{prefix}blocks.*.attn.head.*.out"]):
        with model.edit({at: 0.0}), torch.no_grad():
            lost[at] = whole - float(target.log_share(model(**given)))
    best = max(lost, key=lambda at: lost[at])
    assert best == f"{prefix}blocks.{layer}.attn.head.{head}.out"
    assert fall == pytest.approx(lost[best], abs=1e-9)
    again = gate_slopes(model, given, lambda out: target.log_share(out).sum())
    assert gap(slopes, again.slope) < 1e-12
    assert ablate(model, given, [best], target).effect.shape == (1,)


def test_what_cannot_be_shared_out_is_said() -> None:
    model = tiny("bart", "ForConditionalGeneration")
    with pytest.raises(InputError, match="decoder_input_ids is missing"):
        head_attribution(model, {"input_ids": texts("bart", (6,))["input_ids"]}, Target(index=1, position=0))
    with pytest.raises(InputError, match="one text"):
        head_attribution(tiny("bert"), texts("bert", (6, 6)), Target(position=1))
