"""A sheet and its picture as one HTML file that needs nothing else and runs nothing."""

from __future__ import annotations

import base64
from html import escape

from cutaway.show.html import rendered
from cutaway.show.label import printable
from cutaway.show.sheet import Sheet

# No script at all; styles stand on the elements, and the picture is in the file.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
LOOK = "font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:24px auto;padding:0 16px"


def document(sheet: Sheet, picture: bytes | None = None, *, dark: bool = False) -> str:
    """The page as text; `picture`: an SVG, shown as an image, in which nothing runs or loads."""
    colors = "background:#12171f;color:#e8edf4" if dark else "background:#fff;color:#16202e"
    title = escape(printable(sheet.title))
    image = ""
    if picture is not None:
        data = base64.b64encode(picture).decode()
        image = f'<p><img style="max-width:100%" alt="{title}" src="data:image/svg+xml;base64,{data}"></p>'
    heads = (
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{title}</title>",
    )
    body = f'<body style="{LOOK};{colors}"><main>{image}{rendered(sheet)}</main></body>'
    return f'<!doctype html>\n<html lang="en"><head>{"".join(heads)}</head>{body}</html>\n'
