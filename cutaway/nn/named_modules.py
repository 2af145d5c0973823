"""Modules under their published names.

The engine has its own names (`blocks.3.attn.q`). A published checkpoint has others
(`encoder.layer.3.attention.self.query`). The family's table joins the two. To the outside a model is its published
names: they are attributes, and `named_modules`, `named_parameters`, `state_dict` and `print` show them. Where a name
stands for one of our modules, it is that module; where for a few, a `ModuleGroupView` of them. The engine's own tree
is what torch registers, and `model.engine` lists it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import Any, NoReturn, Self, cast

from torch import Tensor, nn

from cutaway.errors import CheckpointError, ConfigError
from cutaway.nn.cpu.block_weight import FIXED, BlockWeight
from cutaway.nn.cpu.torch_private import state_version
from cutaway.nn.engine_modules import EngineTree, engine_modules
from cutaway.nn.name_tree import Entry, NamedGroup, NamedLayer, name_tree
from cutaway.nn.published_layer import part_names
from cutaway.nn.weight_map import WeightSource, tensor_names

LISTED = 4  # names of layers in an error


State = dict[str, Any]
_SHOWS_ENGINE = ContextVar("shows the engine", default=False)


@contextmanager
def engine_names() -> Iterator[None]:
    """Inside, in this thread or task, modules show the engine's tree: for what walks the modules that are called."""
    token = _SHOWS_ENGINE.set(True)
    try:
        yield
    finally:
        _SHOWS_ENGINE.reset(token)


def shows_engine() -> bool:
    """Whether modules show the engine's tree, inside `engine_names()`."""
    return _SHOWS_ENGINE.get()


class NamedModule(nn.Module):
    """A module of the engine; `_published` holds the published names of what lies inside it."""

    _published: Mapping[str, Entry] = {}
    _views: PublishedViews

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules")
        module = None if modules is None else modules.get(name)
        if module is not None:  # what is asked for at each joint of each pass
            return module
        try:
            return super().__getattr__(name)
        except AttributeError:
            names = self._published
            if name not in names:
                raise
        return resolve(self, self, name, names[name])

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, nn.Module):
            if name in self._published and name not in self._modules:
                replace_module(self, self._published[name], value)
                return
            part = getattr(self._modules.get(name), "part", None)
            if part is not None:
                part.separate()  # another layer cannot be a part of the published one
        super().__setattr__(name, value)  # type: ignore[arg-type]

    @property
    def engine(self) -> EngineTree:
        """This module's tree under the engine's names."""
        return EngineTree(self)

    def published_items(self) -> Iterator[tuple[str, nn.Module]]:
        """(published name, module) of what lies inside, in the published order, then what has no published name."""
        if shows_engine():
            yield from self.engine.named_children()
            return
        names = self._published
        named = {path.partition(".")[0] for entry in names.values() for path in _paths(entry)}
        for name, entry in names.items():
            child = resolve_or_none(self, self, name, entry)
            if child is not None:
                yield name, child
        for name, child in self._modules.items():
            if child is not None and name not in named and name not in names and _is_shown(child):
                yield name, child

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, under the published names."""
        seen: set[int] = set()
        for name, child in self.published_items():
            if id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, under the published names."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self.published_items():
            yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def state_dict(  # type: ignore[override]
        self, *args: object, destination: State | None = None, prefix: str = "", keep_vars: bool = False
    ) -> State:
        """As torch's, under the published names; a tied weight stands under each of its names."""
        return saved_state(self, destination, prefix, keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; the names may be the published ones or the engine's, also mixed.

        Raises:
            CheckpointError: it has other numbers for a weight in blocks of few bits. Nothing is written.
        """
        if not assign:
            check_fixed(self, state_dict)
        names = {ours: theirs for theirs, entries in published_tensors(self).items() for ours, _ in entries}
        try:
            report = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:  # sizes that do not fit, under the engine's names
            text = re.sub(r"(?<=size mismatch for )[^\s:]+", lambda m: names.get(m[0], m[0]), str(error))
            raise RuntimeError(text) from None
        missing = list(dict.fromkeys(names.get(name, name) for name in report.missing_keys))
        keys_of_state = state_dict.keys()
        report.missing_keys[:] = [name for name in missing if name not in keys_of_state]
        if strict and (report.missing_keys or report.unexpected_keys):
            said = [
                f"{what} key(s) in state_dict: {', '.join(map(repr, keys))}."
                for what, keys in (("Missing", report.missing_keys), ("Unexpected", report.unexpected_keys))
                if keys
            ]
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(said))
        return report

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: object) -> None:
        to_engine_names(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if recurse:
            for child in self._modules.values():
                if child is not None:
                    child._apply(fn)
        return super()._apply(fn, recurse=False)  # type: ignore[no-untyped-call, no-any-return]

    def train(self, mode: bool = True) -> Self:
        """Training mode, or not, of all modules inside."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self._modules.values():
            if child is not None:
                child.train(mode)
        return self

    def __repr__(self) -> str:
        return shown(self, self.published_items())


class Unhookable(nn.Module):
    """A module whose calls are not those of the published module: a hook on it would not run, or see something else."""

    def _refuse_hook(self, *args: object, **kwargs: object) -> NoReturn:
        inside = ", ".join(name for name, _ in self.named_children())
        raise ConfigError(
            f"no call of the engine is the published module {type(self).__name__} ({inside}): a hook on it would not "
            "run, or not see what it sees upstream. Hook the layers in it, look with model.record(address), or change "
            "with model.edit({address: ...}); model.addresses() lists the addresses."
        )

    register_forward_hook = register_forward_pre_hook = _refuse_hook
    register_full_backward_hook = register_full_backward_pre_hook = register_backward_hook = _refuse_hook


class PublishedViews:
    """The views that were made of what lies inside a module, so that each is one object: no state, and never copied."""

    def __init__(self) -> None:
        self.made: dict[str, ModuleGroupView | DerivedLayerView] = {}

    def __deepcopy__(self, memo: object) -> PublishedViews:
        return PublishedViews()

    def __reduce__(self) -> tuple[type[PublishedViews], tuple[()]]:
        return PublishedViews, ()


class ModuleGroupView(Unhookable):
    """Several of our modules under one published name. It owns nothing: parameters are those of the engine."""

    _owner: nn.Module
    _names: Mapping[str, Entry] = {}
    _views: PublishedViews

    def __init__(self, owner: nn.Module, group: NamedGroup) -> None:
        super().__init__()
        self.__dict__["_owner"] = owner  # not by assignment, which would register it as a child
        self._names, self._views = group.names, PublishedViews()

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            return resolve(self._owner, self, name, self._names[name])
        raise AttributeError(f"no {name!r} here; there are: {', '.join(self._names)}")

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, nn.Module) and name in self._names:
            replace_module(self._owner, self._names[name], value)
        else:
            super().__setattr__(name, value)  # type: ignore[arg-type]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            path = _list_path(self._owner, self._names)
            if path is None:
                raise TypeError("this is no list of layers, and cannot be cut.")
            return self._owner.get_submodule(path)[index]  # type: ignore[index]
        return getattr(self, str(range(len(self._names))[index]))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def published_items(self) -> Iterator[tuple[str, nn.Module]]:
        """As NamedModule.published_items."""
        for name, entry in self._names.items():
            child = resolve_or_none(self._owner, self, name, entry)
            if child is not None:
                yield name, child

    named_children = NamedModule.named_children
    named_modules = NamedModule.named_modules
    state_dict = NamedModule.state_dict  # type: ignore[assignment]
    __repr__ = NamedModule.__repr__

    @property
    def training(self) -> bool:
        """The mode of the engine's module around it."""
        return self._owner.training

    @training.setter
    def training(self, mode: bool) -> None:
        pass

    def train(self, mode: bool = True) -> ModuleGroupView:
        for _, child in self.published_items():
            child.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for _, child in self.published_items() if recurse else ():
            child._apply(fn)
        return self

    def forward(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: nothing of the engine computes this alone."""
        self._refuse_hook()


class DerivedLayerView(Unhookable):
    """Layers of ours that are published as one and hold parameters of their own: read-only, in the published shape.

    So it is where weights lie in blocks, or were frozen or replaced one by one.
    """

    def __init__(self, layers: list[nn.Module], sources: Sequence[WeightSource]) -> None:
        super().__init__()
        self._layers, self._sources = layers, tuple(sources)  # a plain list: they are the engine's modules' children
        self._source = self._sources[0]

    @property
    def weight(self) -> Tensor:
        return self._source.to_published([layer.weight for layer in self._layers])  # type: ignore[misc]

    @property
    def bias(self) -> Tensor | None:
        biases = [layer.bias for layer in self._layers]
        return None if any(b is None for b in biases) else self._source.to_published(biases)  # type: ignore[arg-type]

    def published_items(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers, by their numbers."""
        return ((str(i), layer) for i, layer in enumerate(self._layers))

    named_children = NamedModule.named_children
    named_modules = NamedModule.named_modules

    def state_dict(  # type: ignore[override]
        self, *args: object, destination: State | None = None, prefix: str = "", keep_vars: bool = False
    ) -> State:
        """The published weight and bias."""
        out = OrderedDict() if destination is None else destination
        for leaf, value in (("weight", self.weight), ("bias", self.bias)):
            if value is not None:
                out[prefix + leaf] = value if keep_vars else value.detach()
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self._source.gather([layer(x) for layer in self._layers], -1)

    def extra_repr(self) -> str:
        return f"weight={list(self.weight.shape)}"


def saved_state(module: nn.Module, destination: State | None, prefix: str, keep_vars: bool) -> State:
    """What `module.state_dict` gives: its own tensors, then those of its published children."""
    out: State = OrderedDict() if destination is None else destination
    metadata = {"version": state_version(module)}
    if destination is None:
        vars(out)["_metadata"] = OrderedDict()
    if hasattr(out, "_metadata"):
        out._metadata[prefix[:-1]] = metadata
    for before in module._state_dict_pre_hooks.values():
        before(module, prefix, keep_vars)
    module._save_to_state_dict(out, prefix, keep_vars)
    for name, child in module.published_items():  # type: ignore[operator]
        child.state_dict(destination=out, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in module._state_dict_hooks.values():
        changed = hook(module, out, prefix, metadata)
        out = out if changed is None else changed
    return out


def published_tensors(root: nn.Module) -> dict[str, list[tuple[str, WeightSource | None]]]:
    """{published name of a tensor: [(the engine's name of it, our part of it or None for the whole)]}."""
    ours: dict[int, list[str]] = {}
    for path, module in engine_modules(root, remove_duplicate=False):
        ours.setdefault(id(module), []).append(path)
    tensors: dict[str, list[tuple[str, WeightSource | None]]] = {}

    def add(published: str, module: nn.Module, source: WeightSource | None) -> None:
        for path in ours.get(id(module), ()):
            for leaf in tensor_names(module):
                name = f"{published}.{leaf}" if published else leaf
                tensors.setdefault(name, []).append((f"{path}.{leaf}" if path else leaf, source))

    for published, module in root.named_modules(remove_duplicate=False):
        if isinstance(module, DerivedLayerView):
            for layer, source in zip(module._layers, module._sources, strict=True):
                add(published, layer, source)
        else:
            add(published, module, None)
    return tensors


def to_engine_names(root: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Rename what `state` holds for `root` to what torch looks for: published names and those of parts, also mixed."""
    published = published_tensors(root)
    known = {ours for entries in published.values() for ours, _ in entries}
    parts: dict[str, list[tuple[int, WeightSource, Tensor]]] = {}
    of_parts = {
        part: (fused_name, one.source) for fused_name, entries in part_names(root).items() for part, one in entries
    }
    for key in [key for key in state if key.startswith(prefix)]:
        name = key[len(prefix) :]
        if name in published:
            value = state[key] if name in known and name in {o for o, _ in published[name]} else state.pop(key)
            for ours, source in published[name]:
                state[prefix + ours] = value if source is None else source.from_published(value)
        elif name in of_parts:
            fused_name, source = of_parts[name]
            parts.setdefault(fused_name, []).append((source.part, source, state.pop(key)))
    for fused_name, group in parts.items():
        group.sort(key=lambda one: one[0])
        if len(group) == group[0][1].n_parts:
            state[prefix + fused_name] = group[0][1].to_published([value for _, _, value in group])


def check_fixed(root: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """CheckpointError where a state dict has other numbers for weights in blocks, which cannot be changed."""
    fixed = {
        f"{path}.{leaf}" if path else leaf: weight
        for path, module in engine_modules(root, remove_duplicate=False)
        for leaf, weight in cast(dict[str, object], module._parameters).items()
        if isinstance(weight, BlockWeight)
    }
    if not fixed:
        return
    state = dict(state_dict)
    to_engine_names(root, state, "")
    wrong = [name for name, weight in fixed.items() if name in state and not weight.same_numbers(state[name])]
    if wrong:
        published = {ours: theirs for theirs, entries in published_tensors(root).items() for ours, _ in entries}
        listed = ", ".join(published.get(name, name) for name in wrong[:LISTED])
        more = f" and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise CheckpointError(f"state_dict has other numbers for {listed}{more}: {FIXED}")


def shown(module: nn.Module, children: Iterable[tuple[str, nn.Module]]) -> str:
    """A module as torch prints it, with these children."""
    lines = [f"({name}): " + text.replace("\n", "\n  ") for name, text in _alike_once(children)]
    own = module.extra_repr()
    if not lines:
        return f"{module._get_name()}({own})"
    return f"{module._get_name()}(\n  " + "\n  ".join(([own] if own else []) + lines) + "\n)"


def _alike_once(children: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, str]]:
    """(name, text) of each child; numbered ones that follow one another and read the same once, as torch's lists do."""
    texts = ((name, repr(child)) for name, child in children)
    for (text, is_numbered), run in groupby(texts, lambda one: (one[1], one[0].isdigit())):
        names = [name for name, _ in run]
        if is_numbered and len(names) > 1:
            yield f"{names[0]}-{names[-1]}", f"{len(names)} x {text}"
        else:
            yield from ((name, text) for name in names)


def _paths(entry: Entry) -> Iterator[str]:
    for layer in [entry] if isinstance(entry, NamedLayer) else entry.layers():
        yield from layer.paths


def _common(paths: list[str]) -> str:
    first, *rest = (p.split(".")[:-1] for p in paths)
    n = len(first)
    for other in rest:
        n = min(n, next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), min(n, len(other))))
    return ".".join(first[:n])


def _is_shown(child: nn.Module) -> bool:
    """Whether a module without a published name is listed: one that somebody added, or that holds something."""
    holds = any(m._parameters or m._buffers for _, m in engine_modules(child))
    return holds or not type(child).__module__.startswith(("cutaway.", "torch.nn."))


def resolve(owner: nn.Module, holder: NamedModule | ModuleGroupView, name: str, entry: Entry) -> Any:
    """What the published `name` of `holder` stands for inside the engine's module `owner`.

    Raises:
        AttributeError: the engine's module is gone.
    """
    if isinstance(entry, NamedGroup) and entry.path:
        return owner.get_submodule(entry.path)
    if isinstance(entry, NamedLayer):
        if not entry.derived:
            return owner.get_submodule(entry.paths[0])
        above, _, _ = entry.paths[0].rpartition(".")
        fused = owner.get_submodule(above)._modules.get(_slot(entry))
        if fused is not None:
            return fused
    views = holder._views.made
    view = views.get(name)
    if isinstance(entry, NamedGroup):
        if not isinstance(view, ModuleGroupView) or view._owner is not owner:  # a shallow copy shares its views
            view = views[name] = ModuleGroupView(owner, entry)
        return view
    layers = [owner.get_submodule(path) for path in entry.paths]
    if not isinstance(view, DerivedLayerView) or view._layers != layers:
        view = views[name] = DerivedLayerView(layers, entry.sources)
    return view


def _slot(entry: NamedLayer) -> str:
    return entry.sources[0].name.rpartition(".")[2]


def resolve_or_none(
    owner: nn.Module, holder: NamedModule | ModuleGroupView, name: str, entry: Entry
) -> nn.Module | None:
    """As `resolve`; None where it is gone."""
    try:
        module = resolve(owner, holder, name, entry)
    except AttributeError:
        return None
    if isinstance(module, ModuleGroupView) and not any(True for _ in module.published_items()):
        return None
    return module if isinstance(module, nn.Module) else None


def _listed(paths: Sequence[str]) -> str:
    """The first names of a few, and how many more there are."""
    more = f", and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return ", ".join(paths[:LISTED]) + more


def replace_module(owner: nn.Module, entry: Entry, value: nn.Module) -> None:
    """Put `value` in the place of the one layer or module that a published name stands for.

    Raises:
        AttributeError: the name stands for several.
    """
    if isinstance(entry, NamedGroup):
        listed = _list_path(owner, entry.names) if not entry.path and isinstance(value, nn.ModuleList) else None
        if listed is not None:  # T5's first layer shows a table beside its block, so its list is no module of ours
            above, _, last = listed.rpartition(".")
            setattr(owner.get_submodule(above), last, value)
            return
        if not entry.path:
            paths = list(_paths(entry))
            raise AttributeError(f"this name stands for {len(paths)} layers ({_listed(paths)}); replace each alone.")
        path = entry.path
    elif entry.derived:
        above, _, _ = entry.paths[0].rpartition(".")
        path = f"{above}.{_slot(entry)}" if above else _slot(entry)
        parent = owner.get_submodule(above)
        if _slot(entry) not in parent._modules:
            raise AttributeError(
                f"this name stands for {len(entry.paths)} layers ({_listed(entry.paths)}), whose weights lie "
                "apart; replace each alone."
            )
    else:
        path = entry.paths[0]
    above, _, last = path.rpartition(".")
    setattr(owner.get_submodule(above), last, value)


def _list_path(owner: nn.Module, names: Mapping[str, Entry]) -> str | None:
    """The engine's list of modules whose members these numbered names show, with what is shown beside them; or None."""
    if not names or not all(name.isdigit() for name in names):
        return None
    common: set[str] = set()
    for name, entry in names.items():
        steps = [path.split(".") for path in _paths(entry)]
        above = {".".join(s[:i]) for s in steps for i, step in enumerate(s) if step == name}
        lists = {path for path in above if isinstance(owner.get_submodule(path), nn.ModuleList)}
        common = lists if not common else common & lists
    return common.pop() if len(common) == 1 else None


def attach_published_names(owner: NamedModule, layers: Mapping[str, WeightSource]) -> None:
    """Teach `owner` and every part inside it their published names; `layers`: {our layer: published layer}."""
    weights: dict[str, set[str]] = {}  # a module -> the modules inside it that have weights
    for name, module in engine_modules(owner, remove_duplicate=False):
        if module._parameters and name:
            steps = [i for i, letter in enumerate(name) if letter == "."]
            layer = next((name[:at] for at in steps if name[:at] in layers), name)  # a layer may hold others
            for at in steps:
                if at < len(layer):
                    weights.setdefault(name[:at], set()).add(layer)
    tree = name_tree(layers)
    for entry in tree.names.values():
        _find_modules(owner, entry, weights)
    _publish_inside(owner, tree.names)


def _find_modules(owner: nn.Module, entry: Entry, weights: Mapping[str, set[str]]) -> None:
    """Say of every group which engine's module it is exactly, if one."""
    if isinstance(entry, NamedLayer):
        return
    paths = set(_paths(entry))
    path = _common(sorted(paths))
    if path and weights.get(path, set()) == paths:
        module = owner.get_submodule(path)
        if type(module).__module__.startswith("cutaway.") or entry.names.keys() == module._modules.keys():
            entry.path = path
    for inner in entry.names.values():
        _find_modules(owner, inner, weights)


def _publish_inside(owner: NamedModule, names: Mapping[str, Entry]) -> None:
    owner._published, owner._views = names, PublishedViews()
    for module, inner in _inside(owner, names):
        _publish_inside(module, inner)


def _inside(owner: nn.Module, names: Mapping[str, Entry]) -> Iterator[tuple[NamedModule, Mapping[str, Entry]]]:
    """The engine's modules that groups of `names` are, each with its own names, the outermost only."""
    for entry in names.values():
        if isinstance(entry, NamedLayer):
            continue
        module = owner.get_submodule(entry.path) if entry.path else None
        if isinstance(module, NamedModule):
            yield module, entry.inside(entry.path).names
        else:
            yield from _inside(owner, entry.names)
