"""An explanation as one HTML file that needs nothing else: no network, no second file, no library.

Trust: the text, the tokens and the names in it come from users and models. They are in the file only as JSON in a block
that browsers do not run, with the characters that could end it escaped; the script puts them on the page as text. The
content policy allows this page's own script and style, by their hashes, and nothing else, and it lets no string become
markup. The script and the style are built from `page/` at the root of the repository; `make page` builds them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from cutaway.inspect.explanation import Evidence, Explanation
from cutaway.inspect.measures import MEANING, Array
from cutaway.inspect.page.guide import GUIDE
from cutaway.inspect.page.packing import pack
from cutaway.jsonfile import write_text
from cutaway.show import palette
from cutaway.show.label import printable

MAX_CHARACTERS = 2.3e6  # characters of the data of a page of up to 128 tokens; longer texts take more in proportion


def save(explanation: Explanation, path: str | Path) -> None:
    """Write the page."""
    write_text(path, render(explanation))


def render(explanation: Explanation) -> str:
    """The page as text."""
    web = files("cutaway.inspect.page") / "web"
    frame, style, script = ((web / name).read_text("utf-8") for name in ("frame.html", "page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return Template(frame).substitute(policy=policy, style=style, script=script, data=embedded(page_data(explanation)))


def embedded(data: object) -> str:
    """JSON that can stand inside a script element: ASCII, and without <, > and &.

    ASCII takes care of U+2028 and U+2029, of bidirectional marks and of lone surrogates; the three signs could end the
    element or be read as markup.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def page_data(explanation: Explanation) -> dict[str, Any]:
    """What the page's script reads: `Explanation.to_dict` with the attention packed, and the words around it."""
    data = run_data(explanation)
    data |= words()
    _add_packed(data, explanation)
    worst = max((entry["packed"]["error"] for entry in data["attention"].values()), default=0.0)
    data["provenance"] = (
        f"Made by cutaway {explanation.version}. Attention weights here differ by at most {worst:.1g} from the "
        "model's; measures are made from the exact ones."
    )
    return data


def words() -> dict[str, Any]:
    """What a page says of every run: the meanings of measures, what stands behind each "?", and the colours."""
    ramps = {
        "attention": [palette.rgb(color) for color in palette.ATTENTION],
        "measure": [palette.rgb(color) for color in palette.MEASURE],
    }
    return {"meanings": MEANING, "guide": GUIDE, "ramps": ramps}


def run_data(explanation: Explanation) -> dict[str, Any]:
    """Everything of one run but its attention weights, every label made visible."""
    it = explanation
    data = it.to_dict(patterns=False)
    evidence = it.evidence or Evidence()
    for name, entry in data["attention"].items():
        del entry["matrix"]
        if name in evidence.value_norms:
            entry["value_norms"] = _digits(evidence.value_norms[name])
    for state in data["states"].values():
        del state["first"]  # the page draws the lengths and the angles
    data["evidence"] = evidence_data(evidence)
    model = it.model
    data["text"], data["generated"] = printable(it.text), printable(it.generated)
    data["summary"] = (
        f"{printable(model.name)}: {model.class_name} ({model.family}), {model.layers} layers x {model.heads} heads, "
        f"{model.hidden_size} wide, {model.parameters:,} parameters, {model.dtype}"
    )
    return dict(_visible(data))


def _add_packed(data: dict[str, Any], it: Explanation) -> None:
    """The weights and the rollout, in the room that the rest leaves of the page's size."""
    rollouts = {} if it.evidence is None else it.evidence.rollout
    sizes = [a.pattern.size for a in it.attention.values()] + [rollout.size for rollout in rollouts.values()]
    longest = max(a.pattern.shape[-1] for a in it.attention.values())
    characters_left = MAX_CHARACTERS * max(longest, 128) / 128 - len(json.dumps(data))
    share = max(characters_left, MAX_CHARACTERS / 2) / max(sum(sizes), 1)
    for name, attention in it.attention.items():
        entry = data["attention"][name]
        entry["packed"] = _packed(attention.pattern, attention.pattern.size * share, attention.error)
        if name in rollouts:
            entry["rollout"] = _packed(rollouts[name][:, None], rollouts[name].size * share)


def _packed(values: Array, characters: float, error: float = 0.0) -> dict[str, Any]:
    """Numbers for the page's script, as base64 of at most so many characters; `error`: what they miss already."""
    found = pack(values, characters * 3 / 4)
    return {
        "shape": found.shape,
        "steps": found.steps.tolist(),
        "error": found.error + error,
        "broken": found.broken,
        "blocks": [base64.b64encode(block).decode() for block in found.blocks],
    }


def evidence_data(evidence: Evidence) -> dict[str, Any]:
    """The evidence as the page's script reads it."""
    lens, parts = evidence.lens, evidence.parts
    return {
        "answer": evidence.answer,
        "number": evidence.number,
        "missing": evidence.missing,
        "lens": lens
        and {
            "tokens": lens.tokens,
            "places": lens.places,
            "ids": lens.ids,
            "probability": _digits(lens.probability),
            "kl": _digits(lens.kl),
            "labels": lens.labels,
        },
        "attributions": [
            {
                "method": a.method,
                "scores": _digits(a.scores),
                "value": _number(a.value),
                "base": _number(a.base),
                "residual": None if a.residual is None else _number(a.residual),
                "steps": a.steps,
                "note": a.note,
            }
            for a in evidence.attributions
        ],
        "parts": parts
        and {
            "names": parts.names,
            "values": _digits(parts.values),
            "total": _number(parts.total),
            "logit": _number(parts.logit),
            "base": _number(parts.base),
            "residual": _number(parts.residual),
        },
        "planes": {
            name: {"points": _digits(plane.points), "shares": [_number(share) for share in plane.shares]}
            for name, plane in evidence.planes.items()
        },
        "branches": [
            {
                "step": branch.step,
                "tokens": [{"label": c.label, "probability": _number(c.probability)} for c in branch.tokens],
            }
            for branch in evidence.branches
        ],
    }


def _visible(value: object, key: str = "") -> Any:
    """Labels as they may be shown. `token` and `text` of a token stay what they are; the script shows only labels."""
    if isinstance(value, dict):
        held = {"labels": "label", "missing": "missing"}.get(key)
        return {name: _visible(entry, held or name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_visible(entry, key) for entry in value]
    return printable(value) if isinstance(value, str) and key in ("label", "answer", "missing", "names") else value


def _digits(values: Array) -> list[Any]:
    """Numbers to five digits, None where one is not finite."""
    if values.ndim > 1:
        return [_digits(row) for row in values]
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
