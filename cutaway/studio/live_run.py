"""The run that a page looks at: patterns whole where they fit, else queries and keys, of which any part is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.errors import InputError
from cutaway.inspect.explainer import Run
from cutaway.inspect.explanation import Attention
from cutaway.inspect.pattern_rows import HeadSummary, Kind, PatternRows, places_of

if TYPE_CHECKING:
    import torch

    from cutaway.inspect.explanation import Token

MOST_PATTERNS = 512 << 20  # bytes of all patterns of one text that are kept whole
PIXELS = 32  # rows and columns of the small picture of each head


class LiveRun(Run):
    """A run whose attention is kept as patterns, or, of a long text, as queries and keys.

    Attributes:
        rows: {kind: what any part is computed from}; empty where patterns are whole. summaries: {kind: all heads}.
    """

    def _read(self) -> None:
        self.rows: dict[str, PatternRows] = {}
        self.summaries: dict[str, HeadSummary] = {}
        self._first_logits = 0  # the place of the first logits that are kept
        if self._pattern_bytes() <= MOST_PATTERNS:
            super()._read()
            return
        kinds: tuple[Kind, ...] = ("encoder", "decoder", "cross") if self.kind == "target" else ("self",)
        places = [place for kind in kinds for place in places_of(self.model, kind)]
        options: dict[str, object] = {}
        if self.kind == "next-token":  # those of the text's own places are many, and nobody asks for them
            self._first_logits = self.prompt - 1
            options = {"logits_to_keep": len(self.ids) - self._first_logits, "use_cache": False}
        with self.model.record(*places, *self._before_projection()) as recorder:
            self.output = self.model(**self._passed(), output_hidden_states=True, return_dict=True, **options)
            self.rows = {kind: PatternRows.of(self.model, kind, recorder) for kind in kinds}
        self._unprojected = [recorder[place] for place in self._before_projection()]
        self.certificate = max((rows.check for rows in self.rows.values()), key=lambda check: check.error)

    def _pattern_bytes(self) -> int:
        """How much all patterns are together, in float32."""
        architecture = self.model.architecture
        length, stack, decoder = len(self.ids), architecture.stack, architecture.decoder
        found = stack.n_layers * stack.attention.n_heads * length**2
        if decoder is not None:
            found += (
                decoder.n_layers * decoder.attention.n_heads * len(self.target_ids) * (len(self.target_ids) + length)
            )
        return 4 * found

    def logits_at(self, place: int) -> torch.Tensor:
        """As `Run.logits_at`."""
        return super().logits_at(place - self._first_logits)

    def _attentions(self, tokens: list[Token], target: list[Token]) -> dict[str, Attention]:
        if not self.rows:
            return super()._attentions(tokens, target)
        return {name: self._summed_up(name, rows, tokens, target) for name, rows in self.rows.items()}

    def _summed_up(self, name: str, rows: PatternRows, tokens: list[Token], target: list[Token]) -> Attention:
        """All heads of one kind, without their patterns."""
        asks, sees = (target if name in ("decoder", "cross") else tokens), (target if name == "decoder" else tokens)
        causal = name != "cross" and rows.tower.spec.causal
        words = [[t.index for t in part if not t.special and not (causal and t.index == 0)] for part in (asks, sees)]
        summary = self.summaries[name] = rows.summary((words[0], words[1]), PIXELS)
        layers, heads = rows.shape[:2]
        layer, head = np.unravel_index(int(summary.measures["focus"].argmax()), (layers, heads))
        part = "cross" if name == "cross" else "attn"
        return Attention(
            name=name,
            address=rows.tower.at(f"blocks.{{i}}.{part}.pattern"),
            rows="target" if asks is target else "tokens",
            columns="target" if sees is target else "tokens",
            pattern=np.zeros((layers, heads, 0, 0), np.float32),
            measures=summary.measures,
            layer=int(layer),
            head=int(head),
            chosen=f"sharpest focus in {summary.rows} rows",
        )


def refuse_patches(addresses: list[str]) -> None:
    """InputError where a long text's weights are changed themselves: they are computed from queries and keys."""
    wrong = next((a for a in addresses if a.endswith((".pattern", ".scores"))), None)
    if wrong is not None:
        raise InputError(
            f"address={wrong!r}: the weights of so long a text are computed from queries and keys, and are not changed "
            "themselves. Patch attn.q or attn.k, or take a shorter text."
        )
