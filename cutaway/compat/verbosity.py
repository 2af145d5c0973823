"""How much the library says: upstream's `utils.logging`, over Python's own logging.

What cutaway has to say goes to the logger "cutaway" and those below it. A program decides what becomes of it; these
functions set its level and its handler.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from logging import CRITICAL, DEBUG, ERROR, FATAL, INFO, NOTSET, WARN, WARNING
from typing import Any, TextIO

from cutaway.errors import ConfigError, nearest

__all__ = ["CRITICAL", "DEBUG", "ERROR", "FATAL", "INFO", "NOTSET", "WARN", "WARNING"]

log_levels = {
    "detail": DEBUG,
    "debug": DEBUG,
    "info": INFO,
    "warning": WARNING,
    "error": ERROR,
    "critical": CRITICAL,
}
_ROOT = "cutaway"
_PLAIN = "[%(levelname)s|%(filename)s:%(lineno)s] %(asctime)s >> %(message)s"


class Handler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the moment: a notebook or a test may have put another in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        """Standard error is always the one there is."""


class _State:
    handler: logging.Handler | None = None
    bars = True
    tqdm_hook: Callable[..., Any] | None = None


def _root() -> logging.Logger:
    """The library's logger, with a handler and a level from its environment once anybody asks for it here."""
    root = logging.getLogger(_ROOT)
    if _State.handler is None:
        _State.handler = Handler()
        root.addHandler(_State.handler)
        root.propagate = False
        wanted = os.environ.get("CUTAWAY_VERBOSITY") or os.environ.get("TRANSFORMERS_VERBOSITY")
        if wanted:
            if wanted.lower() not in log_levels:
                raise ConfigError(
                    f"CUTAWAY_VERBOSITY is {wanted!r}; it may be {', '.join(log_levels)}."
                    f"{nearest(wanted.lower(), log_levels)}"
                )
            root.setLevel(log_levels[wanted.lower()])
        elif root.level == NOTSET:
            root.setLevel(WARNING)
    return root


@functools.lru_cache(maxsize=1024)
def _said(logger: logging.Logger, level: int, message: str) -> None:
    logger.log(level, "%s", message, stacklevel=4)


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger that can also say a thing once: `warning_once`, `info_once`, and `warning_advice`."""

    def process(self, msg: object, kwargs: object) -> tuple[Any, Any]:
        """Passes everything on."""
        return msg, kwargs

    def warning_once(self, message: object, *args: object, **kwargs: object) -> None:
        """Warns of this message once in the life of the process."""
        _said(self.logger, WARNING, str(message) % args if args else str(message))

    def info_once(self, message: object, *args: object, **kwargs: object) -> None:
        """Says this message once in the life of the process."""
        _said(self.logger, INFO, str(message) % args if args else str(message))

    def warning_advice(self, message: object, *args: object, **kwargs: Any) -> None:
        """A warning that TRANSFORMERS_NO_ADVISORY_WARNINGS=1 turns off."""
        if not os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS"):
            self.warning(message, *args, stacklevel=2, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Handlers, propagation and the rest are the logger's own."""
        if name == "logger":
            raise AttributeError(name)
        return getattr(self.logger, name)


def get_logger(name: str | None = None) -> Logger:
    """The library's logger, or the one of this name, with `warning_once`."""
    root = _root()
    return Logger(root if name is None else logging.getLogger(name), {})


def get_log_levels_dict() -> dict[str, int]:
    """The levels by name."""
    return log_levels


def get_verbosity() -> int:
    """The level from which the library says things, such as logging.WARNING."""
    return _root().getEffectiveLevel()


def set_verbosity(verbosity: int) -> None:
    """Let the library say what is of this level or above."""
    _root().setLevel(verbosity)


def set_verbosity_debug() -> None:
    """Let the library say everything."""
    set_verbosity(DEBUG)


def set_verbosity_info() -> None:
    """Let the library say what it does."""
    set_verbosity(INFO)


def set_verbosity_warning() -> None:
    """Let the library say what may be wrong: the default."""
    set_verbosity(WARNING)


def set_verbosity_error() -> None:
    """Let the library say only what is wrong."""
    set_verbosity(ERROR)


def disable_default_handler() -> None:
    """Write nothing to standard error; handlers of your own are still called."""
    root = _root()
    if _State.handler is not None:
        root.removeHandler(_State.handler)
        root.addHandler(logging.NullHandler())  # Python writes warnings that nobody handles to standard error


def enable_default_handler() -> None:
    """Write to standard error again."""
    root = _root()
    if _State.handler is not None and _State.handler not in root.handlers:
        root.addHandler(_State.handler)


def add_handler(handler: logging.Handler) -> None:
    """Add a handler to the library's logger."""
    _root().addHandler(handler)


def remove_handler(handler: logging.Handler) -> None:
    """Remove a handler from the library's logger."""
    root = _root()
    if handler not in root.handlers:
        raise ConfigError(f"{handler!r} is no handler of the library's logger, so it cannot be removed.")
    root.removeHandler(handler)


def enable_propagation() -> None:
    """Hand what is said on to the root logger. Disable the default handler too, or it is said twice."""
    _root().propagate = True


def disable_propagation() -> None:
    """Keep what is said from the root logger: the default once this module is used."""
    _root().propagate = False


def enable_explicit_format() -> None:
    """Show level, file, line and time before each message."""
    for handler in _root().handlers:
        handler.setFormatter(logging.Formatter(_PLAIN))


def reset_format() -> None:
    """Show the message alone."""
    for handler in _root().handlers:
        handler.setFormatter(None)


def captureWarnings(capture: bool) -> None:
    """Let `warnings.warn` of any library go to the library's handlers, or no longer."""
    logger = logging.getLogger("py.warnings")
    if capture:
        logger.handlers = list(_root().handlers)
    logger.setLevel(_root().level)
    logging.captureWarnings(capture)


# -- progress bars -----------------------------------------------------------------------------------------------------


def is_progress_bar_enabled() -> bool:
    """Whether `tqdm` here shows bars."""
    return _State.bars


def enable_progress_bar() -> None:
    """Show bars, the hub's downloads included."""
    _State.bars = True
    _hub_bars("enable_progress_bars")


def disable_progress_bar() -> None:
    """Show no bars, the hub's downloads included."""
    _State.bars = False
    _hub_bars("disable_progress_bars")


def _hub_bars(name: str) -> None:
    import huggingface_hub.utils as hub

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an environment variable has decided it already
        getattr(hub, name)()


def set_tqdm_hook(hook: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Let `hook(factory, args, kwargs)` make the bars; returns the hook before it, None for none."""
    before, _State.tqdm_hook = _State.tqdm_hook, hook
    return before


class _NoBar:
    """Stands where a bar would: it can be iterated, entered and updated, and shows nothing."""

    def __init__(self, iterable: Iterable[Any] | None = None, *args: object, **kwargs: object) -> None:
        self._items = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items if self._items is not None else ())

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""


class _Tqdm:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A bar of tqdm's, or one that shows nothing."""
        from tqdm import auto  # type: ignore[import-untyped]

        factory = auto.tqdm if _State.bars else _NoBar
        return factory(*args, **kwargs) if _State.tqdm_hook is None else _State.tqdm_hook(factory, args, kwargs)


tqdm = _Tqdm()
