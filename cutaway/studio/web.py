"""The page of the studio: its script and style, built from `page/`, in one document that asks only its own server."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from starlette.responses import Response

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>cutaway studio</title>
<style>{style}</style>
</head>
<body class="studio">
<noscript><p>The studio draws with the script inside it; turn scripts on for this page to see it.</p></noscript>
<div id="page"></div>
<script>{script}</script>
</body>
</html>
"""


@cache
def _document() -> tuple[str, str, str]:
    """(the page, its script's hash, its style's)."""
    web = files("cutaway.inspect.page") / "web"
    style, script = ((web / name).read_text("utf-8") for name in ("studio.css", "studio.js"))
    page = FRAME.replace("{style}", style, 1).replace("{script}", script, 1)
    return page, _hash(script), _hash(style)


def document(framed_by: str) -> Response:
    """The page, under a policy that allows its own script, its own style and its own server, and nothing else.

    framed_by: which pages may show it in a frame, in the words of `frame-ancestors`.
    """
    page, script, style = _document()
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; "
        "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {framed_by}; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    return Response(page, headers=headers, media_type="text/html")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
