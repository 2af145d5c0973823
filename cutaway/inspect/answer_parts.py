"""Which part of the model made an answer, through the layers that stand between the last state and the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.inspect.attribution import residual_of
from cutaway.inspect.gradients import GOOD
from cutaway.inspect.logit_attribution import last_state
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.target import ChoiceTarget, SpanTarget, Target, VectorTarget
from cutaway.inspect.tower import Inputs, one_text, tower_of
from cutaway.models.label_heads import LabelHead, TextHead
from cutaway.models.lm_heads import OutputHead, output_head
from cutaway.models.stream_heads import SummaryHead
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.show.sheet import Bars, Sheet, figure

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

Layer = Callable[[Tensor], Tensor]
MOST = 512  # points of the integral


@dataclass(frozen=True)
class HeadAttribution(Result):
    """What each part of the model adds to an answer, through the head.

    Attributes:
        names: addresses, and names of biases. values: [parts]. base: the answer of a head that reads a state of zeros.
        value: what the model said. residual: |base + sum of values - value| as a part of |value - base|.
        steps: points of the integral. target: what is explained.
    """

    names: list[str]
    values: Tensor
    base: float
    value: float
    residual: float
    steps: int
    target: Target

    def sheet(self) -> Sheet:
        """The parts, largest first, and what they sum to."""
        order = self.values.abs().argsort(descending=True).tolist()
        bars = Bars("", [self.names[i] for i in order], self.values[order].detach().double().cpu().numpy())
        total = self.base + float(self.values.sum())
        note = (
            f"{len(self.names)} parts and the head's own {figure(self.base)} sum to {figure(total)}; the model said "
            f"{figure(self.value)}: {self.residual:.2%} of the change is not accounted for"
        )
        return Sheet("what each part adds to the answer, through the head", note, [bars])


@measure
def head_attribution(
    model: LanguageModel, inputs: Inputs, target: Target | None = None, *, steps: int = 16
) -> HeadAttribution:
    """Integrated gradients of the head alone, shared out over the parts of what it reads.

    The state that a head reads is a sum of parts (`last_state`, every norm with the scale that the whole gave it). The
    head (a pooler, a layer with its activation and norm, the matrix, a span's two columns, a mean and its cosine) is no
    sum, so each part gets part . integral over a in 0..1 of the head's gradient at a x state (Sundararajan et al.,
    2017, 1703.01365). They sum to head(state) - head(0); the norm inside a head keeps the scale that the state gave it,
    and so does the length of a vector under a cosine. The residual is what the integral's points and the run's rounding
    leave open.

    Args:
        inputs: one text. target: `Target`, `SpanTarget` for question answering, `ChoiceTarget`, or `VectorTarget` for a
            model without a head; the model's own answer unless given.
        steps: points to begin with; twice as many until the residual is below 1%, at most 512.

    Raises:
        InputError: more than one text, or a head whose layers are not known.
    """
    text_inputs = one_text(inputs, 0)
    if inputs[next(iter(text_inputs))].shape[0] != 1:
        raise InputError("head_attribution takes one text at a time.")
    tower = tower_of(model)
    if tower.ids not in text_inputs:
        raise InputError(f"{tower.ids} is missing: an attribution begins at token ids.")
    fixed = (target or Target()).fixed(model, text_inputs)
    with torch.no_grad():
        value = float(fixed.number(model, text_inputs))
        length = int(text_inputs[tower.ids].shape[1])
        weights = _reading(model, text_inputs, fixed, length)  # [k, L]
        positions = weights.any(0).nonzero()[:, 0].tolist()
        state = last_state(model.base_model, text_inputs, every_block=True, positions=positions)
        # [n, 1, L, H] -> [n, k, H]: the vectors that the head reads, each a sum over the parts
        parts = torch.einsum("kl,nlh->nkh", weights[:, positions].to(state.parts), state.parts[:, 0])
        vectors = parts.sum(0)  # [k, H]
        answer = _answer(model, fixed, vectors)
        base = float(answer(torch.zeros_like(vectors)[None]))
    while True:
        slope = _mean_slope(answer, vectors, steps)
        values = (parts * slope).sum((1, 2))
        residual = residual_of(values, value, base)
        if residual < GOOD or steps * 2 > MOST:
            return HeadAttribution(state.names, values.detach(), base, value, residual, steps, fixed)
        steps *= 2


def _mean_slope(answer: Layer, vectors: Tensor, steps: int) -> Tensor:
    """The mean of the gradient of `answer` on the way from 0 to vectors [k, H], by Gauss and Legendre's rule."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    at = torch.as_tensor((points + 1) / 2).to(vectors)  # [steps]
    with torch.enable_grad():
        leaf = (at[:, None, None] * vectors.detach()).requires_grad_()  # [steps, k, H]
        (slope,) = torch.autograd.grad(answer(leaf).sum(), leaf)
    return (slope * torch.as_tensor(weights / 2).to(vectors)[:, None, None]).sum(0)


def _reading(model: LanguageModel, inputs: Inputs, target: Target, length: int) -> Tensor:
    """[k, L]: each of the k vectors that the head reads, as weights of the places."""
    eye = torch.eye(length, device=model.device)
    if isinstance(target, VectorTarget):
        real = tower_of(model).real(inputs)[0].to(eye)
        return (real / real.sum())[None]
    if isinstance(target, SpanTarget):
        return eye[[target.start, target.end]]
    if target.position is not None:
        return eye[target.position][None]
    if not isinstance(model, TextHead | SummaryHead):
        raise InputError(f"the head of {type(model).__name__} is not one whose layers are known.")
    if isinstance(model, TextHead) and model.late:
        return eye
    if isinstance(model, TextHead) and model.head_spec.pick == "pooler":
        return eye[:1]
    # the places picked are those that the head picks of a text whose states are their own numbers
    out = model.base_model(**inputs, return_dict=True)
    out.last_hidden_state = eye[None]
    return model.picked(out, inputs[tower_of(model).ids], inputs.get("attention_mask"))


def _answer(model: LanguageModel, target: Target, vectors: Tensor) -> Layer:
    """What the head says of vectors [..., k, H] -> [...]; its norms hold the scale that `vectors` gave them."""
    if isinstance(target, VectorTarget):
        assert target.vector is not None
        direction = torch.nn.functional.normalize(target.vector.to(vectors), dim=-1) / vectors.norm()
        return lambda x: x[..., 0, :] @ direction
    if isinstance(model, LabelHead):
        read = _label_layers(model, vectors)
    elif isinstance(head := output_head(model), OutputHead):
        read = _output_layers(head, vectors)
    else:
        raise InputError(f"the head of {type(model).__name__} is not one whose layers are known.")
    if isinstance(target, SpanTarget):

        def span(x: Tensor) -> Tensor:
            logits = read(x)  # [..., 2, 2]
            return logits[..., 0, 0] + logits[..., 1, 1]

        return span
    index = 0 if isinstance(target, ChoiceTarget) else target.index

    def logit(x: Tensor) -> Tensor:
        logits = read(x).mean(-2)  # [..., answers]: more than one vector is read where their logits are averaged
        return logits[..., index] if target.against is None else logits[..., index] - logits[..., target.against]

    return logit


def _label_layers(model: LabelHead, vectors: Tensor) -> Layer:
    spec = model.head_spec
    layers: list[Layer] = []
    if spec.pick == "pooler" and isinstance(model, TextHead):
        pooler = model.base_model.pooler
        # [..., H] -> [..., 1, H]: a text of one token, whose first it is
        layers.append(lambda x: pooler(x.flatten(0, -2)[:, None]).view(x.shape))
    if isinstance(model, SummaryHead):
        layers.append(model.get_submodule(model.SUMMARY))
        if model.summary_activation is not None:
            layers.append(ACTIVATION[model.summary_activation])
    elif spec.dense:
        dense, activation = model.get_submodule(spec.dense), ACTIVATION[model.activation]
        layers.append(lambda x: activation(dense(x)))
        if spec.norm:
            layers.append(_held_norm(model.get_submodule(spec.norm), _through(layers)(vectors)))
    layers.append(model.get_submodule(spec.out))
    return _through(layers)


def _output_layers(head: OutputHead, vectors: Tensor) -> Layer:
    spec, architecture = head.head_spec, head.architecture
    layers: list[Layer] = []
    if spec.dense:
        dense, activation = head.get_submodule(spec.dense), head.transform_activation
        layers.append(lambda x: activation(dense(x)))
        layers.append(_held_norm(head.get_submodule(spec.norm), _through(layers)(vectors)))
    scale, cap = architecture.output_scale, architecture.output_cap
    out = head.get_output_embeddings()
    layers.append(lambda x: out(x * scale))
    extra = getattr(head, getattr(head, "logits_bias", "") or "_", None)
    if extra is not None:
        layers.append(lambda x: x + extra[0])
    if cap is not None:
        layers.append(lambda x: (x / cap).tanh() * cap)
    return _through(layers)


def _through(layers: list[Layer]) -> Layer:
    """The layers that are there now, one after the other."""
    fixed = list(layers)

    def run(x: Tensor) -> Tensor:
        for layer in fixed:
            x = layer(x)
        return x

    return run


def _held_norm(norm: nn.Module, x: Tensor) -> Layer:
    """A norm with the scale that x [k, H] gave it, so that it is a sum's sum."""
    weight, bias = cast(Tensor, norm.weight), cast("Tensor | None", getattr(norm, "bias", None))
    eps = cast(float, norm.eps)
    if isinstance(norm, nn.LayerNorm):
        scale = (x.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
        return lambda y: (y - y.mean(-1, keepdim=True)) * scale * weight + (0.0 if bias is None else bias)
    scale = (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    return lambda y: y * scale * (weight + cast(float, getattr(norm, "offset", 0.0)))
