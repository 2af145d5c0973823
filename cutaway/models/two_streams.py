"""XLNet's base model: states of the words, and beside them, where it is asked, states of places (Yang et al., 2019).

An ordinary call is one stack like any other's: packed, recorded, edited. What permutes the words, asks at places
(`target_mapping`) or goes on from the states of an earlier text (`mems`) is computed with its padding, a word a column,
by the same modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway.config.config import PretrainedConfig
from cutaway.errors import InputError
from cutaway.models.backbone import Backbone, wants_dict
from cutaway.models.output_request import LayerSelection, wanted_layers
from cutaway.nn.block import WaveBlock
from cutaway.nn.call_context import asked_of, current, evaluating
from cutaway.nn.dropout import dropout
from cutaway.nn.linear import hooked
from cutaway.nn.lora import call_rows, set_call_rows
from cutaway.nn.packed_batch import PackedBatch, check_mask, check_texts
from cutaway.nn.residual import ResidualAdd
from cutaway.nn.stack_inputs import check_ids
from cutaway.outputs import ABSENT, Layers, ModelOutput

if TYPE_CHECKING:
    from cutaway.models.protocols import called_as

# the states that enter each layer, [length, batch, hidden] each: of an earlier text
Mems = Sequence[Tensor | None]


@dataclass(repr=False)
class XLNetModelOutput(ModelOutput):
    """last_hidden_state [batch, length or targets, hidden]; mems: what entered each layer, [length, batch, hidden].

    With targets, hidden_states are those of the words and of the targets in turn, and attentions pairs of theirs.
    """

    last_hidden_state: Tensor = ABSENT
    mems: list[Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass
class StreamInputs:
    """What both streams of one pass share, a word a column.

    Attributes:
        words: [batch, length, hidden]. targets: [batch, targets, hidden], or None.
        mems: [batch, earlier, hidden] for each layer. mapping: [batch, targets, length] or None.
        hidden_words, hidden_targets: 1 where a query does not see a key, [batch or 1, 1, length, earlier + length].
        types: the segments of queries and of keys, or None.
    """

    words: Tensor
    targets: Tensor | None
    mems: list[Tensor]
    mapping: Tensor | None
    hidden_words: Tensor | None
    hidden_targets: Tensor | None
    types: tuple[Tensor, Tensor] | None


class TwoStreams(Backbone[XLNetModelOutput]):
    """A stack that reads words by their distances, also in an order of its own and after an earlier text.

    `drawn`: the parameters that begin as random numbers.
    """

    model_kwargs = ()
    drawn = ("mask_emb",)

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)

    def _build(self) -> None:
        # what a target is before the first layer
        self.mask_emb = nn.Parameter(torch.empty(1, 1, self.architecture.stack.hidden_size))
        super()._build()

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: LayerSelection = None,
        output_hidden_states: LayerSelection = None,
        return_dict: bool | None = None,
    ) -> XLNetModelOutput:
        """Hidden states of a batch.

        Args:
            input_ids: [batch, length]; or inputs_embeds: [batch, length, hidden].
            attention_mask: [batch, length], 1 for tokens, 0 for padding on either side and for hidden words in the
                middle; or input_mask, the same turned round.
            mems: the `mems` of the text before, which all words see; their padding too, as upstream.
            perm_mask: [batch, length, length], 1 where word i does not see word j (it always sees itself; a target at
                its place does not, if the mask says so).
            target_mapping: [batch, targets, length], 1 where a target stands; the result is that of the targets.
            token_type_ids: [batch, length], any numbers: only which words have the same counts.
            use_mems: whether to give `mems`; by default as the config says, but not of texts with padding, which would
                be computed for them alone.
            output_attentions, output_hidden_states: True, or a list of layers.

        Raises:
            InputError: a shape, value or length that does not fit; recordings and edits of a call with mems, perm_mask
                or target_mapping.
        """
        attention_mask = _shown_words(attention_mask, input_mask)
        asked = use_mems
        if use_mems is None:
            config = self.config
            use_mems = config.flag("use_mems_train" if self.training and not evaluating() else "use_mems_eval")
        padded = isinstance(attention_mask, Tensor) and not bool((attention_mask != 0).all())
        if mems is not None and not _are_states(mems):
            raise InputError(
                f"mems={mems!r:.40} must be {self.architecture.stack.n_layers} tensors [earlier length, batch, "
                f"{self.architecture.stack.hidden_size}], what an earlier call with as many texts gave."
            )
        goes_on = mems is not None and any(one is not None for one in mems)
        if goes_on or perm_mask is not None or target_mapping is not None or (padded and (asked or current().whole)):
            out = self._dense(
                input_ids, attention_mask, mems if goes_on else None, perm_mask, target_mapping, token_type_ids,
                inputs_embeds, use_mems and (asked is not None or not padded), output_attentions, output_hidden_states,
            )  # fmt: skip
        else:
            out = self._packed(
                input_ids, attention_mask, token_type_ids, inputs_embeds, use_mems and not padded, output_attentions,
                output_hidden_states,
            )  # fmt: skip
        return out if wants_dict(self, return_dict) else out.to_tuple()  # type: ignore[return-value]

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> None: ...  # type: ignore[override]

    def _packed(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        use_mems: bool,
        output_attentions: LayerSelection,
        output_hidden_states: LayerSelection,
    ) -> XLNetModelOutput:
        """The words alone, as any stack reads them."""
        n = self.architecture.stack.n_layers
        states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wanted = wanted_layers(states, n + 1, "output_hidden_states")
        base = super().forward(
            input_ids, attention_mask, token_type_ids, None, inputs_embeds, None, False, output_attentions,
            True if use_mems else states, True,
        )  # fmt: skip
        shown = base.get("hidden_states")
        kept = None
        if use_mems:
            kept = [self._kept(state.transpose(0, 1), None) for state in shown[:n]]  # each [length, batch, hidden]
            every = shown
            shown = every if states is True else None
            if wanted and states is not True:
                shown = Layers({i: every[i] for i in wanted}, n + 1, "hidden_states")
        last = dropout(base.last_hidden_state, self.architecture.stack.dropout, self.training and not evaluating())
        out = XLNetModelOutput(
            last_hidden_state=last, mems=kept, hidden_states=shown, attentions=base.get("attentions")
        )
        out.rows = base.rows
        return out

    def _kept(self, states: Tensor, before: Tensor | None) -> Tensor:
        """What of [length, batch, hidden], after what was kept `before`, is kept for the next text."""
        reuse, longest = self.config.reuse_len, self.config.mem_len
        if reuse is not None and reuse > 0:
            states = states[:reuse]
        if before is not None:
            states = torch.cat((before, states))
        return (states[-longest:] if longest else states).detach()

    def _dense(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        mems: Mems | None,
        perm_mask: Tensor | None,
        target_mapping: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        use_mems: bool,
        output_attentions: LayerSelection,
        output_hidden_states: LayerSelection,
        mems_mask: Tensor | None = None,
    ) -> XLNetModelOutput:
        """Both streams, or the words after an earlier text; mems_mask [batch, earlier]: what of that is shown."""
        self._refuse_looks()
        spec, config = self.architecture.stack, self.config
        states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        attended = config.output_attentions if output_attentions is None else output_attentions
        wanted_states = wanted_layers(states, spec.n_layers + 1, "output_hidden_states")
        wanted_attended = wanted_layers(attended, spec.n_layers, "output_attentions")
        vectors = self._vectors(input_ids, inputs_embeds)  # [batch, length, hidden]
        batch, length, _ = vectors.shape
        mask = check_mask(attention_mask, batch, length)
        rows = PackedBatch(batch, length, mask, whole=True)
        check_texts(rows)
        set_call_rows(rows)
        inputs = self._inputs(vectors, mask, mems, perm_mask, target_mapping, token_type_ids, mems_mask)
        earlier = inputs.mems[0].shape[1] if inputs.mems else 0
        distances = self.waves.between(1 - length - earlier, length + earlier - 1, vectors)
        x, g = inputs.words, inputs.targets
        target_rows = None if g is None else PackedBatch(batch, g.shape[1], None)
        kept: list[Tensor] = []
        found_states: dict[int, tuple[Tensor, ...]] = {}
        found_attended: dict[int, Tensor | tuple[Tensor, ...]] = {}
        for i, block in enumerate(self.blocks):
            before = inputs.mems[i] if inputs.mems else None
            if use_mems:
                kept.append(self._kept(x.transpose(0, 1), None if before is None else before.transpose(0, 1)))
            if i in wanted_states:
                found_states[i] = (x,) if g is None else (x, g)
            seen = x if before is None else torch.cat((before, x), 1)  # [batch, earlier + length, hidden]
            pattern_of_targets = None
            if g is not None and target_rows is not None:
                with call_rows(target_rows):
                    z, pattern_of_targets = block.attn.dense(
                        g, seen, distances, inputs.hidden_targets, inputs.types, inputs.mapping
                    )
                    g = self._after(block, g, z)
            z, pattern = block.attn.dense(x, seen, distances, inputs.hidden_words, inputs.types)
            x = self._after(block, x, z)
            if i in wanted_attended:
                found_attended[i] = pattern if pattern_of_targets is None else (pattern, pattern_of_targets)
        if spec.n_layers in wanted_states:
            found_states[spec.n_layers] = (x,) if g is None else (x, g)
        last = dropout(x if g is None else g, spec.dropout, self.training and not evaluating())
        out = XLNetModelOutput(
            last_hidden_state=last,
            mems=kept if use_mems else None,
            hidden_states=self._package_states(found_states, states, spec.n_layers + 1),
            attentions=self._package(found_attended, attended, spec.n_layers, "attentions"),
        )
        out.rows = rows if g is None else PackedBatch(batch, g.shape[1], None)
        return out

    def _refuse_looks(self) -> None:
        recorders, edits = asked_of(self)
        if recorders or edits or any(hooked(one) for block in self.blocks for one in (block, block.attn)):
            raise InputError(
                "a call with mems, perm_mask or target_mapping has two streams, or an earlier text, that no address "
                "stands for: record, edit and hook layers in a call without them."
            )

    def _vectors(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("Pass input_ids, or inputs_embeds, one of the two.")
        if input_ids is not None:
            if input_ids.dim() != 2 or 0 in input_ids.shape:
                raise InputError(f"input_ids must be [batch, length]; it has shape {list(input_ids.shape)}.")
            input_ids = check_ids(input_ids, self.architecture.stack.embedding.vocab_size)
        elif inputs_embeds is not None and inputs_embeds.dim() != 3:
            raise InputError(f"inputs_embeds must be [batch, length, hidden], not {list(inputs_embeds.shape)}.")
        return self.embed(input_ids, inputs_embeds=inputs_embeds)  # type: ignore[no-any-return]

    def _inputs(
        self,
        vectors: Tensor,
        mask: Tensor | None,
        mems: Mems | None,
        perm_mask: Tensor | None,
        target_mapping: Tensor | None,
        token_type_ids: Tensor | None,
        mems_mask: Tensor | None,
    ) -> StreamInputs:
        """The inputs, checked, and what each query sees of them."""
        batch, length, size = vectors.shape
        earlier: list[Tensor] = []
        if mems is not None:
            earlier = [one.transpose(0, 1) for one in mems if one is not None]  # each [batch, earlier, hidden]
            if len(earlier) != self.architecture.stack.n_layers or any(
                one.dim() != 3 or one.shape != (batch, earlier[0].shape[1], size) for one in earlier
            ):
                raise InputError(
                    f"mems must be {self.architecture.stack.n_layers} tensors [earlier length, {batch}, {size}], what "
                    "an earlier call with as many texts gave."
                )
        n = earlier[0].shape[1] if earlier else 0
        hidden = None
        if mask is not None or perm_mask is not None or mems_mask is not None:
            hidden = vectors.new_zeros(batch, length, n + length)
            if mask is not None:
                hidden[:, :, n:] += (mask == 0)[:, None].to(hidden)
            if perm_mask is not None:
                hidden[:, :, n:] += _square(perm_mask, "perm_mask", batch, length, length).to(hidden)
            if mems_mask is not None:
                hidden[:, :, :n] += (mems_mask == 0)[:, None].to(hidden)
            hidden = (hidden > 0).to(vectors)[:, None]  # [batch, 1, length, earlier + length]
        hidden_words = None
        if hidden is not None:  # a word sees itself, whatever else it sees
            hidden_words = hidden.clone()
            hidden_words.diagonal(n, -2, -1).zero_()
        types = None
        if token_type_ids is not None:
            if tuple(token_type_ids.shape) not in ((batch, length), (1, length)):
                raise InputError(
                    f"token_type_ids has shape {list(token_type_ids.shape)}, but input_ids has [{batch}, {length}]."
                )
            asking = token_type_ids.expand(batch, length)
            types = asking, torch.cat((asking.new_zeros(batch, n), asking), 1)
        targets = mapping = None
        if target_mapping is not None:
            mapping = _square(target_mapping, "target_mapping", batch, None, length).to(vectors)
            targets = self.mask_emb.expand(batch, mapping.shape[1], -1)
            targets = dropout(targets, self.architecture.stack.dropout, self.training and not evaluating())
        return StreamInputs(vectors, targets, earlier, mapping, hidden_words, hidden, types)

    def _after(self, block: WaveBlock, x: Tensor, attended: Tensor) -> Tensor:
        """What a block makes of x and its attention's result, both [batch, length, hidden]."""
        trains = self.training and not evaluating()
        x = ResidualAdd(x, block.attn_dropout, trains, block.attn_norm)(attended)
        join = ResidualAdd(x, block.dropout, trains, block.mlp_norm)
        return block.mlp(x, None, join=join)  # type: ignore[no-any-return]

    @staticmethod
    def _package(found: dict[int, Any], wanted: LayerSelection, total: int, what: str) -> tuple[Any, ...] | None:
        if not found:
            return None
        if wanted is True:
            return tuple(found[i] for i in range(total))
        return Layers(found, total, what)  # type: ignore[return-value]  # see ModelOutput

    def _package_states(
        self, found: dict[int, tuple[Tensor, ...]], wanted: LayerSelection, total: int
    ) -> tuple[Tensor, ...] | None:
        """The states of all layers, words and targets in turn; of some layers, those of the result's stream."""
        if found and wanted is True:
            return tuple(one for i in range(total) for one in found[i])
        return self._package({i: of[-1] for i, of in found.items()}, wanted, total, "hidden_states")


def _are_states(mems: object) -> bool:
    """Whether these are tensors with three dimensions, or None, one for each layer."""
    return isinstance(mems, Sequence | Tensor) and all(
        one is None or (isinstance(one, Tensor) and one.dim() == 3) for one in mems
    )


def _shown_words(attention_mask: Tensor | None, input_mask: Tensor | None) -> Tensor | None:
    """attention_mask [batch, length], or what `input_mask` says, which is 1 for padding."""
    if input_mask is None:
        return attention_mask
    if attention_mask is not None:
        raise InputError("input_mask and attention_mask say the same, one with 1 for padding: pass one of them.")
    if not isinstance(input_mask, Tensor):
        raise InputError(f"input_mask must be a tensor [batch, length], not {type(input_mask).__name__}.")
    return 1 - input_mask.long()


def _square(value: object, name: str, batch: int, rows: int | None, columns: int) -> Tensor:
    """A tensor [batch, rows, columns]; InputError for another shape."""
    wanted = f"[{batch}, {'targets' if rows is None else rows}, {columns}]"
    if not isinstance(value, Tensor) or value.dim() != 3:
        raise InputError(f"{name} must be a tensor {wanted}.")
    if value.shape[0] != batch or value.shape[2] != columns or (rows is not None and value.shape[1] != rows):
        raise InputError(f"{name} has shape {list(value.shape)}; it must be {wanted}.")
    return value
