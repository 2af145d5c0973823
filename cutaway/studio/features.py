"""Features in the lab: the strongest of each token, and the texts that excite one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cutaway.errors import nearest
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem
from cutaway.studio.changes import Change, Number, Text, batch_of, changed
from cutaway.studio.writing import label_of

if TYPE_CHECKING:
    from cutaway.nn.activations.sparse_features import AttachedSae
    from cutaway.serve.served_model import ServedModel

TOP = 6  # features of a token
TOKENS = 512  # of a text, at most
AROUND = 8  # tokens before and after the one that a feature is strongest at


class FeaturesBody(Body):
    """A text; with `feature`, that one's strength at each token too."""

    model: str
    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    sae: Annotated[str, Field(max_length=64)] = ""
    feature: Number | None = None
    changes: Annotated[tuple[Change, ...], Field(max_length=256)] = ()


class ExcitingBody(Body):
    """The texts to look through for one feature."""

    model: str
    sae: Annotated[str, Field(max_length=64)]
    feature: Number
    texts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=2000)]


def attached(served: ServedModel, name: str) -> AttachedSae:
    """The autoencoder of this name; Problem 404 where there is none."""
    saes = served.model.base_model.saes
    if name not in saes:
        raise Problem(404, f"sae={name!r:.64} is not attached to {served.name}.{nearest(name, saes)}", param="sae")
    found: AttachedSae = saes[name]
    return found


def listed(served: ServedModel) -> list[dict[str, object]]:
    """What is attached to a model."""
    saes: dict[str, AttachedSae] = getattr(served.model.base_model, "saes", {})
    return [{"name": s.name, "reads": s.reads, "writes": s.writes, "features": s.n_features} for s in saes.values()]


def beside_tokens(served: ServedModel, body: FeaturesBody) -> dict[str, object]:
    """The strongest features of each token, how many are on, and the share of the variance that they explain."""
    import torch

    saes = listed(served)
    if not saes:
        return {"saes": [], "tokens": []}
    sae = attached(served, body.sae or str(saes[0]["name"]))
    if body.feature is not None:
        sae.scaled(body.feature)  # checks the number
    inputs = batch_of(served, [body.text])
    ids = inputs["decoder_input_ids" if sae.reads.startswith("decoder.") else "input_ids"][0].tolist()
    with torch.no_grad(), changed(served, body.changes), served.model.record(*sae.addresses, sae.writes) as r:
        served.model(**inputs)
    values = r[sae.features][0, :TOKENS].float()  # [L, n]
    state, missed = sae.flat(r[sae.writes])[0].double(), r[sae.error][0].double()  # [L, H]
    rest = slice(1, None) if len(state) > 2 else slice(None)  # a first token's vector is far from all others
    spread = float((state[rest] - state[rest].mean(0)).square().sum())
    explained = None if spread == 0 else 1 - float(missed[rest].square().sum()) / spread
    best = values.topk(min(TOP, values.shape[1]), dim=-1)
    tokens = []
    for at, (features, strengths) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
        pairs = [{"feature": f, "value": v} for f, v in zip(features, strengths, strict=True) if v > 0]
        tokens.append({"label": label_of(served, ids[at]), "on": int((values[at] > 0).sum()), "features": pairs})
    strength = None if body.feature is None else values[:, body.feature].tolist()
    return {"saes": saes, "sae": sae.name, "tokens": tokens, "explained": explained, "strength": strength,
            "left": max(0, len(ids) - TOKENS)}  # fmt: skip


def exciting(served: ServedModel, body: ExcitingBody) -> dict[str, object]:
    """The tokens of these texts at which a feature is strongest, each with the words around it."""
    from cutaway.inspect.features import top_texts

    sae = attached(served, body.sae)
    batches = [batch_of(served, [text]) for text in body.texts]
    found = top_texts(served.model, sae, body.feature, batches, top=12)
    ids = "decoder_input_ids" if sae.reads.startswith("decoder.") else "input_ids"
    places = []
    for text, at, value in zip(found.texts.tolist(), found.positions.tolist(), found.values.tolist(), strict=True):
        if value <= 0:
            continue
        row = batches[text][ids][0].tolist()
        first = max(0, at - AROUND)
        labels = [label_of(served, one) for one in row[first : at + AROUND + 1]]
        places.append({"text": text, "position": at, "value": value, "labels": labels, "at": at - first})
    return {"places": places}
