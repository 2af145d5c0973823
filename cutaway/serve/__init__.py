"""A server for any model: the clients people have work unchanged, and it shows its work.

`app(...)` is an ASGI app to run or to mount; `cutaway serve` runs it in a process of its own. Nothing here is loaded
until it is asked for; the packages are those of the extra `serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.errors import MissingExtraError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from cutaway.serve.settings import Access, Limits

__all__ = ["Access", "Limits", "app"]


def app(
    models: object,
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    log_texts: bool = False,
    **options: object,
) -> Starlette:
    """An ASGI app that serves `models`.

    Args:
        models: {name: model}. A model is what `cutaway.pipeline` takes (a name, a folder, a .gguf file), or a pipeline
            that is loaded already. A single name or path is served under its own name.
        limits: bounds on bodies, tokens, batches, memory and time.
        access: who may call: key, hosts, origins. By default this machine alone, as far as Host and Origin tell.
        log_texts: write bodies into the log.
        options: further arguments of `pipeline` for what is loaded here, such as `dtype=`.

    Models are loaded when the app starts, or with its first request where it is mounted in another; until then routes
    answer 503, and `/health` says so. Closing the app (its lifespan, or `app.state.service.close()`) ends its thread.

    Raises:
        MissingExtraError: the packages of the extra `serve` are not installed.
    """
    require_packages()
    from cutaway.serve.asgi import make_app

    return make_app(models, limits=limits, access=access, log_texts=log_texts, **options)


def require_packages() -> None:
    """Raises MissingExtraError where the extra `serve` is not installed."""
    from importlib.util import find_spec

    for name in ("starlette", "uvicorn", "pydantic", "prometheus_client"):
        if find_spec(name) is None:
            raise MissingExtraError(f"The server needs the package {name}: pip install 'cutaway[serve]'.")


def __getattr__(name: str) -> Any:
    if name in ("Limits", "Access"):
        from cutaway.serve import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
