"""A server on a real socket of this machine, in a thread, and the tiny models that it serves."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import tiny
import torch
import uvicorn

from cutaway.serve.asgi import app_of
from cutaway.serve.route import Route
from cutaway.serve.service import Service
from cutaway.serve.worker import TimedProtocol

CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def llama(folder: Path, seed: int = 0) -> Path:
    """A Llama of 2 layers whose heads are as wide as the kernels want them, over bytes, with a chat template."""
    import transformers

    torch.manual_seed(seed)
    tokenizer = tiny.byte_level()
    tokenizer.chat_template = CHATML
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return tiny.save(folder, transformers.LlamaForCausalLM(config), tokenizer)


def encoders(folder: Path) -> dict[str, str]:
    """A tiny model for each kind of head."""
    made = {
        "vectors": tiny.classifier(folder / "vectors", head="BertModel"),
        "labels": tiny.classifier(folder / "labels", 3),
        "rank": tiny.classifier(folder / "rank", 1),
        "nli": tiny.classifier(folder / "nli", 3, id2label={0: "entailment", 1: "neutral", 2: "contradiction"}),
        "tokens": tiny.classifier(
            folder / "tokens", 3, "BertForTokenClassification", id2label={0: "O", 1: "B-A", 2: "I-A"}
        ),
        "qa": tiny.classifier(folder / "qa", 2, "BertForQuestionAnswering"),
        "mask": tiny.classifier(folder / "mask", head="BertForMaskedLM"),
        "t5": tiny.encoder_decoder(folder / "t5"),
    }
    return {name: str(path) for name, path in made.items()}


def packaged(package: str) -> Path:
    """The folder of a package that holds a model."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@contextlib.contextmanager
def serving(service: Service, *, wait: bool = True, routes: Sequence[Route] = ()) -> Iterator[str]:
    """The address of a server of `service`, ready to answer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app_of(service, routes), http=TimedProtocol.bound_to(service.limits), log_level="error", lifespan="on",
        ws="none",
        log_config=None,  # uvicorn's own closes all handlers that are there, and absl's closes pytest's stream
        h11_max_incomplete_event_size=service.limits.header_bytes, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 60
        while wait and not service.ready.wait(0.05):
            assert not service.error and thread.is_alive() and time.monotonic() < end, service.error
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
