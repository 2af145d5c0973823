"""What `make docs` adds to the files in docs/: the repository's own pages, and a reference of the public names."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

# pages outside docs/, under the name that they have in the site
OUTSIDE = {
    "README.md": "about/readme.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "CHANGELOG.md": "about/changes.md",
    "benchmarks/README.md": "about/benchmarks.md",
}
# what each page of the reference shows: the modules whose names are public
PAGES = {
    "models": (
        "Models",
        ["cutaway.auto", "cutaway.models.", "cutaway.config.config", "cutaway.outputs", "cutaway.nn."],
    ),
    "tokenization": ("Tokenizers", ["cutaway.tokenization."]),
    "generate": ("Generation", ["cutaway.generate"]),
    "pipelines": ("Pipelines", ["cutaway.pipelines"]),
    "inspect": ("Looking inside", ["cutaway.inspect"]),
    "train": ("Training", ["cutaway.train"]),
    "errors": ("Errors", ["cutaway.errors"]),
}


def public_names() -> dict[str, str]:
    """{public name: the module that defines it}, of the package and of its rooms; what others define is left out."""
    sys.path.insert(0, str(ROOT))
    import cutaway
    from cutaway import errors, generate, inspect, pipelines, train

    homes = {}
    for room in (cutaway, generate, inspect, pipelines, train, errors):
        for name in getattr(room, "__all__", [n for n in vars(errors) if n[0].isupper()]):
            value = getattr(room, name)
            module = getattr(value, "__module__", "") or ""
            if module.startswith("cutaway.") and getattr(value, "__name__", "") == name:
                homes[name] = module
    return homes


def reference(title: str, modules: list[str], homes: dict[str, str]) -> str:
    names = sorted(n for n, home in homes.items() if any(home == m or home.startswith(m) for m in modules))
    shown = [f"::: {homes[name]}.{name}" for name in names if not homes[name].startswith("cutaway.families")]
    return f"# {title}\n\nMade from the docstrings.\n\n" + "\n\n".join(shown) + "\n"


def on_files(files: Files, config: Any) -> Files:
    homes = public_names()
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=inside(ROOT / path, name)))
    for page, (title, modules) in PAGES.items():
        files.append(File.generated(config, f"reference/{page}.md", content=reference(title, modules, homes)))
    return files


def inside(path: Path, name: str) -> str:
    """The text of a page outside docs/, with its links as they are seen from `name` in the site."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match.group(2), match.group(3) or ""
        if re.match(r"[a-z]+:", target) or not target:
            return match.group(0)
        file = (path.parent / target).resolve()
        where = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else target
        if where in OUTSIDE:
            return f"{match.group(1)}../{OUTSIDE[where]}{anchor})"
        if where.startswith("docs/") and file.exists():
            return f"{match.group(1)}../{where.removeprefix('docs/')}{anchor})"
        return f"{match.group(1)[:-2]}]" if match.group(1).endswith("](") else match.group(0)

    return re.sub(r"(\[[^\]]*\]\()([^)#\s]*)(#[^)]*)?\)", moved, path.read_text(encoding="utf-8"))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ lead to the pages' names in the site."""
    up = "../" * page.file.src_uri.count("/")
    for path, name in OUTSIDE.items():
        markdown = re.sub(rf"\]\((?:\.\./)+{re.escape(path)}", f"]({up}{name}", markdown)
    return markdown
