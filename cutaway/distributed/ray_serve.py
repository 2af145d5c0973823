"""The server as a deployment of Ray Serve: replicas on any machines of a cluster, behind Ray's own proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.distributed.cluster import ray
from cutaway.errors import InputError

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.applications import Starlette

    from cutaway.serve.settings import Access, Limits


def deployment(
    models: object,
    *,
    replicas: int = 1,
    cpus: float = 1.0,
    name: str = "cutaway",
    limits: Limits | None = None,
    access: Access | None = None,
    log_texts: bool = False,
    ray_options: dict[str, Any] | None = None,
    **options: object,
) -> Application:
    """An application for `ray.serve.run`, whose replicas each are the app of `cutaway.serve.app`.

    Args:
        models: as for `cutaway.serve.app`, names and paths: each replica loads them for itself, from where it runs.
        replicas: how many. cpus: processors of each, which is also how many threads it computes with.
        name: of the deployment.
        limits, access, log_texts: as for `cutaway.serve.app`. Ray's proxy listens on this machine alone unless
            `serve.start` says otherwise; where it does, `access` needs a key and the hosts that callers name.
        ray_options: further options of `ray.serve.deployment`, such as `ray_actor_options` or `autoscaling_config`.
        options: further arguments of `pipeline`, such as `dtype=`.

    A replica counts as running once its models are loaded and warm, so that no caller meets one that loads.

    Raises:
        InputError: Ray Serve is not installed, or `models` holds what is loaded already.
        MissingExtraError: the packages of the extra `serve` are not installed.
    """
    from cutaway.pipelines.base import Pipeline
    from cutaway.serve import require_packages
    from cutaway.serve.service import named

    require_packages()
    ray()
    try:
        from ray import serve
    except ImportError as error:
        raise InputError("Ray Serve is not installed: pip install 'cutaway[ray]' 'ray[serve]'.") from error
    sources = named(models)
    if any(isinstance(source, Pipeline) for source in sources.values()):
        raise InputError("models holds a pipeline that is loaded: replicas run elsewhere. Give its name or path.")

    def build() -> Starlette:
        """The app of a replica, in the replica."""
        import torch

        from cutaway.serve import app

        torch.set_num_threads(max(1, int(cpus)))
        paths = {key: str(source) for key, source in sources.items()}
        made = app(paths, limits=limits, access=access, log_texts=log_texts, **options)
        service = made.state.service
        service.start()
        while not service.ready.wait(0.1):
            if service.error:
                raise RuntimeError(f"The models could not be loaded: {service.error}")
        return made

    class Replica:
        """What Ray starts."""

    asked: dict[str, Any] = {"name": name, "num_replicas": replicas, **(ray_options or {})}
    asked["ray_actor_options"] = {"num_cpus": cpus, **asked.get("ray_actor_options", {})}
    if "autoscaling_config" in asked:
        del asked["num_replicas"]  # which it excludes
    return serve.deployment(**asked)(serve.ingress(build)(Replica)).bind()
