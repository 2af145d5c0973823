"""One stack of a loaded model, and what a measure must know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from cutaway.config.architecture import Stack as Spec
from cutaway.errors import InputError, nearest
from cutaway.nn.call_context import Scope, within
from cutaway.nn.stack import Embed

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.nn.named_modules import NamedModule

Inputs = Mapping[str, Any]  # what a tokenizer returns with return_tensors="pt"


@dataclass(frozen=True)
class StackHandle:
    """A stack: its addresses' prefix, its module, its architecture, and the names of its inputs."""

    prefix: str
    stack: NamedModule
    spec: Spec
    ids: str
    mask: str

    def at(self, part: str) -> str:
        """The address of `part` in this stack."""
        return self.prefix + part

    def layers(self, part: str) -> list[str]:
        """`part` in every block."""
        return [f"{self.prefix}blocks.{i}.{part}" for i in range(self.spec.n_layers)]

    def block(self, layer: int) -> Any:
        """The module of a block (several layers may share one); InputError where it has no such layer."""
        n_layers = len(self.spec.order)
        if not -n_layers <= layer < n_layers:
            raise InputError(f"layer={layer}: the model has layers 0 to {n_layers - 1}.")
        return self.stack.blocks[self.spec.order[layer]]

    def real(self, inputs: Inputs) -> Tensor:
        """[batch, length] bool: the tokens that are not padding."""
        ids: Tensor = inputs[self.ids]
        mask = inputs.get(self.mask)
        return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()

    def vectors(self, ids: Tensor) -> Tensor:
        """The token vectors [..., width] with which `ids` enter the sum of embeddings."""
        embed = cast(Embed, self.stack.embed)
        rows: Tensor = embed.tokens(ids)
        return rows if embed.spec.scales_table else self.scaled(rows)

    def scaled(self, vectors: Tensor) -> Tensor:
        """Rows of the token table as they enter the sum: times the family's factor, rounded as the engine rounds it."""
        embed = cast(Embed, self.stack.embed)
        return vectors if embed.spec.scale == 1.0 else embed.scaled(vectors)

    @contextmanager
    def reading(self, vectors: Tensor) -> Iterator[None]:
        """Inside, the stack reads these vectors [batch, length, width] in place of its tokens'; positions stay.

        Only in the calls of this thread or task.
        """
        with within(Scope(self.stack, vectors=vectors)):
            yield


def tower_of(model: LanguageModel, which: str | None = None) -> StackHandle:
    """The stack called `which`: "encoder" or "decoder" of a model that has both (there the decoder unless given).

    Raises:
        InputError: the model has one stack, and another is asked for.
    """
    base = model.base_model
    architecture = base.architecture
    if architecture.decoder is None:
        if which is not None:
            raise InputError(f"this model has one stack; leave {which!r} out.")
        return StackHandle("", base, architecture.stack, "input_ids", "attention_mask")
    which = which or "decoder"
    if which not in ("encoder", "decoder"):
        raise InputError(f"{which!r} is no stack of this model.{nearest(which, ['encoder', 'decoder'])}")
    if which == "encoder":
        return StackHandle("encoder.", base.encoder, architecture.stack, "input_ids", "attention_mask")
    decoder = getattr(base.decoder, "base_model", base.decoder)  # a model of its own, in a pair of two families
    return StackHandle("decoder.", decoder, architecture.decoder, "decoder_input_ids", "decoder_attention_mask")


def logits_options(model: LanguageModel) -> dict[str, bool]:
    """What a pass without a cache is asked for."""
    return {"use_cache": False} if model.base_model.architecture.stack.causal else {}


def logits_of(model: LanguageModel, inputs: Inputs) -> Tensor:
    """The logits of one pass, without a cache.

    Raises:
        InputError: the model has no one tensor of logits.
    """
    out = model(**inputs, **logits_options(model), return_dict=True)
    logits = out.get("logits")
    if not isinstance(logits, Tensor):
        raise InputError(
            f"{type(model).__name__} gives no logits; load it with the head whose answer is to be explained."
        )
    return logits


def one_text(inputs: Inputs, row: int) -> dict[str, Tensor]:
    """Text `row` alone, its padding left out; words that the mask hides in the middle stay, and stay hidden.

    Raises:
        InputError: there is no such row, or there are no ids.
    """
    rows = next((len(inputs[ids]) for ids in ("input_ids", "decoder_input_ids") if inputs.get(ids) is not None), 0)
    if not rows:
        raise InputError("inputs hold no ids of tokens: pass input_ids.")
    if not -rows <= row < rows:
        raise InputError(f"row={row}: there {'is 1 text' if rows == 1 else f'are {rows} texts'}, counted from 0.")
    row_inputs: dict[str, Tensor] = {}
    for ids, mask, follow in (
        ("input_ids", "attention_mask", ("token_type_ids", "position_ids")),
        ("decoder_input_ids", "decoder_attention_mask", ()),
    ):
        if inputs.get(ids) is None:
            continue
        row_mask = inputs.get(mask)
        text = slice(None)
        if row_mask is not None:
            real = row_mask[row].nonzero()[:, 0]
            text = slice(int(real[0]), int(real[-1]) + 1) if len(real) else slice(0, 0)
            if len(real) and text.stop - text.start != len(real):
                row_inputs[mask] = row_mask[row, text][None]  # [1, length]
        for name in (ids, *follow):
            if inputs.get(name) is not None:
                value = inputs[name]
                row_inputs[name] = value[row if value.shape[0] > 1 else 0][text][None]  # [1, length]
    return row_inputs


def repeated(inputs: Inputs, n: int) -> dict[str, Tensor]:
    """A batch of one text, `n` times."""
    return {name: value.expand(n, *value.shape[1:]) for name, value in inputs.items()}
