"""Rules for options of all commands."""

from __future__ import annotations

import typing

import pytest
import typer

from cutaway.cli import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def numbers() -> list[tuple[str, str]]:
    """Each option of a command that is a float."""
    callbacks = {info.name or info.callback.__name__: info.callback for info in app.registered_commands}
    found = []
    for name, command in COMMANDS.items():
        kinds = typing.get_type_hints(callbacks[name])
        found += [
            (name, option.opts[0])
            for option in command.params
            if option.name in kinds and float in (kinds[option.name], *typing.get_args(kinds[option.name]))
        ]
    return found


@pytest.mark.parametrize(("command", "option"), numbers())
@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_number_of_a_command_is_nan_or_infinite(call, command, option, number):
    # texts, tables, models, of which none is looked at before
    required = [p for p in COMMANDS[command].params if p.required]
    needed = [f"{p.opts[0]}=it" if p.param_type_name == "option" else "it" for p in required]
    code, out, err = call(command, *needed, f"{option}={number}")
    assert code == 2, err
    assert out == ""
    assert option in err
    assert "Traceback" not in err
