"""How near sentences are to one another: the cosines of their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cutaway.errors import InputError
from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline
from cutaway.pipelines.plan import Row


@dataclass(frozen=True)
class Similarities:
    """scores: the cosine of the source sentence with each of the others, in their order.

    cut: how many tokens of the sentences were left out.
    """

    scores: tuple[float, ...]
    cut: int = 0


class SentenceSimilarityPipeline(FeatureExtractionPipeline):
    """`pipe("a text", ["another", "a third"])`, or {"source_sentence": ..., "sentences": [...]}: a list of cosines.

    Vectors are made as the checkpoint's modules say (mean of the tokens without any); `pooling=` changes that.
    """

    settings: ClassVar[dict[str, Any]] = {"pooling": "model", "prompt": None, "long": None, "overlap": None}

    def __call__(
        self, inputs: object, sentences: object = None, *, batch_size: int | None = None, **settings: object
    ) -> Any:
        """The cosines of one source sentence with `sentences`; of a list of mappings, a list of them."""
        if sentences is not None:
            inputs = {"source_sentence": inputs, "sentences": sentences}
        return super().__call__(inputs, batch_size=batch_size, **settings)

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        own = {"normalize": True, "return_tensors": None, "tokenize_kwargs": None}
        return super().ready({**settings, "pooling": settings["pooling"] or "model", **own})

    def check(self, item: object) -> tuple[str, ...]:
        """The source sentence and those it is compared with."""
        if isinstance(item, Mapping) and set(item) == {"source_sentence", "sentences"}:
            source, others = item["source_sentence"], item["sentences"]
            others = [others] if isinstance(others, str) else others
            texts = (source, *others) if isinstance(others, list | tuple) and others else ()
            if texts and all(isinstance(text, str) for text in texts):
                return texts
        raise InputError(
            f"sentence-similarity got {item!r:.80}. Call pipe('a text', ['another', 'a third']), or pass "
            "{'source_sentence': ..., 'sentences': [...]}."
        )

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        rows = iter(super().encode([text for item in items for text in item], settings))
        found = []
        for item in items:
            own = [next(rows) for _ in item]
            for group, part in enumerate(own):
                for row in part:
                    row.group = group
            found.append([row for part in own for row in part])
        return found

    def finish(
        self, item: tuple[str, ...], rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]
    ) -> Similarities:
        vectors = []
        for group in range(len(item)):
            own = [i for i, row in enumerate(rows) if row.group == group]
            vectors.append(self.vector([rows[i] for i in own], [outputs[i] for i in own], settings))
        source, *others = vectors
        cut = sum({row.group: row.cut for row in rows}.values())
        return Similarities(tuple((torch.stack(others) @ source).tolist()), cut)

    def shaped(self, result: Any, settings: Mapping[str, Any]) -> list[float]:
        return list(result.scores)

    def several(self, answers: list[Any], settings: Mapping[str, Any]) -> object:
        return answers
