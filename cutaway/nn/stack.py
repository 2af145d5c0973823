"""A stack: embeddings, blocks, the last norm; from ids to hidden states."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cutaway.config.architecture import Alibi, Distances, DistanceWaves, Learned, Relative
from cutaway.config.architecture import Embedding as EmbeddingSpec
from cutaway.config.architecture import Stack as Spec
from cutaway.errors import InputError
from cutaway.nn.activations.taps import Taps
from cutaway.nn.attention import Context
from cutaway.nn.block import make_block
from cutaway.nn.block_graph import BlockGraphs
from cutaway.nn.block_order import follow_blocks
from cutaway.nn.cached_inputs import CachedInputs
from cutaway.nn.call_context import begin_pass, current, evaluating, scopes_of
from cutaway.nn.distances import DistanceTable, WaveTable
from cutaway.nn.dropout import dropout
from cutaway.nn.kernel_graph import KeptSteps
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear, hooked
from cutaway.nn.lora import set_call_rows, with_call_context
from cutaway.nn.named_modules import NamedModule, Unhookable
from cutaway.nn.norm_mlp import Embedding, Sinusoids, Waves, make_norm, times_rounded
from cutaway.nn.packed_batch import (
    PackedBatch,
    SharedRows,
    TextLengths,
    check_mask,
    check_texts,
)
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.positions import AlibiTable, RelativeBias, RotaryTable
from cutaway.nn.shared_prefix import shared_rows
from cutaway.nn.stack_inputs import Batch
from cutaway.outputs import BaseModelOutput, BaseModelOutputWithPast


class Embed(PaddedHooks, NamedModule):
    """Token, position and type vectors, added, scaled and normed."""

    def __init__(self, spec: EmbeddingSpec, hidden_size: int, tokens: nn.Embedding | None) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width or hidden_size
        # no padding_idx: a padding vector is a weight like any other, and its gradient is never asked for
        if tokens is None:
            tokens = table = Embedding(spec.vocab_size, width)
            table.embed_scale = spec.scale if spec.scales_table and spec.scale != 1.0 else None
        self.tokens = tokens
        if spec.positions is not None:
            learned = spec.positions
            rows = learned.size + (0 if learned.after_padding else learned.offset)
            kind = Sinusoids if learned.fixed else Embedding
            size = hidden_size if spec.projects_tokens else width
            self.positions = Waves(size, learned.offset - 1) if learned.endless else kind(rows, size)
        if spec.n_types:
            self.types = Embedding(spec.n_types, width)
        if spec.norm is not None:
            self.norm = make_norm(spec.norm, width)
        if spec.width is not None:
            self.project = Linear(width, hidden_size, bias=not spec.projects_tokens)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """input_ids, types and position_ids [...] -> [..., hidden]; inputs_embeds [..., width] replaces the tokens."""
        x = self.tokens(input_ids) if inputs_embeds is None else inputs_embeds
        pad_id = self.spec.pad_id if current().whole else None
        if pad_id is not None and input_ids is not None:
            x = untrained_where(input_ids.eq(pad_id), x)
        if self.spec.scale != 1.0 and inputs_embeds is None and not self.spec.scales_table:
            x = self.scaled(x)
        if self.spec.projects_tokens:
            x = self.project(x)
        if self.spec.n_types:
            if token_type_ids is None and (type(self.types) is not Embedding or hooked(self.types)):
                token_type_ids = torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device)
            x = x + (self.types.weight[0] if token_type_ids is None else self.types(token_type_ids))
        if self.spec.positions is not None:
            if position_ids is None:
                position_ids = torch.arange(x.shape[-2], device=x.device) + self.spec.positions.offset
            places = self.positions(position_ids).to(x.dtype)
            if pad_id is not None and self.spec.positions.after_padding:
                places = untrained_where(position_ids.lt(self.spec.positions.offset), places)
            x = x + places
        if self.spec.norm is not None:
            x = self.norm(x)
        x = dropout(x, self.spec.dropout, self.training and not evaluating())
        return x if self.spec.width is None or self.spec.projects_tokens else self.project(x)

    def scaled(self, vectors: Tensor) -> Tensor:
        """Rows of the token table as they enter the sum: times the family's factor, rounded as it is published."""
        return times_rounded(vectors, self.spec.scale)


def untrained_where(chosen: Tensor, vectors: Tensor) -> Tensor:
    """The vectors [..., width], without gradients where `chosen` [...]: upstream never trains the vector of padding."""
    return torch.where(chosen[..., None], vectors.detach(), vectors)


class Stack(Unhookable, NamedModule):
    """embed, blocks, final_norm."""

    def __init__(self, spec: Spec, prefix: str = "", tokens: nn.Embedding | None = None) -> None:
        super().__init__()
        self.prefix = prefix
        build_stack(self, spec, tokens)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutput | BaseModelOutputWithPast:
        """This stack alone: ids [batch, length] -> its last hidden states [batch, length, hidden].

        Args:
            encoder_hidden_states: [batch, source length, hidden], what a decoder looks at; without it, it looks at its
                own text alone. encoder_attention_mask: [batch, source length].
            past_key_values, use_cache: of a decoder: the cache to go on with, and whether to make one (in evaluation
                it does).
        """
        follow_blocks(self)
        if (past_key_values is not None or use_cache) and not self.spec.causal:
            raise InputError("this stack reads the whole text at once: leave past_key_values and use_cache out.")
        if encoder_hidden_states is not None and not self.spec.cross:
            raise InputError("encoder_hidden_states is for a decoder that looks at them, and this stack does not.")
        if use_cache is None:
            use_cache = self.spec.causal and not (self.training and not evaluating())
        cache = Cache() if past_key_values is None and use_cache else past_key_values
        batch = Batch.of(self, input_ids, attention_mask, inputs_embeds=inputs_embeds, cache=cache)
        memory, memory_rows = None, None
        if encoder_hidden_states is not None:
            n, source, _ = encoder_hidden_states.shape
            memory_rows = PackedBatch(
                n, source, check_mask(encoder_attention_mask, n, source, "encoder_attention_mask")
            )
            check_texts(memory_rows)
            memory = memory_rows.pack(encoder_hidden_states).flatten(0, -2)  # [rows, hidden]
        x = run_stack(self, batch, Taps(()), memory, memory_rows)
        last = batch.rows.pad_hidden(x)
        if cache is None:
            return BaseModelOutput(last_hidden_state=last)
        return BaseModelOutputWithPast(last_hidden_state=last, past_key_values=cache)


def build_stack(owner: NamedModule, spec: Spec, tokens: nn.Embedding | None = None) -> None:
    """Give `owner` the modules of one stack."""
    owner.spec = spec
    owner.gradient_checkpointing = False
    owner.embed = Embed(spec.embedding, spec.hidden_size, tokens)
    owner.built, owner.numbers = spec, tuple(range(spec.n_blocks))
    owner.blocks = nn.ModuleList(make_block(spec, i) for i in range(spec.n_blocks))
    if spec.final_norm:
        owner.final_norm = make_norm(spec.norm, spec.hidden_size)
    if spec.projects_out:
        owner.project_out = Linear(spec.hidden_size, spec.width, bias=False)
    if isinstance(spec.positions, Relative) and not spec.positions.per_layer:
        owner.relative = RelativeBias(spec.positions, spec.attention.n_heads, spec.causal)
    elif isinstance(spec.attention.distances, DistanceWaves):
        owner.waves = WaveTable(spec.attention.distances, spec.hidden_size)
    elif isinstance(spec.attention.distances, Distances):
        owner.relative = DistanceTable(spec.attention.distances, spec.hidden_size)
        if spec.attention.distances.norm is not None:
            owner.relative_norm = make_norm(spec.attention.distances.norm, spec.hidden_size)
    if isinstance(spec.positions, Alibi):
        owner.alibi = AlibiTable(spec.positions, spec.attention.n_heads)
    owner.graphs, owner.kept_steps = BlockGraphs(), KeptSteps()
    owner.rotary = {rotary: RotaryTable(rotary) for rotary in spec.rotary if rotary is not None}
    owner.by_length = any(rotary.by_length for rotary in owner.rotary)


def embed_batch(stack: NamedModule, batch: Batch) -> Tensor:
    """The batch's tokens as vectors, [rows, hidden] where packed, else [batch, length, hidden]."""
    spec: Spec = stack.spec
    pack = batch.rows.pack
    learned = spec.embedding.positions
    positions = batch.position_ids
    if learned is not None and positions is None:
        positions = _learned_positions(batch, learned, spec.embedding.pad_id)
    elif positions is not None:
        positions = pack(positions) if learned is None or learned.after_padding else pack(positions) + learned.offset
    ids, vectors = batch.input_ids, batch.inputs_embeds
    if vectors is not None and spec.embedding.scales_inputs:
        vectors = stack.embed.scaled(vectors)
    for scope in scopes_of(stack):
        if scope.vectors is not None:
            ids, vectors = None, scope.vectors
    return stack.embed(  # type: ignore[no-any-return]
        None if ids is None else pack(ids),
        token_type_ids=None if batch.token_type_ids is None else pack(batch.token_type_ids),
        position_ids=positions,
        inputs_embeds=None if vectors is None else pack(vectors),
    )


def _learned_positions(batch: Batch, learned: Learned, pad_id: int | None) -> Tensor:
    rows, cache, offset = batch.rows, batch.cache, learned.offset
    device = (batch.input_ids if batch.input_ids is not None else batch.inputs_embeds).device  # type: ignore[union-attr]
    continues = cache is not None and not cache.empty
    if learned.after_padding and batch.input_ids is not None and not continues:
        real = torch.ne(batch.input_ids, -1 if pad_id is None else pad_id)  # [batch, length]
        if (
            rows.packed or rows.whole
        ):  # a word that the mask hides in the middle counts; what stands before the text does not
            real = real & (torch.arange(rows.length, device=device) >= rows.first()[:, None])
        elif rows.mask is not None:
            real = real & rows.mask
        return rows.pack(real.cumsum(1) * real + (offset - 1))
    positions = (rows.counts(device) if learned.skips_hidden else rows.positions(device)) + offset
    if cache is not None and continues:
        positions = positions + (cache.lengths if learned.skips_hidden else cache.ends())[:, None]
    return positions


def run_blocks(stack: NamedModule, x: Tensor, context: Context, taps: Taps) -> Tensor:
    """What the first block reads -> what the last one leaves, in the same layout."""
    blocks = list(stack.blocks)
    for i, n in enumerate(stack.spec.order):
        tap = taps.at(f"{stack.prefix}blocks.{i}.", context.rows)
        again = stack.gradient_checkpointing and torch.is_grad_enabled() and tap is None and context.cache is None
        if again and stack.training and not evaluating():
            x = checkpoint(with_call_context(blocks[n]), x, context, i, use_reentrant=False)
        else:
            x = blocks[n](x, context, i, tap)
    return x


def run_stack(
    stack: NamedModule,
    batch: Batch,
    taps: Taps,
    memory: Tensor | None = None,
    memory_rows: PackedBatch | None = None,
    blocks: Callable[[Any, Tensor, Context, Taps], Tensor] | None = None,
) -> Tensor:
    """The batch through all blocks; the result has the rows' own layout.

    `stack` has embed, blocks and, by its spec, final_norm, relative, rotary.
    """
    begin_pass()
    spec: Spec = stack.spec
    rows, cache = batch.rows, batch.cache
    prefill = cache is None or cache.empty
    set_call_rows(rows)
    x = embed_batch(stack, batch)
    context = Context(
        rows,
        spec.causal,
        spec.windows,
        spec.rotary if stack.rotary else (),
        cache=cache,
        prefill=prefill,
        memory=memory,
        memory_rows=memory_rows,
        stored=rows.stored() if cache is not None and rows.whole else None,
    )
    with nullcontext() if cache is None else cache.appending(context.stored or rows, spec.n_layers):
        _add_positions(stack, batch, x, context, taps)
        taps.start = 0 if prefill or cache is None else cache.seen
        x = _offer(stack, taps, "embed", x, rows)
        if blocks is not None:
            x = blocks(stack, x, context, taps)
        elif (shared := _shared_rows(stack, batch, context, taps)) is not None:
            x = _run_shared(stack, x, context, taps, shared)
        else:
            x = stack.graphs.run(stack, x, context, taps, run_blocks)
        if spec.final_norm:
            rate = spec.dropout if isinstance(spec.positions, Relative) else 0.0
            x = dropout(stack.final_norm(x), rate, stack.training and not evaluating())
            x = _offer(stack, taps, "final_norm", x, rows)
        if spec.projects_out:
            x = _offer(stack, taps, "project_out", stack.project_out(x), rows)
    return x


def _shared_rows(stack: NamedModule, batch: Batch, context: Context, taps: Taps) -> SharedRows | None:
    """The rows that texts of this batch share, where each is to be computed once."""
    beside = (batch.token_type_ids, context.cache, context.memory)
    if batch.input_ids is None or any(one is not None for one in beside) or not taps.is_idle:
        return None
    return shared_rows(stack, batch.rows, batch.input_ids, batch.position_ids)


def _run_shared(stack: NamedModule, x: Tensor, context: Context, taps: Taps, shared: SharedRows) -> Tensor:
    """As `run_blocks`, with the rows alone that are computed; the result has them all again, in the layout of x."""
    shape, last = x.shape, x.dim() - 1
    turns = {
        rotary: (shared.select(cos.flatten(0, last - 1)), shared.select(sin.flatten(0, last - 1)))  # [n, 1, size]
        for rotary, (cos, sin) in context.turns.items()
    }
    few = replace(context, turns=turns, shared_rows=shared)
    return shared.spread(run_blocks(stack, shared.select(x.flatten(0, last - 1)), few, taps)).view(shape)


def _add_positions(stack: NamedModule, batch: Batch, x: Tensor, context: Context, taps: Taps) -> None:
    """Give the context what attention knows of positions: cosines and sines, or a bias by distance."""
    spec: Spec = stack.spec
    rows, cache, prefill = batch.rows, batch.cache, context.prefill
    if stack.rotary:
        positions = batch.position_ids
        positions = rows.positions(x.device) if positions is None else rows.pack(positions)
        if batch.position_ids is None and not prefill and cache is not None:
            positions = positions + cache.ends()[:, None]
        n_cached = 0 if cache is None else cache.end
        longest = int(positions.max()) + 1 if batch.position_ids is not None else rows.length + n_cached
        texts = rows.reaches(positions) if stack.by_length else None
        if texts is not None and cache is not None:
            _keep_inputs(stack, x, positions, texts.lengths, context, taps)
        context.turns = {rotary: table(positions, longest, x.dtype, texts) for rotary, table in stack.rotary.items()}
    elif isinstance(spec.positions, Relative) and _goes_by_step(stack, rows, cache, prefill):
        context.bias_by_step = True
        context.step_bias = None if spec.positions.per_layer else stack.relative.by_step()
    elif isinstance(spec.positions, Relative):
        keys = queries = torch.arange(rows.length, device=x.device)
        if not prefill and cache is not None:
            queries, keys = cache.ends()[:, None] + queries, cache.positions()[:, None]  # [batch, n] and its keys
        if spec.positions.per_layer:
            context.bias_positions = queries, keys
        else:
            context.bias = stack.relative(queries, keys)
    elif isinstance(spec.attention.distances, DistanceWaves):
        context.distances = stack.waves.between(1 - rows.reach, rows.reach - 1, x)
        context.types = None if batch.token_type_ids is None else rows.pack(batch.token_type_ids)
    elif isinstance(spec.attention.distances, Distances):
        norm = None if spec.attention.distances.norm is None else stack.relative_norm
        context.distances = stack.relative.reaching(rows.reach, norm)
    elif isinstance(spec.positions, Alibi):
        context.by_count = True
        steps = torch.arange(rows.length, device=x.device)
        if prefill and rows.whole and rows.mask is not None:  # each word its column, so that columns are no counts
            counts = rows.counts(x.device).clamp(min=0)  # [batch, length]
            context.bias = stack.alibi(counts, counts, x.dtype)
        elif prefill:
            context.bias = stack.alibi(steps, steps, x.dtype)
        elif cache is not None:
            keys = cache.counts()
            context.bias = stack.alibi(keys[:, -rows.length :], keys, x.dtype)


def _goes_by_step(stack: NamedModule, rows: PackedBatch, cache: Cache | None, prefill: bool) -> bool:
    """Whether a cached step may take T5's bias by how many columns of the cache a key is behind its query."""
    relative = stack.blocks[0].attn.relative if stack.spec.positions.per_layer else stack.relative
    in_order = cache is not None and not prefill and not cache.scattered and rows.key_mask is None
    return in_order and stack.spec.causal and isinstance(relative, RelativeBias)


def _keep_inputs(
    stack: NamedModule, x: Tensor, positions: Tensor, reaches: list[int], context: Context, taps: Taps
) -> None:
    """Keep what enters the first block, and bring what the cache holds to the frequencies of texts of these lengths.

    x [batch, length, hidden] or [rows, hidden]; reaches: how long each text is, the new tokens included.
    """
    cache, rows = context.cache, context.rows
    assert cache is not None
    if context.prefill:
        cache.inputs = CachedInputs.of(x, positions, rows, reaches)
        return
    before = cache.ends().tolist() if cache.inputs is None else cache.inputs.reaches
    both = list(zip(before, reaches, strict=True))
    if any(rotary.regime(a) != rotary.regime(b) for rotary in stack.rotary for a, b in both):
        if cache.inputs is None:
            raise InputError(
                f"past_key_values does not hold what it was computed from, and a text of {max(reaches)} tokens needs "
                "other rotary frequencies; run the whole text without it."
            )
        _renew(stack, cache, cache.inputs, reaches, context, taps)
        set_call_rows(rows)
    if cache.inputs is not None:
        cache.inputs.append(x, positions, cache.longest, reaches)


def _renew(
    stack: NamedModule, cache: Cache, inputs: CachedInputs, reaches: list[int], context: Context, taps: Taps
) -> None:
    """Run the texts that a cache holds again, as parts of texts of these lengths, and keep their keys and values."""
    rows, fresh = cache.rows(), Cache()
    set_call_rows(rows)
    with torch.no_grad():
        x = cache.packed(inputs.x[:, : cache.longest], rows)
        positions = cache.packed(inputs.positions[:, : cache.longest], rows)
        texts = TextLengths(reaches, rows.reaches(positions).owners)
        longest = int(positions.max()) + 1
        turns = {rotary: table(positions, longest, x.dtype, texts) for rotary, table in stack.rotary.items()}
        again = taps.edits_alone()
        with fresh.appending(rows, stack.spec.n_layers):
            x = _offer(stack, again, "embed", x, rows)
            run_blocks(stack, x, replace(context, rows=rows, cache=fresh, prefill=True, turns=turns), again)
    cache.replace(fresh)
    inputs.reaches = reaches


def _offer(stack: NamedModule, taps: Taps, part: str, x: Tensor, rows: PackedBatch) -> Tensor:
    tap = taps.at(stack.prefix, rows)
    return x if tap is None else tap.expose(part, x)
