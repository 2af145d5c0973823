"""What scripts ask of a model beside its work: its size in memory, its parts, gradients for its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor, nn

from cutaway.errors import ConfigError, CutawayError
from cutaway.models.attention_names import check_attention
from cutaway.nn.engine_modules import EngineTree


class OfConfig:
    """A field of the config as an attribute of the model, which a subclass may set for itself."""

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    def __get__(self, model: nn.Module | None, owner: type[object]) -> object:
        if model is None:
            return self
        try:
            return getattr(model.config, self._name)
        except CutawayError as error:
            raise AttributeError(str(error)) from error


class ModelFace:
    """The part of `PreTrainedModel` that answers to upstream's names and is no part of the engine."""

    main_input_name: ClassVar[str] = "input_ids"
    supports_gradient_checkpointing: ClassVar[bool] = True
    framework: ClassVar[str] = "pt"
    is_parallelizable: ClassVar[bool] = False
    vocab_size: int = cast(int, OfConfig())
    model_tags: Sequence[str] | None = None
    # what other libraries ask before they choose an attention; there is one here, whatever it is called
    _supports_sdpa: ClassVar[bool] = True
    _supports_flash_attn: ClassVar[bool] = False
    _supports_flash_attn_2: ClassVar[bool] = False
    _supports_flex_attn: ClassVar[bool] = False
    _supports_attention_backend: ClassVar[bool] = True
    _can_compile_fullgraph: ClassVar[bool] = False
    _is_stateful: ClassVar[bool] = False
    _no_split_modules: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_missing: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str] | None] = None

    if TYPE_CHECKING:
        base_model: Any
        config: Any
        named_parameters: Callable[..., Any]
        parameters: Callable[..., Any]
        buffers: Callable[..., Any]
        modules: Callable[..., Any]

        @property
        def engine(self) -> EngineTree: ...

        gradient_checkpointing_enable: Callable[[], None]
        gradient_checkpointing_disable: Callable[[], None]
        get_input_embeddings: Callable[[], nn.Embedding]
        set_adapter: Callable[[str | None], None]
        remove_adapter: Callable[[str], None]

        @property
        def adapter_names(self) -> list[str]: ...

        @property
        def active_adapter(self) -> str | None: ...

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Ids that any model can read."""
        import torch

        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])}

    @classmethod
    def is_custom_code(cls) -> bool:
        """Whether the classes are other than upstream's: who changes weights on the way to those leaves ours alone."""
        return True

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights, and of the buffers; what is packed beside them for the kernels is not counted."""
        held = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(x.nbytes for x in held)

    def get_encoder(self) -> Any:
        """The encoder of an encoder-decoder; of another model, the model without its head."""
        base = self.base_model
        return base if base is self else base.get_encoder()

    def get_decoder(self) -> Any:
        """The decoder of an encoder-decoder; of another model, the model without its head."""
        base = self.base_model
        return base if base is self else base.get_decoder()

    def enable_input_require_grads(self) -> None:
        """Let gradients flow from the embedded texts on, though the embeddings do not train (adapters need it)."""
        if "_input_hook" not in self.__dict__:
            table = self.get_input_embeddings()
            hook = nn.Module.register_forward_hook(table, lambda _, __, out: out.requires_grad_(True))
            self.__dict__["_input_hook"] = hook

    def disable_input_require_grads(self) -> None:
        """As before `enable_input_require_grads`."""
        hook = self.__dict__.pop("_input_hook", None)
        if hook is not None:
            hook.remove()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether blocks are computed twice in training."""
        return any(m.__dict__.get("gradient_checkpointing", False) for m in self.engine.modules())

    is_activation_checkpointing = is_gradient_checkpointing

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """`gradient_checkpointing_enable`, under its other name."""
        self.gradient_checkpointing_enable()

    def activation_checkpointing_disable(self) -> None:
        """`gradient_checkpointing_disable`, under its other name."""
        self.gradient_checkpointing_disable()

    def add_model_tags(self, tags: str | list[str]) -> None:
        """Tags for the model card."""
        new = [tags] if isinstance(tags, str) else list(tags)
        self.model_tags = list(dict.fromkeys([*(self.model_tags or []), *new]))

    def estimate_tokens(self, input_dict: Mapping[str, Any]) -> int:
        """How many tokens a batch has."""
        found = input_dict.get(self.main_input_name)
        return 0 if found is None else int(found.numel())

    def floating_point_ops(self, input_dict: Mapping[str, Any], exclude_embeddings: bool = True) -> int:
        """About how many operations a step over a batch takes: 6 for each token and weight (Kaplan et al., 2020)."""
        tables = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        left_out = tables if exclude_embeddings else set()
        weights = sum(int(p.numel()) for p in self.parameters() if id(p) not in left_out)
        return 6 * self.estimate_tokens(input_dict) * weights

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Whether `set_attn_implementation` can be called."""
        return True

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Changes a name in the config and nothing else: there is one attention, which is fast and open."""
        check_attention(attn_implementation)
        self.config._attn_implementation = attn_implementation

    # -- adapters, under the names that upstream's integration of PEFT has -------------------------------------------

    def active_adapters(self) -> list[str]:
        """The adapters that act."""
        return [] if self.active_adapter is None else [self.active_adapter]

    def disable_adapters(self) -> None:
        """Let no adapter act."""
        self.__dict__["_adapter_before"] = self.active_adapter
        self.set_adapter(None)

    def enable_adapters(self) -> None:
        """Let the adapter act that did before `disable_adapters`, or the last that was added."""
        before = self.__dict__.pop("_adapter_before", None) or (self.adapter_names[-1] if self.adapter_names else None)
        if before is None:
            raise ConfigError("there is no adapter to enable; add one with add_adapter or load_adapter.")
        self.set_adapter(before)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Take adapters off."""
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            self.remove_adapter(name)
