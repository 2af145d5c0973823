"""What upstream's `isinstance` takes our objects for.

Other people's code asks `isinstance(tokenizer, transformers.PreTrainedTokenizerBase)` before it works with one. Where
an object's type says no, Python asks its `__class__`; ours answer there with a class that is both, once upstream's is
loaded. `type(x)` stays ours, nothing of upstream's is imported, changed or called, and no instance of the answer is
ever made: calling it makes one of ours.
"""

from __future__ import annotations

import copyreg
import sys
import types
from operator import index
from typing import Any, ClassVar, Self, SupportsIndex, cast


class _BothMeta(type):
    """The metaclass of an answer: in all that is done with it, it is our class."""

    _ours: type

    def __call__(cls, *args: object, **kwargs: object) -> object:
        return cls._ours(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return cls._ours in type(instance).__mro__

    def __subclasscheck__(cls, subclass: type) -> bool:
        # an abstract class asks each of its subclasses, and so this one: asking it back would never end
        return cls._ours in subclass.__mro__


class _Answer:
    """The first base of an answer: upstream's classes do not act on a subclass that nobody wrote, and it makes ours."""

    _ours: ClassVar[type[object]]

    def __new__(cls) -> Self:
        return cast(Self, _empty(cls._ours))

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Nothing."""


class KnownUpstream:
    """A class whose objects count as upstream's where those are loaded.

    `upstream` says as which, as "module:name": the first that is loaded counts, and beside it upstream's class of the
    same name as ours.
    """

    upstream: ClassVar[tuple[str, ...]] = ()

    @property
    def __class__(self) -> type:
        """Our class; where upstream's is loaded, one that is both."""
        return _answer(type(self))

    @__class__.setter
    def __class__(self, new: type) -> None:
        object.__dict__["__class__"].__set__(self, _without_answers(new))

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        reduced = super().__reduce_ex__(max(index(protocol), 2))
        # pickle compares the class of `__newobj__` with `__class__`
        return (_empty, *reduced[1:]) if getattr(reduced[0], "__name__", "") == "__newobj__" else reduced


def _empty(ours: type, *args: object) -> object:
    return ours.__new__(ours, *args)


def _loaded(ours: type[KnownUpstream]) -> tuple[type, ...]:
    """Upstream's classes that an object of ours counts as, as far as they are loaded and not its bases anyway."""
    if "transformers" not in sys.modules:
        return ()
    for name in ours.upstream:
        module, _, attribute = name.partition(":")
        base = vars(sys.modules.get(module, types)).get(attribute)
        if isinstance(base, type) and not issubclass(ours, base):
            same = vars(sys.modules["transformers"]).get(ours.__name__)
            return (same if isinstance(same, type) and issubclass(same, base) else base,)
    return ()


def _answer(ours: type[KnownUpstream]) -> type:
    theirs = _loaded(ours)
    if not theirs:
        return ours
    known = vars(ours).get("_upstream_answer")
    if known is not None and known[0] == theirs:
        return cast(type, known[1])
    metas = dict.fromkeys(type(c) for c in (ours, *theirs))
    meta = type("BothMeta", (_BothMeta, *(m for m in metas if m is not type)), {})
    copyreg.pickle(meta, _reduce_answer)  # type: ignore[arg-type]
    both: type = meta(ours.__name__, (_Answer, ours, *theirs), {"__module__": ours.__module__, "_ours": ours})
    type.__setattr__(ours, "_upstream_answer", (theirs, both))
    return both


def own_class(kind: object) -> object:
    """Our class of what an object's `__class__` answers; anything else as it is."""
    return kind._ours if isinstance(kind, _BothMeta) else kind


def _reduce_answer(both: _BothMeta) -> tuple[object, tuple[type]]:
    return _itself, (both._ours,)


def _itself(ours: type) -> type:
    return ours


def _without_answers(new: type) -> type:
    """`new`, made of our classes where somebody derived it from an answer, as FSDP does."""
    if not isinstance(new, _BothMeta):
        return new
    ours: object = vars(new).get("_ours")
    if isinstance(ours, type):
        return ours
    names = {k: v for k, v in vars(new).items() if k not in ("__dict__", "__weakref__")}
    bases = tuple(_without_answers(base) for base in new.__bases__)
    return types.new_class(new.__name__, bases, {}, lambda body: body.update(names))
