"""Two runs side by side: two texts in one model, or one text in two models (before and after fine-tuning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import AddressError, InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, one_text
from cutaway.show.sheet import Grid, Part, Sheet, Table, figure

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

Spans = Sequence[Sequence[int]]
Pairs = Sequence[tuple[int, int]]
TOP = 5  # answers of each run that are kept


@dataclass(frozen=True)
class Comparison(Result):
    """How two runs differ, over the tokens that are aligned.

    Attributes:
        pairs: (position in the first, position in the second), aligned.
        places: the addresses that both models have and that hold one vector per token.
        distance: [places, pairs], Euclidean distance as a share of the first's length. cosine: [places, pairs].
        first: (address, pair's number) where the distance first exceeds the tolerance, in order of computation; None
            where it never does.
        said, share: [2, answers, k], the likeliest classes or tokens of both runs and their probabilities: one answer
            of a classifier, one for each aligned token of a model that answers at every token (the decoder's in an
            encoder-decoder). kl: [answers], nats from the first's to the second's, None where they answer in different
            kinds. turn: the first answer whose likeliest differ. All None for models without a head.
    """

    pairs: list[tuple[int, int]]
    places: list[str]
    distance: Tensor
    cosine: Tensor
    first: tuple[str, int] | None
    said: Tensor | None = None
    share: Tensor | None = None
    kl: Tensor | None = None
    turn: int | None = None

    def sheet(self) -> Sheet:
        """The distance of the states of each block, and what was answered."""
        kept = [i for i, p in enumerate(self.places) if p.endswith(("embed", ".resid")) and p[:8] != "decoder."]
        pairs = [self._pair(i, j) for i, j in self.pairs]
        grid = Grid("distance, as a share of the first's length", self.distance[kept].double().cpu().numpy(),
                    [self.places[i] for i in kept], pairs)  # fmt: skip
        first_difference = (
            "no state differs" if self.first is None else f"the first state that differs is {self.first[0]}"
        )
        parts: list[Part] = [grid]
        if self.said is not None and self.share is not None:
            rows = []
            for at in range(self.said.shape[1]):
                best = zip(self.said[:, at, 0].tolist(), self.share[:, at, 0].tolist(), strict=True)
                said = [f"{self.label(id)} {share:.1%}" for id, share in best]
                rows.append([str(at), *said, "" if self.kl is None else figure(float(self.kl[at]))])
            parts.append(Table("likeliest answers", ["#>", "first", "second", "KL, nats>"], rows))
        return Sheet("two runs side by side", f"{len(pairs)} tokens are aligned; {first_difference}", parts)

    def _pair(self, i: int, j: int) -> str:
        names = None if self._names is None else self._names.tokens
        return f"{i}/{j}" if names is None or i >= len(names) else names[i]


def align_tokens(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    """Pairs of positions whose tokens match, in order (the longest common blocks; Ratcliff and Obershelp, 1988)."""
    blocks = SequenceMatcher(None, first.tolist(), second.tolist(), autojunk=False).get_matching_blocks()
    return [(b.a + i, b.b + i) for b in blocks for i in range(b.size)]


def align_characters(first: Spans, second: Spans) -> list[tuple[int, int]]:
    """Pairs of tokens that end at the same character of one text, in two tokenizers; spans [L, 2], (0, 0): no text."""
    ends = {int(end): j for j, (start, end) in enumerate(second) if end > start}
    return [(i, ends[int(end)]) for i, (start, end) in enumerate(first) if end > start and int(end) in ends]


@torch.no_grad()
@measure
def compare(
    model: LanguageModel,
    inputs: Inputs,
    other_inputs: Inputs | None = None,
    *,
    other_model: LanguageModel | None = None,
    spans: tuple[Spans, Spans] | None = None,
    places: Sequence[str] = ("*embed", "*.attn.out", "*.mlp.out", "*.resid"),
    tolerance: float = 1e-4,
) -> Comparison:
    """Run both, align their tokens, and measure how far their states are apart.

    Args:
        inputs, other_inputs: one text each; without the second, the same text. other_model: without it, the same model.
        spans: both texts' offset mappings, [L, 2] each, to align by characters (two tokenizers, one text). Otherwise
            equal tokens are aligned; two models with different vocabularies need spans.
        places: addresses of one vector per token; those that only one model has are left out.
        tolerance: the relative distance from which two states count as different.
    """
    if other_inputs is None and other_model is None:
        raise InputError("compare needs a second text (other_inputs=) or a second model (other_model=).")
    second = model if other_model is None else other_model
    a, b = one_text(inputs, 0), one_text(inputs if other_inputs is None else other_inputs, 0)
    common = set(second.addresses())
    named = {address for pattern in places for address in _named(model, pattern)}
    known = [p for p in model.addresses() if p in common and p in named]
    towers = {"decoder."} if model.base_model.architecture.decoder is not None else set()
    known = [p for p in known if not towers or p.startswith(("encoder.", "decoder."))]
    if not known:
        raise InputError(f"the two models have none of {list(places)} in common.")
    runs, answers = [], []
    for current, text in ((model, a), (second, b)):
        with current.record(*known) as r:
            answers.append(current(**text, return_dict=True).get("logits"))
        runs.append({p: r[p][0] for p in known})
    pairs = align_tokens(a["input_ids"][0], b["input_ids"][0]) if spans is None else align_characters(*spans)
    if not pairs:
        raise InputError("the texts have no token in common; pass spans= to align them by characters.")
    target = pairs
    if towers:
        same = "decoder_input_ids"
        target = align_tokens(a[same][0], b[same][0])
    distance, cosine = distances(known, runs, pairs, target)
    differs = (distance > tolerance).nonzero()
    first = None if not len(differs) else (known[int(differs[0, 0])], int(differs[0, 1]))
    return Comparison(pairs, known, distance, cosine, first, *_answers(answers, target, spans is None))


def _named(model: LanguageModel, pattern: str) -> list[str]:
    """The addresses of the model that a pattern names, none where it has none of them."""
    try:
        return model.find_addresses([pattern])
    except AddressError:
        return []


def distances(
    places: list[str], runs: Sequence[Mapping[str, Tensor]], pairs: Pairs, target: Pairs
) -> tuple[Tensor, Tensor]:
    """(distance, cosine), [places, pairs] each, of two runs' states [L, H]; NaN where a place has fewer pairs.

    Args:
        pairs: of the text's tokens. target: of the decoder's, in an encoder-decoder.
    """
    gaps, cosines = [], []
    for place in places:
        own_pairs = target if place.startswith("decoder.") else pairs
        left, right = (torch.tensor([p[side] for p in own_pairs]) for side in (0, 1))
        x, y = runs[0][place][left].double(), runs[1][place][right].double()
        if x.shape != y.shape:
            raise InputError(f"{place} is {list(x.shape)} in one model and {list(y.shape)} in the other.")
        gaps.append((x - y).norm(dim=-1) / x.norm(dim=-1).clamp(min=1e-12))
        cosines.append(torch.cosine_similarity(x, y, dim=-1))
    return _beside(gaps), _beside(cosines)


def _beside(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("nan"))


def _answers(logits: list[Any], pairs: list[tuple[int, int]], one_kind: bool) -> tuple[Any, Any, Any, Any]:
    """(said, share, kl, turn) of both runs' logits, [1, classes] or [1, L, classes]."""
    if not all(isinstance(x, Tensor) and x.dim() == logits[0].dim() and x.dim() in (2, 3) for x in logits):
        return None, None, None, None
    rows = []
    for side, side_logits in enumerate(logits):
        positions = [pair[side] for pair in pairs]
        answers = side_logits if side_logits.dim() == 2 else side_logits[0, positions]  # [answers, classes]
        rows.append(answers.double().log_softmax(-1))
    k = min(TOP, *(side_logits.shape[-1] for side_logits in rows))
    best = [side_logits.topk(k) for side_logits in rows]
    said, share = ([getattr(side_logits, name) for side_logits in best] for name in ("indices", "values"))
    alike = one_kind and rows[0].shape == rows[1].shape
    answer_table = kept_answers(said, share, rows if alike else None)
    return answer_table if alike else (*answer_table[:3], None)


def kept_answers(
    said: Sequence[Tensor], share: Sequence[Tensor], whole: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor, Tensor | None, int | None]:
    """(said, share, kl, turn) from both runs' likeliest [answers, k], their log shares, and all log shares if known."""
    ids = torch.stack(list(said))  # [2, answers, k]
    kl = None if whole is None else (whole[0].exp() * (whole[0] - whole[1])).sum(-1)
    parted = (ids[0, :, 0] != ids[1, :, 0]).nonzero().flatten()
    return ids, torch.stack(list(share)).exp(), kl, int(parted[0]) if len(parted) else None
