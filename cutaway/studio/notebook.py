"""The studio in an output cell of a notebook: a server in this process, and a frame that shows its page."""

from __future__ import annotations

import html
import secrets
import socket
import threading
from typing import TYPE_CHECKING

from cutaway.errors import InputError
from cutaway.inspect.measure import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutaway.models.protocols import LanguageModel
    from cutaway.serve.route import Route
    from cutaway.serve.service import Service
    from cutaway.tokenization.protocols import TokenizerLike

# where notebooks are shown: a server of this machine or of a site, and the windows of VS Code
FRAMED_BY = "'self' http://localhost:* http://127.0.0.1:* https: vscode-webview:"


class NotebookStudio:
    """A running studio; a notebook shows it as the value of a cell. `close()` ends it, as the end of the process does.

    Attributes:
        address: of the page, with its key: whoever has it can use the studio from this machine.
    """

    def __init__(self, service: Service, listener: socket.socket, address: str, height: int) -> None:
        self.service, self.address, self.height = service, address, height
        self._listener = listener

    def _repr_html_(self) -> str:
        source = html.escape(self.address, quote=True)
        return (
            f'<iframe src="{source}" width="100%" height="{self.height}" title="cutaway studio" '
            'referrerpolicy="no-referrer" style="border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"The studio: {self.address}"

    def close(self) -> None:
        """Take no more requests, and end the thread that computes."""
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self._listener.close()

    def _run(self, routes: Sequence[Route]) -> None:
        import uvicorn

        from cutaway.serve.asgi import app_of
        from cutaway.serve.worker import TimedProtocol

        app = app_of(self.service, routes)
        config = uvicorn.Config(
            app, http=TimedProtocol.bound_to(self.service.limits), ws="none", lifespan="on", log_config=None,
            access_log=False, server_header=False, timeout_graceful_shutdown=5,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="cutaway-studio", daemon=True
        )
        self._thread.start()


@measure
def studio(
    model: LanguageModel | str = "cutaway/sentiment", tokenizer: TokenizerLike | None = None, *, height: int = 900
) -> NotebookStudio:
    """The studio of a loaded model, for a notebook's output cell; a server of this process, on the loopback address.

    The notebook's page and this process must be on one machine, or the port must be passed on.

    Args:
        model: a loaded model with its `tokenizer`, or a name. height: of the frame, in pixels.

    Raises:
        InputError: a loaded model without a tokenizer, or that no pipeline is for. MissingExtraError: the packages of
            the extra `serve` are not installed.
    """
    from cutaway.serve import require_packages

    require_packages()
    from cutaway.hub.class_endings import ending_of
    from cutaway.pipelines.factory import pipeline
    from cutaway.serve.screen import address_of
    from cutaway.studio.routes import Studio
    from cutaway.studio.starting import listen, make

    given: object = model
    if not isinstance(model, str):
        if tokenizer is None:
            raise InputError("studio(<a loaded model>) needs the tokenizer too: studio(model, tokenizer).")
        ends = (ending_of(parent.__name__) for parent in type(model).__mro__)
        end = next((found for found in ends if found is not None and found.task), None)
        task = "feature-extraction" if end is None or end.auto == "AutoModel" else end.task
        given = {str(getattr(model, "name_or_path", "") or type(model).__name__): pipeline(task, model, tokenizer)}
    key, listener = secrets.token_urlsafe(24), listen(0)
    service, bench = make(given, key)
    found = NotebookStudio(service, listener, f"{address_of(listener)}/studio#key={key}", height)
    found._run(Studio(bench, FRAMED_BY).routes())
    if not service.ready.wait(timeout=600) or service.error:
        found.close()
        raise InputError(service.error or "The model was not loaded within ten minutes.")
    return found
