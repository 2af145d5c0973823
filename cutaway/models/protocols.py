"""What callers need of a model, as a type: the library's own models fit it, and so does whatever behaves like one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cutaway.config.architecture import Architecture
    from cutaway.config.config import PretrainedConfig
    from cutaway.generate.settings import GenerationConfig
    from cutaway.nn.activations.edits import Change, Edits
    from cutaway.nn.activations.recorder import Recorder
    from cutaway.nn.activations.sparse_features import AttachedSae
    from cutaway.nn.kv_cache import Cache

# the adapter of all rows of a call (None: the base alone), or one for each
AdapterChoice = str | Sequence[str | None] | None

Given = ParamSpec("Given")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class ModelCall(Protocol[Given, Result_co]):
    """For type checkers: what calling a model takes and returns."""

    @overload
    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Result_co: ...

    @overload
    def __call__(self, *args: object, adapters: AdapterChoice, **kwargs: object) -> Result_co: ...


def called_as(
    forward: Callable[Concatenate[Any, Given], Result],
) -> Callable[[Callable[..., object]], ModelCall[Given, Result]]:
    """For type checkers: `model(...)` takes what `forward` takes and returns what it returns.

    Beside that it takes `adapters=`, which is for the call and not for `forward`. PyTorch declares `__call__` of every
    module as a function of anything that returns anything.
    """
    raise NotImplementedError


class DecodeStepper(Protocol):
    """What `model.decode_stepper()` gives: it runs one new token for each text, with every check done once."""

    @property
    def is_unobserved(self) -> bool:
        """Whether nobody would notice that the model itself is not called."""

    def release(self) -> None:
        """Leave what was captured to the next call of the model; no step is made after it."""

    @property
    def reads_shared(self) -> bool:
        """Whether the next step takes a cache whose rows beams share (`Cache.share`)."""

    @property
    def shows_all(self) -> bool:
        """Whether whoever records is shown by a step what the model itself would show."""

    def __call__(
        self, ids: Tensor, cache: Cache, memory: Tensor | None = None, memory_mask: Tensor | None = None, /
    ) -> Tensor:
        """Logits [A, columns, V] of ids [A, columns], whose keys and values the cache takes up."""

    def peek(self, places: Iterable[tuple[int, str]]) -> Mapping[tuple[int, str], Tensor]:
        """{(layer, part): value} of the last step at these places; asked for before the first."""


class ComputesWith(Protocol):
    """What a model computes with (`models.precision.Precision`): the format's name, and why it was taken."""

    @property
    def name(self) -> str: ...

    @property
    def why(self) -> str: ...


class LanguageModel(Protocol):
    """A transformer of the engine, with or without a head: it runs, and can be looked into while it runs."""

    @property
    def config(self) -> PretrainedConfig: ...

    @property
    def training(self) -> bool: ...

    @property
    def name_or_path(self) -> str: ...

    @property
    def architecture(self) -> Architecture: ...

    @property
    def base_model(self) -> Any: ...

    @property
    def precision(self) -> ComputesWith: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def can_generate(self) -> bool: ...

    @property
    def is_encoder_decoder(self) -> bool: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def to(self, device: torch.device) -> Self: ...

    def num_parameters(self) -> int: ...

    def use_adapter(
        self, adapters: str | Sequence[str | None] | None, batch: int | None = None
    ) -> AbstractContextManager[None]: ...

    @property
    def generation_config(self) -> GenerationConfig: ...

    def generate(self, *args: Any, **settings: Any) -> Any: ...

    def addresses(self) -> list[str]: ...

    def find_addresses(self, patterns: Iterable[str]) -> list[str]: ...

    def attach_sae(self, address: str, file: str | Path, name: str | None = None) -> AttachedSae: ...

    def detach_sae(self, name: str) -> None: ...

    def record(self, *addresses: str, to: str | Path | None = None) -> AbstractContextManager[Recorder]: ...

    def edit(self, changes: Mapping[str, Change]) -> AbstractContextManager[Edits]: ...

    def get_input_embeddings(self) -> nn.Embedding: ...

    def get_output_embeddings(self) -> nn.Module | None: ...


class GenerativeModel(LanguageModel, Protocol):
    """A model that continues or answers texts."""

    @property
    def base(self) -> Any: ...

    def logits(self, hidden: Tensor) -> Tensor: ...

    def decode_stepper(self) -> DecodeStepper | None: ...
