from __future__ import annotations

import itertools
import sys
from xml.etree import ElementTree

import inspect_samples as samples
import pytest

from cutaway.errors import InputError
from cutaway.inspect.plots import canvas, explanation
from cutaway.inspect.plots.theme import theme_of
from cutaway.show import palette


def inside(figure):
    """Every text's box lies within the figure."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    boxes = [text.get_window_extent(renderer) for text in figure.findobj(lambda a: hasattr(a, "get_text"))]
    shown = [box for box in boxes if box.width > 0]
    return all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= page.x1 + 1 and b.y1 <= page.y1 + 1 for b in shown)


CASES = {
    "short": samples.encoder,
    "long": lambda: samples.encoder([f"word{i}" for i in range(64)], 12, 12, text="many words " * 40),
    "very long": lambda: samples.encoder([f"word{i}" for i in range(170)], 2, 2, text="x" * 3000),
    "hostile": lambda: samples.encoder(samples.HOSTILE, text="$\\frac{1}{0$ \x00 \u202e 日本 \ud800"),
    "one token": lambda: samples.encoder(["a"], 1, 1),
    "deep": lambda: samples.encoder(None, 30, 9),
    "decoder": samples.decoder,
    "cross": samples.encoder_decoder,
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("case", CASES)
def test_no_label_leaves_the_picture(case, dark):
    figure = explanation.draw(CASES[case](), dark=dark)
    assert inside(figure)
    # on dark paper nothing is written in the light one's ink
    inks = {text.get_color() for text in figure.findobj(lambda a: hasattr(a, "get_text")) if text.get_text()}
    assert theme_of(dark).ink in inks and theme_of(not dark).ink not in inks


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_files(tmp_path, ending):
    path = tmp_path / f"picture{ending}"
    explanation.save(samples.encoder(samples.HOSTILE), path)
    content = path.read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending])
    if ending == ".svg":
        root = ElementTree.fromstring(content)
        assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_another_ending_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
        explanation.save(samples.encoder(), tmp_path / "picture.gif")


def test_the_readme_picture_is_about_1400_wide(tmp_path):
    width, height = explanation.draw(samples.encoder()).get_size_inches() * canvas.DPI
    assert 1300 < width < 1500
    assert height < 1200


def test_dollars_are_letters():
    figure = explanation.draw(samples.encoder(samples.HOSTILE))
    texts = [text for text in figure.findobj(lambda a: hasattr(a, "get_parse_math")) if text.get_text()]
    assert texts
    assert not any(text.get_parse_math() for text in texts)


def test_rows_and_columns_carry_their_tokens():
    axes = explanation.draw(samples.encoder_decoder()).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == samples.WORDS
    assert [label.get_text() for label in axes.get_yticklabels()][1:3] == ["▁Ich", "▁glaube"]


def test_undrawable_characters_are_boxes():
    assert canvas.drawable("a\x00\U000f1234") == "a^@<U+F1234>"
    assert canvas.drawable("\U0001f9ff\U00012000") in {"□□", "\U0001f9ff□", "□\U00012000", "\U0001f9ff\U00012000"}


def test_pyplot_is_not_touched():
    explanation.draw(samples.encoder())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize("ramp", [palette.ATTENTION, palette.MEASURE])
def test_ramps_darken_all_the_way(ramp):
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (palette.at(ramp, i / 50) for i in range(51))]
    assert all(a > b for a, b in itertools.pairwise(light))
    assert palette.at(ramp, -1) == palette.rgb(ramp[0])
    assert palette.at(ramp, 2) == palette.rgb(ramp[-1])
