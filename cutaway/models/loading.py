"""Checkpoint -> model and back: names translated, shapes checked, nothing copied that need not be.

A model of ours is laid out without memory first; each weight is then the tensor of the checkpoint itself (memory-mapped
where the file allows it), or a view of it.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from cutaway import native
from cutaway.checkpoint.block_quantize import GROUP, eight_bits, four_bits
from cutaway.checkpoint.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from cutaway.checkpoint.collector_pause import collector_paused
from cutaway.config.config import PretrainedConfig
from cutaway.errors import CheckpointError, ConfigError, nearest
from cutaway.hub.files import HubOptions, packaged_file, resolve, take_hub_options
from cutaway.hub.folder_save import folder_save
from cutaway.jsonfile import read_json
from cutaway.models import precision
from cutaway.models.attention_names import check_attention
from cutaway.models.checkpoint_names import Stored, check_depth, same_numbers
from cutaway.models.load_arguments import take_arguments
from cutaway.models.memory_check import check_memory
from cutaway.models.number_format import Precision
from cutaway.models.precision import FOUR, MODES, NARROWEST, set_up
from cutaway.models.state_dict import published_state
from cutaway.nn.cpu.block_weight import Blocks, BlockWeight
from cutaway.nn.cpu.int8 import Int8Rows
from cutaway.nn.cpu.int8_tiles import Int8Tiles
from cutaway.nn.cpu.memory import evict, mark_mapped, release_freed_memory
from cutaway.nn.cpu.torch_private import MAKE_WRAPPER
from cutaway.nn.engine_modules import EngineTree
from cutaway.nn.linear import Linear
from cutaway.nn.norm_mlp import RMSNorm, Sinusoids
from cutaway.nn.published_layer import PublishedLayer, PublishedPart, rejoin, separate_all, tensors_of_layer
from cutaway.nn.weight_map import WeightSource, sources, tensors_of

if TYPE_CHECKING:
    from cutaway.models.configured import ConfiguredModel

log = logging.getLogger("cutaway")

# Buffers and twins that old checkpoints carry; they hold nothing that the model does not know.
_IGNORED = re.compile(r"(^|\.)(position_ids|masked_bias|attn\.bias|inv_freq)$")
_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
}


@dataclass
class LoadReport:
    """What a load found: weights that the checkpoint lacks (drawn anew) and tensors that the model has no place for.

    `mismatched`: weights that the checkpoint holds in another shape (drawn anew, where the caller allows it), each with
    the shape there and the shape here.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def keys(self) -> tuple[str, ...]:
        """The names that a script reads: `info["missing_keys"]`."""
        return ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")

    def __getitem__(self, key: str) -> set[Any] | list[str]:
        known: dict[str, set[Any] | list[str]] = {
            "missing_keys": set(self.missing), "unexpected_keys": set(self.unexpected),
            "mismatched_keys": set(self.mismatched), "error_msgs": [],
        }  # fmt: skip
        return known[key]


def to_dtype(value: object) -> torch.dtype | None:
    """A dtype from "bfloat16", torch.bfloat16, or None, "stored" and "auto" for the stored dtype.

    Raises:
        ConfigError: any other value.
    """
    if value is None or value in ("stored", "auto"):
        return None
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return value
    name = str(value).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(f"dtype is {value!r}; it must be one of stored, auto, {', '.join((FOUR, *MODES, *_DTYPES))}.")
    return _DTYPES[name]


def init_std(model: ConfiguredModel) -> float:
    """The standard deviation of first weights: the config's initializer_range, or the family's own."""
    if getattr(model.config, "initializer_range", None) is None:
        return model.init_std
    return model.config.number("initializer_range", 0.0, 10.0) or model.init_std


def init_module(module: nn.Module, std: float) -> None:
    """First weights of one layer: normal with standard deviation `std`, biases 0, norms 1, fixed positions theirs.

    A module that holds other parameters names those that are drawn in `drawn`.
    """
    part: PublishedPart | None = module.__dict__.get("part")
    if part is not None:
        for name, view in tensors_of_layer(module).items():
            if view is not None:  # drawn apart, so that a seed gives the same weights however they are published
                fresh = torch.empty_like(view, memory_format=torch.contiguous_format)
                init_tensor(module, name, fresh, std)
                part.fill(name, fresh)
        return
    if isinstance(module, PublishedLayer):
        return  # its parts are drawn
    drawn: tuple[str, ...] = getattr(module, "drawn", ())
    if drawn or isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, RMSNorm, nn.LayerNorm)):
        for name, p in module._parameters.items():
            if p is not None:
                init_tensor(module, name, p, std)


@torch.no_grad()
def init_tensor(module: nn.Module, name: str, value: Tensor, std: float) -> None:
    """Fill `value`, the parameter or buffer `name` of a layer, with what it has before any training."""
    if name in getattr(module, "drawn", ()):
        value.normal_(0.0, std)
    elif name != "weight":
        value.zero_()
    elif isinstance(module, Sinusoids):
        value.copy_(module.table())
    elif isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, PublishedLayer)):
        value.normal_(0.0, std)
    else:
        value.fill_(1.0 - getattr(module, "offset", 0.0))


def set_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Make `value` the parameter or buffer called `name`."""
    above, _, last = name.rpartition(".")
    owner = model.get_submodule(above)
    if last in owner._parameters:
        old = owner._parameters[last]
        trains = bool(old is not None and old.requires_grad) and value.is_floating_point()
        trains = trains and not isinstance(value, BlockWeight)
        owner._parameters[last] = nn.Parameter(value, requires_grad=trains)
    else:
        owner._buffers[last] = value


def fill(
    model: ConfiguredModel,
    checkpoint: Checkpoint,
    dtype: torch.dtype | None,
    mismatched: bool = False,
    bits: str | None = None,
) -> LoadReport:
    """Give every weight of `model` its tensor; those that the checkpoint lacks are drawn anew.

    Without `dtype` the stored one is kept; where several are stored, the widest of them is everyone's. `mismatched`:
    weights of another shape are drawn anew too. `bits`: "int4" or "int8"; matrices become so, one after another.

    Raises:
        CheckpointError: a tensor has another shape than the config says, or holds no real numbers.
    """
    stored = Stored(checkpoint, {getattr(model, "published_prefix", ""), model.base_model_prefix} - {""})
    in_blocks = bits is not None or (dtype is None and checkpoint.format == "gguf" and MAKE_WRAPPER is not None)
    if in_blocks:  # each layer of the engine has blocks of its own
        separate_all(model)
    tensors = tensors_of(model)
    by_identity: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        by_identity.setdefault(id(tensor), []).append(name)
    where = sources(model)
    report = LoadReport()
    used: set[str] = set()
    absent: list[list[str]] = []
    dtypes: set[torch.dtype] = set()
    plan: list[tuple[list[str], str, WeightSource]] = []
    # which stored tensor each weight takes; places that share a weight here may be stored apart
    for names in by_identity.values():
        hits = {n: stored_name for n in names if (stored_name := stored.find(where[n])) is not None}
        used.update(stored_name for n in names for stored_name in stored.all(where[n]))
        if mismatched:  # another shape than the config's: as if it were not there
            for name, stored_name in list(hits.items()):
                shapes = stored.shapes(stored_name, where[name], tensors[name])
                if shapes[0] != shapes[1]:
                    del hits[name]
                    report.mismatched.append((where[name].name, *shapes))
        if not hits:
            absent.append(names)
            continue
        for name, stored_name in hits.items():
            dtypes.add(stored.check(stored_name, where[name], tensors[name], dtype))
        first, *others = same_numbers(names, hits, stored)
        for other in others:
            _part(model, other)
        plan += [(group, hits[group[0]], where[group[0]]) for group in (first, *others)]
    # all is checked before the first weight is placed; then one dtype for all, the widest that is stored
    if dtype is None and len(dtypes) > 1:
        dtype = functools.reduce(torch.promote_types, dtypes)
    if in_place := dtype is None and checkpoint.format == "gguf" and MAKE_WRAPPER is not None:
        _say_what_is_dequantized(checkpoint)
    for names, stored_name, source in plan:
        if in_place and (blocks := checkpoint.blocks(stored.names[stored_name])) is not None:
            _place_all(model, names, BlockWeight(source.from_blocks(blocks)))
            continue
        read = source.from_published(checkpoint.read(stored.names[stored_name]))
        if bits is not None and (few := _in_few_bits(model, names, read, bits)) is not None:
            _place_all(model, names, BlockWeight(few))
            if checkpoint.maps(stored.names[stored_name]):
                mark_mapped(read)
                evict(read)
            continue
        value = read if dtype is None or not read.is_floating_point() else read.to(dtype)
        _place_all(model, names, value)
        if value is read and checkpoint.maps(stored.names[stored_name]):
            mark_mapped(model.get_parameter(names[0]) if isinstance(tensors[names[0]], nn.Parameter) else value)
    # what is stored and not used, and what is used and not stored
    report.unexpected = [n for n in stored.names if n not in used and not _IGNORED.search(n)]
    _draw_missing(model, tensors, absent, dtype)
    holds_blocks = any(isinstance(p, BlockWeight) for p in model.engine.parameters())
    if in_blocks:
        rejoin(model)
    if bits is not None:
        release_freed_memory()  # the numbers that were read and rounded
    if bits == FOUR and not holds_blocks:
        raise ConfigError(
            f'dtype="int4" would hold nothing of this model in 4 bits: it takes layers of {NARROWEST} outputs and more '
            f'whose inputs are a multiple of {GROUP}, and there are none. Take dtype="int8" or "bfloat16".'
        )
    if holds_blocks:
        model.requires_grad_(False)  # a base for adapters: what is left (norms, biases) is not trained by itself either
    elsewhere = {name for name, *_ in report.mismatched}
    lacking = (n[0] for n in absent if not _is_constant(model, n[0], tensors))
    report.missing = [name for name in dict.fromkeys(where[n].name for n in lacking) if name not in elsewhere]
    if not _untied(model.output_model):
        model.tie_weights()
    return report


def _say_what_is_dequantized(checkpoint: Checkpoint) -> None:
    if types := checkpoint.dequantized_types():
        log.warning("matrices of the GGUF types %s are not read in place; they become float32.", ", ".join(types))


def _in_few_bits(model: ConfiguredModel, names: list[str], read: Tensor, bits: str) -> Blocks | None:
    """A matrix of a layer, or the table of tokens, in 4 or 8 bits; None for what stays as it is, such as few outputs.

    In 4 bits, an output matrix over all tokens has 8. In 8 bits, the layers of an encoder have one scale per row, which
    loses nothing that counts there and is what the fastest product reads; a decoder's numbers are of too many sizes for
    that, and have a scale for each 32: in the order of the kernels' tiles, or of rows where rows are all that is read.
    """
    owners = [model.get_submodule(name.rpartition(".")[0]) for name in names]
    layer, table = any(type(owner) is Linear for owner in owners), model.get_input_embeddings() in owners
    if not names[0].endswith(".weight") or read.dim() != 2 or not (layer or table):
        return None
    n, k = read.shape
    if n < precision.NARROWEST or (bits == FOUR and k % GROUP) or (bits != FOUR and k < precision.NARROWEST):
        return None
    if bits == FOUR:  # what chooses among all tokens feels 4 bits most, and is a part of few
        output = model.get_output_embeddings() if model.can_generate() else None
        return Int8Tiles(read) if output is not None and output in owners else four_bits(read)
    by_rows = k % GROUP != 0 or (layer and (model.config.is_encoder_decoder or not model.can_generate()))
    if by_rows:
        return Int8Rows(read)
    return Int8Tiles(read) if layer else eight_bits(read)


def _is_constant(model: nn.Module, name: str, tensors: dict[str, Tensor]) -> bool:
    """Whether a checkpoint may leave the tensor out without anything being untrained: a buffer (BART's
    final_logits_bias), or positions that follow from a formula.
    """
    owner = model.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, Sinusoids) or not isinstance(tensors[name], nn.Parameter)


def _part(model: nn.Module, names: list[str]) -> None:
    """Give the layers that hold `names` a module of their own, where they share one with other places."""
    for layer in {name.rpartition(".")[0] for name in names}:
        above, _, last = layer.rpartition(".")
        if last:
            shared = model.get_submodule(layer)
            own = copy.copy(shared)
            own._parameters = dict(shared._parameters)
            model.get_submodule(above)._modules[last] = own


def _untied(model: ConfiguredModel) -> bool:
    """Whether the output matrix that was just filled is another than the table of tokens; the model then knows it."""
    output = model.get_output_embeddings()
    base = model.base_model
    if output is None or output.weight is base.output_table.weight:
        return False
    base.architecture = replace(base.architecture, tied_output=False)
    return True


def _place_all(model: nn.Module, names: list[str], value: Tensor) -> None:
    set_tensor(model, names[0], value)
    if len(names) > 1:  # tied: the same parameter in every place
        above, _, last = names[0].rpartition(".")
        owner = model.get_submodule(above)
        one = owner._parameters.get(last)
        for other in names[1:]:
            above, _, last = other.rpartition(".")
            target = model.get_submodule(above)
            if one is not None:
                target._parameters[last] = one
            else:
                target._buffers[last] = value


def _draw_missing(
    model: ConfiguredModel,
    tensors: dict[str, Tensor],
    absent: list[list[str]],
    dtype: torch.dtype | None,
) -> None:
    if not absent:
        return
    std = init_std(model)
    laid_out = sum(tensors[names[0]].numel() for names in absent if tensors[names[0]].is_meta)
    known = dtype or next((p.dtype for p in EngineTree(model).parameters() if not p.is_meta), torch.get_default_dtype())
    check_memory(model.config, laid_out, known.itemsize)
    for names in absent:
        old = tensors[names[0]]
        if not old.is_meta:  # a user's own model was built in full: its layers keep the first weights it gave them
            _place_all(model, names, old.detach().to(known) if old.is_floating_point() else old)
            continue
        value = torch.empty(old.shape, dtype=known if old.is_floating_point() else old.dtype)
        owner = model.get_submodule(names[0].rpartition(".")[0])
        last = names[0].rpartition(".")[2]
        init_tensor(owner, last, value, std)
        _place_all(model, names, value)


def listed(names: list[str], most: int = 8) -> str:
    """The first names, and how many there are."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def config_fields(name: str | Path, *, gguf_file: str | None = None, **how: Unpack[HubOptions]) -> dict[str, Any]:
    """The fields of a checkpoint's config.json, or what its GGUF file says in the same words."""
    if gguf_file is None:
        return PretrainedConfig.get_config_dict(name, **how)[0]
    from cutaway.checkpoint.gguf import read_gguf

    return read_gguf(resolve(name, **how).require(gguf_file)).config


@collector_paused()
@torch.inference_mode(False)  # weights made inside inference mode could never be trained, nor watched for changes
def load(cls: type[Any], name: Any, *args: Any, **kwargs: Any) -> Any:
    """`cls.from_pretrained`: see PreTrainedModel."""
    state, variant = kwargs.pop("state_dict", None), kwargs.pop("variant", None)
    check_attention(attention := kwargs.get("attn_implementation"))
    device = take_arguments(kwargs, cls.__name__)
    if "use_auth_token" in kwargs:  # the older name
        kwargs.setdefault("token", kwargs.pop("use_auth_token"))
    if state is None and (isinstance(name, dict) or not isinstance(name, (str, Path))):
        raise ConfigError(f"from_pretrained needs a name or a folder, not {type(name).__name__}.")
    how = take_hub_options(kwargs)
    gguf_file = kwargs.pop("gguf_file", None) or packaged_file(name)
    asked = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
    bits, mode = _few_bits(asked, kwargs.pop("keep_weights", None))
    asked = "float32" if bits else asked
    dtype = to_dtype(None if mode else asked)
    if mode is not None and gguf_file is not None:  # which computes from numbers, not from the file's blocks
        dtype = torch.float32
    info, mismatched = kwargs.pop("output_loading_info", False), kwargs.pop("ignore_mismatched_sizes", False)
    config = kwargs.pop("config", None)
    model_options = {k: kwargs.pop(k) for k in getattr(cls, "model_kwargs", ()) if k in kwargs}
    if isinstance(config, (str, Path)):
        config = cls.config_class.from_pretrained(config)
    if state is not None:
        if config is None and name is not None:
            config = cls.config_class.from_dict(config_fields(name, gguf_file=gguf_file, **how))
        if kwargs and config is not None:
            _override(config, kwargs, cls)
        model, keys = _from_state(cls, config, state, model_options)
        report = LoadReport(list(keys.missing_keys), list(keys.unexpected_keys))
        model = model.to(device=device, dtype=dtype)
        return (model, report) if info else model
    files = resolve(name, **how)
    if config is None:
        fields = config_fields(name, gguf_file=gguf_file, **how)
        _check_family(name, fields.get("model_type", ""), cls)
        config = cls.config_class.from_dict(fields)
    elif not hasattr(config, "to_dict"):
        raise ConfigError(f"config must be a PretrainedConfig, not {type(config).__name__}.")
    _check_family(name, getattr(config, "model_type", ""), cls)
    if kwargs:
        _override(config, kwargs, cls)
    with open_checkpoint(files, gguf_file=gguf_file, variant=variant) as checkpoint:
        if getattr(cls, "builds_on_meta", False):
            check_depth(cls, config, checkpoint)
            with torch.device("meta"):
                model = cls(config, *args, **model_options)
        else:
            model = cls(config, *args, **model_options)
        report = fill(model, checkpoint, dtype, mismatched, bits)
    config._apply({"name_or_path": str(name)} | ({} if attention is None else {"attn_implementation": attention}))
    model.name_or_path = str(name)
    if report.missing:
        log.warning(
            "%s: these weights are not in %s and were drawn at random; train the model before you use it: %s",
            cls.__name__,
            name,
            listed(report.missing),
        )
    if report.mismatched:
        log.warning(
            "%s: these weights have other shapes in %s and were drawn at random; train the model before you use it: %s",
            cls.__name__,
            name,
            listed([f"{n} ({list(there)} there, {list(here)} here)" for n, there, here in report.mismatched]),
        )
    if report.unexpected:
        log.info("%s: not used from %s: %s", cls.__name__, name, listed(report.unexpected))
    if model.can_generate():
        path = files.get("generation_config.json")  # read now: the folder may be gone when the model generates
        model.stored_generation_settings = None if path is None else read_json(path, ConfigError)
    model.eval()
    if bits is not None:
        model.precision = Precision(bits, f'dtype="{bits}" was asked for.')
    if mode is not None:
        where = {**how, "gguf_file": gguf_file} if gguf_file else {**how}
        model = set_up(model, mode, name, where)
    if device is not None:
        model = model.to(device)
    return (model, report) if info else model


def _few_bits(asked: object, keep: object) -> tuple[str | None, str | None]:
    """What matrices become while they are read, and what is set up afterwards, of what dtype= and keep_weights= ask.

    Raises:
        ConfigError: keep_weights where nothing would be dropped, or 4 bits that cannot be had.
    """
    named = asked if isinstance(asked, str) else None
    if keep is not None and (not isinstance(keep, bool) or (keep and named not in ("int8", "fastest"))):
        raise ConfigError(
            f'keep_weights is {keep!r}; it is True or False, and True goes with dtype="int8", whose float weights it '
            "keeps."
        )
    if named == FOUR and MAKE_WRAPPER is None:
        raise ConfigError('dtype="int4" needs a torch whose tensors can be made without memory; take "int8".')
    if named == FOUR or (named == "int8" and not keep and MAKE_WRAPPER is not None and native.LIBRARY is not None):
        return named, None
    return None, named if named in MODES else None


def fresh(cls: type[Any], config: PretrainedConfig, kwargs: dict[str, Any]) -> Any:
    """`cls.from_config`: see PreTrainedModel."""
    asked, older = kwargs.pop("dtype", None), kwargs.pop("torch_dtype", None)
    asked = older if asked is None else asked
    stored = getattr(config, "dtype", None)
    if asked is None and isinstance(stored, torch.dtype) and stored.is_floating_point:
        asked = stored
    check_attention(attention := kwargs.get("attn_implementation"))
    if attention is not None:
        config._attn_implementation = attention
    device = take_arguments(kwargs, cls.__name__)
    model, dtype = cls(config, **kwargs), to_dtype(asked)
    return model if dtype is None and device is None else model.to(device=device, dtype=dtype)


def _from_state(cls: type[Any], config: PretrainedConfig, state: object, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """A model with the weights of `state` (name -> tensor, published names or ours), and what was missing.

    Raises:
        ConfigError: no configuration, or no mapping of tensors.
        CheckpointError: a tensor of another shape.
    """
    if not hasattr(config, "to_dict"):
        raise ConfigError(f"{cls.__name__}.from_pretrained(None, ...) needs config=, a PretrainedConfig.")
    if not isinstance(state, Mapping):
        raise ConfigError(f"state_dict must be a mapping of tensors, not {type(state).__name__}.")
    model: ConfiguredModel = cls(config, **options)
    try:
        report = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"state_dict does not fit {cls.__name__}: {error}") from error
    return model.eval(), report


def _check_family(name: object, declared: object, cls: type[Any]) -> None:
    expected = cls.config_class.model_type
    if expected and declared and declared != expected:
        raise ConfigError(
            f"{name} holds a {declared!r} model, but {cls.__name__} loads {expected!r}; use an AutoModel class."
        )


def _override(config: PretrainedConfig, fields: dict[str, Any], cls: type[Any]) -> None:
    """Keyword arguments of from_pretrained are fields of the config; a name that is no field is a mistake."""
    known = set(config.to_dict()) | set(config.attribute_map) | {
        "num_labels", "id2label", "label2id", "problem_type", "output_attentions", "output_hidden_states",
        "return_dict",
        "pad_token_id", "bos_token_id", "eos_token_id", "use_cache", "tie_word_embeddings", "classifier_dropout",
        "is_decoder", "decoder_start_token_id",
    }  # fmt: skip
    overrides: dict[str, Any] = {}
    for key, value in fields.items():
        if key not in known:
            raise ConfigError(
                f"{cls.__name__}.from_pretrained has no argument or config field {key!r}.{nearest(key, known)}"
            )
        overrides[key] = value
    config._apply(overrides)


def save(model: ConfiguredModel, folder: str | Path, *, max_shard_size: int | str = "5GB", **kwargs: Any) -> None:
    """`model.save_pretrained`: see PreTrainedModel."""
    state, variant = kwargs.pop("state_dict", None), kwargs.pop("variant", None)
    for needless in ("safe_serialization", "is_main_process", "save_function", "push_to_hub"):
        if kwargs.pop(needless, None) and needless == "push_to_hub":
            raise ConfigError("save_pretrained only writes a folder; call model.push_to_hub(name) to upload.")
    if kwargs:
        raise ConfigError(f"save_pretrained has no argument {next(iter(kwargs))!r}.")
    folder = Path(folder)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; save_pretrained needs a folder.")
    note_depth = getattr(model.base_model, "note_depth", None)
    if note_depth is not None:
        note_depth()
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    with folder_save(folder):
        model.config.save_pretrained(folder)
        save_checkpoint(folder, published_state(model, state), max_shard_size=max_shard_size, variant=variant)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
