"""Figures of the studio, by hand: `python benchmarks/studio.py [--only typing view writing tiles grid size]`.

A real browser (Chromium, headless) asks a server in this process. Times of the page are wall-clock times: on a machine
that others use, run it in a session of its own with the highest share of the processor:

    setsid -w sh -c 'echo -20 > /proc/self/autogroup; exec python benchmarks/studio.py'

Rates of writing are processor time of one thread, in turns, medians.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "studio")]
from browser import Page  # noqa: E402
from inside import alternate  # noqa: E402
from serve_app import serving  # noqa: E402
from studio_page import HANDS  # noqa: E402

import cutaway  # noqa: E402
from cutaway.studio.feed import Feed  # noqa: E402
from cutaway.studio.routes import Studio  # noqa: E402
from cutaway.studio.starting import make  # noqa: E402
from cutaway.studio.workbench import Workbench  # noqa: E402
from cutaway.studio.writing import WriteBody, Writer  # noqa: E402

KEY = "k" * 24
TYPED = "The plot is thin, but the acting is wonderful, and nobody who saw it wanted to leave before the end of it."
LETTERS = 20  # a second
PROSE = " ".join(" ".join(topics.values()).split())


def say(name: str, value: object) -> None:
    print(json.dumps({name: value}), flush=True)


@contextmanager
def opened(models: object, folder: Path) -> Iterator[tuple[str, Workbench]]:
    service, bench = make(models, KEY, (), folder / "kept")
    with serving(service, routes=Studio(bench).routes()) as url:
        yield f"{url}/studio#key={KEY}", bench


@contextmanager
def page(address: str, folder: Path) -> Iterator[Page]:
    found = Page(address, folder / f"profile{time.monotonic_ns()}", size="1280,1000")
    try:
        yield found
    finally:
        found.close()


def act(found: Page, steps: str) -> object:
    """What the steps give; they may take longer than the browser's pipe is waited for."""
    found.value(f"""globalThis.acted = undefined; void (async () => {{ {HANDS} {steps} }})().then(
      (it) => {{ acted = {{ it }}; }}, (error) => {{ acted = {{ error: String(error) }}; }})""")
    while (said := found.value("globalThis.acted")) is None:
        time.sleep(0.05)
    if "error" in said:
        raise SystemExit(said["error"])
    return said.get("it")


def typing(folder: Path) -> None:
    """Milliseconds from a key to its text on the screen."""
    with opened("cutaway/minilm", folder) as (address, _), page(address, folder) as found:
        for view in ("attention", "layers"):
            steps = f"""await click("#tab-{view}"); await type("Go."); await nap(800);
              const words = {json.dumps(TYPED)}, keys = new Map(), shown = [];
              let last = cutaway.studio.shown, done = false;
              const look = () => {{
                const now = cutaway.studio.shown;
                if (now !== last) {{ shown.push([now, performance.now() - keys.get(now)]); last = now; }}
                if (!done) requestAnimationFrame(look);
              }};
              requestAnimationFrame(look);
              const begun = performance.now(), overtaken = cutaway.studio.overtaken;
              for (let i = 1; i <= words.length; i++) {{
                await nap(Math.max(0, begun + i * {1000 / LETTERS} - performance.now()));
                const at = performance.now();
                enter(one("#text"), words.slice(0, i));
                keys.set(cutaway.studio.typed, at);
              }}
              await until(() => cutaway.studio.shownText === words); await nap(100); done = true;
              return {{ shown, typed: words.length, overtaken: cutaway.studio.overtaken - overtaken }};"""
            told = act(found, steps)
            waits = sorted(wait for _, wait in told["shown"])
            numbers = [number for number, _ in told["shown"]]
            say(f"typing, {view}", {
                "keys": told["typed"], "shown": len(waits), "overtaken": told["overtaken"],
                "in order": numbers == sorted(numbers), "the last is shown": True,
                "ms p50": round(statistics.median(waits)), "ms p95": round(waits[int(0.95 * (len(waits) - 1))]),
            })  # fmt: skip


def view(folder: Path) -> None:
    """Seconds from opening the page to the first view, of a server that has just become ready."""
    for name in ("cutaway/minilm", "cutaway/sentiment"):
        took = []
        for _ in range(3):
            with opened(name, folder) as (address, _), page(address, folder) as found:
                took.append(act(found, "await until(() => cutaway.studio.first); return cutaway.studio.first"))
        say(f"first view, {name}", {"seconds": [round(ms / 1000, 2) for ms in took]})


def writing(rounds: int, tokens: int = 64) -> None:
    """Tokens a second of processor time: the library, the studio unwatched, and watched."""
    from cutaway.pipelines.factory import pipeline
    from cutaway.serve.engine import Engine, Jobs
    from cutaway.serve.metrics import Metrics
    from cutaway.serve.served_model import ServedModel
    from cutaway.serve.settings import Limits

    torch.set_num_threads(1)
    pipe = pipeline("text-generation", "cutaway/smollm2")
    engine = Engine()
    served = ServedModel("it", pipe, engine, Jobs(engine), Limits(), Metrics())
    loop = asyncio.new_event_loop()
    ids = served.explainer(PROSE[:200])["input_ids"]
    model = served.model
    end = model.config.eos_token_id

    def library() -> object:
        with torch.no_grad():
            return model.generate(
                torch.tensor([ids]), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=end
            )

    def studio(watch: bool) -> Callable[[], object]:
        def way() -> object:
            feed = Feed(loop)
            body = WriteBody(model="it", ids=ids, tokens=tokens, watch=watch, layer=15)
            writer = Writer(served, body, feed)
            writer.ends = frozenset()
            for _ in writer.steps():
                feed._waiting.clear()
            return None

        return way

    ways = {"library": library, "studio": studio(False), "studio, attention and lens": studio(True)}
    took = alternate(ways, rounds, time.process_time)
    rates = {name: round(tokens / seconds, 2) for name, seconds in took.items()}
    say("writing, tokens a second", rates)
    say("writing, unwatched by the library's", round(rates["studio"] / rates["library"], 3))
    say("writing, watched by unwatched", round(rates["studio, attention and lens"] / rates["studio"], 3))


def renderer_bytes(found: Page) -> int:
    """What the tab's processes hold of memory that is theirs alone or their share of it."""
    total = 0
    parents = {found._process.pid}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
            except OSError:
                continue
    while parents:
        pid = parents.pop()
        parents |= set(children.get(pid, ()))
        try:
            if b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes():
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
        except OSError:
            continue
    return total


SETTLED = "const settled = async () => { await nap(30); await until(() => cutaway.tiles.idle, 60000); await nap(30); };"


def tiles(folder: Path, characters: int) -> None:
    """4,096 tokens and more: seconds from a hand to what it asked for, and the memory of the tab."""
    with opened("cutaway/smollm2", folder) as (address, bench), page(address, folder) as found:
        steps = f"""{SETTLED} const words = {json.dumps(PROSE[:characters])};
          enter(one("#text"), words); await until(() => cutaway.studio.shownText === words, 600000); await settled();
          const took = {{}};
          const time = async (name, hand) => {{ const at = performance.now(); await hand(); await settled();
            (took[name] ??= []).push(Math.round(performance.now() - at - 60)); }};
          await time("pictures of all heads", async () => {{
            all("#choices label").find((it) => it.innerText.includes("pictures")).click();
            await until(() => one(".pictured canvas")?.width > 1, 60000); }});
          for (const [layer, head] of [[3, 2], [15, 7], [29, 0]]) {{
            await time("another head, whole", async () => {{
              cutaway.page.choose(layer, head); await click("#whole"); }});
            for (let i = 0; i < 6; i++) await time(`larger ${{i + 1}}`, () => click("#larger"));
            await time("to another token", async () => {{
              const row = 1000 + 900 * (layer % 3); cutaway.page.follow("tokens", row); await nap(30);
              await until(() => cutaway.page.given(row).values.some((value) => value > 0));
              await click("#to-token"); }});
          }}
          return [took, cutaway.run.tokens.length, performance.memory?.usedJSHeapSize ?? 0];"""
        took, length, heap = act(found, steps)
        say("tiles, tokens", length)
        for name, ms in took.items():
            say(f"tiles, {name}, ms", ms)
        largest = found.value("Math.max(...performance.getEntriesByType('resource').map((it) => it.encodedBodySize))")
        say("tiles, largest answer, bytes", largest)
        say("tiles, of the tab", {"MB": renderer_bytes(found) >> 20, "of it JS heap": heap >> 20})
        say("tiles, kept by the server, MB", bench.tiles.nbytes >> 20)


def grid(folder: Path) -> None:
    """12 x 12 heads of 512 tokens: milliseconds to all pictures, and to another head."""
    import transformers

    tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/minilm")
    config = transformers.BertConfig(vocab_size=len(tokenizer), num_labels=2)
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    words = tokenizer.decode(tokenizer(PROSE)["input_ids"][1:505])
    with opened({"base": str(folder / "base")}, folder) as (address, _), page(address, folder) as found:
        took, length = act(
            found,
            f"""const words = {json.dumps(words)};
          enter(one("#text"), words); await until(() => cutaway.studio.shownText === words, 120000); await nap(2000);
          const took = {{ pictures: [], head: [] }};
          let at = performance.now();
          all("#choices label").find((it) => it.innerText.includes("pictures")).click();
          await until(() => one(".pictured canvas")?.width > 1, 60000); await nap(0);
          took.pictures.push(Math.round(performance.now() - at));
          for (const [layer, head] of [[3, 2], [5, 7], [11, 0], [7, 7]]) {{
            at = performance.now();
            cutaway.page.choose(layer, head);
            await until(() => cutaway.page.matrix.values.some((value) => value > 0)); await nap(0);
            took.head.push(Math.round(performance.now() - at));
          }}
          return [took, cutaway.run.tokens.length];""",
        )
        say("grid, tokens", length)
        say("grid, ms", took)
        say("grid, of the tab, MB", renderer_bytes(found) >> 20)


def size() -> None:
    script = (ROOT / "cutaway/inspect/page/web/studio.js").read_bytes()
    say("script, KB", {"plain": len(script) // 1000, "compressed": len(gzip.compress(script)) // 1000})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["size", "typing", "view", "writing", "grid", "tiles"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--characters", type=int, default=17_000, help="of the long text")
    asked = parser.parse_args()
    say("load", os.getloadavg())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        parts: dict[str, Callable[[], None]] = {
            "size": size, "typing": lambda: typing(folder), "view": lambda: view(folder),
            "writing": lambda: writing(asked.rounds), "grid": lambda: grid(folder),
            "tiles": lambda: tiles(folder, asked.characters),
        }  # fmt: skip
        for part in asked.only:
            parts[part]()


if __name__ == "__main__":
    main()
