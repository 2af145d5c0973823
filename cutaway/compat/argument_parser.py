"""`HfArgumentParser`: dataclasses as command-line arguments, or read from a dict, a JSON file or a YAML file."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from cutaway.errors import ConfigError, MissingExtraError
from cutaway.jsonfile import read_json

_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def string_to_bool(value: object) -> bool:
    """True for yes, true, t, y, 1; False for no, false, f, n, 0; ArgumentTypeError for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise argparse.ArgumentTypeError(f"{value!r} is neither of {'/'.join(_TRUE)} nor of {'/'.join(_FALSE)}")
    return word in _TRUE


def HfArg(
    *,
    aliases: str | list[str] | None = None,
    help: str | None = None,
    default: object = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    metadata: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A dataclass field with a help text and other names on the command line."""
    told = dict(metadata or {})
    told |= {} if aliases is None else {"aliases": aliases}
    told |= {} if help is None else {"help": help}
    return dataclasses.field(metadata=told, default=default, default_factory=default_factory, **options)


class HfArgumentParser(argparse.ArgumentParser):
    """Every field of one or several dataclasses is an option, and each dataclass is made from its own.

    `--learning_rate` and `--learning-rate` are one option. A field that is True by default also has `--no_<field>`. A
    `Literal` or an enumeration lists its values, a list takes several, `Optional[X]` takes an X.
    A dataclass with `_argument_group_name` has a group of its own in the help.

    Args:
        dataclass_types: a dataclass, or several.
        kwargs: for `argparse.ArgumentParser`.

    Raises:
        ConfigError: a field whose type has no single form on the command line.
    """

    def __init__(self, dataclass_types: type[Any] | Iterable[type[Any]] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(**kwargs)
        if dataclass_types is None:
            kinds: list[Any] = []
        elif isinstance(dataclass_types, type):
            kinds = [dataclass_types]
        else:
            kinds = list(dataclass_types)
        self.dataclass_types = kinds
        for kind in kinds:
            self._add_dataclass(kind)

    def _add_dataclass(self, kind: type[Any]) -> None:
        name = getattr(kind, "_argument_group_name", None)
        where = self if name is None else self.add_argument_group(name)
        try:
            hints = typing.get_type_hints(kind)
        except NameError as error:
            raise ConfigError(
                f"{kind.__name__}: {error}. Define the dataclass at the top of a module, so that its types can be read."
            ) from error
        for field in dataclasses.fields(kind):
            if field.init:
                _add_field(where, field, hints[field.name], kind.__name__)

    # -- reading -----------------------------------------------------------------------------------------------------

    def parse_args_into_dataclasses(
        self,
        args: list[str] | None = None,
        return_remaining_strings: bool = False,
        look_for_args_file: bool = True,
        args_filename: str | os.PathLike[str] | None = None,
        args_file_flag: str | None = None,
    ) -> tuple[Any, ...]:
        """One object for each dataclass, in order; then a Namespace, if the parser has other arguments.

        Args:
            args: the words of the command line; by default those of this program.
            return_remaining_strings: give the words that nobody knows, at the end, instead of an error.
            look_for_args_file: also read `<this script>.args`, if there is one. Words of the command line win.
            args_filename: the file to read instead.
            args_file_flag: an option that names such files, as often as it is given.

        Raises:
            ConfigError: a word that no field takes.
        """
        words = list(sys.argv[1:] if args is None else args)
        files: list[Path] = []
        if args_filename is not None:
            files.append(Path(args_filename))
        elif look_for_args_file and sys.argv and sys.argv[0]:
            script = Path(sys.argv[0])
            files += [script.with_suffix(".args")] if script.name else []
        if args_file_flag is not None:
            finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            finder.add_argument(args_file_flag, action="append", default=[], dest="files")
            named, words = finder.parse_known_args(words)
            files += [Path(name) for name in named.files]
        before = [word for file in files if file.is_file() for word in file.read_text(encoding="utf-8").split()]
        namespace, left = self.parse_known_args([*before, *words])
        values = vars(namespace)
        made = tuple(kind(**{n: values[n] for n in _names(kind)}) for kind in self.dataclass_types)
        own = {n for kind in self.dataclass_types for n in _names(kind)}
        if rest := {n: v for n, v in values.items() if n not in own}:
            made = (*made, argparse.Namespace(**rest))
        if return_remaining_strings:
            return (*made, left)
        if left:
            raise ConfigError(f"no field takes {' '.join(left)}; --help lists what there is.")
        return made

    def parse_dict(self, args: dict[str, Any], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """One object for each dataclass from names and values; ConfigError for names that none of them has."""
        known = {n for kind in self.dataclass_types for n in _names(kind)}
        if not allow_extra_keys and (extra := sorted(args.keys() - known)):
            raise ConfigError(f"no dataclass has a field {', '.join(map(repr, extra))}; allow_extra_keys=True skips.")
        return tuple(kind(**{n: args[n] for n in _names(kind) if n in args}) for kind in self.dataclass_types)

    def parse_json_file(self, json_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """As `parse_dict`, from a JSON file."""
        return self.parse_dict(read_json(Path(json_file), ConfigError), allow_extra_keys)

    def parse_yaml_file(self, yaml_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """As `parse_dict`, from a YAML file, which PyYAML reads; nothing in it is executed."""
        try:
            import yaml  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingExtraError("parse_yaml_file needs PyYAML: pip install pyyaml.") from error
        try:
            values = yaml.safe_load(Path(yaml_file).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ConfigError(f"{yaml_file} is no YAML: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{yaml_file} holds a {type(values).__name__}; it must hold names and values.")
        return self.parse_dict(values, allow_extra_keys)


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init]


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """The default for argparse, or that there must be a value."""
    if field.default is not dataclasses.MISSING:
        return {"default": field.default}
    if field.default_factory is not dataclasses.MISSING:
        return {"default": field.default_factory()}
    return {"required": True}


def _one_type(hint: object, where: str) -> tuple[Any, bool]:
    """(the type that the words of a field are read as, whether None is a value too)."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    parts = typing.get_args(hint)
    others = [part for part in parts if part is not type(None)]
    optional = len(others) < len(parts)
    if len(others) == 1:
        return others[0], optional
    if str in others:  # a word is always text; what it means is the field's business
        rest = [part for part in others if part is not str]
        return (str if optional or len(rest) > 1 else rest[0]), optional
    lists = [part for part in others if typing.get_origin(part) is list]
    plain = [part for part in others if part in (bool, int, float) or typing.get_origin(part) is Literal]
    if len(lists) + len(plain) < len(others) or len(lists) > 1:
        raise ConfigError(f"{where} may be {hint}; an option reads X, Optional[X], X beside str, or numbers.")
    if lists:
        return Several([*plain, *typing.get_args(lists[0])], True), optional
    return Several(plain, False), optional


class Several:
    """A word that may be of one of several types: the first that it fits."""

    def __init__(self, kinds: list[Any], many: bool) -> None:
        order = {bool: 3, int: 1, float: 2}
        self.kinds, self.many = sorted(kinds, key=lambda kind: order.get(kind, 0)), many

    def __call__(self, word: str) -> object:
        """The value of a word; ValueError where it fits none."""
        for kind in self.kinds:
            if typing.get_origin(kind) is Literal:
                if word in (by_text := {str(v): v for v in typing.get_args(kind)}):
                    return by_text[word]
                continue
            try:
                return string_to_bool(word) if kind is bool else kind(word)
            except (ValueError, argparse.ArgumentTypeError):
                continue
        raise ValueError(word)


def make_choice_type_function(values: Sequence[Any]) -> Callable[[str], Any]:
    """What reads a word of the command line as the one of `values` that is written so; another word stays a word."""
    by_text = {str(value): value for value in values}
    return lambda word: by_text.get(word, word)


def _add_field(where: argparse._ActionsContainer, field: dataclasses.Field[Any], hint: object, owner: str) -> None:
    """The option of one field."""
    names = [f"--{field.name}", *([f"--{field.name.replace('_', '-')}"] if "_" in field.name else [])]
    options = dict(field.metadata)
    aliases = options.pop("aliases", [])
    names += [aliases] if isinstance(aliases, str) else list(aliases)
    if isinstance(options.get("help"), str):
        options["help"] = options["help"].replace("%", "%%") if "%(" not in options["help"] else options["help"]
    kind, optional = _one_type(hint, f"{owner}.{field.name}")
    origin = typing.get_origin(kind)
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        values = typing.get_args(kind) if origin is Literal else [member.value for member in kind]
        options |= {"choices": values, "type": make_choice_type_function(values), **_default(field)}
    elif kind is bool:
        has = field.default is not dataclasses.MISSING
        options["type"] = string_to_bool
        if not optional or (has and field.default is not None):
            options |= {"default": field.default if has else False, "nargs": "?", "const": True}
        else:
            options["default"] = None
    elif origin is list or kind is list:
        parts = typing.get_args(kind)
        part = _one_type(parts[0], f"{owner}.{field.name}")[0] if parts else str
        if typing.get_origin(part) is Literal:
            values = list(typing.get_args(part))
            options |= {"choices": values, "type": make_choice_type_function(values)}
        else:
            options["type"] = part
        options |= {"nargs": "+", **_default(field)}
    elif isinstance(kind, Several):
        options |= {"type": kind, **_default(field)}
        options |= {"nargs": "+"} if kind.many else {"nargs": "?", "const": True} if bool in kind.kinds else {}
    else:
        options |= {"type": _reader(kind), **_default(field)}
    where.add_argument(*names, **options)
    if kind is bool and field.default is True:
        help_text = {"help": options["help"]} if "help" in options else {}
        off = [f"--no_{field.name}", f"--no-{field.name.replace('_', '-')}"]
        where.add_argument(*off, action="store_false", dest=field.name, default=False, **help_text)


def _reader(kind: object) -> object:
    """What makes a value of a word: a class that can be called with it, or text (`Any`, a dict that a script reads)."""
    origin = typing.get_origin(kind) or kind
    if origin in (dict, Any) or not callable(origin):
        return str
    return kind if isinstance(kind, type) else origin
