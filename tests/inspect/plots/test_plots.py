"""Each picture of the measures: nothing leaves it, text stays text, numbers are the ones that were given."""

from __future__ import annotations

import itertools

import inspect_samples as samples
import numpy as np
import pytest

from cutaway.errors import InputError
from cutaway.inspect.plots import canvas
from cutaway.inspect.plots.generation import generation
from cutaway.inspect.plots.grid import grid
from cutaway.inspect.plots.lines import head_lines
from cutaway.inspect.plots.strip import Strip, token_strips
from cutaway.inspect.plots.theme import DARK, LIGHT
from cutaway.inspect.plots.trajectory import principal_plane, trajectories
from cutaway.inspect.plots.waterfall import folded, waterfall

NAMES = samples.HOSTILE
N = len(NAMES)
DRAW = np.random.default_rng(0)
SQUARE = samples.pattern_of(1, 1, N, N)[0, 0]
ORIGIN = canvas.Origin("$model_{x", "$\\frac{1}{0$ \x00 \u202e 日本 \ud800 " * 6, 3e-7)
PICTURES = {
    "grid": lambda dark: grid(SQUARE, NAMES, NAMES, title="T", note="n", origin=ORIGIN, axes=("a", "b"), dark=dark),
    "texts": lambda dark: grid(
        SQUARE[:2], ["$a$", "b"], NAMES, title="T", note="n " * 200, origin=ORIGIN, texts=[NAMES, NAMES],
        scale="signed", mark=(1, 2), dark=dark
    ),
    "lines": lambda dark: head_lines(SQUARE, NAMES, NAMES, title="T", origin=ORIGIN, dark=dark),
    "strips": lambda dark: token_strips(
        NAMES, [Strip("a", DRAW.normal(size=N), 0.07, "ranking only"), Strip("b", np.zeros(N), None)], title="T $",
        note="n", origin=ORIGIN, dark=dark
    ),
    "waterfall": lambda dark: waterfall(
        NAMES * 3, DRAW.normal(size=3 * N), -1.0, title="T", origin=ORIGIN, end="$x$", dark=dark
    ),
    "trajectories": lambda dark: trajectories(DRAW.normal(size=(5, N, 8)), NAMES, title="T", origin=ORIGIN, dark=dark),
    "generation": lambda dark: generation(samples.decoder(), dark=dark),
}  # fmt: skip


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_text_stays_text_and_inside(name, dark):
    figure = PICTURES[name](dark)
    figure.draw_without_rendering()
    renderer, page = figure.canvas.get_renderer(), figure.bbox
    texts = figure.findobj(lambda a: hasattr(a, "get_parse_math") and a.get_text())
    assert len(texts) > 8 and not any(text.get_parse_math() for text in texts)
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1, text.get_text()
    assert figure.get_facecolor()[0] < 0.2 if dark else figure.get_facecolor() == (1, 1, 1, 1)
    said = " ".join(text.get_text() for text in texts)
    assert "cutaway " in said and not set(said) & set("\x00\u202e\ud800\u2028")


def test_the_certificate_is_quoted():
    assert "within 3e-07" in ORIGIN.line() and "certificate" not in canvas.Origin("m", "t").line()


def test_a_grid_holds_its_numbers_and_tells_wrong_ones():
    figure = grid(SQUARE, NAMES, NAMES, title="T", note="n", origin=ORIGIN)
    assert np.array_equal(figure.axes[0].images[0].get_array(), SQUARE.astype(np.float64))
    with pytest.raises(InputError, match="do not belong to 1 rows"):
        grid(SQUARE, ["a"], NAMES, title="T", note="n", origin=ORIGIN)


def test_a_waterfall_sums():
    values = DRAW.normal(size=40)
    names, steps = folded([str(i) for i in range(40)], values, 9)
    assert len(names) == 10 and "31 other" in names[-1]
    assert sum(steps) == pytest.approx(values.sum(), abs=1e-12)
    assert folded(["a", "b"], [1.0, 2.0], 5) == (["a", "b"], [1.0, 2.0])


def test_the_plane_is_the_one_of_most_variance():
    flat = np.zeros((3, 4, 6))
    flat[..., 2], flat[..., 5] = DRAW.normal(size=(3, 4)) * 3, DRAW.normal(size=(3, 4))
    points, shares = principal_plane(flat)
    assert shares.sum() == pytest.approx(1) and shares[0] >= shares[1]
    wanted = np.linalg.norm(flat[0, 0] - flat[2, 3])
    assert np.linalg.norm(points[0, 0] - points[2, 3]) == pytest.approx(wanted)
    with pytest.raises(InputError, match="two points"):
        principal_plane(np.zeros((1, 1, 4)))


def test_wrong_scores_and_empty_runs_are_errors():
    with pytest.raises(InputError, match="scores do not belong"):
        token_strips(["a"], [Strip("m", [1.0, 2.0], None)], title="T", note="n", origin=ORIGIN)
    with pytest.raises(InputError, match="nothing was written"):
        generation(samples.encoder())
    with pytest.raises(InputError, match="does not belong"):
        head_lines(SQUARE, ["a"], NAMES, title="T", origin=ORIGIN)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_signed_colours_leave_their_middle_evenly(theme):
    def light(color):
        return sum(w * int(color[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))

    steps = [light(color) for color in theme.signed]
    half = len(steps) // 2
    sign = 1 if theme is LIGHT else -1
    left, right = steps[: half + 1], steps[half:][::-1]
    for side in (left, right):
        assert all(sign * a < sign * b for a, b in itertools.pairwise(side))
