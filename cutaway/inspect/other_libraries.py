"""A recording as the objects that TransformerLens and interp-engine give for theirs."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from cutaway.errors import MissingExtraError
from cutaway.inspect.measure import measure

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel
    from cutaway.nn.activations.recorder import Recorder


class NamedActivations(Protocol):
    """An object of another library that gives values by its names for them."""

    def __getitem__(self, key: str | tuple[str, int], /) -> Tensor: ...


@measure
def to_transformer_lens(recording: Recorder, model: LanguageModel | object) -> NamedActivations:
    """The latest values of a recording as TransformerLens' `ActivationCache`.

    Args:
        model: the model that was recorded, or TransformerLens' own with the same weights. Ours tells the cache how many
            layers and heads there are, which is enough to stack, cut and accumulate states; what reads weights
            (`apply_ln=True`, `logit_attrs`) needs theirs.

    Values that have no name there are left out; those that have two (`hook_resid_post` of a layer is
    `hook_resid_pre` of the next) are one tensor. Needs `transformer_lens`.

    Raises:
        InputError: a recording from files, which does not know its model.
        MissingExtraError: TransformerLens is not installed.
    """
    values = recording.named("transformer_lens")
    cache_class = _from("transformer_lens", "ActivationCache")
    architecture = getattr(getattr(model, "base_model", None), "architecture", None)
    if architecture is not None:
        stack = architecture.decoder or architecture.stack
        sizes = {"n_layers": stack.n_layers, "d_model": stack.hidden_size, "n_heads": stack.attention.n_heads}
        more = {"d_head": stack.attention.head_size, "d_mlp": stack.feed_forward.size, "attn_only": False}
        parallel = stack.norm_place in ("parallel", "shared")
        model = SimpleNamespace(cfg=SimpleNamespace(**sizes, **more, parallel_attn_mlp=parallel, dtype=None))
    cache: NamedActivations = cache_class(values, model)
    return cache


@measure
def to_interp_engine(recording: Recorder) -> NamedActivations:
    """The latest values of a recording as interp-engine's `Cache`: [B, L, width], heads side by side in the last axis.

    Values that have no address there are left out. Needs `interp-engine`.

    Raises:
        InputError: a recording from files, which does not know its model.
        MissingExtraError: interp-engine is not installed.
    """
    values = recording.named("interp_engine")
    parse = _from("interp_engine", "parse_address")
    joined = {
        # [B, L, heads, d] -> [B, L, heads x d]
        parse(name): value.flatten(2) if name.startswith(("value.", "z.")) else value
        for name, value in values.items()
    }
    cache: NamedActivations = _from("interp_engine", "Cache")(tensors=joined, output=None)
    return cache


def _from(package: str, name: str) -> type:
    try:
        found: type = getattr(import_module(package), name)
    except ImportError as error:
        raise MissingExtraError(
            f"{package.replace('_', '-')} is not installed; `pip install {package.replace('_', '-')}` brings it. The "
            f"values under its names are in recording.named({package!r})."
        ) from error
    return found
