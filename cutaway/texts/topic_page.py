"""Topics as a page to hand in, and their map as a picture."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cutaway import __version__
from cutaway.jsonfile import write_text
from cutaway.show.chart import scatter_map
from cutaway.show.label import clipped, printable
from cutaway.show.paper import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.texts.table import TextTable
    from cutaway.texts.topics import Topics

DRAWN = 4000  # texts on a map; above, an even sample
NAMED = 24  # topics that have their name on the map
LONGEST = 600  # characters of a typical text

BODY = """<body>
<main>
<h1>{{ title | printable }}</h1>
<p class="muted">{{ texts }} texts in {{ topics | length }} topics{% if without %}, {{ without }} in none{% endif %}.
{{ date }}, cutaway {{ version }}, vectors of {{ model | printable }}, {{ method }}.</p>
<figure>{{ map | safe }}
<figcaption>{{ how }}{% if sampled %} {{ sampled }} of the texts are drawn.{% endif %}</figcaption></figure>
<p class="muted">A topic's words are those that tell it from the others (class-based tf-idf). Coherence says how often
they stand in one text, beyond chance: from -1 (never) to 1 (always). Nearness is the mean cosine of its texts and its
middle: how close together they are. The typical texts lie nearest to the topic's middle.{% if loose %}
{{ loose }}{% endif %}</p>
{% for topic in topics %}
<article id="topic-{{ topic.number }}">
<h3>{{ topic.number }}. {{ topic.name | printable }}</h3>
<p class="muted">{{ "{:,}".format(topic.size) }} texts, {{ (topic.size / total) | share }}; coherence
{% if topic.coherence == topic.coherence %}{{ "%.2f" | format(topic.coherence) }}{% else %}not known{% endif %};
nearness {{ "%.2f" | format(topic.nearness) }}</p>
<ul class="words">{% for word, weight in topic.words %}<li>{{ word | printable }}</li>{% endfor %}</ul>
{% for row, text in topic.typical %}
<p>{{ clip(text) | printable }} <span class="muted">row {{ row }}</span></p>
{% endfor %}
</article>
{% endfor %}
</main>
</body>
</html>
"""


def write_page(path: Path, found: Topics, texts: TextTable, model: str, title: str) -> None:
    """One HTML file: the map, and each topic with its words and typical texts."""
    shown = _sample(len(texts))
    places = [(float(x), float(y)) for x, y in found.places[shown]]
    groups = [int(topic) - 1 for topic in found.of[shown]]
    names = [(topic.middle, f"{topic.number} {clipped(topic.name, 32)}") for topic in found.topics[:NAMED]]
    page = paper(
        BODY,
        title,
        texts=f"{len(texts):,}",
        total=len(texts),
        topics=found.topics,
        without=int((found.of == 0).sum()),
        date=date.today().isoformat(),
        version=__version__,
        model=model,
        method=found.method,
        map=scatter_map(places, groups, names, f"A map of {len(shown):,} texts, coloured by topic"),
        how=found.how,
        sampled=f"{len(shown):,}" if len(shown) < len(texts) else "",
        loose=found.loose_note(),
        clip=lambda text: clipped(text, LONGEST),
    )
    write_text(path, page)


def picture(found: Topics, texts: TextTable, title: str, model: str, *, dark: bool = False) -> Figure:
    """The map, drawn with matplotlib; a topic's number and first words stand at its middle."""
    from cutaway.inspect.plots.canvas import MARGIN, SMALL, Canvas, Origin, drawable
    from cutaway.inspect.plots.theme import theme_of

    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    wide, tall = 640.0, 420.0
    origin = Origin(model, f"{len(texts):,} texts in {len(found.topics)} topics")
    y = canvas.frame(title, (wide, tall), origin, found.how)
    axes = canvas.axes(MARGIN, y, wide, tall)
    axes.set_xticks([])
    axes.set_yticks([])
    shown = _sample(len(texts))
    colors = [theme.muted if topic == 0 else theme.series[(topic - 1) % len(theme.series)] for topic in found.of[shown]]
    axes.scatter(found.places[shown, 0], found.places[shown, 1], s=5, c=colors, alpha=0.5, linewidths=0)
    from matplotlib.patheffects import withStroke

    for topic in found.topics[:NAMED]:
        name = drawable(f"{topic.number} {clipped(printable(topic.name), 32)}")
        style = canvas.style(SMALL + 0.5, theme.ink, ha="center", va="center")
        text = axes.text(topic.middle[0], topic.middle[1], name, **style)
        text.set_path_effects([withStroke(linewidth=2.2, foreground=theme.paper)])
    return canvas.figure


def _sample(count: int) -> np.ndarray:
    return np.arange(count) if count <= DRAWN else np.linspace(0, count - 1, DRAWN).astype(np.int64)
