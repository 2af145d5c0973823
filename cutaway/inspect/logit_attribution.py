"""Which part of the model wrote a logit: the stream is a sum, and, its norm frozen, the output reads it linearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs, StackHandle, one_text, tower_of
from cutaway.models.label_heads import LabelHead, MultipleChoice, SpanHead
from cutaway.models.lm_heads import output_head
from cutaway.models.stream_heads import SummaryHead
from cutaway.nn.block import ResultBlock
from cutaway.nn.norm_mlp import RMSNorm
from cutaway.show.sheet import Bars, Sheet

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


VISIBLE = 1e-3  # of the logit: a gap between it and the parts' sum that is said


@dataclass(frozen=True)
class Contributions(Result):
    """What each part adds to one number.

    Attributes:
        names: addresses, and names of biases. values: [parts]. total: their sum. logit: what the model said.
        index, against, position: whose logit, and where.
    """

    names: list[str]
    values: Tensor
    total: float
    logit: float
    index: int
    against: int | None
    position: int

    def sheet(self) -> Sheet:
        """The parts, largest first, and that they sum to the logit."""
        order = self.values.abs().argsort(descending=True).tolist()
        bars = Bars("", [self.names[i] for i in order], self.values[order].detach().double().cpu().numpy())
        return Sheet(f"what each part adds to the logit of {self.label(self.index)}", self.note, [bars])

    @property
    def note(self) -> str:
        """Sum and logit in one line; where they are more than 0.1% apart, that too."""
        line = f"{len(self.names)} parts sum to {self.total:.6g}; the model said {self.logit:.6g}"
        apart = abs(self.total - self.logit)
        if not apart > VISIBLE * abs(self.logit):
            return line
        size = f"{apart / abs(self.logit):.2g} of it" if self.logit else f"{apart:.2g}"
        return f"{line}, {size} apart, as the run rounds its products (weights in blocks, int8 or 16 bits)"


@dataclass(frozen=True)
class StateParts(Result):
    """A state as a sum: `parts` [n, B, L, H] called `names` add up to `state` [B, L, H]."""

    names: list[str]
    parts: Tensor
    state: Tensor

    def sheet(self) -> Sheet:
        """How long each part is at the first text's last place."""
        lengths = self.parts[:, 0, -1].detach().double().norm(dim=-1).cpu().numpy()
        return Sheet("a state as a sum", parts=[Bars("length of each part at the last place", self.names, lengths)])


def _norm_parts(norm: nn.Module, x: Tensor, parts: Tensor, names: list[str], bias: str) -> tuple[list[str], Tensor]:
    """norm(x) as a sum over the parts of x, with the scale that x gave it; its bias is one part more.

    LayerNorm: (p - mean p) / sqrt(var x + eps) * w each, and b. RMSNorm: p / sqrt(mean x^2 + eps) * (w + offset).
    """
    if isinstance(norm, nn.LayerNorm):
        scale = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
        parts = (parts - parts.mean(-1, keepdim=True)) * scale * norm.weight
        norm_bias: Tensor | None = norm.bias  # None where the family's norms have none
        if norm_bias is None:
            return names, parts
        return [*names, bias], torch.cat((parts, norm_bias.expand_as(x)[None]))
    assert isinstance(norm, RMSNorm)
    scale = (x.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt()
    return names, parts * scale * (norm.weight + norm.offset)


def _attention(tower: StackHandle, layer: int, name: str) -> tuple[list[str], list[str]]:
    """(the heads' addresses, the name of the output bias where there is one)."""
    heads = [tower.at(f"blocks.{layer}.{name}.head.{h}.out") for h in range(tower.spec.attention.n_heads)]
    module = getattr(tower.block(layer), name)
    return heads, [tower.at(f"blocks.{layer}.{name}.bias")] if module.output_layer().bias is not None else []


def _gather(tower: StackHandle, r: Mapping[str, Tensor], layers: list[int], start: str) -> tuple[list[str], Tensor]:
    """The stream after `layers` of a stack that norms no sum, as the parts that were added: [n, B, L, H]."""
    names, added = [start], [r[start][None]]
    for i in layers:
        for name in ("attn", "cross") if tower.spec.cross else ("attn",):
            heads, bias = _attention(tower, i, name)
            parts = [r[a] for a in heads]
            if bias:
                parts.append(getattr(tower.block(i), name).output_layer().bias.expand_as(parts[0]))
            part_names, joined = _joining(tower, i, name, [*heads, *bias], torch.stack(parts))
            names, added = [*names, *part_names], [*added, joined]
        out = tower.at(f"blocks.{i}.mlp.out")
        part_names, joined = _joining(tower, i, "mlp", [out], r[out][None])
        names, added = [*names, *part_names], [*added, joined]
    return names, torch.cat(added)


def _joining(tower: StackHandle, layer: int, name: str, names: list[str], parts: Tensor) -> tuple[list[str], Tensor]:
    """The parts [n, B, L, H] of a layer's result as they join the stream: normed with its own scale, and scaled."""
    block = tower.block(layer)
    if not isinstance(block, ResultBlock):
        return names, parts
    norm = block.attn_result_norm if name == "attn" else block.mlp_result_norm
    if not isinstance(norm, nn.Identity):
        at = tower.at(f"blocks.{layer}.{name}_result_norm.bias")
        names, parts = _norm_parts(norm, parts.sum(0), parts, names, at)
    return names, parts * block.scale


def _post_norm(
    tower: StackHandle, r: Mapping[str, Tensor], layer: int, names: list[str], parts: Tensor, summed: str
) -> tuple[list[str], Tensor]:
    """The parts of what enters a block that norms its sums, as parts of what leaves it, with its own."""
    block = tower.block(layer)
    for name in ("attn", "cross") if tower.spec.cross else ("attn",):
        heads, bias = _attention(tower, layer, name)
        added = [r[a] for a in heads]
        if bias:
            added.append(getattr(block, name).output_layer().bias.expand_as(added[0]))
        names, parts = [*names, *heads, *bias], torch.cat((parts, torch.stack(added)))
        at = tower.at(f"blocks.{layer}.{name}_norm.bias")
        names, parts = _norm_parts(getattr(block, f"{name}_norm"), parts.sum(0), parts, names, at)
    out = tower.at(f"blocks.{layer}.mlp.out")
    names, parts = [*names, out], torch.cat((parts, r[out][None]))
    names, parts = _norm_parts(block.mlp_norm, parts.sum(0), parts, names, tower.at(f"blocks.{layer}.mlp_norm.bias"))
    if summed and layer == 0:
        names, parts = [*names, summed], torch.cat((parts, r[summed][None]))
        names, parts = _norm_parts(block.conv.norm, parts.sum(0), parts, names, f"{summed}.norm.bias")
    return names, parts


@torch.no_grad()
@measure
def last_state(
    model: LanguageModel,
    inputs: Inputs,
    *,
    tower: str | None = None,
    every_block: bool = False,
    positions: Sequence[int] | None = None,
) -> StateParts:
    """The state that the head reads, as a sum, exactly.

    Pre-norm: every head, bias and feed-forward layer since the embedding, through the last norm with the scale that the
    whole state gave it (frozen); where a layer's result is normed or scaled before it is added, so are its parts, with
    the scale that the whole result gave. Post-norm: each block norms what came before, so only the last block is taken
    apart: its input, heads and biases through both of its norms, its feed-forward layer through the second.

    Args:
        every_block: of a post-norm model, take every block apart, each norm with the scale that its whole sum gave it.
        positions: the places that are wanted; all unless given. The result's L is their number.
    """
    handle = tower_of(model, tower)
    spec, last = handle.spec, handle.spec.n_layers - 1
    pre = spec.norm_place != "post"
    wanted = [
        handle.at("embed"),
        handle.at("blocks.*.attn.head.*.out"),
        handle.at("blocks.*.mlp.out"),
        handle.at("blocks.*.resid"),
    ]
    wanted += [handle.at("blocks.*.cross.head.*.out")] if spec.cross else []
    summed = handle.at("blocks.0.conv") if spec.convolution is not None and (every_block or last == 0) else ""
    wanted += [summed] if summed else []
    with model.record(*wanted) as recorder:
        model(**inputs)
    kept = slice(None) if positions is None else list(positions)
    r = {address: recorder[address][:, kept] for address in recorder}
    if pre:
        names, parts = _gather(handle, r, list(range(spec.n_layers)), handle.at("embed"))
        state = r[handle.at(f"blocks.{last}.resid")]
        if spec.final_norm:
            names, parts = _norm_parts(handle.stack.final_norm, state, parts, names, handle.at("final_norm.bias"))
            state = handle.stack.final_norm(state)
        return _projected(handle, names, parts, state)
    start = handle.at("embed") if every_block or not last else handle.at(f"blocks.{last - 1}.resid")
    names, parts = [start], r[start][None]
    for layer in range(0 if every_block else last, last + 1):
        names, parts = _post_norm(handle, r, layer, names, parts, summed)
    state = r[handle.at(f"blocks.{last}.resid")]
    if spec.final_norm:
        names, parts = _norm_parts(handle.stack.final_norm, state, parts, names, handle.at("final_norm.bias"))
        state = handle.stack.final_norm(state)
    return _projected(handle, names, parts, state)


def _projected(handle: StackHandle, names: list[str], parts: Tensor, state: Tensor) -> StateParts:
    """The parts at the width that the head reads; the matrix has no bias, so they sum to the state as before."""
    if not handle.spec.projects_out:
        return StateParts(names, parts, state)
    return StateParts(names, handle.stack.project_out(parts), handle.stack.project_out(state))


def _linear(model: LabelHead) -> bool:
    """Whether the head is one matrix on one token's state."""
    spec = model.head_spec
    if model.vector is not None or isinstance(model, SummaryHead):
        return False
    return not (spec.dense or spec.norm or model.mean or model.late) and spec.pick in ("first", "last")


def reads_linearly(model: LanguageModel, target: Target) -> bool:
    """Whether the number that is explained is a logit that one matrix reads from one state."""
    if type(target) is not Target:
        return False
    head = output_head(model)
    if head is not None:
        return not head.head_spec.dense
    return isinstance(model, LabelHead) and not isinstance(model, SpanHead | MultipleChoice) and _linear(model)


def _readout(model: LanguageModel) -> tuple[Tensor, Tensor | None, float]:
    """(matrix [V, H], bias [V] or None, factor before it) of a head that reads the state linearly."""
    head = output_head(model)
    if head is not None and not head.head_spec.dense:
        out = cast(nn.Linear, head.get_output_embeddings())
        extra = getattr(head, getattr(head, "logits_bias", "") or "_", None)
        bias = out.bias
        if extra is not None:
            bias = extra[0] if bias is None else bias + extra[0]
        return out.weight, bias, float(model.architecture.output_scale)
    if isinstance(model, LabelHead) and _linear(model):
        out = cast(nn.Linear, model.get_submodule(model.head_spec.out))
        return out.weight, out.bias, 1.0
    raise InputError(
        f"the head of {type(model).__name__} has a layer between the state and the answer, so a part has no share of a "
        "logit; head_attribution(model, inputs) shares the answer out through that layer, and the product of "
        "last_state(model, inputs) with a direction is exact."
    )


def _bounded_share(model: LanguageModel, logit: Tensor) -> Tensor | float:
    """What a logit becomes when it is bounded, as a factor on it."""
    cap = None if output_head(model) is None else model.architecture.output_cap
    if cap is None or not bool(logit):
        return 1.0
    return (logit / cap).tanh() * cap / logit


@torch.no_grad()
@measure
def direct_logit_attribution(model: LanguageModel, inputs: Inputs, target: Target | None = None) -> Contributions:
    """What each part of the model adds to a logit, directly; the parts sum to the logit (Elhage et al., 2021).

    logit = u . (sum of parts of `last_state`) + bias, with u the output matrix's row (or the difference of two). What a
    part does through later layers is not in its share; what later layers did with it is in theirs. Logits with a bound
    (Gemma 2) are their unbounded values times a factor, which is frozen as the norm's scale is.

    In float32 and float64 the sum is the logit but for rounding. With weights in blocks (GGUF, int4) or int8, the parts
    use the dequantized weights, and the logit is the rounded product of the run, so `total` misses `logit` a little (by
    0.2% in SmolLM2). `note` says so above 0.1%.

    Args:
        inputs: one text. target: the logit; by default the likeliest token after the last position.

    Raises:
        InputError: a head with a layer of its own (BERT's), or more than one text.
    """
    weight, bias, factor = _readout(model)
    text_inputs = one_text(inputs, 0)
    if inputs[next(iter(text_inputs))].shape[0] != 1:
        raise InputError("direct_logit_attribution takes one text at a time.")
    fixed = (target or Target()).fixed(model, text_inputs)
    with model.record("logits") as r:
        state_parts = last_state(model, text_inputs)
    position = fixed.position
    if position is None:
        first = isinstance(model, LabelHead) and model.head_spec.pick == "first"
        position = 0 if first else state_parts.state.shape[1] - 1
    assert fixed.index is not None
    parts, names = state_parts.parts[:, 0, position], state_parts.names  # [n, H]
    if bias is not None:
        names = [*names, "logits.bias"]

    def shares(index: int) -> Tensor:
        """What each part adds to one logit, [n]."""
        each = parts @ weight[index] * factor
        each = each if bias is None else torch.cat((each, bias[index][None]))
        return each * _bounded_share(model, each.sum())

    values = shares(fixed.index)
    if fixed.against is not None:
        values = values - shares(fixed.against)
    logit = float(fixed.of(r["logits"]))
    return Contributions(names, values, float(values.sum()), logit, fixed.index, fixed.against, position)
