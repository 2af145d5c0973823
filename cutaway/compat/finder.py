"""How `cutaway.<a path of upstream's>` is made when somebody imports it.

`cutaway/__init__.py` asks here, as the last of Python's finders: a module that exists is never its business, and
nothing is read, made or imported before somebody asks. What is served is in `cutaway.compat.table`; no other path is.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from cutaway.compat.table import home, is_package, module_names
from cutaway.errors import nearest


class NameLoader:
    """Makes a module whose names are imported from where they live when they are first used."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Python makes an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its names."""
        where = module.__name__.removeprefix("cutaway.")
        names = module_names(where) or ()

        def find(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            if module_names(f"{where}.{name}") is not None:
                return import_module(f"{module.__name__}.{name}")
            if name == "logger":  # each of upstream's modules has one, and ours say all in one
                return logging.getLogger("cutaway")
            lives = home(name)
            if lives is None:
                raise AttributeError(f"{module.__name__} has no {name!r}.{nearest(name, names)}")
            value = getattr(import_module(lives), name)
            vars(module)[name] = value
            return value

        vars(module).update(
            __getattr__=find,
            __dir__=lambda: sorted({*vars(module), *names}),
            __all__=sorted(names),
            __doc__=f"Names of upstream's `{where}`, from where they live in cutaway.",
        )


# old paths of cutaway that documents showed -> where their names are now; served for one release
MOVED = {
    "architecture": "cutaway.config.architecture",
    "model": "cutaway.models",
    "model.backbone": "cutaway.models.backbone",
    "model.cache": "cutaway.nn.kv_cache",
    "model.family": "cutaway.models.family",
    "model.heads": "cutaway.models.lm_heads",
    "inspect.canvas": "cutaway.inspect.plots.canvas",
    "inspect.pictures": "cutaway.inspect.plots.explanation",
    "inspect.picture_generation": "cutaway.inspect.plots.generation",
    "inspect.picture_strip": "cutaway.inspect.plots.strip",
}


class MovedLoader:
    """Makes a module whose names are those of another."""

    def __init__(self, lives: str) -> None:
        self.lives = lives

    def create_module(self, spec: ModuleSpec) -> None:
        """Python makes an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module the names of where it has moved."""
        there = import_module(self.lives)
        vars(module).update({name: value for name, value in vars(there).items() if not name.startswith("__")})
        vars(module)["__getattr__"] = lambda name: getattr(there, name)  # what it has got since
        vars(module)["__doc__"] = f"Moved to `{self.lives}`; importable from here for one release."


def find_spec(name: str) -> ModuleSpec | None:
    """The spec of a path of upstream's or of an old one of ours; None for everything else."""
    where = name.removeprefix("cutaway.")
    if where in MOVED:
        return ModuleSpec(name, MovedLoader(MOVED[where]), is_package=where == "model")  # type: ignore[arg-type]
    if module_names(where) is None:
        return None
    return ModuleSpec(name, NameLoader(), is_package=is_package(where))  # type: ignore[arg-type]
