"""Run the notebooks in docs/notebooks as Jupyter would, without Jupyter, and keep what they print and draw.

python tests/notebooks.py      # runs each notebook and writes its outputs into its file: `make notebooks`

A notebook's code cells run in order in one namespace of their own. A cell's outputs are what it printed, then each
figure that is open at its end, then the value of its last line.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DPI = 80  # pictures are stored small; Jupyter draws its own
NUMBER = re.compile(r"-?\d+\.\d+")


def run(path: Path) -> dict[str, Any]:
    """The notebook with the outputs of a run in the current folder."""
    book = json.loads(path.read_text(encoding="utf-8"))
    scope: dict[str, Any] = {"__name__": "__main__"}
    number = 0
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            cell["execution_count"] = number
            cell["outputs"] = run_cell("".join(cell["source"]), scope, f"{path.name}, code cell {number}", number)
    return book


def run_cell(source: str, scope: dict[str, Any], name: str, number: int) -> list[dict[str, Any]]:
    """The outputs of one code cell, as nbformat 4 stores them."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    body = ast.parse(source, name)
    last = body.body.pop().value if body.body and isinstance(body.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(body, name, "exec"), scope)
        value = None if last is None else eval(compile(ast.Expression(last), name, "eval"), scope)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
    figures = [pyplot.figure(n) for n in pyplot.get_fignums()]
    if isinstance(value, Figure) and value not in figures:
        figures.append(value)
    for figure in figures:
        data = {"image/png": _png(figure), "text/plain": ["<Figure>"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    pyplot.close("all")
    if value is not None and not isinstance(value, Figure):
        data = {"text/plain": _lines(repr(value))}
        outputs.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return outputs


def texts(book: dict[str, Any]) -> list[str]:
    """What each code cell prints and shows, pictures as their number."""
    found = []
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            said = [o for o in cell["outputs"] if "image/png" not in o.get("data", {})]
            shown = ["".join(o.get("text") or o["data"]["text/plain"]) for o in said]
            found.append("\n".join([*shown, f"{len(cell['outputs']) - len(said)} pictures"]))
    return found


def alike(a: str, b: str, tolerance: float = 0.02) -> bool:
    """Whether two texts are equal but for the last digits of their decimal numbers, which differ between machines."""
    if " ".join(NUMBER.sub("#", a).split()) != " ".join(NUMBER.sub("#", b).split()):
        return False
    pairs = zip(NUMBER.findall(a), NUMBER.findall(b), strict=True)
    return all(abs(float(x) - float(y)) <= tolerance * max(1, abs(float(y))) for x, y in pairs)


def write(book: dict[str, Any], path: Path) -> None:
    """Store a notebook as Jupyter does."""
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _png(figure: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run all notebooks, or those that are named."""
    os.environ |= {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    for path in [p.resolve() for p in map(Path, sys.argv[1:])] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            write(run(path), path)


if __name__ == "__main__":
    main()
