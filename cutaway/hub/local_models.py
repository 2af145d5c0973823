"""The models that are on this machine: those in the package and those in the hub's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.errors import HubError, nearest
from cutaway.hub.class_endings import ending_of
from cutaway.hub.files import BUILTIN, PACKAGED, builtin_names, packaged_names

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


@dataclass(frozen=True)
class Entry:
    """One model: its name, where it comes from ("built-in", "package", "cache" or "folder"), its config's `model_type`,
    the bytes of its weights, its task ("" where the config names none), its folder, and in it the file of a GGUF.
    """

    name: str
    source: str
    family: str
    bytes: int
    task: str
    folder: str
    file: str = ""


def entries() -> Iterator[Entry]:
    """Built-in models first, then the cache's, by name. A repository without config or weights is no model."""
    for name in builtin_names():
        yield _entry(name, "built-in", BUILTIN / name.split("/", 1)[1])
    for name in packaged_names():
        one = PACKAGED[name]
        folder = one.folder()
        assert folder is not None
        yield gguf_entry(name, "package", folder / one.gguf_file) if one.gguf_file else _entry(name, "package", folder)
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    for repository in sorted(cache.glob("models--*")):
        snapshots = [path for path in (repository / "snapshots").glob("*") if (path / "config.json").is_file()]
        if snapshots:
            newest = max(snapshots, key=lambda path: path.stat().st_mtime)
            entry = _entry(repository.name.removeprefix("models--").replace("--", "/"), "cache", newest)
            if entry.bytes:
                yield entry


MOST_FOLDERS = 2000  # that are looked into; models are not searched for in whole disks


def entries_below(root: Path, depth: int = 2) -> Iterator[Entry]:
    """The models in a folder and in its folders, `depth` deep: those with config.json and weights, and GGUF files.

    A training's checkpoints inside its folder are no models of their own, and hidden folders are left out.
    """
    waiting, seen = [(root, 0)], 0
    while waiting and seen < MOST_FOLDERS:
        folder, level = waiting.pop(0)
        seen += 1
        try:
            held = sorted(folder.iterdir())
        except OSError:
            continue
        if (folder / "config.json").is_file():
            entry = _entry(str(folder), "folder", folder)
            if entry.bytes:
                yield entry
                continue
        yield from (gguf_entry(str(path), "folder", path) for path in held if path.suffix.lower() == ".gguf")
        if level < depth:
            waiting += [(path, level + 1) for path in held if path.is_dir() and not path.name.startswith(".")]


def remove_cached(name: str) -> int:
    """Remove a repository from the hub's cache; the bytes that are free again.

    Raises:
        HubError: the cache has no such repository.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        cache = None
    held = [one for one in cache.repos if one.repo_type == "model"] if cache is not None else []
    found = next((one for one in held if one.repo_id == name), None)
    if cache is None or found is None:
        names = [one.repo_id for one in held]
        raise HubError(f"The hub's cache has no model {name!r}.{nearest(name, names)} `cutaway models` lists all.")
    plan = cache.delete_revisions(*(revision.commit_hash for revision in found.revisions))
    plan.execute()
    return int(plan.expected_freed_size)


def _entry(name: str, source: str, folder: Path) -> Entry:
    config = _config(folder / "config.json")
    architectures = config.get("architectures")
    class_name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    end = ending_of(class_name)
    return Entry(
        name=name,
        source=source,
        family=str(config.get("model_type", "")),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHTS and path.is_file()),
        task="" if end is None or end.auto == "AutoModel" else end.task,
        folder=str(folder),
    )


def gguf_entry(name: str, source: str, path: Path) -> Entry:
    """A GGUF file, which holds a decoder. Its family is what its header says; "" where that cannot be read."""
    return Entry(name, source, gguf_family(path), path.stat().st_size, "text-generation", str(path.parent), path.name)


def gguf_family(path: Path) -> str:
    """`general.architecture`, the first field of a GGUF file, without reading the rest; "" where another is first."""
    key = b"general.architecture"
    with path.open("rb") as file:
        start = file.read(4 + 4 + 8 + 8 + 8 + len(key) + 4 + 8 + 64)
    head = 24 + 8 + len(key)  # magic, version, two counts; the key's length and the key
    if start[:4] != b"GGUF" or start[32:head] != key or int.from_bytes(start[head : head + 4], "little") != 8:
        return ""
    size = int.from_bytes(start[head + 4 : head + 12], "little")
    return start[head + 12 : head + 12 + min(size, 64)].decode("ascii", "replace")


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # one damaged cache entry must not hide the others
    return found if isinstance(found, dict) else {}
