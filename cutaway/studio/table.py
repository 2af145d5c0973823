"""A table of texts: labels and scores of each, and a map of their vectors, batch by batch as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from cutaway.errors import InputError
from cutaway.inspect.asked import kind_of
from cutaway.nn.call_context import Evaluation
from cutaway.serve.body import Body
from cutaway.studio.changes import batch_of

if TYPE_CHECKING:
    import torch

    from cutaway.inspect.measures import Array
    from cutaway.serve.served_model import ServedModel
    from cutaway.studio.feed import Feed

TOGETHER = 16  # texts of one pass
MOST = 20_000  # texts of a table
Text = Annotated[str, Field(max_length=100_000)]


class TableBody(Body):
    """Texts to label, or to put on a map: by principal components, or by UMAP where that is installed."""

    model: str
    texts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST)]
    plane: Literal["pca", "umap"] = "pca"


def rows(served: ServedModel, body: TableBody, feed: Feed) -> Iterator[None]:
    """Events: `rows` (the first one's number, labels' shares), then `map` (points [rows, 2]).

    A text's vector is the mean of its tokens' last states.
    """
    import torch

    labels = kind_of(served.model) == "labels"
    config = served.model.config
    names = [str(config.id2label[i]) for i in range(int(config.num_labels))] if labels else []
    single = labels and (config.problem_type in ("multi_label_classification", "regression") or config.num_labels == 1)
    function = "softmax" if not single else "none" if config.problem_type == "regression" else "sigmoid"
    feed.offer("start", {"rows": len(body.texts), "labels": names, "function": function})
    longest = served.longest
    vectors: list[Array] = []
    for first in range(0, len(body.texts), TOGETHER):
        texts = [text if text.strip() else " " for text in body.texts[first : first + TOGETHER]]
        inputs = batch_of(served, texts)
        if longest is not None:  # a table goes on where one of its texts is too long
            inputs = {key: value[:, :longest] for key, value in inputs.items()}
        with Evaluation(served.model)(), torch.no_grad():
            place = _last_state(served)
            with served.model.record(place) as seen:
                out = served.model(**inputs)
            shares: list[list[float]] = []
            if labels:
                logits = out["logits"].float()
                by = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}
                shares = by[function].tolist()
            vectors.append(_means(seen[place], inputs["attention_mask"]))
        feed.offer("rows", {"first": first, "shares": shares})
        yield
    points, shares_of = plane(np.concatenate(vectors), body.plane)
    feed.offer("map", {"points": points.tolist(), "shares": shares_of, "plane": body.plane})


def _last_state(served: ServedModel) -> str:
    from cutaway.inspect.tower import tower_of

    encoder = "encoder" if served.model.is_encoder_decoder else None
    return tower_of(served.model, encoder).layers("resid")[-1]


def _means(states: torch.Tensor, mask: torch.Tensor) -> Array:
    """[B, L, H] -> [B, H], the mean over the tokens that are no padding."""
    share = mask[..., None].to(states)
    mean = (states * share).sum(1) / share.sum(1).clamp(min=1)
    return np.asarray(mean.float().cpu().numpy())


def plane(vectors: Array, how: str) -> tuple[Array, list[float]]:
    """Points [n, 2] of vectors [n, H], and each axis's share of the variance ([] for UMAP)."""
    if how == "umap":
        from importlib import import_module
        from importlib.util import find_spec

        if find_spec("umap") is None:
            raise InputError("UMAP is not installed: pip install umap-learn, or take principal components.")
        made = import_module("umap").UMAP(n_components=2, random_state=0).fit_transform(vectors)
        return np.asarray(made, np.float32), []
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(vectors), 2), np.float32)
    n = min(2, len(size))
    found[:, :n] = left[:, :n] * size[:n]
    variance = size**2 / max(float((size**2).sum()), 1e-30)
    return found, [float(share) for share in variance[:2]]
