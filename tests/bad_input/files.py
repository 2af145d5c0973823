"""Labels, special ids, files and arguments that do not describe a model."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cutaway
from bad_input.case import Case, config, ids, saved, spoilt
from bad_input.configs import build, load
from cutaway import auto
from cutaway.config.config import PretrainedConfig


def file(content: bytes) -> Callable[[Path], Callable[[], object]]:
    """A folder with this config.json."""

    def prepare(folder: Path) -> Callable[[], object]:
        (folder / "config.json").write_bytes(content)
        return lambda: auto.AutoModel.from_pretrained(folder)

    return prepare


CLASSES = "ForSequenceClassification"
LABELS = [
    Case(
        "num_labels against id2label",
        "ConfigError",
        "num_labels is 3 but id2label has 2",
        load("bert", CLASSES, num_labels=3, id2label={"0": "a", "1": "b"}),
    ),
    Case(
        "label2id against id2label",
        "ConfigError",
        "label2id says 'a' is 1.*id2label",
        load("bert", CLASSES, label2id={"a": 1, "b": 0}, id2label={"0": "a", "1": "b"}),
    ),
    Case(
        "a label id that is no number", "ConfigError", "id2label holds 'x'", load("bert", CLASSES, id2label={"x": "a"})
    ),
    Case("a negative label id", "ConfigError", "id2label holds '-1'", load("bert", CLASSES, id2label={"-1": "a"})),
    Case("a huge label id", "ConfigError", "id2label holds", load("bert", CLASSES, id2label={"99999999": "a"})),
    Case("id2label text", "ConfigError", "id2label is a str", load("bert", CLASSES, id2label="a")),
    Case("labels without end", "ConfigError", "num_labels is 1000000000", load("bert", CLASSES, num_labels=10**9)),
    Case(
        "labels of 5,000 digits",
        "ConfigError",
        "num_labels is a number of",
        build("bert", CLASSES, num_labels=10**5000),
    ),
    Case("no labels", "ConfigError", "num_labels is 0", load("bert", CLASSES, num_labels=0)),
    Case(
        "an unknown problem type",
        "ConfigError",
        "problem_type is 'x'.*regression",
        load("bert", CLASSES, problem_type="x"),
    ),
    Case(
        "a dropout of the head that is text",
        "ConfigError",
        "classifier_dropout is 'x'",
        load("bert", CLASSES, classifier_dropout="x"),
    ),
    Case(
        "a dropout of the head above 1",
        "ConfigError",
        "classifier_dropout is 7",
        load("bert", CLASSES, classifier_dropout=7),
    ),
    Case(
        "a dropout of distilbert's head",
        "ConfigError",
        "seq_classif_dropout is None|seq_classif_dropout is \\[\\]",
        load("distilbert", CLASSES, seq_classif_dropout=[]),
    ),
    Case(
        "another family's spread that is text",
        "ConfigError",
        "initializer_range is 'x'",
        build("t5", initializer_range="x"),
    ),
    Case("a spread that is text", "ConfigError", "initializer_range is 'x'", build("bert", initializer_range="x")),
    Case("a padding id that is text", "ConfigError", "pad_token_id is 'x'", load("bert", pad_token_id="x")),
    Case("a padding id below 0", "ConfigError", "pad_token_id is -5", load("bert", pad_token_id=-5)),
    Case("an end that is text", "ConfigError", "eos_token_id is 'x'", load("gpt2", eos_token_id="x")),
    Case("ends that are texts", "ConfigError", "eos_token_id is ", load("gpt2", eos_token_id=["x"])),
    Case("a start that is a list", "ConfigError", "decoder_start_token_id is ", load("t5", decoder_start_token_id=[0])),
    Case("a dtype that does not exist", "ConfigError", "dtype is 'float7'.*float32", load("bert", dtype="float7")),
    Case(
        "hidden states of a layer that does not exist",
        "InputError",
        r"output_hidden_states asks for 9.*0\.\.2",
        lambda folder: lambda: called(config("bert", output_hidden_states=[9])),
    ),
    Case(
        "attentions as a number",
        "InputError",
        "output_attentions is 1.5",
        lambda folder: lambda: called(config("bert", output_attentions=1.5)),
    ),
    Case(
        "two names of one field", "ConfigError", "n_embd.*hidden_size|hidden_size.*n_embd", load("gpt2", hidden_size=16)
    ),
]


def called(made: Any) -> object:
    return auto.AutoModel.from_config(made)(ids())


def overflow(folder: Path) -> Callable[[], object]:
    path = spoilt(folder, "bert") / "config.json"
    path.write_text(path.read_text().replace("1e-12", "1e999"))
    return lambda: auto.AutoModel.from_pretrained(folder)


FILES = [
    Case("an unknown family", "ConfigError", r"model_type is 'brt'.*'bert'", file(b'{"model_type": "brt"}')),
    Case("a family with a path", "ConfigError", "model_type is '../../x'.*bert", file(b'{"model_type": "../../x"}')),
    Case("a family that is a list", "ConfigError", "model_type", file(b'{"model_type": ["bert"]}')),
    Case("no family", "ConfigError", "no model_type", file(b"{}")),
    Case("a list", "ConfigError", "list, not an object", file(b"[1, 2]")),
    Case("50 MB", "ConfigError", "larger than", file(b'{"a": "' + b"x" * 50_000_000 + b'"}')),
    Case("many values", "ConfigError", "values", file(b'{"a": [' + b"1," * 1_900_000 + b"1]}")),
    Case("nested 500 deep", "ConfigError", "nested", file(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}")),
    Case("not UTF-8", "ConfigError", "not valid JSON.*decode", file(b'{"model_type": "b\xff\xfe"}')),
    Case("UTF-16", "ConfigError", "not valid JSON", file('{"model_type": "bert"}'.encode("utf-16"))),
    Case("cut off", "ConfigError", "not valid JSON.*complete", file(b'{"model_type": "be')),
    Case("empty", "ConfigError", "not valid JSON", file(b"")),
    Case("zeros", "ConfigError", "not valid JSON", file(b"\0" * 4096)),
    Case("NaN in the file", "ConfigError", "NaN", file(b'{"model_type": "bert", "layer_norm_eps": NaN}')),
    Case("infinity by overflow", "ConfigError", "layer_norm_eps is inf", overflow),
    Case(
        "a number of 5,000 digits",
        "ConfigError",
        "not valid JSON",
        file(b'{"model_type": "bert", "vocab_size": ' + b"9" * 5000 + b"}"),
    ),
    Case(
        "a field twice",
        "ConfigError",
        "'vocab_size' twice",
        file(b'{"model_type": "bert", "vocab_size": 1, "vocab_size": 2}'),
    ),
    Case("no config", "HubError", "no config.json", lambda folder: lambda: auto.AutoModel.from_pretrained(folder)),
    Case(
        "config.json is a folder",
        "HubError",
        "no config.json",
        lambda folder: ((folder / "config.json").mkdir(), lambda: auto.AutoModel.from_pretrained(folder))[1],
    ),
]


def arguments(pattern: str, error: str = "ConfigError", ending: str = "", **options: Any) -> Case:
    """from_pretrained with these arguments."""
    kind = getattr(auto, f"AutoModel{ending}")
    named = f"from_pretrained{ending} {options}"[:90]
    return Case(named, error, pattern, lambda folder: lambda: kind.from_pretrained(saved("bert"), **options))


def named(name: Any) -> Case:
    return Case(
        f"the name {name!r:.40}", "HubError", "name|folder", lambda f: lambda: auto.AutoModel.from_pretrained(name)
    )


def classed(family: str, kind: str, pattern: str) -> Case:
    """The checkpoint of one family by a class that does not fit."""
    found = getattr(auto, kind, None) or _class(kind)
    return Case(
        f"{family} as {kind}", "ConfigError", pattern, lambda folder: lambda: found.from_pretrained(saved(family))
    )


def _class(name: str) -> Any:
    return getattr(importlib.import_module(cutaway._HOME[name]), name)


ARGUMENTS = [
    arguments("no argument or config field 'num_lables'.*num_labels", num_lables=3),
    arguments("no argument or config field '__class__'", __class__=5),
    arguments("no argument or config field 'from_dict'", from_dict=5),
    arguments("num_labels is -1", ending=CLASSES, num_labels=-1),
    arguments("num_labels is 3 but id2label has 2", ending=CLASSES, num_labels=3, id2label={0: "a", 1: "b"}),
    arguments("dtype is 'nonsense'.*float32", dtype="nonsense"),
    arguments("dtype is torch.int8", torch_dtype=torch.int8),
    arguments("config must be a PretrainedConfig, not int", config=3),
    arguments("config must be a PretrainedConfig, not dict", config={"model_type": "bert"}),
    arguments("model_type is ''", config=PretrainedConfig()),
    arguments("'../x' leaves", "HubError", subfolder="../x"),
    arguments("no subfolder 'x'", "HubError", subfolder="x"),
    arguments("problem_type is 'x'", ending=CLASSES, problem_type="x"),
    *map(
        named, (None, 5, b"x", "", " ", "\0", "a\0b", "x" * 10_000, "/nowhere/at/all", "no such name", "a/b/c", {}, [])
    ),
    classed("gpt2", "BertModel", "holds a 'gpt2' model.*AutoModel"),
    classed("bert", "GPT2LMHeadModel", "holds a 'bert' model.*AutoModel"),
    classed("bert", "AutoModelForSeq2SeqLM", "bert models have no BertForConditionalGeneration"),
    classed("t5", "AutoModelForMaskedLM", "t5 models have no T5ForMaskedLM"),
    classed("gpt2", "AutoModelForMultipleChoice", "gpt2 models have no"),
    Case(
        "a model from a dict",
        "ConfigError",
        "needs a PretrainedConfig, not dict",
        lambda folder: lambda: _class("BertModel")({"hidden_size": 8}),
    ),
    Case(
        "from_config with text",
        "ConfigError",
        "PretrainedConfig, not str",
        lambda folder: lambda: auto.AutoModel.from_config("bert"),
    ),
    Case(
        "another family's config",
        "ConfigError",
        "BertModel.*GPT2Config|GPT2Config.*BertModel",
        lambda folder: lambda: _class("BertModel")(config("gpt2")),
    ),
    Case(
        "another family's config for a checkpoint",
        "ConfigError",
        "'gpt2'.*BertModel|BertModel.*'gpt2'",
        lambda folder: lambda: _class("BertModel").from_pretrained(saved("bert"), config=config("gpt2")),
    ),
]

CASES = [*LABELS, *FILES, *ARGUMENTS]
