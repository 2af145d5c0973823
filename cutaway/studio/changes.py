"""Changes of a model that the lab makes: parts switched off or scaled, patched from another text, or steered.

Each change is one entry of `model.edit({address: value})`, and says itself as Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cutaway.errors import InputError, nearest
from cutaway.serve.body import Body

if TYPE_CHECKING:
    import torch

    from cutaway.models.protocols import LanguageModel
    from cutaway.nn.activations.edits import Edit
    from cutaway.nn.activations.sparse_features import AttachedSae
    from cutaway.serve.served_model import ServedModel

Number = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1, max_length=100_000)]
PARTS = {"head": "attn.head.{unit}.out", "cross": "cross.head.{unit}.out", "attention": "attn.out", "mlp": "mlp.out"}


class Change(Body):
    """One change.

    Attributes:
        kind: head (unit: its number), cross (a head of cross attention), neuron (unit: its number), attention and mlp
            (what these add in a layer) and layer (both) are multiplied by `scale`; patch puts in what stands at
            `address` when the model reads `text`, at `position` or everywhere; steer adds `scale` times the mean state
            of the texts `plus` less that of the texts `minus`, after the layer. A feature (unit: its number) of the
            sparse autoencoder `sae` is multiplied by `scale`; boost adds `scale` to it.
        tower: of an encoder-decoder, "encoder" or "decoder".
    """

    kind: Literal["head", "cross", "neuron", "attention", "mlp", "layer", "patch", "steer", "feature", "boost"]
    layer: Number = 0
    unit: Number = 0
    scale: float = 0.0
    sae: Annotated[str, Field(max_length=64)] = ""
    tower: Literal["", "encoder", "decoder"] = ""
    address: Annotated[str, Field(max_length=200)] = ""
    text: Annotated[str, Field(max_length=100_000)] = ""
    position: Number | None = None
    plus: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    minus: Annotated[tuple[Text, ...], Field(max_length=64)] = ()

    def block(self, part: str) -> str:
        """The address of a part of the layer."""
        return f"{self.tower}{'.' if self.tower else ''}blocks.{self.layer}.{part.format(unit=self.unit)}"


def _scaled(scale: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda value: scale * value


def _added(vector: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda state: state + vector.to(state)


def _scaled_unit(unit: int, scale: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(value: torch.Tensor) -> torch.Tensor:
        if unit >= value.shape[-1]:
            raise InputError(f"neuron={unit} is not there: a layer has neurons 0 to {value.shape[-1] - 1}.")
        value[..., unit] *= scale
        return value

    return change


def addresses(change: Change) -> list[str]:
    """Where a change that multiplies stands."""
    parts = ("attention", "mlp") if change.kind == "layer" else (change.kind,)
    return [change.block("mlp.act" if part == "neuron" else PARTS[part]) for part in parts]


@contextmanager
def changed(served: ServedModel, changes: Sequence[Change]) -> Iterator[None]:
    """Inside, the model has these changes, for this thread's calls alone.

    Raises:
        InputError: a place that is not there; a text to patch from that is as long as no other.
    """
    from cutaway.inspect.steering import steering_vector
    from cutaway.nn.activations.edits import Edit

    model: LanguageModel = served.model
    with ExitStack() as inside:
        prepared: list[dict[str, Edit]] = []
        for change in changes:  # what other texts give is read before anything is changed
            if change.kind == "patch":
                with model.record(change.address) as seen:
                    model(**batch_of(served, [change.text]))
                prepared.append({change.address: Edit(seen, positions=change.position)})
            elif change.kind in ("feature", "boost"):
                prepared.append(_of_feature(served, change))
            elif change.kind == "steer":
                if not change.plus or not change.minus:
                    raise InputError("steer needs texts of both kinds: give at least one for and one against.")
                plus, minus = (batch_of(served, texts) for texts in (change.plus, change.minus))
                found = steering_vector(model, plus, minus, change.layer, tower=change.tower or None)
                prepared.append({found.address: Edit(_added(change.scale * found.vector))})
            else:
                edit = _scaled_unit(change.unit, change.scale) if change.kind == "neuron" else _scaled(change.scale)
                prepared.append({place: Edit(edit) for place in addresses(change)})
        for entry in prepared:
            inside.enter_context(model.edit(entry))
        yield


def _of_feature(served: ServedModel, change: Change) -> dict[str, Edit]:
    saes = getattr(served.model.base_model, "saes", {})
    if change.sae not in saes:
        raise InputError(f"sae={change.sae!r:.64} is not attached to {served.name}.{nearest(change.sae, saes)}")
    sae: AttachedSae = saes[change.sae]
    return sae.scaled(change.unit, change.scale) if change.kind == "feature" else sae.steered(change.unit, change.scale)


def batch_of(served: ServedModel, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Texts as one batch, padded; an encoder-decoder's decoder is given the token it starts with."""
    import torch

    rows = [served.explainer(text, verbose=False) for text in texts]
    longest = max(len(row["input_ids"]) for row in rows)
    # by hand, since a decoder's tokenizer may have no token to pad with; the mask hides what stands there
    found = {
        key: torch.tensor([[*row[key], *[0] * (longest - len(row[key]))] for row in rows])  # [B, L]
        for key in rows[0]
        if key in ("input_ids", "attention_mask", "token_type_ids")
    }
    if served.model.is_encoder_decoder:
        start = served.model.config.decoder_start_token_id
        found["decoder_input_ids"] = torch.full((len(texts), 1), start)
    return found


def as_python(changes: Sequence[Change]) -> list[str]:
    """The changes as lines of Python: what `with model.edit(...)` is given, and what stands before it."""
    before: list[str] = []
    entries: list[str] = []
    for number, change in enumerate(changes):
        if change.kind == "patch":
            before += [f"with model.record({change.address!r}) as other{number}:",
                       f"    model(**tokenizer({change.text!r}, return_tensors=\"pt\"))"]  # fmt: skip
            entries.append(f"{change.address!r}: cutaway.Edit(other{number}, positions={change.position!r})")
        elif change.kind == "steer":
            sides = (list(change.plus), list(change.minus))
            texts = ", ".join(f'tokenizer({some!r}, padding=True, return_tensors="pt")' for some in sides)
            tower = f", tower={change.tower!r}" if change.tower else ""
            before.append(f"steer{number} = cutaway.inspect.steering_vector(model, {texts}, {change.layer}{tower})")
            entries.append(f"steer{number}.address: lambda x: x + {change.scale!r} * steer{number}.vector.to(x)")
        elif change.kind in ("feature", "boost"):
            how = "scaled" if change.kind == "feature" else "steered"
            entries.append(f"**model.base_model.saes[{change.sae!r}].{how}({change.unit}, {change.scale!r})")
        elif change.kind == "neuron":
            address = change.block("mlp.act")
            before += [f"def neuron{number}(x):", f"    x[..., {change.unit}] *= {change.scale!r}", "    return x"]
            entries.append(f"{address!r}: neuron{number}")
        else:
            value = "0.0" if change.scale == 0 else f"lambda x: {change.scale!r} * x"
            entries += [f"{place!r}: {value}" for place in addresses(change)]
    if not entries:
        return []
    unpacked = any(entry.startswith("**") for entry in entries)
    if len(changes) == 1 or (not unpacked and len({entry.partition(":")[0] for entry in entries}) == len(entries)):
        return [*before, f"edit = model.edit({{{', '.join(entries)}}})"]
    # several changes of one place, one after the other
    return [*before, "edit = contextlib.ExitStack()", *(f"edit.enter_context(model.edit({{{e}}}))" for e in entries)]
