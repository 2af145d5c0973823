"""What must not change while the inside moves: public names, commands, JSON, addresses and file formats.

`public_surface.json` was written before the files moved. Names and options may be added; none may leave.
`python tests/test_public_surface.py` writes the file anew: only where a change of the surface is meant.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

STORED = Path(__file__).with_name("public_surface.json")
ROOMS = ["inspect", "pipelines", "generate", "train", "errors", "modeling_outputs", "distributed", "jobs", "evaluate"]
SENTENCE = "A warm, funny film."
JSON_COMMANDS = {
    "explain": ["explain", SENTENCE, "--json"],
    "tokenize": ["tokenize", SENTENCE, "--json"],
    "attend": ["attend", SENTENCE, "--json"],
    "attribute": ["attribute", SENTENCE, "--json"],
    "classify": ["classify", SENTENCE, "--json"],
    "compare": ["compare", SENTENCE, "A dull film.", "--json"],
}


def names() -> dict[str, list[str]]:
    import cutaway

    listed = {"cutaway": sorted(cutaway.__all__)}
    for room in ROOMS:
        module = importlib.import_module(f"cutaway.{room}")
        public = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        listed[room] = sorted(name for name in public if not name.startswith("_"))
    return listed


def commands() -> dict[str, list[str]]:
    """Each command with its options and arguments, in their long spelling."""
    import typer

    from cutaway.cli import app

    group: Any = typer.main.get_command(app)
    return {
        name: sorted(spelled for p in command.params for spelled in (p.opts + p.secondary_opts))
        for name, command in sorted(group.commands.items())
    }


def addresses() -> dict[str, list[str]]:
    from cutaway import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    models = {
        "encoder": BertForMaskedLM(BertConfig(vocab_size=20, **small)),
        "decoder": GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=1, n_head=2)),
        "encoder-decoder": T5ForConditionalGeneration(
            T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
    }
    return {kind: sorted(model.addresses()) for kind, model in models.items()}


def outline(value: Any) -> Any:
    """Keys and kinds of a JSON value: a list shows its first element, numbers count as one kind."""
    if isinstance(value, dict):
        return {key: outline(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [outline(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def json_of(arguments: list[str]) -> Any:
    from typer.testing import CliRunner

    from cutaway.cli import app

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return outline(json.loads(done.stdout))


def formats() -> list[str]:
    """The names under which files of ours say what they are."""
    package = Path(__file__).parent.parent / "cutaway"
    text = "\n".join(p.read_text() for p in sorted(package.rglob("*.py")))
    return sorted(set(re.findall(r'"(cutaway\.[a-z_]+/\d+)"', text)))


def surface() -> dict[str, Any]:
    return {
        "names": names(), "commands": commands(), "addresses": addresses(), "formats": formats(),
        "json": {name: json_of(arguments) for name, arguments in JSON_COMMANDS.items()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(STORED.read_text())


@pytest.mark.parametrize("made", [names, commands], ids=["names", "commands"])
def test_nothing_public_leaves(made: Any, stored: dict[str, Any]) -> None:
    now = made()
    gone = {key: left for key, had in stored[made.__name__].items() if (left := set(had) - set(now.get(key, ())))}
    assert gone == {}


def test_every_listed_name_is_there(stored: dict[str, Any]) -> None:
    for room, had in stored["names"].items():
        module = importlib.import_module("cutaway" if room == "cutaway" else f"cutaway.{room}")
        assert [name for name in had if not hasattr(module, name)] == []


def test_what_a_package_offers_is_what_it_lists() -> None:
    """In notebooks names are completed by `dir`, also those that are imported when they are asked for."""
    import cutaway

    packages = [
        cutaway,
        *(importlib.import_module(f"cutaway.{p.name}") for p in iter_modules(cutaway.__path__) if p.ispkg),
    ]
    offering = [package for package in packages if hasattr(package, "__all__")]
    assert cutaway.inspect in offering and len(offering) > 8
    for package in offering:
        assert [name for name in package.__all__ if name not in dir(package)] == [], package.__name__


def test_addresses_stay(stored: dict[str, Any]) -> None:
    assert addresses() == stored["addresses"]


def test_formats_stay(stored: dict[str, Any]) -> None:
    assert set(stored["formats"]) <= set(formats())


def within(had: Any, now: Any) -> bool:
    """Whether each key and kind of `had` is still in `now`, which may have more."""
    if isinstance(had, dict):
        return isinstance(now, dict) and all(key in now and within(value, now[key]) for key, value in had.items())
    if isinstance(had, list):
        return isinstance(now, list) and (not had or not now or within(had[0], now[0]))
    return had == now


@pytest.mark.parametrize("command", sorted(JSON_COMMANDS))
def test_json_stays(command: str, stored: dict[str, Any]) -> None:
    assert within(stored["json"][command], json_of(JSON_COMMANDS[command]))


if __name__ == "__main__":
    STORED.write_text(json.dumps(surface(), indent=1, sort_keys=True) + "\n")
