"""Pipelines of one's own in upstream's four steps: _sanitize_parameters, preprocess, _forward, postprocess.

A subclass of `Pipeline`, or of a task's pipeline, that defines one of these is run in these steps, one input at a time;
the others have the defaults below. Our own pipelines have other steps, in which inputs share batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cutaway.errors import InputError

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.inputs import TextInput
    from cutaway.tokenization.protocols import TokenizerLike

STEPS = ("_sanitize_parameters", "preprocess", "_forward", "postprocess")
_OURS = ("check", "encode", "forward", "finish", "shaped")


def moved(value: Any, device: torch.device | str) -> Any:
    """A structure with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping) and not hasattr(value, "__dataclass_fields__"):
        found = {k: moved(v, device) for k, v in value.items()}
        return type(value)(found) if isinstance(value, dict) and type(value) is not dict else found
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(moved(v, device) for v in value)
    if hasattr(value, "data") and isinstance(value.data, dict):  # a BatchEncoding
        return value.to(device)
    return value


class Steps:
    """The methods that a pipeline in upstream's steps has in place of ours."""

    model: LanguageModel
    tokenizer: TokenizerLike
    task: str
    device: torch.device
    batch_size: int | None
    _given: dict[str, Any]

    def _sanitize_parameters(self, **kwargs: object) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Which arguments are for preprocess, _forward and postprocess. By default: what the tokenizer knows."""
        known = ("truncation", "max_length", "padding", "add_special_tokens", "return_tensors", "stride")
        first = {k: v for k, v in kwargs.items() if k in known}
        return first, {}, {k: v for k, v in kwargs.items() if k not in known}

    def preprocess(self, inputs: TextInput | Mapping[str, Any], **params: Any) -> Any:
        """An input -> what the model takes; a text or a pair {"text": ..., "text_pair": ...} by default."""
        params.setdefault("return_tensors", "pt")
        if isinstance(inputs, Mapping):
            return self.tokenizer(**inputs, **params)
        return self.tokenizer(inputs, **params)

    def _forward(self, model_inputs: Mapping[str, Any], **params: Any) -> object:
        """What the model gives for them."""
        return self.model(**model_inputs, **params)

    def postprocess(self, model_outputs: object, **params: Any) -> Any:
        """The answer; by default what the model gave."""
        return model_outputs

    def forward(self, model_inputs: object, **params: Any) -> object:
        """`_forward` on the model's device, without gradients; its tensors come back to the processor."""
        with torch.inference_mode():
            return moved(self._forward(moved(model_inputs, self.device), **params), "cpu")

    def run_single(self, inputs: Any, first: dict[str, Any], then: dict[str, Any], last: dict[str, Any]) -> Any:
        """One input through all steps."""
        return self.postprocess(self.forward(self.preprocess(inputs, **first), **then), **last)

    def __call__(
        self,
        inputs: object,
        *args: object,
        num_workers: int | None = None,
        batch_size: int | None = None,
        **kwargs: object,
    ) -> Any:
        """One input gives one answer, a list a list, a data set or an iterator a generator.

        `num_workers` and `batch_size` change nothing: inputs are run one after another.
        """
        steps = self._sanitize_parameters(**self._given), self._sanitize_parameters(**kwargs)
        first, then, last = ({**a, **b} for a, b in zip(*steps, strict=True))
        if isinstance(inputs, list):
            return [self.run_single(one, first, then, last) for one in inputs]
        if isinstance(inputs, str | bytes | Mapping | tuple) or not _several(inputs):
            return self.run_single(inputs, first, then, last)
        return (self.run_single(one, first, then, last) for one in walked(inputs))

    def each(self, inputs: object, **kwargs: Any) -> Iterator[Any]:
        """One answer per input, in order, whatever the form of `inputs`."""
        found = self(inputs, **kwargs)
        return iter(found if isinstance(found, list) or _several(inputs) else [found])

    def _known(self, settings: dict[str, Any]) -> dict[str, Any]:
        self._given = settings
        return settings


def _several(inputs: object) -> bool:
    return isinstance(inputs, Iterable | Places)


@runtime_checkable
class Places(Protocol):
    """What has a length and places: a torch data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def walked(inputs: object) -> Iterator[Any]:
    """The items of an iterable, or of anything with a length and places (a torch data set)."""
    if isinstance(inputs, Iterable):
        yield from inputs
    elif isinstance(inputs, Places):
        for i in range(len(inputs)):
            yield inputs[i]


def take_steps(kind: type[Any], parent: type[Any]) -> None:
    """Make a subclass of a pipeline one in upstream's steps, where it defines one of them.

    Raises:
        InputError: it redefines a step of a task whose other steps are not made of these.
    """
    own = [name for name in STEPS if name in vars(kind)]
    if not own or issubclass(kind, Steps) or "_runs_steps" in vars(kind):
        return
    if getattr(parent, "_runs_steps", False):
        return
    whole = {"preprocess", "_forward", "postprocess"} <= set(own)
    classifies = "TextClassificationPipeline" in {base.__name__ for base in kind.__mro__}
    generic = bool(parent.__abstractmethods__)  # Pipeline itself
    if not (whole or classifies or generic):
        raise InputError(
            f"{kind.__name__} redefines {', '.join(own)} of {parent.__name__}, which is not made of these steps: "
            "define preprocess, _forward and postprocess, or derive it from Pipeline."
        )
    for name, value in vars(Steps).items():
        if callable(value) and name not in vars(kind):
            setattr(kind, name, value)
    if classifies and "postprocess" not in vars(kind):
        kind.postprocess = classified
    for name in ("check", "encode", "finish", "shaped"):
        if name not in vars(kind):
            setattr(kind, name, _unused)
    kind._runs_steps = True


def _unused(self: object, *args: object, **kwargs: object) -> object:
    raise InputError(f"{type(self).__name__} runs in preprocess, _forward and postprocess; call it.")


def classified(
    self: Steps,
    model_outputs: Mapping[str, Any],
    function_to_apply: object = None,
    top_k: int | None = 1,
    _legacy: bool = True,
) -> dict[str, Any] | list[dict[str, Any]]:
    """The labels of one text with their scores, best first; the best alone for top_k=1."""
    logits = model_outputs["logits"][0].float()
    config = self.model.config
    if function_to_apply is None:
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        function_to_apply = "sigmoid" if several else "softmax"
    name = str(getattr(function_to_apply, "value", function_to_apply))
    scores = logits.softmax(-1) if name == "softmax" else logits.sigmoid() if name == "sigmoid" else logits
    found = [{"label": config.id2label[i], "score": score} for i, score in enumerate(scores.tolist())]
    if top_k == 1 and _legacy:
        return max(found, key=lambda one: one["score"])
    return sorted(found, key=lambda one: -one["score"])[:top_k]
