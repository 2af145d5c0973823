"""The pictures of the page in docs/, taken in headless Chromium without a network.

python recipes/page_pictures.py [--to docs/images]
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import Page  # noqa: E402

from cutaway.inspect import explain  # noqa: E402
from cutaway.inspect.page import page  # noqa: E402

THIN = "The plot is thin, but the acting is wonderful."
WIDTH = 1180
# the name of a picture -> the number of its theme in the page's list, and what a reader does before it is taken
PICTURES = {
    "page": (1, "cutaway.page.point(4, 6)"),
    "page-dark": (2, "document.querySelector('#tab-attribution').click()"),
}
TURN = """(async () => {{
  const list = document.querySelector("#theme");
  list.selectedIndex = {theme};
  list.dispatchEvent(new Event("change", {{ bubbles: true }}));
  {act};
  await new Promise((drawn) => setTimeout(drawn, 200));
  return document.documentElement.scrollHeight;
}})()"""


def take(found: Page, name: str, path: Path) -> None:
    """One picture of the whole page."""
    theme, act = PICTURES[name]
    found.send("Emulation.setDeviceMetricsOverride", session=True, width=WIDTH, height=600, deviceScaleFactor=1,
               mobile=False)  # fmt: skip
    height = found.value(TURN.format(theme=theme, act=act))
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
    shot = found.send("Page.captureScreenshot", session=True, clip=clip, captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(shot["data"]))
    with Image.open(path) as taken:
        taken.convert("RGB").save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images", help="the folder")
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        page.save(explain(THIN, evidence=True), path)
        found = Page(path, Path(folder) / "profile")
        try:
            for name in PICTURES:
                take(found, name, asked.to / f"{name}.png")
        finally:
            found.close()


if __name__ == "__main__":
    main()
