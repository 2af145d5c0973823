"""A step of decoding: the same engine, with every question that has the same answer at each step asked once.

A module is settled when nobody watches it and nothing about it will change while a text is generated. It then needs no
calls through `nn.Module`, no look at hooks, weights or gradients, and its children are plain attributes. The arithmetic
is the module's own `forward`: a settled block runs the lines that the open path runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as calls

from cutaway import native
from cutaway.model.attention import Context
from cutaway.model.backbone import Backbone, EncoderDecoder
from cutaway.model.cache import Cache
from cutaway.model.heads import CausalLM
from cutaway.model.layers import Embedding, LayerNorm, RMSNorm, Sinusoids
from cutaway.model.linear import Linear, Packed, bound, hooked
from cutaway.model.part import Part
from cutaway.model.positions import RelativeBias
from cutaway.model.rows import Rows
from cutaway.model.seq2seq import Seq2SeqLM
from cutaway.model.stack import Batch, run_blocks, run_stack
from cutaway.model.tape import Tape, Turns
from cutaway.model.taps import Taps

# modules beside `Part` whose forward reads nothing but their attributes
_PLAIN = (RMSNorm, LayerNorm, Embedding, Sinusoids, RelativeBias, nn.LayerNorm, nn.Embedding, nn.Identity)
_NOTHING = Taps(())
RECORDED = 2  # the step whose kernels are noted: by then all weights are laid out
_settled: dict[type, type] = {}


def watched(model: nn.Module) -> bool:
    """Whether somebody would notice that modules are not called: hooks, here or on all modules, or another forward."""
    if calls._global_forward_hooks or calls._global_forward_pre_hooks or calls._global_backward_hooks:
        return True
    return any(hooked(m) or "forward" in m.__dict__ for m in model.modules())


def settled(module: nn.Module) -> Any:
    """`module`, unwatched and in evaluation mode, as a plain callable object with the same weights.

    What is not the engine's own (an adapter that somebody put in a layer's place) stays as it is.
    """
    if type(module) is Linear:
        return bound(module.packed, [module]) or module
    if type(module) is nn.ModuleList:
        return [settled(child) for child in module]
    if not isinstance(module, Part) and type(module) not in _PLAIN:
        return module
    kind = _settled.get(type(module))
    if kind is None:
        # a class of its own, so that a call finds forward at once
        kind = type(f"Settled{type(module).__name__}", (type(module),), {"__call__": type(module).forward})
        _settled[type(module)] = kind
    found: Any = object.__new__(kind)
    parts = found.__dict__
    parts.update(module.__dict__)
    parts.update(module._parameters)
    parts.update(module._buffers)
    parts.update({name: settled(child) for name, child in module._modules.items() if child is not None})
    if isinstance(parts.get("packed"), Packed):
        beside = [getattr(module, name) for name in module.side_by_side]  # type: ignore[union-attr]
        parts["packed"] = bound(module.packed, beside) or module.packed  # type: ignore[arg-type]
    return found


class Stepper:
    """The next logits of texts whose earlier tokens a cache holds, while nothing is recorded.

    Weights, hooks and modules are looked at when it is made, and not again.
    """

    def __init__(self, model: Any) -> None:
        base = model.base
        self.model = model
        self.recorders, self.edits = base.recorders, base.edits
        self.stack = settled(base if base.architecture.decoder is None else base.decoder)
        self.tape: Tape | None = None
        self.tries = 0  # steps that went through the blocks' own forward
        self.rows: Rows | None = None
        self.memory_rows: Rows | None = None
        self.memory_mask: Tensor | None = None

    @property
    def usable(self) -> bool:
        """Whether nothing is recorded or edited at the moment."""
        return not self.recorders and not self.edits

    def __call__(
        self, ids: Tensor, cache: Cache, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [batch, n, vocabulary] of the new tokens ids [batch, n], which the cache takes in.

        memory: [batch, source length, hidden], what the encoder said, with its mask [batch, source length] or None.
        """
        batch, n = ids.shape
        if self.rows is None or (self.rows.batch, self.rows.length) != (batch, n):
            self.rows = Rows(batch, n, None)
            self.memory_rows = None
        if memory is not None and (self.memory_rows is None or memory_mask is not self.memory_mask):
            self.memory_rows, self.memory_mask = Rows(batch, memory.shape[1], memory_mask), memory_mask
        given = Batch(self.rows, ids, None, None, None, cache)
        x = run_stack(self.stack, given, _NOTHING, memory, self.memory_rows, self._through)  # [batch, n, hidden]
        return self.model.logits(x)  # type: ignore[no-any-return]

    def _through(self, stack: Any, x: Tensor, context: Context, taps: Taps) -> Tensor:
        """`run_blocks`, from the second time on as one call where the kernels do all of it."""
        cache, batch = context.cache, x.shape[0]
        assert cache is not None
        if x.shape[1] != 1 or cache.empty or native.LIBRARY is None:
            return run_blocks(stack, x, context, taps)
        if self.tape is not None and batch <= self.tape.batch:
            return self.tape.play(x, context.turns, cache)
        self.tries += 1
        if self.tape is None and self.tries != RECORDED:
            return run_blocks(stack, x, context, taps)
        tape = Tape(x, context.turns)

        def blocks(x: Tensor, turns: Turns) -> Tensor:
            return run_blocks(stack, x, replace(context, turns=turns), taps)

        x, whole = tape.record(blocks, cache)
        self.tape = tape if whole else None
        return x


def make_stepper(model: Any) -> Stepper | None:
    """A stepper for `model` (a causal or encoder-decoder language model), or None where each step needs its forward."""
    if type(model).forward not in (CausalLM.forward, Seq2SeqLM.forward):  # a user's own
        return None
    base = model.base
    if type(base).forward not in (Backbone.forward, EncoderDecoder.forward) or base.training or torch.is_grad_enabled():
        return None
    if torch.is_autocast_enabled(model.device.type) or watched(model):
        return None
    return Stepper(model)
