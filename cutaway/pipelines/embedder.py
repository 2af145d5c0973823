"""A sentence embedder behind the interface of sentence-transformers, as its evaluators and mteb call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from cutaway.errors import InputError, nearest
from cutaway.pipelines.factory import pipeline
from cutaway.pipelines.feature_extraction import FeatureExtractionPipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cutaway.pipelines.factory import ModelSource
    from cutaway.tokenization.protocols import TokenizerLike

# Arguments of other libraries' encoders that change no vector here.
_HINTS = frozenset({"show_progress_bar", "device", "pool", "chunk_size", "hf_split", "hf_subset", "convert_to_numpy"})
_MUST_BE = {"output_value": "sentence_embedding", "precision": "float32"}


class Embedder:
    """`Embedder("a folder").encode(texts)`: float32 [texts, width], as the folder's modules.json says.

    The model is a pipeline of `feature-extraction` (`embedder.pipe`); a text that is too long is cut, as there, and the
    log says how much.
    """

    def __init__(self, model: ModelSource | FeatureExtractionPipeline, **options: Any) -> None:
        """Takes a pipeline of feature-extraction, or what `pipeline("feature-extraction", ...)` takes."""
        self.pipe = (
            model if isinstance(model, FeatureExtractionPipeline) else pipeline("feature-extraction", model, **options)
        )
        self.modules = self.pipe.modules()

    @property
    def prompts(self) -> dict[str, str]:
        """What may be put before texts, by name."""
        return dict(self.modules.prompts)

    @property
    def tokenizer(self) -> TokenizerLike:
        tokenizer: TokenizerLike = self.pipe.tokenizer
        return tokenizer

    @property
    def device(self) -> torch.device:
        return self.pipe.device

    @property
    def similarity_fn_name(self) -> str:
        """How vectors are compared: "cosine", "dot", "euclidean" or "manhattan"."""
        return self.modules.similarity

    def get_embedding_dimension(self) -> int:
        """The width of a vector."""
        width: int = self.encode("a").shape[-1]
        return width

    get_sentence_embedding_dimension = get_embedding_dimension

    @overload
    def encode(
        self, sentences: object, prompt_name: str | None = None, prompt: str | None = None,
        batch_size: int | None = None, *, normalize_embeddings: bool = False, convert_to_tensor: Literal[True],
        truncate_dim: int | None = None, task_name: str | None = None, task_metadata: object = None,
        prompt_type: object = None, **others: object,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def encode(
        self, sentences: object, prompt_name: str | None = None, prompt: str | None = None,
        batch_size: int | None = None, *, normalize_embeddings: bool = False, convert_to_tensor: Literal[False] = False,
        truncate_dim: int | None = None, task_name: str | None = None, task_metadata: object = None,
        prompt_type: object = None, **others: object,
    ) -> NDArray[np.float32]: ...  # fmt: skip

    def encode(
        self,
        sentences: object,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        *,
        normalize_embeddings: bool = False,
        convert_to_tensor: bool = False,
        truncate_dim: int | None = None,
        task_name: str | None = None,
        task_metadata: object = None,
        prompt_type: object = None,
        **others: object,
    ) -> Tensor | NDArray[np.float32]:
        """The vectors of texts, in their order: an array [texts, width], of one text [width].

        Args:
            sentences: a text, a list of texts, or batches {"text": [...]} (what newer versions of mteb pass).
            prompt_name, prompt: a prompt of the folder by its name, or a text; without them its default prompt.
            batch_size: at most so many texts at once; it never changes a vector.
            normalize_embeddings: vectors of length 1.
            convert_to_tensor: a torch tensor instead of a numpy array.
            truncate_dim: only the first numbers of each vector.
            task_name, task_metadata, prompt_type: mteb's; the prompt that is named after task and kind, after the task
                or after the kind ("query", "document") is put before the texts where the folder has one.
            others: arguments that change no vector here (a progress bar, a device).

        Raises:
            InputError: a prompt that the folder does not have, or an argument that asks for other vectors.
        """
        for name, value in others.items():
            if name in _MUST_BE and value in (None, _MUST_BE[name]):
                continue
            if name not in _HINTS:
                known = (*_HINTS, *_MUST_BE, "normalize_embeddings", "truncate_dim")
                raise InputError(f"encode({name}={value!r}) is not built.{nearest(name, known)}")
        if prompt is None and prompt_name is not None:
            if not isinstance(prompt_name, str) or prompt_name not in self.modules.prompts:
                raise InputError(f"prompt_name={prompt_name!r} is none of {sorted(self.modules.prompts)}.")
            prompt = self.modules.prompts[prompt_name]
        if prompt is None:
            prompt = self._prompt_of(task_name or getattr(task_metadata, "name", None), prompt_type)
        if prompt is not None and not isinstance(prompt, str):
            raise InputError(f"prompt={prompt!r:.60} must be a text.")
        whole = isinstance(truncate_dim, int) and not isinstance(truncate_dim, bool) and truncate_dim > 0
        if truncate_dim is not None and not whole:
            raise InputError(f"truncate_dim={truncate_dim!r}: pass a whole number from 1 up, or None for all.")
        texts = sentences if isinstance(sentences, str) else _texts(sentences)
        call = {"pooling": "model", "prompt": prompt, "return_tensors": "pt", "long": "truncate"}
        found = self.pipe(texts, batch_size=batch_size, **call)
        vectors: Tensor = torch.empty(0) if isinstance(found, list) else found.float()  # [texts, width]
        vectors = vectors[..., :truncate_dim]
        if normalize_embeddings:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors if convert_to_tensor else vectors.cpu().numpy()

    def encode_query(self, sentences: object, *args: Any, **options: Any) -> Any:
        """`encode`, with the folder's prompt for queries if no other is asked for."""
        return self.encode(sentences, *args, **{"prompt_type": "query", **options})

    def encode_document(self, sentences: object, *args: Any, **options: Any) -> Any:
        """`encode`, with the folder's prompt for documents if no other is asked for."""
        return self.encode(sentences, *args, **{"prompt_type": "document", **options})

    def similarity(self, a: object, b: object) -> Tensor:
        """How alike each of `a` [n, width] is to each of `b` [m, width]: [n, m]; a distance counts negative."""
        left, right = _rows(a), _rows(b)
        if self.similarity_fn_name == "cosine":
            left, right = torch.nn.functional.normalize(left, dim=-1), torch.nn.functional.normalize(right, dim=-1)
        if self.similarity_fn_name in ("cosine", "dot"):
            return left @ right.T
        return -torch.cdist(left, right, p=1.0 if self.similarity_fn_name == "manhattan" else 2.0)

    def similarity_pairwise(self, a: object, b: object) -> Tensor:
        """How alike `a[i]` is to `b[i]`: [n]."""
        left, right = _rows(a), _rows(b)
        if self.similarity_fn_name == "cosine":
            left, right = torch.nn.functional.normalize(left, dim=-1), torch.nn.functional.normalize(right, dim=-1)
        if self.similarity_fn_name in ("cosine", "dot"):
            return (left * right).sum(-1)
        distance: Tensor = (left - right).norm(1 if self.similarity_fn_name == "manhattan" else 2, dim=-1)
        return -distance

    def _prompt_of(self, task: str | None, kind: object) -> str | None:
        kind = str(getattr(kind, "value", kind)) if kind is not None else None
        names = [f"{task}-{kind}", task, kind, *(["passage"] if kind == "document" else [])]
        return next(
            (self.modules.prompts[name] for name in names if name is not None and name in self.modules.prompts), None
        )


def _texts(sentences: object) -> list[str]:
    """Texts from a list, an array or a column of them, or from batches {"text": [...]}."""
    if isinstance(sentences, Iterable):
        found: list[str] = []
        for item in sentences:
            found += item["text"] if isinstance(item, Mapping) and "text" in item else [item]
        return found
    raise InputError(f"encode takes a text or a list of texts, not {sentences!r:.80}.")


def _rows(vectors: object) -> Tensor:
    """Vectors as float32 [n, width]; lists of arrays or tensors too."""
    if isinstance(vectors, list | tuple):
        vectors = torch.stack([torch.as_tensor(vector) for vector in vectors])
    rows = torch.as_tensor(vectors).float()
    return rows[None] if rows.ndim == 1 else rows
