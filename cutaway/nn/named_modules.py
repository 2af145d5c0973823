"""Modules that also answer to their published names.

The engine has its own names (`blocks.3.attn.q`). A published checkpoint has others
(`encoder.layer.3.attention.self.query`). The family's table joins the two, and every published name works as an
attribute: where it stands for one of our modules, that module is returned; where it stands for a few modules or for a
transformed weight, a `ModuleGroupView` of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from cutaway.nn.weight_map import WeightSource

Names = dict[str, Any]  # published name -> nested Names, or (our module's path, Source) at a leaf


class NamedModule(nn.Module):
    """A module of the engine; `_published` holds the published names of what lies inside it."""

    _published: Names = {}  # noqa: RUF012 - replaced as a whole, never written to

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            names = self._published
            if name not in names:
                raise
        return resolve(self, names[name])

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and name in self._published and name not in self._modules:
            replace(self, self._published[name], value)
        else:
            super().__setattr__(name, value)


class ModuleGroupView(nn.Module):
    """Several of our modules under one published name. It owns nothing: parameters are those of the engine."""

    _owner: nn.Module
    _names: Names = {}  # noqa: RUF012 - replaced as a whole, never written to

    def __init__(self, owner: nn.Module, names: Names) -> None:
        super().__init__()
        self.__dict__["_owner"] = owner  # not by assignment, which would register it as a child
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            return resolve(self._owner, self._names[name])
        raise AttributeError(f"no {name!r} here; there are: {', '.join(self._names)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and name in self._names:
            replace(self._owner, self._names[name], value)
        else:
            super().__setattr__(name, value)

    def __getitem__(self, index: int) -> Any:
        return resolve(self._owner, self._names[str(index % len(self._names))])

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        for name, entry in self._names.items():
            child = resolve(self._owner, entry)
            if isinstance(child, nn.Module):
                yield name, child

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        memo = set() if memo is None else memo
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def train(self, mode: bool = True) -> ModuleGroupView:
        for _, child in self.named_children():
            child.train(mode)
        return self

    def extra_repr(self) -> str:
        return "\n".join(f"({name}): {child!r}" for name, child in self.named_children())


class DerivedLayerView(nn.Module):
    """Layers of ours that are published transposed or as parts of one: read-only, in the published shape."""

    def __init__(self, layers: list[nn.Module], source: WeightSource) -> None:
        super().__init__()
        self._layers, self._source = layers, source  # a plain list: they are children of the engine's own modules

    @property
    def weight(self) -> Tensor:
        return self._source.to_published([layer.weight for layer in self._layers])  # type: ignore[misc]

    @property
    def bias(self) -> Tensor | None:
        biases = [layer.bias for layer in self._layers]
        return None if any(b is None for b in biases) else self._source.to_published(biases)  # type: ignore[arg-type]

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        memo = set() if memo is None else memo
        yield prefix, self
        for i, layer in enumerate(self._layers):
            yield from layer.named_modules(memo, f"{prefix}.{i}" if prefix else str(i), remove_duplicate)

    def forward(self, x: Tensor) -> Tensor:
        return self._source.gather([layer(x) for layer in self._layers], -1)

    def extra_repr(self) -> str:
        return f"weight={list(self.weight.shape)}"


def name_tree(layers: dict[str, WeightSource]) -> Names:
    """{our layer: published layer} -> the tree of published names, with lists of (path, source) at the leaves."""
    tree: Names = {}
    for path, source in layers.items():
        node = tree
        *above, last = source.name.split(".")
        for step in above:
            node = node.setdefault(step, {})
        layers_there = node.setdefault(last, [])
        if source.n_parts > 1 or not layers_there:  # a tied layer is published once
            layers_there.append((path, source))
        if source.also:
            *above, last = source.also.split(".")
            node = tree
            for step in above:
                node = node.setdefault(step, {})
            node[last] = [(path, source)]
    return tree


def _leaves(entry: Any) -> list[tuple[str, WeightSource]]:
    return entry if isinstance(entry, list) else [leaf for e in entry.values() for leaf in _leaves(e)]


def _leaf_modules(module: nn.Module) -> set[str]:
    return {name for name, m in module.named_modules() if m._parameters and name}


def _common(paths: list[str]) -> str:
    first, *rest = (p.split(".")[:-1] for p in paths)
    n = len(first)
    for other in rest:
        n = min(n, next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), min(n, len(other))))
    return ".".join(first[:n])


def resolve(owner: nn.Module, entry: Any) -> Any:
    """What a published name stands for inside `owner`."""
    if isinstance(entry, list):
        path, source = entry[0]
        if len(entry) == 1 and not source.transpose and source.n_parts == 1:
            return owner.get_submodule(path)
        return DerivedLayerView([owner.get_submodule(p) for p, _ in entry], source)
    leaves = _leaves(entry)
    path = _common([p for p, _ in leaves])
    if path:
        module = owner.get_submodule(path)
        is_all_of_it = {f"{path}.{name}" for name in _leaf_modules(module)} == {p for p, _ in leaves}
        if is_all_of_it and (isinstance(module, NamedModule) or all(k.isdigit() for k in entry)):
            return module
    return ModuleGroupView(owner, entry)


def replace(owner: nn.Module, entry: object, value: nn.Module) -> None:
    """Put `value` in the place of the one layer that a published name stands for."""
    leaves = _leaves(entry)
    if not isinstance(entry, list) or len(leaves) != 1 or leaves[0][1].transpose:
        raise AttributeError(
            f"this name stands for {len(leaves)} layers ({', '.join(p for p, _ in leaves[:4])}); replace each alone."
        )
    above, _, last = leaves[0][0].rpartition(".")
    setattr(owner.get_submodule(above), last, value)


def attach_published_names(owner: NamedModule, layers: dict[str, WeightSource]) -> None:
    """Teach `owner` and every part inside it their published names."""
    tree = name_tree(layers)
    owner._published = tree
    _publish_inside(owner, tree)


def _publish_inside(owner: nn.Module, tree: Names) -> None:
    for name, entry in tree.items():
        if isinstance(entry, list):
            continue
        same = owner._modules.get(name)  # called the same on both sides
        module = same if isinstance(same, NamedModule) else resolve(owner, entry)
        if isinstance(module, NamedModule):
            path = name if module is same else _common([p for p, _ in _leaves(entry)])
            module._published = _relative(entry, path)
            _publish_inside(module, module._published)
        else:
            _publish_inside(owner, entry)


def _relative(entry: Any, path: str) -> Any:
    if isinstance(entry, list):
        return [(p[len(path) + 1 :], s) for p, s in entry]
    return {name: _relative(e, path) for name, e in entry.items()}
