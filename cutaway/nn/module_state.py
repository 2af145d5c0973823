"""Whether modules are what they were: attributes, children, hooks and classes, compared in a few calls."""

from __future__ import annotations

from torch import nn

from cutaway.nn.engine_modules import engine_modules

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OURS = ("cutaway.", "torch.nn.modules.")


class ModuleState:
    """What the modules inside `root`, itself included, are at the moment; not the numbers of their weights.

    Attributes:
        root: the outermost module.
        modules: all of them.
        is_plain: whether what they compute follows from this and their weights: all are the library's own, nobody
            watches them, and no adapter can act on them.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.modules = [module for _, module in engine_modules(root)]
        self._attributes = [vars(module) for module in self.modules]
        self._children = [module._modules for module in self.modules]
        self._hooks = [vars(module)[name] for module in self.modules for name in _HOOKS]
        self._attributes_then = [dict(attributes) for attributes in self._attributes]
        self._children_then = [dict(children) for children in self._children]
        self._types = [type(module) for module in self.modules]
        self._kinds = [(kind, kind.forward) for kind in set(self._types)]
        self._call = nn.Module.__call__
        self.is_plain = (
            not any(self._hooks)
            and all(f"{kind.__module__}.".startswith(_OURS) for kind, _ in self._kinds)
            and all("forward" not in attributes and attributes.get("site") is None for attributes in self._attributes)
        )

    def holds(self) -> bool:
        """Whether all of it is still so. A parameter or buffer in another's place is not seen here."""
        if any(self._hooks) or nn.Module.__call__ is not self._call:
            return False
        if not all(kind.forward is forward for kind, forward in self._kinds):
            return False
        if list(map(type, self.modules)) != self._types:  # somebody gave one another class
            return False
        try:
            return self._attributes == self._attributes_then and self._children == self._children_then
        except (RuntimeError, ValueError):  # an array in the place of another one, which are not simply equal or not
            return False
