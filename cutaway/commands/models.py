"""`cutaway models`: the models on this machine."""

from __future__ import annotations

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.option import AsJson


def models(as_json: AsJson = False) -> None:
    """List the models on this machine."""
    from dataclasses import asdict

    from cutaway.hub.local_models import entries
    from cutaway.show.label import printable

    found = list(entries())
    if as_json:
        write(as_line([asdict(entry) for entry in found]))
        return
    table = table_of("name", "source", "family", "size>", "task")
    for entry in found:
        size = f"{entry.bytes / 1e6:,.1f} MB"
        table.add_row(plain(printable(entry.name)), entry.source, plain(printable(entry.family)), size, entry.task)
    if found:
        console().print(table)
    else:
        write("No models on this machine yet. Give any command a --model with a folder or a name on the hub.")
