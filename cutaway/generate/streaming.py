"""Text as it is generated: streamers that are handed tokens, under the names that people know."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue
from typing import TYPE_CHECKING

from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.incremental_decoding import IncrementalDecoder

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike


class BaseStreamer:
    """What `generate(streamer=)` takes: `put` is called with the prompt [B, P], then with each step's tokens [B]."""

    def put(self, value: Tensor) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError


class TextStreamer(BaseStreamer):
    """Prints one text while it is generated, each character as soon as it is whole.

    Args:
        tokenizer: decodes the tokens.
        skip_prompt: leave the prompt out.
        decode_kwargs: for `tokenizer.decode`, such as skip_special_tokens=True.
    """

    def __init__(self, tokenizer: TokenizerLike, skip_prompt: bool = False, **decode_kwargs: bool) -> None:
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        self.characters: IncrementalDecoder | None = None

    def put(self, value: Tensor) -> None:
        """Takes the prompt, then each token; GenerationError for more than one sequence."""
        if value.shape[0] > 1 and (value.ndim > 1 or self.characters is not None):
            raise GenerationError(
                f"{type(self).__name__} shows one text and got {value.shape[0]}. Generate one, or read them all from "
                "cutaway.generate.stream()."
            )
        ids = value.flatten().tolist()
        if self.characters is None:
            self.characters = IncrementalDecoder(self.tokenizer, ids if self.skip_prompt else (), **self.decode_kwargs)
            if self.skip_prompt:
                return
        piece = "".join(self.characters.add(token) for token in ids)
        if piece:
            self.on_finalized_text(piece)

    def end(self) -> None:
        """Gives out what is left; the streamer can be used again."""
        rest = "" if self.characters is None else self.characters.flush()
        self.characters = None
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called with each piece; override it to send the text elsewhere."""
        print(text, end="\n" if stream_end else "", flush=True)  # noqa: T201 - printing is what it is for


class TextIteratorStreamer(TextStreamer):
    """An iterator of the pieces of text, for a `generate` that runs in another thread.

    Args:
        timeout: seconds to wait for a piece before `queue.Empty` is raised; None waits for ever.
    """

    def __init__(
        self, tokenizer: TokenizerLike, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: bool
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: Queue[str | None] = Queue()
        self.timeout = timeout

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(None)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self.text_queue.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


class AsyncTextIteratorStreamer(TextStreamer):
    """An asynchronous iterator of the pieces of text: `async for piece in streamer`.

    Made inside a running event loop, while `generate` runs in another thread.

    Args:
        timeout: seconds to wait for a piece before `TimeoutError` is raised; None waits for ever.
    """

    def __init__(
        self, tokenizer: TokenizerLike, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: bool
    ) -> None:
        import asyncio

        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.timeout, self.loop = timeout, asyncio.get_running_loop()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        for piece in ([text] if text else []) + ([None] if stream_end else []):
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, piece)

    def __aiter__(self) -> AsyncTextIteratorStreamer:
        return self

    async def __anext__(self) -> str:
        import asyncio

        async with asyncio.timeout(self.timeout):
            piece = await self.text_queue.get()
        if piece is None:
            raise StopAsyncIteration
        return piece
