"""A page to hand in: one HTML file in the look of all others, light, dark and on paper, that runs and loads nothing.

Texts come from users and models: the template escapes every value and `printable` shows what would act. The content
policy allows the page's own styles by their hash, pictures inside the file, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from cutaway.show.label import printable

HEAD = """<!doctype html>
<html lang="en"{% if ready %} data-ready="yes"{% endif %}>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy | safe }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ title | printable }}</title>
<style>{{ style | safe }}</style>
</head>
"""


def style() -> str:
    """The look of every page."""
    return (files("cutaway.show") / "paper.css").read_text("utf-8")


def sha256(text: str) -> str:
    """The hash of a style or a script, as a content policy writes it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def paper(template: str, title: str, **values: object) -> str:
    """The page as text.

    Args:
        template: jinja2 of everything from <body> on, in which every value is escaped. Filters: `printable`, `share`
            (0.123 as 12.3%), `number` (three digits that count).
        values: what it names.
    """
    css = style()
    policy = f"default-src 'none'; img-src data:; style-src {sha256(css)}; base-uri 'none'; form-action 'none'"
    return page_of(template, title, css, policy, ready=True, **values)


def page_of(template: str, title: str, css: str, policy: str, **values: object) -> str:
    """As `paper`, with a style and a content policy of the page's own; `css` and `policy` are code, not data."""
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["printable"] = lambda value: printable(str(value))
    page.filters["share"] = lambda value: f"{value:.1%}"
    page.filters["number"] = lambda value: f"{value:.3g}"
    made: str = page.from_string(HEAD + template).render(title=title, policy=policy, style=css, **values)
    return made
