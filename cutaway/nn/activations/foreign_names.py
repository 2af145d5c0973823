"""The names that TransformerLens, interp-engine and nnterp have for activations, in one table.

A name is understood where it means what our address means, in this model: TransformerLens' `hook_q` is a query before
its rotary turn, so in a rotary model it names nothing that we have, and the error says what does. What each library
shows was compared with ours, place by place, on tiny models (`tests/nn/activations/test_foreign_names.py`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cutaway.errors import AddressError, nearest

if TYPE_CHECKING:
    from cutaway.config.architecture import Architecture, Stack

Library = Literal["transformer_lens", "interp_engine", "nnterp"]
LIBRARIES: tuple[Library, ...] = ("transformer_lens", "interp_engine", "nnterp")
Reason = Callable[["Stack", int], str]  # (stack, layer) -> why the name means something else there, or ""


def _before_rotary(stack: Stack, layer: int) -> str:
    if stack.rotary[layer] is not None:
        return "it is taken before the rotary turn, and ours after it; say hook_rot_q or hook_rot_k"
    return "it is taken before the norm of queries and keys, and ours after it" if stack.attention.norm else ""


def _not_rotary(stack: Stack, layer: int) -> str:
    return "" if stack.rotary[layer] is not None else "this layer has no rotary turn; say hook_q or hook_k"


def _normed_result(stack: Stack, layer: int) -> str:
    if stack.norm_place in ("both", "result"):
        return "it is taken after the norm of the layer's result, and ours before it; say attn.hook_out or mlp.hook_out"
    return "its results are scaled before they are added" if stack.residual_scale != 1.0 else ""


def _norms_after(stack: Stack, layer: int) -> str:
    if stack.norm_place != "post":
        return ""
    return "versions of TransformerLens differ here, where a norm follows the addition; say our address"


def _attention_result(stack: Stack, layer: int) -> str:
    return _norms_after(stack, layer) or _normed_result(stack, layer)


def _no_mid(stack: Stack, layer: int) -> str:
    if stack.norm_place in ("parallel", "shared"):
        return "attention and feed-forward layer read the same input, so the others have no state between them"
    return _norms_after(stack, layer)


def _table_of_tokens(stack: Stack, layer: int) -> str:
    made = stack.embedding
    if made.positions is not None or made.n_types or made.norm is not None or made.width is not None:
        return "it is the token's vector alone; what enters block 0 is hook_resid_pre of layer 0, our 'embed'"
    return "" if made.scale == 1.0 or made.scales_table else "it is the token's vector before it is scaled; say 'embed'"


def _entered(stack: Stack, layer: int) -> str:
    """TransformerLens' hook_embed, which is after the embeddings' norm where there is one."""
    return "" if stack.embedding.norm is not None and stack.embedding.width is None else _table_of_tokens(stack, layer)


def _experts(stack: Stack, layer: int) -> str:
    return "the layer has experts, whose inner numbers the others name one by one" if stack.feed_forward.experts else ""


@dataclass(frozen=True)
class Row:
    """One of our addresses and the names that others have for it: `{i}` is a layer, `{before}` what enters it.

    Attributes:
        ours: the address, or several with *, whose values stand side by side (single heads).
        unless: why these names mean something else in some models.
    """

    ours: str
    transformer_lens: tuple[str, ...] = ()
    interp_engine: tuple[str, ...] = ()
    nnterp: tuple[str, ...] = ()
    unless: Reason | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.transformer_lens, *self.interp_engine, *self.nnterp)


_B = "blocks.{i}."
ROWS = (
    Row("embed", (f"{_B}hook_resid_pre", f"{_B}hook_in"), ("resid_pre.{i}",), ("layers_input[{i}]",)),  # see `_ours`
    Row("embed", ("hook_embed",), unless=_entered),
    Row(
        "embed",
        ("embed.hook_out",),
        ("embeddings",),
        ("token_embeddings", "embed_tokens.output"),
        unless=_table_of_tokens,
    ),
    Row(f"{_B}attn.q", (f"{_B}attn.hook_q",), unless=_before_rotary),
    Row(f"{_B}attn.k", (f"{_B}attn.hook_k",), unless=_before_rotary),
    Row(f"{_B}attn.q", (f"{_B}attn.hook_rot_q",), unless=_not_rotary),
    Row(f"{_B}attn.k", (f"{_B}attn.hook_rot_k",), unless=_not_rotary),
    Row(f"{_B}attn.v", (f"{_B}attn.hook_v", f"{_B}attn.v.hook_out"), ("value.{i}",)),
    Row(f"{_B}attn.scores", (f"{_B}attn.hook_attn_scores",), unless=_norms_after),
    Row(f"{_B}attn.scores", (), ("attn_scores.{i}",)),
    Row(f"{_B}attn.pattern", (f"{_B}attn.hook_pattern",), ("attn_probs.{i}",), ("attention_probabilities[{i}]",)),
    Row(f"{_B}attn.z", (f"{_B}attn.hook_z", f"{_B}attn.o.hook_in"), ("z.{i}",)),
    Row(f"{_B}attn.head.*.out", (f"{_B}attn.hook_result",)),
    Row(f"{_B}attn.out", (f"{_B}hook_attn_out",), ("attn_out_post.{i}",), unless=_attention_result),
    Row(f"{_B}attn.out", (f"{_B}attn.hook_out",), unless=_norms_after),
    Row(f"{_B}attn.out", (), ("attn_out.{i}",), ("attentions_output[{i}]",)),
    Row(f"{_B}resid_mid", (f"{_B}hook_resid_mid",), ("resid_mid.{i}",), unless=_no_mid),
    Row(f"{_B}cross.q", (f"{_B}cross_attn.hook_q",), unless=_before_rotary),
    Row(f"{_B}cross.k", (f"{_B}cross_attn.hook_k",), unless=_before_rotary),
    Row(f"{_B}cross.v", (f"{_B}cross_attn.hook_v",)),
    Row(f"{_B}cross.scores", (f"{_B}cross_attn.hook_attn_scores",), unless=_norms_after),
    Row(f"{_B}cross.pattern", (f"{_B}cross_attn.hook_pattern",)),
    Row(f"{_B}cross.z", (f"{_B}cross_attn.hook_z",)),
    Row(f"{_B}cross.out", (f"{_B}hook_cross_attn_out", f"{_B}cross_attn.hook_out"), unless=_norms_after),
    Row(f"{_B}mlp.in", (f"{_B}mlp.hook_in",), ("mlp_in.{i}",), ("mlps_input[{i}]",)),
    Row(f"{_B}mlp.pre", (f"{_B}mlp.hook_pre",), ("mlp_pre.{i}",), unless=_experts),
    Row(f"{_B}mlp.act", (f"{_B}mlp.hook_post",), ("mlp_act.{i}",), unless=_experts),
    Row(f"{_B}mlp.out", (f"{_B}hook_mlp_out",), ("mlp_out_post.{i}",), unless=_normed_result),
    Row(f"{_B}mlp.out", (f"{_B}mlp.hook_out",), ("mlp_out.{i}",), ("mlps_output[{i}]",)),
    Row(f"{_B}resid", (f"{_B}hook_resid_post", f"{_B}hook_out"), ("resid_post.{i}",), ("layers_output[{i}]",)),
    Row("final_norm", ("ln_final.hook_out", "unembed.hook_in"), ("final_norm",), ("ln_final.output",)),
    Row("logits", (), (), ("logits",)),
)

_INPUT = "what attention reads, or stands before a layer's norm, has no address of its own; take the state \
(hook_resid_pre, hook_resid_mid), mlp.in, or the layer's result"
_INPUTS = (
    *(f"{_B}{hook}" for hook in ("attn.hook_in", "hook_attn_in", "hook_mlp_in")),
    *(f"{_B}{norm}.hook_out" for norm in ("ln1", "ln2")),
    *("attn_in.{i}", "attentions_input[{i}]"),
)
_NORMED = "what stands inside a norm has no address here; take the state before or after it"
# names that mean something which has no address of ours, and why
WITHOUT: dict[str, str] = {
    "hook_pos_embed": "vectors of positions have no address of their own; 'embed' is the sum with the tokens' vectors",
    "pos_embed.hook_out": "vectors of positions have no address of their own; 'embed' is the sum with the tokens'",
    "ln_final.hook_normalized": _NORMED,
    "ln_final.hook_scale": _NORMED,
    "hook_unembed": "some models scale what the output matrix gives; say 'logits'",
    "unembed.hook_out": "some models scale what the output matrix gives; say 'logits'",
    "lm_head": "some models scale what the output matrix gives; say 'logits'",
    "lm_head.output": "some models scale what the output matrix gives; say 'logits'",
    **{f"{_B}{part}.hook_normalized": _NORMED for part in ("ln1", "ln2")},
    **{f"{_B}{part}.hook_scale": _NORMED for part in ("ln1", "ln2")},
    **dict.fromkeys(_INPUTS, _INPUT),
    f"{_B}mlp.hook_pre_linear": "the gate's partner has no address of its own; mlp.act is their product",
    "mlp_pre_linear.{i}": "the gate's partner has no address of its own; mlp.act is their product",
    "router_logits.{i}": "ours, mlp.router, are the shares that follow from these",
}  # fmt: skip


class ForeignNames:
    """The names that others have for the activations of one model.

    Attributes:
        known: our addresses in this model.
        ours: {a name of theirs: our addresses}, in the order of the table; several where one value of theirs holds
            what several of ours do.
        refused: {a name of theirs: why it names nothing of ours in this model}.
    """

    def __init__(self, architecture: Architecture, known: Sequence[str]) -> None:
        self.known = list(known)
        self.ours: dict[str, tuple[str, ...]] = {}
        self.refused: dict[str, str] = {}
        self._libraries: dict[Library, dict[str, tuple[str, ...]]] = {library: {} for library in LIBRARIES}
        if architecture.decoder is None:
            self._add(architecture.stack, "")
        else:
            self._add(architecture.stack, "encoder.")
            self._add(architecture.decoder, "decoder.")

    def of(self, library: Library) -> dict[str, tuple[str, ...]]:
        """{name of this library: our addresses}."""
        return self._libraries[library]

    def _add(self, stack: Stack, prefix: str) -> None:
        known = set(self.known)
        for row in ROWS:
            for library in LIBRARIES:
                if prefix and library != "transformer_lens":  # the others know no encoder-decoder
                    continue
                for name in getattr(row, library):
                    layers = range(stack.n_layers) if "{i}" in name else range(1)
                    for i in layers:
                        self._one(row, library, name, i, stack, prefix, known)
        for name, why in WITHOUT.items():
            for i in range(stack.n_layers) if "{i}" in name else range(1):
                self.refused.setdefault(_theirs(name, i, prefix), why)

    def _one(self, row: Row, library: Library, name: str, i: int, stack: Stack, prefix: str, known: set[str]) -> None:
        theirs = _theirs(name, i, prefix)
        if theirs in known:  # the same word for the same thing
            self._libraries[library][theirs] = (theirs,)
            return
        why = row.unless(stack, i) if row.unless is not None else ""
        if why:
            self.refused.setdefault(theirs, why)
            return
        ours = _ours(row, name, i, prefix)
        addresses = tuple(a for a in self.known if fnmatch.fnmatchcase(a, ours)) if "*" in ours else (ours,)
        if addresses and known.issuperset(addresses):
            self.ours.setdefault(theirs, addresses)
            self._libraries[library].setdefault(theirs, addresses)

    def find(self, pattern: str) -> list[str]:
        """Our addresses that a name of theirs means; * stands for any run of characters.

        Raises:
            AddressError: it names nothing; the message says why, or lists the nearest.
        """
        if "*" in pattern:
            # a bracket is a character of nnterp's names, no set of characters
            escaped = pattern.replace("[", "[[]")
            hits = [a for name, ours in self.ours.items() if fnmatch.fnmatchcase(name, escaped) for a in ours]
            refused = [name for name in self.refused if fnmatch.fnmatchcase(name, escaped)]
        else:
            hits, refused = list(self.ours.get(pattern, ())), [pattern] if pattern in self.refused else []
        if not hits and refused:
            raise AddressError(
                f"No activation of this model is what {pattern!r} means elsewhere: {self.refused[refused[0]]}."
            )
        if not hits:
            all_names = (*self.known, *self.ours, *self.refused)
            raise AddressError(f"No activation has the address {pattern!r}.{nearest(pattern, all_names)}")
        order = {a: i for i, a in enumerate(self.known)}
        return sorted(dict.fromkeys(hits), key=order.__getitem__)


def _ours(row: Row, name: str, i: int, prefix: str) -> str:
    """Our address for `name` of a row."""
    if row.ours == "logits":
        return "logits"
    before = row.ours == "embed" and "{i}" in name and i > 0  # what enters a block is what the one before it left
    return prefix + (f"blocks.{i - 1}.resid" if before else row.ours.replace("{i}", str(i)))


def _theirs(name: str, i: int, prefix: str) -> str:
    """A name of theirs in one tower: TransformerLens' encoder-decoders have `encoder_blocks.0.attn.hook_q`."""
    theirs = name.replace("{i}", str(i))
    if not prefix:
        return theirs
    tower = prefix.removesuffix(".")
    if tower == "decoder" and ".attn." in theirs:
        theirs = theirs.replace(".attn.", ".self_attn.")
    return f"{tower}_{theirs}"


def find_addresses(patterns: Iterable[str], known: Sequence[str], names: Callable[[], ForeignNames]) -> list[str]:
    """The addresses that `patterns` name, in our words or in others'.

    Args:
        known: all addresses. names: makes the others' names, which is only called where a pattern is not one of ours.

    Raises:
        AddressError: a pattern that names nothing; the message lists the nearest addresses, or says why.
    """
    addresses: dict[str, None] = {}
    ours = set(known)
    foreign: ForeignNames | None = None
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise AddressError(f"An address is a text; {pattern!r:.80} is a {type(pattern).__name__}.")
        if "*" in pattern:
            hits = [a for a in known if fnmatch.fnmatchcase(a, pattern)]
        else:
            hits = [pattern] if pattern in ours else []
        if not hits:
            foreign = names() if foreign is None else foreign
            hits = foreign.find(pattern)
        addresses.update(dict.fromkeys(hits))
    return list(addresses)
