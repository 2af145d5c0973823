"""Who answers in `cutaway chat`: a model in this process, or a server that speaks OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from cutaway.errors import InputError

TOP = 5  # likeliest tokens that are kept beside each


class Said(NamedTuple):
    """A piece of an answer: what a token let go; where they are known, the token, its logprob, the likeliest there."""

    text: str
    token: str = ""
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()


class Partner(Protocol):
    """Answers a conversation."""

    def answer(self, messages: Sequence[dict[str, str]], settings: dict[str, Any]) -> Iterator[Said]:
        """The pieces of the answer, as they come; settings: max_tokens, temperature, top_p, seed."""
        ...

    def explain(self, said: Sequence[Said]) -> list[Said]:
        """The tokens of the last answer, each with its probability and the likeliest others."""
        ...


class LocalModel:
    """A model of this process, which keeps what it has read of the conversation."""

    def __init__(self, name: str, load: dict[str, Any]) -> None:
        """InputError where the model writes no text, or knows no chats."""
        from cutaway.inspect.explainer import load_model
        from cutaway.nn.kv_cache import Cache

        self.model, self.tokenizer = load_model(name, **load)
        if not self.model.can_generate() or self.model.is_encoder_decoder:
            raise InputError(f"{name!r} ({type(self.model).__name__}) writes no answers. Give a chat model.")
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise InputError(f"{name!r} has no chat template, so it is no chat model. Try: cutaway generate -m {name}")
        self.model.eval()
        self.cache = Cache()
        self.prompt: list[int] = []
        self.written: list[int] = []

    def answer(self, messages: Sequence[dict[str, str]], settings: dict[str, Any]) -> Iterator[Said]:
        import torch

        from cutaway.generate import stream

        text = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        self.prompt, self.written = self.tokenizer(text, add_special_tokens=False)["input_ids"], []
        heat = settings.get("temperature")
        call: dict[str, Any] = {"max_new_tokens": settings["max_tokens"], "do_sample": heat != 0}
        if heat != 0:
            call |= {"temperature": heat or 1.0, "top_k": 0}
            call |= {name: settings[name] for name in ("top_p", "seed") if settings.get(name) is not None}
        positions = self.model.architecture.stack.longest
        if positions is not None:
            room = positions - len(self.prompt)
            if room < 1:
                raise InputError(f"The conversation has {len(self.prompt)} tokens and the model {positions} positions.")
            call["max_new_tokens"] = min(call["max_new_tokens"], room)
        ids = torch.tensor([self.prompt], device=self.model.device)
        for token in stream(self.model, ids, tokenizer=self.tokenizer, past_key_values=self.cache, **call):
            self.written.append(token.id)
            yield Said(token.text or "")

    def explain(self, said: Sequence[Said]) -> list[Said]:
        import torch

        from cutaway.generate.logprobs import token_logits

        ids = torch.tensor([[*self.prompt, *self.written]], device=self.model.device)
        places = [(0, place) for place in range(len(self.prompt), ids.shape[1])]
        found = []
        with torch.no_grad():
            for logits, tokens in token_logits(self.model, {"input_ids": ids}, places):
                shares = logits.log_softmax(-1)
                best = shares.topk(TOP, dim=-1)
                for row, token in enumerate(tokens.tolist()):
                    others = zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
                    top = tuple((self.tokenizer.decode([id]), value) for id, value in others)
                    found.append(Said("", self.tokenizer.decode([token]), float(shares[row, token]), top))
        return found


class Server:
    """A server that is running, reached by OpenAI's API."""

    def __init__(self, url: str, model: str | None, key: str | None) -> None:
        """InputError where the address is none."""
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--server {url!r}: give an address such as http://127.0.0.1:8000.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model, self.key = model, key

    def answer(self, messages: Sequence[dict[str, str]], settings: dict[str, Any]) -> Iterator[Said]:
        import urllib.error
        import urllib.request

        asked = {"messages": list(messages), "stream": True, "logprobs": True, "top_logprobs": TOP, **settings}
        if self.model is not None:
            asked["model"] = self.model
        body = json.dumps({name: value for name, value in asked.items() if value is not None}).encode()
        headers = {"content-type": "application/json"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:
                for line in reply:
                    yield from _pieces(line.decode("utf-8"))
        except urllib.error.HTTPError as error:
            with error:
                raise InputError(f"{self.url} answered {error.code}: {_reason(error.read(100_000))}") from None
        except OSError as error:
            raise InputError(f"{self.url} cannot be reached: {error}. Is the server running?") from None

    def explain(self, said: Sequence[Said]) -> list[Said]:
        return [one for one in said if one.logprob is not None]


def _pieces(line: str) -> Iterator[Said]:
    """What one line of a stream of events says."""
    if not line.startswith("data:") or line.strip() == "data: [DONE]":
        return
    try:
        data = json.loads(line[5:])
    except ValueError:
        raise InputError(f"The server said {line[:80]!r}, which is no event of a chat.") from None
    if "error" in data:
        raise InputError(f"The server stopped: {data['error'].get('message', data['error'])}")
    for choice in data.get("choices", ()):
        text = choice.get("delta", {}).get("content") or ""
        told = ((choice.get("logprobs") or {}).get("content") or [None])[0]
        if told is None:
            yield Said(text)
        else:
            top = tuple((one["token"], one["logprob"]) for one in told.get("top_logprobs", ()))
            yield Said(text, told["token"], told["logprob"], top)


def _reason(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
