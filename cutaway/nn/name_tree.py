"""The published names of a model's layers as a tree: which of the engine's layers stand under each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from cutaway.nn.weight_map import WeightSource


@dataclass(frozen=True)
class NamedLayer:
    """A published layer: the engine's layers that it is, by their paths, in order, and how each lies in it."""

    paths: tuple[str, ...]
    sources: tuple[WeightSource, ...]

    @property
    def derived(self) -> bool:
        """Whether it is not one of ours as it is."""
        return len(self.paths) > 1 or self.sources[0].transpose or self.sources[0].n_parts > 1

    def inside(self, path: str) -> NamedLayer:
        """The same, seen from the module at `path`."""
        return replace(self, paths=tuple(p[len(path) + 1 :] for p in self.paths))


@dataclass
class NamedGroup:
    """A published module that holds others; `path`: the engine's module that it is exactly, or ""."""

    names: dict[str, NamedLayer | NamedGroup] = field(default_factory=dict)
    path: str = ""

    def layers(self) -> Iterator[NamedLayer]:
        """All layers in it."""
        for entry in self.names.values():
            yield from [entry] if isinstance(entry, NamedLayer) else entry.layers()

    def inside(self, path: str) -> NamedGroup:
        """The same, seen from the module at `path`."""
        own = self.path[len(path) + 1 :] if self.path.startswith(path + ".") else ""
        return NamedGroup({name: entry.inside(path) for name, entry in self.names.items()}, own)


Entry = NamedLayer | NamedGroup


def name_tree(layers: Mapping[str, WeightSource]) -> NamedGroup:
    """{our layer: published layer} -> the tree of published names."""
    tree = NamedGroup()
    for path, source in layers.items():
        above, last = _group_of(tree, source.name)
        there = above.names.get(last)
        if not isinstance(there, NamedLayer):
            above.names[last] = NamedLayer((path,), (source,))
        elif source.n_parts > 1:  # a tied layer is published once
            above.names[last] = NamedLayer((*there.paths, path), (*there.sources, source))
        if source.also:
            above, last = _group_of(tree, source.also)
            above.names[last] = NamedLayer((path,), (source,))
    return tree


def _group_of(tree: NamedGroup, name: str) -> tuple[NamedGroup, str]:
    *above, last = name.split(".")
    for step in above:
        inner = tree.names.setdefault(step, NamedGroup())
        assert isinstance(inner, NamedGroup)
        tree = inner
    return tree, last
