"""What all pipelines share: one text, a list or a stream goes in, batches run, answers come out in order."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch

from cutaway.errors import InputError, nearest

DEFAULT_BATCH = 32


class Pipeline(ABC):
    """A model and its tokenizer, set up for one task.

    A subclass says what one input is (`check`), what a batch of them gives (`run`), and which `settings` a call takes.
    """

    task: str
    settings: ClassVar[dict[str, Any]] = {}
    tokenizer_settings: ClassVar[tuple[str, ...]] = ("truncation", "max_length", "padding", "add_special_tokens")

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        task: str = "",
        device: Any = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        """Raises InputError for a setting that the pipeline does not have, or a batch size below 1."""
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise InputError(f"batch_size={batch_size!r} must be a whole number from 1 up.")
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.batch_size = batch_size or DEFAULT_BATCH
        self.defaults = self._known(settings)
        if device is not None:
            self.model.to(_device(device))
        self.model.eval()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @abstractmethod
    def check(self, item: Any) -> Any:
        """One input in the form that `run` takes. Raises InputError where it is none."""

    @abstractmethod
    def run(self, items: list[Any], settings: Mapping[str, Any]) -> list[Any]:
        """One answer per item, in order."""

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **settings: Any) -> Any:
        """One input gives one answer, a list gives a list, any other iterable gives a generator of answers."""
        merged = {**self.settings, **self.defaults, **self._known(settings)}
        if isinstance(inputs, str | Mapping):
            return self._batches([inputs], 1, merged).__next__()
        size = batch_size or self.batch_size
        if isinstance(inputs, list | tuple):
            return list(self._batches(inputs, size, merged))
        if isinstance(inputs, Iterable):
            return self._batches(inputs, size, merged)
        raise InputError(f"{self.task} takes a text, a list of texts or an iterator of texts, not {inputs!r:.80}.")

    def _batches(self, inputs: Iterable[Any], size: int, settings: Mapping[str, Any]) -> Iterator[Any]:
        stream = iter(inputs)
        while batch := [self.check(item) for item in itertools.islice(stream, size)]:
            with torch.inference_mode():
                answers = self.run(batch, settings)
            yield from answers

    def _known(self, settings: dict[str, Any]) -> dict[str, Any]:
        known = (*self.settings, *self.tokenizer_settings)
        for name in settings:
            if name not in known:
                raise InputError(f"{name}= is not a setting of the {self.task} pipeline.{nearest(name, known)}")
        return settings


def _device(device: Any) -> torch.device:
    if isinstance(device, int):
        return torch.device("cpu" if device < 0 else f"cuda:{device}")
    return torch.device(device)
