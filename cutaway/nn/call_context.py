"""What belongs to one call of a model and to nobody else's: recordings, edits, adapters, and evaluation mode.

Several threads and asyncio tasks may use one model at once. So nothing that a call asks for is kept on the model: it
is in one context variable (PEP 567), which each thread and each task has for itself. A task, or `asyncio.to_thread`,
begins with a copy of what its maker has; a thread begins with nothing, unless it is run in a copied context.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.locks.fork_lock import ForkLock
from cutaway.nn.engine_modules import engine_modules

if TYPE_CHECKING:
    from cutaway.nn.activations.edits import Edits
    from cutaway.nn.activations.recorder import Recorder
    from cutaway.nn.packed_batch import PackedBatch

# modules of torch that do the same in training as in evaluation
_SAME_IN_BOTH = frozenset(
    f"torch.nn.modules.{name}" for name in ("container", "linear", "module", "normalization", "sparse")
)


class Scope:
    """One `with` block that looks into a model, or changes what it reads.

    Attributes:
        model: the base model, or the stack, that it is about; None once the block has ended, also where a copy of the
            context lives on.
        recorder, edits: what records, and what is edited. vectors: what a stack reads in place of its tokens' vectors.
    """

    __slots__ = ("edits", "model", "recorder", "vectors")

    def __init__(
        self, model: object, recorder: Recorder | None = None, edits: Edits | None = None, vectors: Tensor | None = None
    ) -> None:
        self.model, self.recorder, self.edits, self.vectors = model, recorder, edits, vectors


class AdaptersOfACall(Protocol):
    """Which adapter acts on which row of a call (`nn.lora.AdapterCall`)."""

    @property
    def choice(self) -> object:
        """Of which model."""

    @property
    def names(self) -> tuple[str | None, ...]:
        """The adapter of each text."""

    def over(self, rows: PackedBatch) -> AdaptersOfACall:
        """The same on a batch of this layout."""

    def parts(self, n: int) -> list[tuple[str, Tensor | None]]:
        """[(adapter, which of the n rows that a layer reads, None for all)]."""


class PartOf(NamedTuple):
    """A base model that runs as a part of another: what is asked of the whole, under `prefix`, is asked of the part."""

    part: object
    whole: object
    prefix: str


class CallContext(NamedTuple):
    """What the calls of this thread or task have been asked for.

    Attributes:
        scopes: the blocks that are open, the outermost first. adapters: which adapter acts on which row, or None.
        evaluating: whether models run without dropout, whatever their mode.
        rows: the layout of the batch that the pass computes, by which hooks are shown padded tensors.
        part: the base model that runs as a part of another, or None.
        whole: whether the pass computes words that the mask hides as well.
        before_pass: called before each pass of a stack; it may let others use the model meanwhile, or raise.
    """

    scopes: tuple[Scope, ...] = ()
    adapters: AdaptersOfACall | None = None
    evaluating: bool = False
    rows: weakref.ref[PackedBatch] | None = None
    part: PartOf | None = None
    whole: bool = False
    before_pass: Callable[[], None] | None = None


_CURRENT: ContextVar[CallContext] = ContextVar("cutaway_call", default=CallContext())  # noqa: B039 - it cannot change


def current() -> CallContext:
    """The context of this thread or task."""
    return _CURRENT.get()


def scopes_of(model: object) -> Sequence[Scope]:
    """The open blocks about `model`, a base model or a stack, or about what it is a part of; the outermost first."""
    scopes, part = _CURRENT.get().scopes, _CURRENT.get().part
    if not scopes:
        return ()
    whole = part.whole if part is not None and part.part is model else model
    return [scope for scope in scopes if scope.model is model or scope.model is whole]


def prefix_of(model: object) -> str:
    """What stands before a base model's addresses in this call: "" where it runs alone, "encoder." as a part."""
    part = _CURRENT.get().part
    return part.prefix if part is not None and part.part is model else ""


def whole_of(model: object) -> object:
    """What a base model is a part of in this call; itself where it runs alone."""
    part = _CURRENT.get().part
    return part.whole if part is not None and part.part is model else model


@contextmanager
def as_part(part: object, whole: object, prefix: str) -> Iterator[None]:
    """Inside, passes of the base model `part` are the passes of `whole` at the addresses that begin with `prefix`.

    Raises:
        InputError: the part itself is recorded or edited, under addresses that it does not have here.
    """
    before = _CURRENT.get()
    if any(scope.model is part and (scope.recorder is not None or scope.edits is not None) for scope in before.scopes):
        raise InputError(
            f"{type(part).__name__} runs as a part of {type(whole).__name__} here: record and edit the whole, under "
            f"addresses that begin with {prefix!r}."
        )
    _CURRENT.set(before._replace(part=PartOf(part, whole, prefix)))
    try:
        yield
    finally:
        _CURRENT.set(_CURRENT.get()._replace(part=before.part))


def asked_of(model: object) -> tuple[list[Recorder], list[Edits]]:
    """What records and what edits the passes of a base model; the outermost first."""
    scopes = scopes_of(model)
    if not scopes:
        return [], []
    recorders = [scope.recorder for scope in scopes if scope.recorder is not None]
    return recorders, [scope.edits for scope in scopes if scope.edits is not None]


@contextmanager
def within(scope: Scope) -> Iterator[None]:
    """Inside, calls from this thread or task know of `scope`; at the end it is over in every copy of the context."""
    now = _CURRENT.get()
    _CURRENT.set(now._replace(scopes=(*now.scopes, scope)))
    try:
        yield
    finally:
        scope.model = None
        now = _CURRENT.get()  # blocks need not end in the order in which they began
        _CURRENT.set(now._replace(scopes=tuple(one for one in now.scopes if one is not scope)))


def rows_of_call() -> PackedBatch | None:
    """The layout of the batch that the pass of this thread or task computes, or computed last."""
    rows = _CURRENT.get().rows
    return None if rows is None else rows()


def take_rows(rows: PackedBatch | None) -> None:
    """Let `rows` be the layout of the pass of this thread or task."""
    _CURRENT.set(_CURRENT.get()._replace(rows=None if rows is None else weakref.ref(rows)))


@contextmanager
def of_no_row() -> Iterator[None]:
    """Inside, what layers read is none of the batch's tokens, so that hooks are shown it as it is."""
    before = rows_of_call()
    take_rows(None)
    try:
        yield
    finally:
        take_rows(before)


@contextmanager
def hidden_words_computed() -> Iterator[None]:
    """Inside, passes compute the words that their mask hides as well, which no other word sees; at the end, as before.

    For labels of such words, and for upstream's loss of spans, which looks for an answer among them too.
    """
    before = _CURRENT.get().whole
    _CURRENT.set(_CURRENT.get()._replace(whole=True))
    try:
        yield
    finally:
        _CURRENT.set(_CURRENT.get()._replace(whole=before))


@contextmanager
def calling_before_passes(function: Callable[[], None]) -> Iterator[None]:
    """Inside, `function` is called before each pass of a stack, so that long work of many passes can be held or ended.

    It comes between two passes, where no kernel and no buffer is in use: what runs meanwhile may use the same model.
    """
    before = _CURRENT.get()
    _CURRENT.set(before._replace(before_pass=function))
    try:
        yield
    finally:
        _CURRENT.set(_CURRENT.get()._replace(before_pass=before.before_pass))


def begin_pass() -> None:
    """A stack is about to run: whoever asked to be called before it is."""
    function = _CURRENT.get().before_pass
    if function is not None:
        function()


def take_adapters(call: AdaptersOfACall | None) -> None:
    """Let `call` say which adapters act, in this thread or task, until another call is set."""
    _CURRENT.set(_CURRENT.get()._replace(adapters=call))


@contextmanager
def entered(context: CallContext) -> Iterator[None]:
    """Inside, the context is `context`: for work that is done later, or by another thread (torch's gradients)."""
    before = _CURRENT.get()
    _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.set(before)


def evaluating() -> bool:
    """Whether models run without dropout in this thread or task, whatever their mode.

    The engine asks `module.training and not evaluating()`, so that a model in evaluation mode costs no look at it.
    """
    return _CURRENT.get().evaluating


class EvaluationAware(nn.Module):
    """A model whose `training` is also False inside a call that evaluates, for whoever reads it there.

    `train()` and `eval()` set the mode of the model, for everybody; a call that evaluates changes nothing on it.
    """

    @property
    def training(self) -> bool:
        """Whether this module drops out and learns in the call that asks."""
        return self.__dict__["training"] and not _CURRENT.get().evaluating

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["training"] = mode


_LOCK = ForkLock()
_HELD: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()  # module -> calls that evaluate it now


class Evaluation:
    """Evaluation of one model: `with evaluation():`, as often as wanted, in any number of threads.

    The engine's modules ask the context, so the mode of the model stays what it is: another thread that trains it keeps
    its dropout. Only modules that are not the library's own have no other way than their `training`: those are set to
    evaluation while any call needs it, and each gets its own mode back after the last.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.others = [module for _, module in engine_modules(model) if _has_own_mode(module)]

    def __call__(self) -> _Evaluating:
        return _Evaluating(self)

    def _hold(self) -> list[nn.Module]:
        with _LOCK:
            held = [module for module in self.others if module.training or module in _HELD]
            for module in held:
                _HELD[module] = _HELD.get(module, 0) + 1
                module.training = False
        return held

    @staticmethod
    def _release(held: list[nn.Module]) -> None:
        with _LOCK:
            for module in held:
                _HELD[module] -= 1
                if not _HELD[module]:
                    del _HELD[module]
                    module.training = True


class _Evaluating:
    """One call that evaluates; a class, since a generator would cost a short text more than all else here."""

    __slots__ = ("before", "evaluation", "inside", "switched")

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.switched: list[nn.Module] = []

    def __enter__(self) -> None:
        self.before = before = _CURRENT.get()
        if self.evaluation.others:
            self.switched = self.evaluation._hold()
        self.inside = inside = before if before.evaluating else before._replace(evaluating=True)
        _CURRENT.set(inside)

    def __exit__(self, *error: object) -> None:
        before, now = self.before, _CURRENT.get()
        _CURRENT.set(before if now is self.inside else now._replace(evaluating=before.evaluating))
        if self.switched:
            self.evaluation._release(self.switched)


def _has_own_mode(module: nn.Module) -> bool:
    """Whether a module does something else in training, and the library cannot tell it not to."""
    home = type(module).__module__
    return not isinstance(module, EvaluationAware) and home not in _SAME_IN_BOTH and not home.startswith("cutaway.")
