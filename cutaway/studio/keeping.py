"""What a reader keeps: files of a view, the same as Python and as a command, and runs in a folder of theirs."""

from __future__ import annotations

import json
import shlex
import tempfile
import time
import uuid
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cutaway.hub.class_endings import ending_of
from cutaway.jsonfile import write_text
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem
from cutaway.serve.served_model import ServedModel
from cutaway.show.label import printable
from cutaway.studio.changes import Change, as_python
from cutaway.studio.features import attached

KINDS = {
    "png": "image/png", "svg": "image/svg+xml", "html": "text/html", "json": "application/json",
    "safetensors": "application/octet-stream",
}  # fmt: skip
Layer = Annotated[int, Field(ge=0)]


class CodeBody(Body):
    """A view: the text, the head that is shown, and the changes."""

    model: str
    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    attention: Literal["self", "encoder", "decoder", "cross"] = "self"
    layer: Layer = 0
    head: Layer = 0
    changes: Annotated[tuple[Change, ...], Field(max_length=256)] = ()
    dark: bool = False


class ExportBody(CodeBody):
    """A view as a file."""

    form: Literal["png", "svg", "html", "json", "safetensors"]


class KeptBody(Body):
    """Something done with kept runs."""

    action: Literal["keep", "rename", "delete", "open"]
    name: Annotated[str, Field(pattern="^[0-9a-f]{12}$")] | None = None
    title: Annotated[str, Field(max_length=200)] = ""
    state: Annotated[str, Field(max_length=200_000)] = ""
    changes: Annotated[tuple[Change, ...], Field(max_length=256)] = ()


def export(served: ServedModel, body: ExportBody) -> bytes:
    """The file; called by the engine. It is what the command makes of the same."""
    from cutaway.inspect.explainer import explain
    from cutaway.inspect.page import page
    from cutaway.inspect.plots.canvas import save_figure
    from cutaway.inspect.plots.explanation import draw
    from cutaway.inspect.trace.trace import Trace
    from cutaway.studio.analysis import evaluated

    with evaluated(served, body.changes), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"view.{body.form}"
        if body.form == "safetensors":
            Trace.of(
                served.model, served.explainer, body.text,
                layer=body.layer, head=body.head, attention=body.attention, max_new_tokens=0,
            ).save(path)  # fmt: skip
            return path.read_bytes()
        found = explain(
            body.text, served.model, served.explainer, evidence=body.form == "html",
            layer=body.layer, head=body.head, attention=body.attention, max_new_tokens=0,
        )  # fmt: skip
        if body.form == "html":
            return page.render(found).encode()
        if body.form == "json":
            return (found.to_json() + "\n").encode()
        save_figure(draw(found, dark=body.dark), path)
        return path.read_bytes()


def as_code(served: ServedModel, source: str, body: CodeBody) -> dict[str, str]:
    """{python, command} that give the same picture. A command has no changes, and says so."""
    attention = "" if body.attention == "self" else f", attention={body.attention!r}"
    choice = f"layer={body.layer}, head={body.head}{attention}, max_new_tokens=0"
    call = f"cutaway.inspect.explain({body.text!r}, model, tokenizer, {choice})"
    folder, options = source, ""
    if source.lower().endswith(".gguf"):
        folder, options = str(Path(source).parent), f", gguf_file={Path(source).name!r}"
    lines = [
        "import contextlib",
        "",
        "import cutaway",
        "import cutaway.inspect",
        "from cutaway.inspect.plots.canvas import save_figure",
        "from cutaway.inspect.plots.explanation import draw",
        "",
        f"tokenizer = cutaway.AutoTokenizer.from_pretrained({folder!r}{options})",
        f"model = cutaway.{_loader(served)}.from_pretrained({folder!r}{options}).eval()",
    ]
    edits = as_python(body.changes)
    if any(change.kind == "steer" for change in body.changes) and served.explainer.pad_token is None:
        lines.append("tokenizer.pad_token = tokenizer.eos_token")
    for name in sorted({change.sae for change in body.changes if change.kind in ("feature", "boost")}):
        sae = attached(served, name)
        lines.append(f"model.attach_sae({sae.reads!r}, {sae.file!r}, {name!r})")
    if edits:
        lines += [*edits, "with edit:", *(f"    {line}" for line in f"found = {call}".splitlines())]
    else:
        lines.append(f"found = {call}")
    lines.append(f'save_figure(draw(found{", dark=True" if body.dark else ""}), "studio.png")')
    if "ExitStack" not in "".join(edits):
        lines = lines[2:]
    words = ["cutaway", "explain", body.text, "--model", source, "--layer", str(body.layer), "--head", str(body.head)]
    if body.attention != "self":
        words += ["--attention", body.attention]
    words += ["--max-new-tokens", "0", *(["--dark"] if body.dark else []), "-o", "studio.png"]
    if body.text.startswith("-"):
        words = [*words[:2], *words[3:], "--", body.text]
    note = "# the command runs the model as it is; the changes of the lab are in the Python above\n" if edits else ""
    return {"python": "\n".join(lines) + "\n", "command": note + shlex.join(words)}


def _loader(served: ServedModel) -> str:
    """The class that loads the model with its head."""
    name = type(served.model).__name__
    if name.endswith("EncoderModel"):
        return "AutoModelForTextEncoding"
    end = ending_of(name)
    return "AutoModel" if end is None else end.auto


class KeptRuns:
    """Runs in a folder, a file of JSON each: a title, and the state that opens them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[dict[str, str]]:
        """What is kept, the newest first; a file that cannot be read is no run."""
        found = [entry for path in sorted(self.folder.glob("*.run.json")) if (entry := self._read(path)) is not None]
        return sorted(({k: str(e[k]) for k in ("name", "title", "model", "when")} for e in found),
                      key=lambda entry: entry["when"], reverse=True)  # fmt: skip

    def do(self, body: KeptBody) -> dict[str, object]:
        """Keep, rename, delete or open. Problem 404 for a run that is not there."""
        if body.action == "keep":
            from urllib.parse import parse_qs

            name = uuid.uuid4().hex[:12]
            model = parse_qs(body.state).get("model", [""])[0]
            self._write({"name": name, "title": printable(body.title), "model": printable(model),
                         "when": time.strftime("%Y-%m-%d %H:%M:%S"), "state": body.state,
                         "changes": [change.model_dump() for change in body.changes]})  # fmt: skip
            return {"name": name}
        path = self._path(body.name or "")
        entry = self._read(path)
        if entry is None:
            raise Problem(404, f"name={body.name!r} is not kept here.", param="name")
        if body.action == "delete":
            path.unlink(missing_ok=True)
        elif body.action == "rename":
            self._write({**entry, "title": printable(body.title)})
        else:
            return {"state": entry["state"], "changes": entry["changes"]}
        return {}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.run.json"

    def _write(self, entry: dict[str, object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(self._path(str(entry["name"])), json.dumps(entry, ensure_ascii=True, indent=1) + "\n")

    @staticmethod
    def _read(path: Path) -> dict[str, object] | None:
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        keys = {"name", "title", "model", "when", "state", "changes"}
        return found if isinstance(found, dict) and keys <= found.keys() else None
