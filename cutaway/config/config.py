"""The configuration of a model: config.json <-> Python, with every field the file had.

A config.json is data. Its fields become attributes only where that cannot hide a method or a private name; the others
are kept aside for the way back to the file. Bounds are checked by whoever builds something from a field, through
`integer`, `number`, `choice` and `flag`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, cast, overload

from cutaway.checkpoint.field_checks import Bounds, shown_value
from cutaway.config import labels
from cutaway.config.config_fields import Only
from cutaway.config.derived_fields import DerivedFields
from cutaway.errors import ConfigError, nearest
from cutaway.hub import files
from cutaway.hub.argument_names import also_called
from cutaway.hub.folder_save import folder_save
from cutaway.hub.upload import Publishing
from cutaway.hub.upstream_types import KnownUpstream
from cutaway.jsonfile import dump_fields, plain_value, read_json, write_text

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("cutaway")
Init = TypeVar("Init", bound=Callable[..., None])

CONFIG_NAME = "config.json"

DTYPES = ("float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2", "int8", "auto")

# Fields that every configuration has. Those in _QUIET are left out of config.json while they have these values.
_COMMON: dict[str, Any] = {
    "architectures": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "is_encoder_decoder": False,
    "problem_type": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": None,
}
_QUIET = frozenset(_COMMON) - {"tie_word_embeddings"}
_LABELS = ("num_labels", "id2label", "label2id")
_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
_MORE = ("num_decoder_layers", "decoder_layers")  # what also counts blocks
_PROPERTIES = frozenset({*_LABELS, "dtype", "torch_dtype"})


class FieldsSignature:
    """What `inspect.signature` shows of a configuration's class: its fields with their defaults."""

    def __get__(self, instance: object, owner: type[PretrainedConfig]) -> inspect.Signature:
        if "__init__" in vars(owner) and owner is not PretrainedConfig:
            raise AttributeError("__signature__")  # a class of one's own says it itself
        return inspect.Signature(field_parameters(owner))


def field_parameters(owner: type[PretrainedConfig]) -> list[inspect.Parameter]:
    """The fields of a kind of configuration, with their defaults, and the rest that it keeps."""
    kind = inspect.Parameter
    fields = {**owner._class_defaults(), **_COMMON}
    named = [kind(name, kind.KEYWORD_ONLY, default=value) for name, value in fields.items() if name.isidentifier()]
    return [*named, kind("kwargs", kind.VAR_KEYWORD)]


class FieldsInit:
    """`__init__` of a configuration; asked of a class, it lists the class's fields, as `signature(Config)` does."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object, owner: type[PretrainedConfig]) -> Callable[..., None]:
        if instance is not None:
            return MethodType(self.function, instance)

        @functools.wraps(self.function)
        def init(config: PretrainedConfig, **kwargs: Any) -> None:
            self.function(config, **kwargs)

        first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        init.__signature__ = inspect.Signature([first, *field_parameters(owner)])  # type: ignore[attr-defined]
        return init


def _lists_fields(function: Init) -> Init:
    return cast("Init", FieldsInit(function))


class PreTrainedConfig(Bounds, DerivedFields, Publishing, KnownUpstream):
    """Base of all configurations, and itself a configuration of anything.

    A family declares `model_type`, `defaults` (published field names and their defaults) and `attribute_map` (other
    names for the same field, which work for reading and writing). Unknown fields are kept.
    """

    upstream = (
        "transformers.configuration_utils:PreTrainedConfig",
        "transformers.configuration_utils:PretrainedConfig",
    )
    model_type: str = ""
    attribute_map: ClassVar[dict[str, str]] = {}
    outdated: ClassVar[tuple[str, ...]] = ()  # other names that give way where a file has the field as well
    defaults: ClassVar[dict[str, Any]] = {}
    sub_configs: ClassVar[dict[str, Any]] = {}
    is_composition: ClassVar[bool] = False
    base_config_key: ClassVar[str] = ""
    keys_to_ignore_at_inference: ClassVar[list[str]] = []
    derived: ClassVar[Mapping[str, object]] = {
        "chunk_size_feed_forward": 0,
        "is_decoder": False,
        "use_return_dict": lambda config: config.return_dict,
    }
    said_beside: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "rope_parameters": ("rope_scaling", "rope_theta", "partial_rotary_factor")
    }
    # The rows of `config_fields` that a family adds: fields without a default, and what the others do.
    used: ClassVar[tuple[str, ...]] = ()
    without_effect: ClassVar[dict[str, str]] = {}
    refused: ClassVar[dict[str, Only]] = {}
    refused_in_training: ClassVar[dict[str, Only]] = {}

    __signature__ = FieldsSignature()

    @_lists_fields
    def __init__(self, **kwargs: object) -> None:
        # _aside: fields that may not become attributes. _given: what the file named, and so what it is given back.
        self.__dict__.update(_aside={}, _given=frozenset(), _name_or_path="", _dtype=None, _attention_name=None)
        self.__dict__.update(_id2label=None, _label2id=None)
        self._init_derived()
        for name, value in {**_COMMON, **self._class_defaults()}.items():
            setattr(self, name, copy.deepcopy(value))
        self._apply(kwargs)

    @classmethod
    def _class_defaults(cls) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            merged.update(vars(base).get("defaults", {}))
        return merged

    # -- fields --------------------------------------------------------------------------------------------------

    @classmethod
    def _is_field(cls, name: str) -> bool:
        """Whether a field of this name may become an attribute: it hides no method and nothing private."""
        if name in _PROPERTIES or name in cls.attribute_map:
            return True
        if name.startswith("_") or name == "self" or hasattr(PretrainedConfig, name):
            return False
        held = inspect.getattr_static(cls, name, None)  # a subclass may hold plain defaults, which are fields
        return not (callable(held) or hasattr(held, "__get__"))

    def _apply(self, fields: Mapping[str, Any]) -> None:
        """Set fields that came as data; those that may not become attributes are kept aside."""
        for alias, name in self.attribute_map.items():
            if alias in self.outdated and name in fields:
                fields = {k: v for k, v in fields.items() if k != alias}
            elif alias in fields and name in fields and fields[alias] != fields[name]:
                raise ConfigError(
                    f"{alias} is {fields[alias]!r} and {name} is {fields[name]!r}, but they are two names of one "
                    "field; leave one out."
                )
        self._apply_labels(fields)
        for name, value in fields.items():
            if name in _LABELS:
                continue
            if name == "attn_implementation":
                self.__dict__["_attention_name"] = value
            elif name == "name_or_path":
                self.__dict__["_name_or_path"] = value
            elif name == "model_type":
                if not type(self).model_type and isinstance(value, str):
                    self.__dict__["model_type"] = value
            elif name == "torch_dtype" and (value is None or fields.get("dtype") is not None):
                continue  # the older name gives way
            elif name == "dtype" and value is None and fields.get("torch_dtype") is not None:
                continue
            elif self._is_field(name):
                setattr(self, name, value)
            else:
                self._aside[name] = value
        if self.problem_type is not None and self.problem_type not in _PROBLEMS:
            raise ConfigError(f"problem_type is {self.problem_type!r}; give one of {', '.join(_PROBLEMS)}, or None.")

    def _apply_labels(self, fields: Mapping[str, Any]) -> None:
        count, names, numbers = (fields.get(name) for name in _LABELS)
        count = None if count is None else labels.label_count(count)
        names = None if names in (None, {}, []) else labels.id2label_of(names)
        numbers = None if numbers in (None, {}) else labels.label2id_of(numbers)
        labels.agree(count, names, numbers)
        if names is not None:
            self.id2label = names
        elif numbers is not None and (count is None or len(numbers) == count):
            self.label2id = numbers
        if count is not None:
            self.num_labels = count
        if names is not None and numbers is not None:
            self.__dict__["_label2id"] = numbers

    def __setattr__(self, name: str, value: object) -> None:
        name = self.attribute_map.get(name, name)
        self._adopt_changes()  # a table that was changed before stands beside what is set now
        if value is None and callable(self._derivations().get(name)):
            self.__dict__.pop(name, None)
            self._handed_out.pop(name, None)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        mapped = type(self).attribute_map.get(name)
        if mapped is not None and mapped != name:
            return getattr(self, mapped)
        if name.startswith("_"):  # copy and pickle ask for these before the fields are there
            raise AttributeError(name)
        if name in type(self)._derivations():
            return self._derive(name)
        known = [n for n in (*vars(self), *self.attribute_map) if not n.startswith("_")]
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.{nearest(name, known)}")

    def aside(self, name: str, default: object) -> Any:
        """A field that may not be an attribute, such as one that begins with "_"."""
        return self._aside.get(name, default)

    # -- labels --------------------------------------------------------------------------------------------------

    @property
    def id2label(self) -> dict[int, str]:
        """The name of each label id. Setting it sets label2id too."""
        if self._id2label is None:
            self.__dict__["_id2label"] = labels.default_labels(2)
        names: dict[int, str] = self._id2label
        return names

    @id2label.setter
    def id2label(self, value: Mapping[Any, str]) -> None:
        self.__dict__["_id2label"] = labels.id2label_of(value)
        self.__dict__["_label2id"] = None

    @property
    def label2id(self) -> dict[str, int]:
        """The id of each label name. Setting it sets id2label too, where the ids are 0 ... n-1."""
        if self._label2id is None:
            return labels.inverse(self.id2label)
        numbers: dict[str, int] = self._label2id
        return numbers

    @label2id.setter
    def label2id(self, value: Mapping[str, Any]) -> None:
        numbers = labels.label2id_of(value)
        names = labels.from_label2id(numbers)
        if names is not None:
            self.__dict__["_id2label"] = names
        self.__dict__["_label2id"] = numbers

    @property
    def num_labels(self) -> int:
        """How many labels there are. Setting another number gives new names, LABEL_0 ..."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if labels.label_count(value) != len(self.id2label):
            self.id2label = labels.default_labels(value)

    # -- dtype ---------------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype | str | None:
        """The dtype the weights were stored in, or None. Set it with a torch.dtype or its name."""
        if self._dtype is None or self._dtype == "auto":
            name: str | None = self._dtype
            return name
        import torch

        found: torch.dtype = getattr(torch, self._dtype)
        return found

    @dtype.setter
    def dtype(self, value: object) -> None:
        name = None if value is None else str(value).removeprefix("torch.")
        if name is not None and name not in DTYPES:
            raise ConfigError(f"dtype is {value!r}; give one of {', '.join(DTYPES)}.")
        self.__dict__["_dtype"] = name

    @property
    def torch_dtype(self) -> torch.dtype | str | None:
        """The older name of `dtype`."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: object) -> None:
        self.dtype = value

    @property
    def _attn_implementation(self) -> str | None:
        """What a script calls the attention: a name and nothing else, since there is one, which is fast and open."""
        own: str | None = self._attention_name or self._aside.get("_attn_implementation")
        return own

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | None) -> None:
        self.__dict__["_attention_name"] = value

    @property
    def per_layer_config(self) -> tuple[PreTrainedConfig, ...]:
        """The configuration of each block: this one, since all blocks of a model are alike."""
        counts = (
            self.__dict__.get(n) for n in (self.attribute_map.get("num_hidden_layers", "num_hidden_layers"), *_MORE)
        )
        return (self,) * max((n for n in counts if isinstance(n, int)), default=0)

    @property
    def name_or_path(self) -> str:
        """The name this configuration was loaded from, or ""."""
        name: str = self._name_or_path
        return name

    # -- files ---------------------------------------------------------------------------------------------------

    @overload
    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | files.Files,
        *,
        return_unused_kwargs: Literal[False] = False,
        **overrides: object,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str] | files.Files, *, return_unused_kwargs: Literal[True], **overrides: object
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    @also_called(pretrained_model_name_or_path="name")
    def from_pretrained(
        cls, name: str | os.PathLike[str] | files.Files, *, return_unused_kwargs: bool = False, **overrides: object
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Load config.json of a folder, a built-in or a hub repository (or a .json file), then apply `overrides`.

        `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder` and `gguf_file` (a GGUF file instead of
        config.json) say where; everything else is a field.
        With `return_unused_kwargs` also returns the overrides that are no fields. HubError, ConfigError.
        """
        fields, overrides = cls.get_config_dict(name, **overrides)
        if cls.model_type and fields.get("model_type", cls.model_type) != cls.model_type:
            logger.warning(
                "The file is the configuration of a %r model, read as a %r.", fields["model_type"], cls.model_type
            )
        config, unused = cls.from_dict(fields, return_unused_kwargs=True, **overrides)
        config.__dict__["_name_or_path"] = str(name)
        if return_unused_kwargs:
            return config, unused
        config._apply(unused)
        return config

    @staticmethod
    def get_config_dict(
        name: str | os.PathLike[str] | files.Files, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of config.json, and the options that do not say where to find it."""
        located = files.take_hub_options(options)
        alone = Path(name) if isinstance(name, (str, os.PathLike)) and str(name).endswith(".json") else None
        gguf_file = options.pop("gguf_file", None) or files.packaged_file(name)
        if gguf_file is not None:
            from cutaway.checkpoint.gguf import read_gguf

            return read_gguf(files.resolve(name, **located).require(gguf_file)).config, options
        path = alone if alone is not None and alone.is_file() else files.resolve(name, **located).require(CONFIG_NAME)
        return read_json(path, ConfigError), options

    @overload
    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **overrides: object
    ) -> Self: ...

    @overload
    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **overrides: object
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], *, return_unused_kwargs: bool = False, **overrides: object
    ) -> Self | tuple[Self, dict[str, Any]]:
        """A configuration from the fields of a config.json, with `overrides` applied after them."""
        fields = copy.deepcopy(dict(fields))
        config = cls(**{k: v for k, v in fields.items() if cls._is_field(k)})
        config._apply({k: v for k, v in fields.items() if not cls._is_field(k)})
        config.__dict__["_given"] = frozenset(fields)
        unused = {k: v for k, v in overrides.items() if return_unused_kwargs and not config._knows(k)}
        config._apply({k: v for k, v in overrides.items() if k not in unused})
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """A configuration from one JSON file. ConfigError where it cannot be read."""
        return cls.from_dict(read_json(Path(json_file), ConfigError))

    def _knows(self, name: str) -> bool:
        return self._is_field(name) and hasattr(self, name)

    @also_called(save_directory="folder")
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json into `folder`, made if needed. Fields that JSON cannot hold are left out, and named."""
        labels.agree(None, self.id2label, self.label2id)
        fields = self.to_diff_dict()
        kept = {name: value for name, value in fields.items() if _is_json(value, name)}
        if left := sorted(fields.keys() - kept.keys()):
            logger.warning("config.json is written without %s: JSON cannot hold such values.", ", ".join(left))
        with folder_save(folder) as save:
            save.write_text(CONFIG_NAME, dump_fields(kept))

    def to_dict(self) -> dict[str, Any]:
        """Every field with its value (copied), as config.json names them; dtype as text."""
        self._adopt_changes()
        fields = {k: _copied(v) for k, v in self.__dict__.items() if not k.startswith("_") and k != "model_type"}
        for name in self._derivations():  # what is left open stays open in the file
            if name in self._given or name in self._class_defaults():
                fields.setdefault(name, None)
        fields |= {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}
        if "num_labels" in self._given:
            fields["num_labels"] = self.num_labels
        for name in {"dtype", "torch_dtype"} & self._given or {"dtype"}:
            fields[name] = self._dtype
        fields |= copy.deepcopy(self._aside)
        fields["model_type"] = self.model_type
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """The fields that config.json needs: the family's, the file's, and what differs from the common defaults."""
        fields = self.to_dict()
        needed = self._given | self._class_defaults().keys()
        quiet = {name: _COMMON[name] for name in _QUIET} | {"dtype": None, "torch_dtype": None, "model_type": ""}
        default = labels.default_labels(2)
        if self._class_defaults().get("num_labels", 2) == 2:  # BART's own default is 3: there, two labels are said
            quiet |= {"id2label": default, "label2id": labels.inverse(default)}
        if not type(self).model_type:  # for a family, upstream's own default may differ, so the value is written
            quiet["tie_word_embeddings"] = True
        absent = object()
        return {k: v for k, v in fields.items() if k in needed or not _same(v, quiet.get(k, absent))}

    def to_json_string(self, use_diff: bool = True) -> str:
        """config.json as text. A value that JSON cannot hold, such as a module, is shown as its class."""
        return dump_fields(self.to_diff_dict() if use_diff else self.to_dict())

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write config.json under a name of your own."""
        write_text(Path(json_file_path), self.to_json_string(use_diff))

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """The configuration of the model of text: this one, since every model here is one."""
        return self

    def __iter__(self) -> Iterator[str]:
        """The names of the fields."""
        return iter(self.to_dict())

    def update(self, fields: Mapping[str, Any]) -> None:
        """Set several fields."""
        self._apply(fields)

    def update_from_string(self, update_str: str) -> None:
        """Set fields that are there from text such as "n_embd=10,resid_pdrop=0.2", each read as what it was before.

        Raises:
            ConfigError: a part without "=", a field that is not there, or a value that is no bool or number where one
                stands; fields of other kinds than bool, int, float and str cannot be set so.
        """
        fields: dict[str, Any] = {}
        for part in update_str.split(","):
            name, equals, text = part.partition("=")
            name = name.strip()
            if not equals or not hasattr(self, name):
                known = [n for n in self.to_dict() if not n.startswith("_")]
                raise ConfigError(f"update_from_string: {part!r} sets no field of this config.{nearest(name, known)}")
            fields[name] = _read_as(getattr(self, name), name, text.strip())
        self._apply(fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._compared() == other._compared()

    __hash__ = None  # type: ignore[assignment]

    def _compared(self) -> dict[str, Any]:
        self._adopt_changes()
        hidden = {"_given", "_name_or_path", "_id2label", "_label2id", "_attention_name", "_handed_out"}
        fields = {k: v for k, v in self.__dict__.items() if k not in hidden}
        return fields | {"id2label": self.id2label, "label2id": self.label2id}


PretrainedConfig = PreTrainedConfig


def _read_as(before: object, name: str, text: str) -> object:
    """A value from text, of the kind that stands there now."""
    if isinstance(before, bool):
        if text.lower() not in ("true", "1", "y", "yes", "false", "0", "n", "no"):
            raise ConfigError(f"{name} is {text!r}; give true or false.")
        return text.lower() in ("true", "1", "y", "yes")
    if isinstance(before, (int, float)):
        try:
            return type(before)(text)
        except ValueError:
            raise ConfigError(f"{name} is {text!r}; give a number, as {before!r} is.") from None
    if not isinstance(before, str):
        raise ConfigError(f"{name} holds {shown_value(before)}, which text cannot replace; set it as an attribute.")
    return text


def _copied(value: object) -> object:
    """Lists and dicts copied, other values (a module, say) as they are."""
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, (list, tuple)) else value


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and isinstance(a, (bool, str, dict, type(None))) and bool(a == b)


def _is_json(value: object, name: str) -> bool:
    """Whether JSON can hold the value; NaN and infinity are an error that names the field."""
    try:
        json.dumps(value, allow_nan=False, default=plain_value)
    except ValueError:
        raise ConfigError(
            f"{name} is {shown_value(value)}; JSON holds no NaN or infinity. Set a number or None."
        ) from None
    except TypeError:
        return False
    return True
