"""A label for each token of a text, and the named entities that neighbouring tokens make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cutaway.errors import InputError, nearest
from cutaway.pipelines.base import Pipeline, text_only
from cutaway.pipelines.entities import STRATEGIES, Entity, Piece, entities
from cutaway.pipelines.plan import Row

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True)
class Entities:
    """entities: what was found, in the order of the text. cut: how many tokens of the text were left out."""

    entities: tuple[Entity, ...]
    cut: int = 0


class TokenClassificationPipeline(Pipeline):
    """Named entities, parts of speech, or whatever the model labels tokens with.

    `aggregation_strategy` is "none" (one entry per token), "simple", "first", "average" or "max" (see
    `cutaway.pipelines.entities`); `grouped_entities=True` is an older name of "simple". Labels in `ignore_labels`
    (["O"]) are left out. A text gives a list of dicts, a list of texts a list of these.

    `start` and `end` are the exact characters of the text, without space around them.

    `long="window"` (or upstream's `stride=`, the number of tokens that windows share) reads a long text in overlapping
    windows. Each token's scores come from the window in which it has the most context, and only then are tokens
    grouped, so an entity on a border is found whole.
    """

    settings: ClassVar[dict[str, Any]] = {
        "aggregation_strategy": None,
        "ignore_labels": None,
        "grouped_entities": None,
        "stride": None,
        "long": None,
        "overlap": None,
    }
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate", "window")

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        strategy = settings["aggregation_strategy"]
        if strategy is None:
            strategy = "simple" if settings["grouped_entities"] else "none"
        strategy = str(getattr(strategy, "value", strategy)).lower()
        if strategy not in STRATEGIES:
            raise InputError(f"aggregation_strategy={strategy!r} is not known.{nearest(strategy, STRATEGIES)}")
        ignored = ["O"] if settings["ignore_labels"] is None else settings["ignore_labels"]
        if isinstance(ignored, str):
            raise InputError(f"ignore_labels={ignored!r} must be a list of labels: ignore_labels=[{ignored!r}].")
        more: dict[str, Any] = {"aggregation_strategy": strategy, "ignore_labels": frozenset(ignored)}
        if settings["stride"] is not None:
            more |= {"overlap": settings["stride"], "long": settings["long"] or "window"}
        return {**settings, **more}

    def check(self, item: object) -> str:
        return text_only(self.task, item)

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        return self.fitted(items, settings, spans=True)

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """Of each row the scores [tokens, labels] of the tokens that it owns."""
        scores = self.model(**self.batch(rows)).logits.float().softmax(-1).cpu()  # [rows, longest, labels]
        found = []
        for row, one in zip(rows, scores, strict=True):
            window = row.window
            assert window is not None
            shift = window.row - window.start
            found.append(one[window.own_start + shift : window.own_end + shift].numpy().copy())
        return found

    def finish(self, item: str, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> Entities:
        scores = np.concatenate(outputs)  # [tokens, labels]
        window, encoding = rows[0].window, rows[0].encoding
        assert window is not None and encoding is not None
        pieces = self._pieces(item, encoding, window.text, scores)
        strategy = settings["aggregation_strategy"]
        found = entities(pieces, strategy, self.model.config.id2label, self.tokenizer)
        kept = tuple(_trimmed(item, one) for one in found if one.label not in settings["ignore_labels"])
        return Entities(kept, rows[0].cut)

    def _pieces(self, text: str, encoding: Encoding, first: int, scores: np.ndarray) -> list[Piece]:
        prefix = getattr(self.tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
        found = []
        for i, own in enumerate(scores):
            at = first + i
            if encoding.special_tokens_mask[at]:
                continue
            word, (start, end) = encoding.tokens[at], encoding.offsets[at]
            if encoding.ids[at] == self.tokenizer.unk_token_id:
                word, inner = text[start:end], False
            elif prefix:
                inner = word.startswith(prefix)
            else:  # a vocabulary that does not mark inner pieces: a word goes on where no space comes between
                inner = start > 0 and " " not in text[start - 1 : start + 1]
            found.append(Piece(own, word, start, end, at, inner))
        return found

    def shaped(self, result: Entities, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        if settings["aggregation_strategy"] == "none":
            return [
                {"entity": e.label, "score": e.score, "index": e.index, "word": e.word, "start": e.start, "end": e.end}
                for e in result.entities
            ]
        return [
            {"entity_group": e.label, "score": e.score, "word": e.word, "start": e.start, "end": e.end}
            for e in result.entities
        ]


def _trimmed(text: str, entity: Entity) -> Entity:
    """The entity without the space that some tokenizers count to a word."""
    start, end = entity.start, entity.end
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return Entity(entity.label, entity.score, entity.word, start, end, entity.index)
