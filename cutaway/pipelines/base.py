"""What all pipelines share: one input, a list or a stream goes in, planned batches run, answers come out in order."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from cutaway.errors import InputError, nearest
from cutaway.hub.upstream_types import KnownUpstream
from cutaway.nn.call_context import Evaluation
from cutaway.nn.forward_inputs import accepted
from cutaway.pipelines.custom import STEPS, take_steps, walked
from cutaway.pipelines.fit import Fit, check_long, fit, longest_input
from cutaway.pipelines.plan import Row, batches

Device = str | int | torch.device

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

# How much is read before it is sorted and computed: inputs of a list, inputs of a stream, tokens of either.
LIST_WINDOW, STREAM_WINDOW, WINDOW_TOKENS = 1024, 256, 65_536
READ_AT_ONCE = 64


class Pipeline(KnownUpstream, ABC):
    """A model and its tokenizer, set up for one task.

    A subclass says what one input is (`check`), which rows of ids it needs (`encode`), what the model gives for a batch
    of rows (`forward`), the typed result of one input (`finish`), and upstream's form of that (`shaped`).
    """

    upstream = ("transformers.pipelines.base:Pipeline",)
    feature_extractor: ClassVar[None] = None  # what reads sounds and pictures upstream
    image_processor: ClassVar[None] = None
    task: str
    settings: ClassVar[dict[str, Any]] = {}
    tokenizer_settings: ClassVar[tuple[str, ...]] = ("truncation", "max_length", "padding", "add_special_tokens")
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate")  # what `long=` may be
    batch_tokens: ClassVar[int] = 4096
    batch_rows: ClassVar[int | None] = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        """A subclass in upstream's steps (`preprocess`, `_forward`, `postprocess`) is run in those."""
        super().__init_subclass__(**kwargs)
        if any(name in vars(cls) for name in STEPS):
            take_steps(cls, cls.__mro__[1])

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: TokenizerLike | None = None,
        *,
        task: str = "",
        device: Device | None = None,
        batch_size: int | None = None,
        **settings: object,
    ) -> None:
        """Raises InputError for a setting that the pipeline does not have, or a batch size below 1."""
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.task = task
        self.batch_size = _batch_size(batch_size)
        self.defaults = self._known(settings)
        if device is not None:
            self.model.to(_device(device))
        self._evaluation = Evaluation(cast(nn.Module, self.model))
        # a tokenizer may number the texts of a pair for a model (BART, DistilBERT) that makes no difference of them
        names = accepted(type(cast(nn.Module, model)).forward)
        self._reads_types = names is None or "token_type_ids" in names

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    # -- what a task says ----------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, item: object) -> object:
        """One input in the form that `encode` takes. Raises InputError where it is none."""

    @abstractmethod
    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        """The rows of each item."""

    @abstractmethod
    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """What the model gives for each row of one batch."""

    @abstractmethod
    def finish(self, item: Any, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> object:
        """The typed result of one input, from its rows."""

    @abstractmethod
    def shaped(self, result: Any, settings: Mapping[str, Any]) -> object:
        """A result in upstream's form."""

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings of a call, checked before anything runs."""
        return settings

    def is_one(self, inputs: object) -> bool:
        """Whether `inputs` is one input, not a list or a stream of them."""
        return isinstance(inputs, str | Mapping)

    def single(self, answer: object, inputs: object, given: Mapping[str, Any]) -> object:
        """What a call with one input gives; `given` are the settings of this call alone."""
        return answer

    def several(self, answers: list[Any], settings: Mapping[str, Any]) -> object:
        """What a call with a list of inputs gives."""
        return answers

    # -- calls ---------------------------------------------------------------------------------------------------

    def __call__(self, inputs: object, *, batch_size: int | None = None, **settings: object) -> Any:
        """One input gives one answer, a list or a table's column gives a list, any other iterable gives a generator.

        Args:
            inputs: what the task reads.
            batch_size: at most so many rows go through the model at once, and of a stream no more are read ahead.
                Without it, batches are made by their number of tokens. It never changes a result.
            settings: those of the task, for this call; also `adapters`, the adapter of all inputs (None for the base
                alone) or a list with one of these for each, however they are put into batches.

        Raises:
            InputError: an input or a setting that the task does not take, or a text that is too long for the model.
        """
        merged = self.ready({**self.settings, **self.defaults, **self._known(settings)})
        size = _batch_size(batch_size) or self.batch_size
        if self.is_one(inputs):
            answer = self.shaped(next(self._results([inputs], size, 1, merged)), merged)
            return self.single(answer, inputs, settings)
        if not isinstance(inputs, list | tuple) and (column := _column(inputs)) is not None:
            inputs = column
        if isinstance(inputs, list | tuple):
            results = self._results(inputs, size, LIST_WINDOW, merged)
            return self.several([self.shaped(result, merged) for result in results], merged)
        if isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"):
            return self._stream(walked(inputs), size, merged)
        raise InputError(f"{self.task} takes one input, a list or an iterator of them, not {inputs!r:.80}.")

    def each(self, inputs: object, *, batch_size: int | None = None, **settings: object) -> Iterator[Any]:
        """Exactly one typed result per input, in order, whatever the form of `inputs`; arguments as in a call."""
        merged = self.ready({**self.settings, **self.defaults, **self._known(settings)})
        size = _batch_size(batch_size) or self.batch_size
        if self.is_one(inputs):
            inputs = [inputs]
        elif not isinstance(inputs, Iterable):
            raise InputError(f"{self.task} takes one input, a list or an iterator of them, not {inputs!r:.80}.")
        window = LIST_WINDOW if isinstance(inputs, list | tuple) else size or STREAM_WINDOW
        return self._results(inputs, size, window, merged)

    def predict(self, inputs: object) -> Any:
        """A call, under scikit-learn's name."""
        return self(inputs)

    transform = predict

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes with."""
        found: torch.dtype = self.model.dtype
        return found

    torch_dtype = dtype

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the model and the tokenizer into a folder, for `pipeline(task, folder)`."""
        self.model.save_pretrained(save_directory)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    def _stream(self, inputs: Iterable[Any], size: int | None, settings: Mapping[str, Any]) -> Iterator[Any]:
        for result in self._results(inputs, size, size or STREAM_WINDOW, settings):
            yield self.shaped(result, settings)

    def _results(
        self, inputs: Iterable[Any], size: int | None, window: int, settings: Mapping[str, Any]
    ) -> Iterator[Any]:
        stream = iter(inputs)
        if "adapters" in settings:
            names = settings["adapters"]
            stream = _with_adapters(stream, names if isinstance(names, list | tuple) else itertools.repeat(names))
        while pieces := self._read(stream, window, settings):
            rows = [row for _, own in pieces for row in own]
            with torch.inference_mode():
                outputs = self._compute(rows, size, settings)
            first = 0
            for item, own in pieces:
                yield self.finish(item, own, outputs[first : first + len(own)], settings)
                outputs[first : first + len(own)] = [None] * len(own)  # what is handed on is not held on to
                first += len(own)

    def _read(self, stream: Iterator[Any], window: int, settings: Mapping[str, Any]) -> list[tuple[Any, list[Row]]]:
        """The next inputs and their rows: `window` inputs, or fewer where they are long."""
        pieces: list[tuple[Any, list[Row]]] = []
        tokens = 0
        while len(pieces) < window and tokens < WINDOW_TOKENS:
            room = min(READ_AT_ONCE, window - len(pieces))
            taken = list(itertools.islice(stream, room))
            adapters = [item.adapter for item in taken if isinstance(item, _Adapted)]
            items = [self.check(item.item if isinstance(item, _Adapted) else item) for item in taken]
            if not items:
                break
            encoded = self.encode(items, settings)
            for name, own in zip(adapters, encoded, strict=False):
                for row in own:
                    row.adapter = name
            pieces += zip(items, encoded, strict=True)
            tokens += sum(row.length for rows in encoded for row in rows)
        return pieces

    def _compute(self, rows: list[Row], size: int | None, settings: Mapping[str, Any]) -> list[Any]:
        outputs: list[Any] = [None] * len(rows)
        most = size or self.batch_rows
        if self._evaluation.model is not cast(nn.Module, self.model):  # somebody gave the pipeline another one
            self._evaluation = Evaluation(cast(nn.Module, self.model))
        evaluation = self._evaluation  # a model that trains elsewhere keeps its mode
        for batch in batches([row.length for row in rows], self.batch_tokens, most):
            with evaluation():
                if "adapters" in settings:
                    with self._adapted([rows[i].adapter for i in batch]):
                        answers = self.forward([rows[i] for i in batch], settings)
                else:
                    answers = self.forward([rows[i] for i in batch], settings)
            for i, answer in zip(batch, answers, strict=True):
                outputs[i] = answer
        return outputs

    def _adapted(self, names: list[str | None]) -> AbstractContextManager[None]:
        found: AbstractContextManager[None] = self.model.use_adapter(names, len(names))
        return found

    # -- for the tasks -------------------------------------------------------------------------------------------

    def fitted(self, texts: Sequence[Any], settings: Mapping[str, Any], **how: Any) -> list[list[Row]]:
        """The rows of texts (or pairs), with what the settings say about long ones; `how` as in `Fit`."""
        options = {key: settings[key] for key in self.tokenizer_settings if key in settings}
        options.pop("padding", None)  # padding costs nothing and changes nothing: a batch is always padded
        if "longest" not in how:
            how["longest"] = longest_input(self.model, self.tokenizer)
        how.setdefault("long", check_long(settings.get("long"), self.ways))
        how.setdefault("overlap", settings.get("overlap"))
        how["options"] = {**options, **how.get("options", {})}
        return fit(self.tokenizer, texts, Fit(offers=self.ways, **how))

    def batch(self, rows: list[Row]) -> dict[str, Tensor]:
        """Rows as padded tensors [rows, longest] on the model's device, with the mask."""
        lengths = [row.length for row in rows]
        names = [name for name in rows[0].inputs if self._reads_types or name != "token_type_ids"]
        longest = max(1, *lengths)
        short = [longest - length for length in lengths]
        fills = dict.fromkeys(names, 0)
        if any(short):
            fills["input_ids"] = self.tokenizer.pad_token_id or 0
            fills["token_type_ids"] = self.tokenizer.pad_token_type_id
        numbers = array("q")  # of all tensors, so that torch makes one: for a short text each costs as much as a layer
        for name in names:
            for row, n in zip(rows, short, strict=True):
                numbers.extend(row.inputs[name])
                numbers.extend([fills[name]] * n)
        for n in short:
            numbers.extend([1] * (longest - n) + [0] * n)
        tensors = torch.frombuffer(numbers, dtype=torch.int64).view(len(names) + 1, len(rows), longest).unbind(0)
        found = dict(zip((*names, "attention_mask"), tensors, strict=True))
        device = self.device
        return found if device.type == "cpu" else {name: value.to(device) for name, value in found.items()}

    def _known(self, settings: dict[str, Any]) -> dict[str, Any]:
        known = self.known_settings() if settings else ()
        for name in settings:
            if name not in known:
                raise InputError(f"{name}= is not a setting of the {self.task} pipeline.{nearest(name, known)}")
        return settings

    def known_settings(self) -> tuple[str, ...]:
        """The names that a call takes beside `batch_size`."""
        return (*self.settings, *self.tokenizer_settings, "adapters")


class _Adapted(NamedTuple):
    """An input and its adapter."""

    item: Any
    adapter: str | None


def _with_adapters(inputs: Iterator[Any], names: Iterable[str | None]) -> Iterator[_Adapted]:
    left, end = iter(names), object()
    wrong = InputError("adapters= needs as many names as there are inputs, or one for all.")
    for item in inputs:
        name = next(left, end)
        if name is end:
            raise wrong
        yield _Adapted(item, name)  # type: ignore[arg-type]
    if not isinstance(names, itertools.repeat) and next(left, end) is not end:
        raise wrong


def text_only(task: str, item: object) -> str:
    """The input of a task that reads one text."""
    if not isinstance(item, str):
        raise InputError(f"{task} got {item!r:.80}. An input is a text.")
    return item


def _column(inputs: object) -> list[Any] | None:
    """A column of a table (numpy, pandas, polars, datasets) as a list; None where it is something else."""
    for name in ("to_list", "tolist"):
        if callable(getattr(inputs, name, None)):
            return list(getattr(inputs, name)())
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
        return list(inputs)
    return None


def _batch_size(size: object) -> int | None:
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise InputError(f"batch_size={size!r} must be a whole number from 1 up.")
    return size


def _device(device: Device) -> torch.device:
    if isinstance(device, int):
        return torch.device("cpu" if device < 0 else f"cuda:{device}")
    return torch.device(device)
