"""An explanation as one HTML file that needs nothing else: no network, no second file, no library.

Trust: the text, the tokens and the names in it come from users and models. They are in the file only as JSON in a block
that browsers do not run, with the characters that could end it escaped; the script puts them on the page as text. The
content policy allows this page's own script and style, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from cutaway.inspect import palette
from cutaway.inspect.explanation import Attention, Explanation
from cutaway.inspect.label import printable
from cutaway.inspect.measures import MEANING


def save(explanation: Explanation, path: str | Path) -> None:
    """Write the page."""
    Path(path).write_text(render(explanation), encoding="utf-8")


def render(explanation: Explanation) -> str:
    """The page as text."""
    assets = files("cutaway.inspect")
    style, script, frame = ((assets / f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    )
    return Template(frame).substitute(policy=policy, style=style, script=script, data=embedded(page_data(explanation)))


def embedded(data: Any) -> str:
    """JSON that can stand inside a script element: ASCII, and without <, > and &.

    ASCII takes care of U+2028 and U+2029, of bidirectional marks and of lone surrogates; the three signs could end the
    element or be read as markup.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def page_data(explanation: Explanation) -> dict[str, Any]:
    """What the page's script reads: `Explanation.to_dict` with the attention as bytes, and the words around it."""
    it = explanation
    data = it.to_dict(patterns=False)
    for name, attention in it.attention.items():
        entry = data["attention"][name]
        del entry["matrix"]
        entry["shape"] = list(attention.pattern.shape)
        entry["bytes"] = _bytes(attention)
    model = it.model
    data["text"], data["generated"] = printable(it.text), printable(it.generated)
    data["summary"] = (
        f"{printable(model.name)}: {model.class_name} ({model.family}), {model.layers} layers x {model.heads} heads, "
        f"{model.hidden_size} wide, {model.parameters:,} parameters, {model.dtype}"
    )
    data["provenance"] = f"Made by cutaway {it.version}. Attention is kept to one part in 255, measures are exact."
    data["meanings"] = MEANING
    data["ramps"] = {
        "attention": [palette.rgb(color) for color in palette.ATTENTION],
        "measure": [palette.rgb(color) for color in palette.MEASURE],
    }
    return data


def _bytes(attention: Attention) -> str:
    """[layers, heads, Lq, Lk] as base64, one byte per weight: the error is at most 1/510."""
    return base64.b64encode(np.rint(np.clip(attention.pattern, 0, 1) * 255).astype(np.uint8).tobytes()).decode()


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
