"""Arguments of measures that are none end in one sentence, whatever the measure."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from inspect_models import tiny

import cutaway
from cutaway.errors import InputError
from cutaway.inspect.measure import measure

IDS = torch.tensor([[3, 4, 5]])
GOOD: dict[str, Any] = {
    "LanguageModel": tiny("gpt2"),
    "GenerativeModel": tiny("gpt2"),
    "Inputs": {"input_ids": IDS},
    "Sequence[Inputs]": [{"input_ids": IDS}],
    "Tensor": torch.rand(2, 4, 3, 3),
    "Callable[[Any], Tensor]": torch.sum,
    "Trace": SimpleNamespace(explanation=None),
    "Recorder": SimpleNamespace(named=None),
    "AttachedSae": SimpleNamespace(features=None),
}
WRONG: dict[str, list[tuple[object, str]]] = {
    "LanguageModel": [(2.5, "is a float"), ("gpt2", "is a str"), (torch.nn.Linear(1, 1), "is a Linear")],
    "Inputs": [
        ("a good film", "is a str .'a good film'.: pass what the tokenizer returns"),
        (IDS, "is a Tensor"),
        ({}, "holds nothing"),
        ({"input_ids": [3, 4]}, "a list .* as ids"),
        ({"attention_mask": IDS}, "holds 'attention_mask', and no tensor of ids"),
    ],
    "Sequence[Inputs]": [
        ({"input_ids": IDS}, "pass a list"),
        (["a film"], r"\[0\] is a str"),
        ("a film", "pass a list"),
    ],
    "Target": [(3, "pass a Target")],
    "Tensor": [([1.0], "pass a tensor")],
    "int": [(2.5, "a whole number"), (True, "a whole number"), ("two", "a whole number")],
    "float": [(float("nan"), "pass a number"), ("half", "pass a number"), (None, "pass a number")],
    "Callable[[Any], Tensor]": [(3, "pass a function")],
    "Trace": [("run.safetensors", "pass a trace")],
    "Recorder": [({}, "model.record gives")],
    "AttachedSae": [("sae", "model.attach_sae gives")],
}
WRONG["GenerativeModel"] = WRONG["LanguageModel"]


def arguments() -> Iterator[tuple[str, str, str]]:
    """Each measure, with each argument of such a kind."""
    for name in cutaway.inspect.__all__:
        function = getattr(cutaway.inspect, name)
        if inspect.isfunction(function):
            for argument, parameter in inspect.signature(function).parameters.items():
                kind = str(parameter.annotation).removesuffix(" | None")
                if kind in WRONG:
                    yield name, argument, kind


@pytest.mark.parametrize(("name", "argument", "kind"), [*arguments()])
def test_what_is_no_such_thing_is_said_at_once(name: str, argument: str, kind: str) -> None:
    function = getattr(cutaway.inspect, name)
    needed = {
        other: GOOD.get(str(parameter.annotation), 1)
        for other, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    for value, said in WRONG[kind]:
        with pytest.raises(InputError, match=f"{argument}.*{said}"):
            function(**{**needed, argument: value})


def test_numbers_out_of_range_name_the_range() -> None:
    inspect_ = cutaway.inspect
    model, inputs = GOOD["LanguageModel"], GOOD["Inputs"]
    wrong = [
        (lambda: inspect_.occlude(model, inputs, row=1), "row=1: there is 1 text"),
        (lambda: inspect_.occlude(model, inputs, baseline=61), "baseline=61 is no id"),
        (lambda: inspect_.occlude(model, inputs, width=0), "width=0: pass a whole number from 1 up"),
        (lambda: inspect_.promoted_tokens(model, 3, 0), "layer=3: the model has layers 0 to 2"),
        (lambda: inspect_.logit_lens(model, inputs, top=0), "top=0: pass a whole number from 1 up"),
        (lambda: inspect_.linear_probe(torch.rand(3, 2), torch.tensor([0, 1, 0]), 0), "classes=0"),
    ]
    for call, said in wrong:
        with pytest.raises(InputError, match=said):
            call()


def test_numbers_of_other_libraries_and_loaders_are_taken() -> None:
    model, inputs = GOOD["LanguageModel"], GOOD["Inputs"]
    plain = cutaway.inspect.occlude(model, inputs, row=0, width=1)
    for zero, one in ((np.int64(0), np.int32(1)), (torch.tensor(0), torch.tensor(1))):
        assert torch.equal(cutaway.inspect.occlude(model, inputs, row=zero, width=one).scores, plain.scores)
    loader = torch.utils.data.DataLoader([IDS[0]], collate_fn=lambda rows: {"input_ids": torch.stack(rows)})
    found = cutaway.inspect.exciting_texts(model, loader, 0, 0, top=1)
    assert torch.equal(found.values, cutaway.inspect.exciting_texts(model, [inputs], 0, 0, top=1).values)


def test_the_rule_holds_for_many_measures() -> None:
    assert len({name for name, _, _ in arguments()}) > 20


def test_what_fits_goes_through_and_the_signature_stays() -> None:
    @measure
    def both(model: LanguageModel, inputs: Inputs, others: Inputs | None = None) -> int:  # type: ignore[name-defined]  # noqa: F821
        """Two."""
        return 2

    model = GOOD["LanguageModel"]
    assert both(model, {"decoder_input_ids": IDS}) == both(model, {"inputs_embeds": IDS}, None) == 2
    assert both.__doc__ == "Two." and [*inspect.signature(both).parameters] == ["model", "inputs", "others"]
