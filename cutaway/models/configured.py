"""`ConfiguredModel`: a module with a config that can be counted, resized and looked into; it knows no files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cutaway.adapters.mixin import Adaptable
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import check_training
from cutaway.errors import AddressError, ConfigError, InputError, nearest
from cutaway.hub.argument_names import also_called
from cutaway.hub.upload import Publishing
from cutaway.hub.upstream_types import KnownUpstream
from cutaway.models.generation_mixin import GenerationMixin
from cutaway.models.model_face import ModelFace
from cutaway.models.number_format import Precision
from cutaway.models.sae_files import read_sae
from cutaway.nn.activations.edits import Change, Edits
from cutaway.nn.activations.foreign_names import ForeignNames, find_addresses
from cutaway.nn.activations.recorder import Recorder
from cutaway.nn.activations.sparse_features import AttachedSae
from cutaway.nn.activations.taps import vector_width
from cutaway.nn.call_context import EvaluationAware, Scope, within
from cutaway.nn.engine_modules import engine_modules
from cutaway.nn.linear import PackedCache
from cutaway.nn.norm_mlp import Embedding


class ConfiguredModel(KnownUpstream, GenerationMixin, Adaptable, EvaluationAware, ModelFace, Publishing):
    """What `PreTrainedModel` is beside loading and saving, whose functions take and give such models."""

    upstream = ("transformers.modeling_utils:PreTrainedModel",)
    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    base_model_prefix: ClassVar[str] = ""
    init_std: float = 0.02

    _precision: Precision | None = None
    _generation_config: Any = None

    def __init__(self, config: PretrainedConfig, *args: object, **kwargs: object) -> None:
        super().__init__()
        if not isinstance(config, PretrainedConfig):
            raise ConfigError(
                f"{type(self).__name__}(config) needs a PretrainedConfig, not {type(config).__name__}; to load a "
                f"checkpoint use {type(self).__name__}.from_pretrained(name)."
            )
        self.config = config
        if config._attn_implementation is None:
            config._attn_implementation = "sdpa"  # the name that other libraries expect
        self.name_or_path = getattr(config, "name_or_path", "")

    def train(self, mode: bool = True) -> Self:
        """Training mode (dropout), or not. ConfigError where the config asks for what is not built in training."""
        if mode:
            check_training(self.config)
        return super().train(mode)

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        first = self.engine.first_parameter()
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.engine.parameters() if p.is_floating_point()), torch.float32)

    @property
    def precision(self) -> Precision:
        """What this model computes with, and why."""
        chosen = self._precision
        name = str(self.dtype).removeprefix("torch.")
        # a model that was converted since computes with what it was converted to
        lasting = ("int8", name, "int4") if name == "float32" else ("int8", name)
        if chosen is None or chosen.name not in lasting:
            return Precision(name, "The weights are held in this dtype.")
        return chosen

    @precision.setter
    def precision(self, value: Precision) -> None:
        self._precision = value

    @property
    def base_model(self) -> Any:
        """The model without its task head; itself where it has none."""
        return self._modules.get(self.base_model_prefix) or self

    @property
    def output_model(self) -> ConfiguredModel:
        """The part of the model that has the output matrix and the table it may be tied to: the model itself."""
        return self

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights hold; tied weights count once."""
        left_out = (
            {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)} if exclude_embeddings else set()
        )
        return sum(
            p.numel() for p in self.parameters() if (p.requires_grad or not only_trainable) and id(p) not in left_out
        )

    def tie_weights(self) -> None:
        """Make weights that are one in the published model one here; models with an output matrix override this."""

    def get_input_embeddings(self) -> nn.Embedding:
        base = self.base_model
        if base is self:
            raise ConfigError(f"{type(self).__name__} has no input embeddings that cutaway knows of.")
        return base.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.base_model.set_input_embeddings(value)
        self.tie_weights()

    def get_output_embeddings(self) -> nn.Module | None:
        return None

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(getattr(self.config, "is_encoder_decoder", False))

    def repack(self) -> None:
        """Lay this model's weights out anew at their next use.

        On a CPU a linear layer's weight lies a second time in the processor's own order, which follows the weight. The
        next forward or `generate` finds by itself whatever torch counts, what goes through `.data`, an optimizer's step
        and another parameter. Other writes are found by a few numbers of each weight that each pass compares: from a
        numpy array or a `.data` held from before, a buffer that parameters are views of, a copy of storages,
        `torch._fused_adamw_`, another process that shares the memory. One to all of a weight is found in the next pass,
        one to a whole row or column within max(rows, columns) / 4 passes.

        Call this after such a write to single numbers or to a part of a row, to a part of a weight that is a page of a
        mapped file, and wherever the very next pass must know of a row. A text that is being generated goes on with the
        weights that it began with: the steps of one `generate` do not look.
        """
        for module in self.engine.modules():
            packed = getattr(module, "packed", None)
            if isinstance(packed, PackedCache):
                packed.forget()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """In training, keep only what enters each block and compute the rest again for gradients (Chen et al., 2016).

        The gradients are the same; a step takes about a third longer and far less memory. The argument is upstream's
        and has nothing left to choose.
        """
        self._recompute(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything for the gradients again."""
        self._recompute(False)

    def _recompute(self, wanted: bool) -> None:
        stacks = [m for m in self.engine.modules() if hasattr(m, "gradient_checkpointing")]
        if not stacks:
            raise ConfigError(f"gradient checkpointing: {type(self).__name__} has no blocks of cutaway's engine.")
        for stack in stacks:
            stack.gradient_checkpointing = wanted  # type: ignore[assignment]

    @also_called(new_num_tokens="n")
    def resize_token_embeddings(
        self, n: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Make room for n tokens: old rows stay, new ones start at the mean of the old (Hewitt, 2021).

        mean_resizing=False: new rows are drawn as those of a new model.

        Raises:
            InputError: n is not a positive whole number.
        """
        old = self.get_input_embeddings()
        if hasattr(self.base_model, "check_resizable"):  # not in a user's own model
            self.base_model.check_resizable()
        size = old.num_embeddings if n is None else n
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"resize_token_embeddings needs a positive number of tokens, not {n!r}.")
        if pad_to_multiple_of is not None and (type(pad_to_multiple_of) is not int or pad_to_multiple_of < 0):
            raise InputError(f"pad_to_multiple_of is {pad_to_multiple_of!r}; give a whole number, or None.")
        if pad_to_multiple_of:
            size = -(-size // pad_to_multiple_of) * pad_to_multiple_of
        if size == old.num_embeddings:
            return old
        kind = Embedding if isinstance(old, Embedding) else nn.Embedding
        new = kind(size, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype)
        if isinstance(old, Embedding) and isinstance(new, Embedding):
            new.embed_scale = old.embed_scale
        fresh = None if mean_resizing else self.init_std
        new.weight = nn.Parameter(_resized(old.weight, size, std=fresh), requires_grad=old.weight.requires_grad)
        output = self.get_output_embeddings()
        self.set_input_embeddings(new)
        if isinstance(output, nn.Linear):
            if output.weight.shape[0] != size:
                output.weight = nn.Parameter(_resized(output.weight, size, std=fresh))
            if output.bias is not None:
                _replace_parameter(self, output.bias, nn.Parameter(_resized(output.bias, size, 0.0)))
            output.out_features = size
        final = dict(self.engine.named_buffers()).get("final_logits_bias")
        if final is not None:
            self.final_logits_bias = _resized(final.T, size, 0.0).T
        self.config.vocab_size = size
        self.tie_weights()
        return new

    # -- looking inside ----------------------------------------------------------------------------------------------

    def addresses(self) -> list[str]:
        """Every activation of this model that has an address, in the order in which it is computed."""
        base = self.base_model
        if base is self:
            raise InputError(
                f"{type(self).__name__} is not built from cutaway's engine; call .addresses() on its parts."
            )
        return [*base.addresses(), "logits"]

    def find_addresses(self, patterns: Iterable[str]) -> list[str]:
        """The addresses of this model that `patterns` name, in the order of the patterns.

        Args:
            patterns: addresses, with * for any run of characters; names that TransformerLens, interp-engine and nnterp
                have for the same places are understood (`blocks.3.hook_resid_post`, `resid_post.3`,
                `layers_output[3]`).

        Raises:
            AddressError: a pattern that names nothing in this model; the message lists the nearest, or says why.
        """
        return find_addresses(patterns, self.addresses(), self._foreign_names)

    def attach_sae(self, address: str, file: str | Path, name: str | None = None) -> AttachedSae:
        """Put a sparse autoencoder or a transcoder at an address: its features are recorded and edited as any place.

        `sae.NAME.features` [B, L, features] and `sae.NAME.error` [B, L, H], what its reconstruction misses, are then
        addresses of the model. An edit of features changes what stands at the address by what the decoder makes of
        the difference; the error stays. Where nothing of it is recorded or edited, nothing is computed.

        Args:
            address: whose vectors it reads. A transcoder reads `blocks.3.mlp.in`, and edits change `blocks.3.mlp.out`.
            file: the folder with SAELens' cfg.json and sae_weights.safetensors.
            name: in the addresses; by default the number of autoencoders that were there before.

        Raises:
            AddressError: an address that is not there, or whose values are no vectors of tokens.
            InputError: a vector of another size than the autoencoder's, a name that is taken or no word.
            ConfigError, CheckpointError: files that are damaged, or of a kind that is not known.
        """
        known = self.find_addresses([address])
        if len(known) != 1:
            raise AddressError(f"attach_sae({address!r}): one address is needed; it names {len(known)}.")
        saes: dict[str, AttachedSae] = self.base_model.saes
        if name is None:
            name = next(str(i) for i in range(len(saes) + 1) if str(i) not in saes)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise InputError(f"attach_sae(name={name!r:.80}): give letters, digits, - and _, at most 64.")
        if name in saes:
            raise InputError(f"attach_sae(name={name!r}): there is one; detach_sae({name!r}) takes it away.")
        sae = read_sae(file)
        (reads,) = known
        writes = reads
        if sae.transcodes:
            if not reads.endswith(".mlp.in"):
                raise AddressError(
                    f"attach_sae({address!r}): a transcoder reads what a feed-forward layer reads (blocks.3.mlp.in)."
                )
            writes = f"{reads.removesuffix('in')}out"
        sizes = zip((reads, writes), (sae.encoder.shape[0], sae.decoder.shape[1]), strict=True)
        for place, size in sizes:
            width = vector_width(self.base_model.architecture, place)
            if width != size:
                raise InputError(
                    f"attach_sae({address!r}): vectors at {place} have {width:,} numbers, those of the file {size:,}."
                )
        saes[name] = AttachedSae(name, reads, writes, sae, str(file))
        return saes[name]

    def detach_sae(self, name: str) -> None:
        """Take an autoencoder and its addresses away.

        Raises:
            InputError: there is none of this name.
        """
        if self.base_model.saes.pop(name, None) is None:
            raise InputError(f"detach_sae({name!r:.80}): there is none.{nearest(str(name), self.base_model.saes)}")

    def _foreign_names(self) -> ForeignNames:
        return ForeignNames(self.base_model.architecture, self.addresses())

    @contextmanager
    def record(self, *addresses: str, to: str | Path | None = None) -> Iterator[Recorder]:
        """Keep activations while the model runs: `with model.record("blocks.*.attn.pattern", "logits") as r: ...`.

        Only what is named is computed in the open, and the results stay what they are without, bit for bit. Values are
        [batch, length, ...] with zeros at packed-away padding. Where gradients are on, the loss follows from what was
        recorded: after `loss.backward()`, `r.grad(address)` is its gradient.

        Recorded are the calls of this thread or asyncio task, and of tasks made inside (`asyncio.to_thread` too). A
        thread that is started inside is recorded only if it is run in a copy of the context
        (`contextvars.copy_context().run`).

        Args:
            to: a new folder; each pass is written there as it ends, one safetensors file, and read when it is asked for
                (`Recorder.load(folder)` opens it again). The values then carry no gradients.

        Raises:
            AddressError: an address that this model does not have; the nearest are listed.
            InputError: `to` is a folder that holds something.
        """
        recorder = Recorder(self.find_addresses(addresses), to, self._foreign_names)
        try:
            with within(Scope(self.base_model, recorder=recorder)):
                yield recorder
        finally:
            recorder.close()

    @contextmanager
    def edit(self, changes: Mapping[str, Change]) -> Iterator[Edits]:
        """Change activations while the model runs: `with model.edit({"blocks.3.attn.head.7.out": 0}): ...`.

        Only in the calls of this thread or asyncio task, as with `record`.

        Args:
            changes: {address, or a pattern with *: what stands there instead}: a number, a tensor, a function of the
                padded value [batch, length, ...], another run's recording, or an `Edit` (or several) that says for
                which rows, positions and heads. Edits inside edits are applied after the outer ones. What follows is
                computed from the changed value; a recording shows it. In scores, hidden keys stay hidden.

        Raises:
            AddressError: an address that this model does not have; the nearest are listed.
            InputError: a value that does not fit the place; at the end, positions that were in no pass.
        """
        edits = Edits(changes, lambda pattern: self.find_addresses([pattern]))
        with within(Scope(self.base_model, edits=edits)):
            yield edits
        edits.check()


def _resized(old: Tensor, size: int, fill: float | None = None, *, std: float | None = None) -> Tensor:
    """The first `size` rows; missing ones are `fill`, drawn with `std`, or the mean of all rows."""
    with torch.no_grad():
        if size <= old.shape[0]:
            return old[:size].clone()
        if std is not None:
            drawn = torch.empty(size - old.shape[0], *old.shape[1:], device=old.device, dtype=old.dtype)
            return torch.cat((old, drawn.normal_(0.0, std)))
        rows = old.mean(0, keepdim=True) if fill is None else torch.full_like(old[:1], fill)
        return torch.cat((old, rows.expand(size - old.shape[0], *old.shape[1:])))


def _replace_parameter(model: nn.Module, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put `new` wherever `old` stands."""
    for _, module in engine_modules(model):
        for name, p in module._parameters.items():
            if p is old:
                module._parameters[name] = new
