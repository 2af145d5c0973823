"""The engine's own tree of modules, as torch registers it; what a model shows are its published names."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def engine_modules(
    root: nn.Module, prefix: str = "", remove_duplicate: bool = True, seen: set[int] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Every module with the engine's name of it, `root` first."""
    seen = set() if seen is None else seen
    if remove_duplicate and id(root) in seen:
        return
    seen.add(id(root))
    yield prefix, root
    for name, child in root._modules.items():
        if child is not None:
            yield from engine_modules(child, f"{prefix}.{name}" if prefix else name, remove_duplicate, seen)


class EngineTree:
    """A model by the engine's names: `model.engine.named_parameters()`, with torch's methods and their meaning.

    Layers that are published as one hold no parameters of their own (`cutaway.nn.published_layer`): the published
    parameter stands beside them.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root

    def named_modules(self, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
        """(name, module), the model itself first, with the name ""."""
        return engine_modules(self.root, remove_duplicate=remove_duplicate)

    def modules(self) -> Iterator[nn.Module]:
        """Each module once, in the order of `named_modules`; no names are made."""
        seen: set[int] = set()
        waiting = [self.root]
        while waiting:
            module = waiting.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield module
                waiting += [child for child in reversed(module._modules.values()) if child is not None]

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) of the model's own children."""
        return ((name, child) for name, child in self.root._modules.items() if child is not None)

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter); a tied one by its first name, or by each with remove_duplicate=False."""
        seen: set[int] = set()
        for prefix, module in self.named_modules(remove_duplicate):
            for name, p in module._parameters.items():
                if p is not None and not (remove_duplicate and id(p) in seen):
                    seen.add(id(p))
                    yield f"{prefix}.{name}" if prefix else name, p

    def parameters(self) -> Iterator[nn.Parameter]:
        """Each parameter once, in the order of `named_parameters`."""
        seen: set[int] = set()
        for module in self.modules():
            for p in module._parameters.values():
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    yield p

    def first_parameter(self) -> nn.Parameter | None:
        """The first of `parameters`; without generators, since each short text asks for it."""
        waiting: list[nn.Module | None] = [self.root]
        while waiting:
            module = waiting.pop()
            if module is not None:
                for p in module._parameters.values():
                    if p is not None:
                        return p
                waiting.extend(reversed(module._modules.values()))
        return None

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, buffer), each once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield f"{prefix}.{name}" if prefix else name, buffer

    def get_submodule(self, target: str) -> nn.Module:
        """The module at an engine's path.

        Raises:
            AttributeError: there is none.
        """
        return self.root.get_submodule(target)
