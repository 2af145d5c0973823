"""Documents in the order in which they answer a query, by a model that reads both together (a cross-encoder)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cutaway.errors import InputError, nearest
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.one_and_several import one_and_several
from cutaway.pipelines.plan import Row
from cutaway.pipelines.sentence_modules import cross_encoder

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

FUNCTIONS = ("sigmoid", "none")


@dataclass(frozen=True)
class Ranked:
    """One document: its place in the list that was given, its score, its text."""

    index: int
    score: float
    text: str


@dataclass(frozen=True)
class Ranking:
    """documents: best first. cut: how many tokens of all documents were left out."""

    documents: tuple[Ranked, ...]
    cut: int = 0


class RerankPipeline(Pipeline):
    """`pipe("a query", ["a document", ...])`, or {"query": ..., "documents": [...]}: dicts {"index", "score", "text"}.

    Best first, at most `top_k`. Scores are the model's number through a sigmoid, or as it is where the checkpoint's
    files say so (sentence-transformers' activation) or with `function_to_apply="none"`. `prompt` stands before the
    query: unless given, it is the one that the checkpoint's files put there, or none.
    """

    settings: ClassVar[dict[str, Any]] = {"top_k": None, "function_to_apply": None, "long": None, "prompt": None}

    def __init__(self, model: LanguageModel, tokenizer: TokenizerLike, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self._published = cross_encoder(str(self.model.name_or_path or ""))
        if self.model.config.num_labels != 1:
            raise InputError(
                f"rerank needs a model with one label, a score; this one has {self.model.config.num_labels}. "
                'For its labels use the task "text-classification".'
            )

    def __call__(
        self, inputs: object, documents: object = None, *, batch_size: int | None = None, **settings: object
    ) -> Any:
        """The documents in the order in which they answer the query; of a list of mappings, a list of these."""
        if documents is not None:
            inputs = {"query": inputs, "documents": documents}
        return super().__call__(inputs, batch_size=batch_size, **settings)

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        top_k, function = settings["top_k"], settings["function_to_apply"]
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise InputError(f"top_k={top_k!r} must be a whole number from 1 up, or None for all documents.")
        function = self._function() if function is None else str(function).lower()
        if function not in FUNCTIONS:
            raise InputError(f"function_to_apply={function!r} is not known.{nearest(function, FUNCTIONS)}")
        prompt = self._published.prompt if settings["prompt"] is None else settings["prompt"]
        if not isinstance(prompt, str):
            raise InputError(f"prompt={prompt!r:.80} must be a text that is put before the query.")
        return {**settings, "function_to_apply": function, "prompt": prompt}

    def _function(self) -> str:
        """What the checkpoint says; the name is only compared, never looked up."""
        config = self.model.config
        inner = getattr(config, "sentence_transformers", None)
        named = self._published.activation or (inner.get("activation_fn") if isinstance(inner, Mapping) else None)
        named = named or getattr(config, "sbert_ce_default_activation_function", None)
        last = str(named or "Sigmoid").rpartition(".")[2]
        return {"Sigmoid": "sigmoid", "Identity": "none"}.get(last, last.lower())

    def check(self, item: object) -> tuple[str, list[str]]:
        """The query and the documents."""
        return one_and_several(item, "rerank", "query", "documents", "document")

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        prompt = settings["prompt"]
        pairs = [(prompt + query, document) for query, documents in items for document in documents]
        rows = iter(self.fitted(pairs, settings, cutting="only_second", part=1))
        return [[next(rows)[0] for _ in documents] for _, documents in items]

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        logits = self.model(**self.batch(rows)).logits[:, 0].float()  # [rows]
        scores: list[float] = (logits.sigmoid() if settings["function_to_apply"] == "sigmoid" else logits).tolist()
        return scores

    def finish(
        self, item: tuple[str, list[str]], rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]
    ) -> Ranking:
        order = sorted(range(len(outputs)), key=lambda i: -outputs[i])[: settings["top_k"]]
        return Ranking(tuple(Ranked(i, outputs[i], item[1][i]) for i in order), sum(row.cut for row in rows))

    def shaped(self, result: Ranking, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(vars(document)) for document in result.documents]
