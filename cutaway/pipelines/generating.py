"""What the pipelines that write text share: the settings of a call, and the texts that come back."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cutaway.errors import InputError
from cutaway.generate.options import Settings
from cutaway.generate.processor_settings import FORMS
from cutaway.generate.results import TokenLogprob
from cutaway.generate.settings import DEFAULTS, KNOWN, NOT_BUILT, GenerationConfig, model_settings
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.plan import Row

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel, LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

logger = logging.getLogger("cutaway")

# What a pipeline sets by itself, so that a call cannot.
_OWN = frozenset({"return_dict_in_generate", "output_scores", "output_logits", "output_attentions",
                  "output_hidden_states", "inputs_embeds", "past_key_values"})  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What was written for one input, once for each of `num_return_sequences`.

    texts: the texts, or for a chat its messages with the answer. answers: only what is new. tokens: the new ids.
    prompt: the ids that were read. cut: how many tokens of the input were left out. logprobs, prompt_logprobs: with
    `output_logprobs`, of each text's new tokens, and of the prompt's (of a decoder).
    """

    texts: tuple[Any, ...]
    answers: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    prompt: tuple[int, ...]
    cut: int = 0
    logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None

    def entries(self, name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Upstream's form: {name: value} for each text; what was asked for of log-probabilities beside it."""
        found: list[dict[str, Any]] = [{name: value} for value in values]
        for entry, told in zip(found, self.logprobs or (), strict=False):
            entry["logprobs"] = [asdict(token) for token in told]
            if self.prompt_logprobs is not None:
                entry["prompt_logprobs"] = [asdict(token) for token in self.prompt_logprobs]
        return found


class Answer(NamedTuple):
    """The new tokens of one sequence; with `output_logprobs` how likely they are, and the prompt's."""

    tokens: list[int]
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None


class GeneratingPipeline(Pipeline):
    """Runs `cutaway.generate` over planned batches. Any setting of generation is a setting of the call."""

    model: GenerativeModel

    batch_tokens: ClassVar[int] = 2048
    batch_rows: ClassVar[int | None] = 16
    tokenizer_settings: ClassVar[tuple[str, ...]] = ("truncation", "padding", "add_special_tokens")
    # settings of generation where neither the call nor the model's files say
    usual: ClassVar[dict[str, Any]] = {}
    follows_task: ClassVar[bool] = True  # whether config.json's task_specific_params are read

    def __init__(self, model: LanguageModel, tokenizer: TokenizerLike, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        if not self.model.can_generate():
            raise InputError(
                f"{self.task} needs a model that writes, and {type(self.model).__name__} does not. Load one with a "
                "language-model head (AutoModelForCausalLM, AutoModelForSeq2SeqLM)."
            )
        given = getattr(self.model.config, "task_specific_params", None)
        named = given.get(self.task) if isinstance(given, Mapping) and self.follows_task else None
        of_task = dict(named) if isinstance(named, Mapping) else {}
        self.prefix = str(of_task.get("prefix") or getattr(self.model.config, "prefix", None) or "")
        self.of_task = {name: value for name, value in of_task.items() if name in DEFAULTS and name not in _OWN}
        self.overridden = self._without_what_is_not_built(of_task)

    def _without_what_is_not_built(self, of_task: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that switch off what the model's files ask for and cutaway does not have; said once."""
        stored = {**model_settings(self.model).to_dict(), **of_task}
        asked = {
            name: stored[name]
            for name, off in NOT_BUILT.items()
            if stored.get(name) is not None and stored[name] != off and (stored[name] or off)
        }
        if asked:
            logger.warning(
                "The files of %s ask for %s, which is not built yet: the %s pipeline writes without it.",
                getattr(self.model, "name_or_path", "") or type(self.model).__name__,
                ", ".join(f"{name}={value!r}" for name, value in asked.items()),
                self.task,
            )
        return {name: NOT_BUILT[name] for name in asked}

    def known_settings(self) -> tuple[str, ...]:
        return (*super().known_settings(), "generation_config", *(KNOWN - _OWN))

    def own_prefix(self, settings: Mapping[str, Any]) -> str:
        """What stands before each text: the call's, or that of the model's files."""
        prefix = settings["prefix"]
        if prefix is None:
            return self.prefix
        if not isinstance(prefix, str):
            raise InputError(f"prefix={prefix!r:.60} must be a text.")
        return prefix

    def generation(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What `forward` reads: the settings of `generate`, and whether the usual length is among them.

        The call's own win over its `generation_config`, that over the model's files, those over the usual ones.
        """
        given = settings.get("generation_config")
        if given is not None and not isinstance(given, GenerationConfig):
            raise InputError(f"generation_config={given!r:.60} must be a GenerationConfig.")
        call = {} if given is None else given.to_dict()
        call |= {name: settings[name] for name in KNOWN if settings.get(name) is not None}
        if isinstance(call.get("seed"), list | tuple):
            raise InputError(f"seed={call['seed']!r}: a pipeline takes one number, which is every input's.")
        found = {**self.of_task, **call}
        for new, total in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            for asked, other in ((new, total), (total, new)):  # the call's way of counting wins over the files'
                if asked in call and other not in call:
                    found.pop(other, None)
        stored = model_settings(self.model).to_dict()
        said = {**stored, **found}
        usual = {name: value for name, value in self.usual.items() if said.get(name) is None}
        if said.get("max_length") is not None:
            usual.pop("max_new_tokens", None)
        if not {**said, **usual}.get("do_sample"):
            usual.pop("temperature", None)
        if said.get("pad_token_id") is None and self.tokenizer.pad_token_id is not None:
            usual["pad_token_id"] = self.tokenizer.pad_token_id
        return {"generation": {**self.overridden, **usual, **found}, "usual_length": "max_new_tokens" in usual}

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """Of each row its answers, one for each copy, without what fills up ended rows."""
        call = settings["generation"]
        read = Settings(self.model, None, call)
        groups: dict[Any, list[int]] = {}
        alone = read["prompt_lookup_num_tokens"] is not None  # guesses are made for one text at a time
        for i, row in enumerate(rows):
            key = (i if alone else None, *self._lengths(row, read, settings["usual_length"]))
            groups.setdefault(key, []).append(i)
        found: list[Any] = [None] * len(rows)
        for (_, _, new), places in groups.items():
            more: dict[str, Any] = {} if new is None else {"max_new_tokens": new}
            if "adapters" in settings:
                more["adapters"] = [rows[i].adapter for i in places]
            for i, answers in zip(places, self._write([rows[i] for i in places], read, {**call, **more}), strict=True):
                found[i] = answers
        return found

    def _lengths(self, row: Row, read: Settings, usual: bool) -> tuple[int | None, int | None]:
        """Rows with equal answers go together: (length of the prompt where it counts, new tokens where they are fewer).

        `max_length` and `min_length` count a decoder's prompt, and beside a longer prompt they would count that.
        """
        if self.model.is_encoder_decoder:
            return None, None
        longest = self.model.architecture.stack.longest
        new = read["max_new_tokens"]
        if usual and longest is not None and row.length < longest < row.length + new:
            return row.length, longest - row.length  # the usual length ends where the model's positions do
        return (row.length if new is None or read["min_length"] else None), None

    def _write(self, rows: list[Row], read: Settings, call: Mapping[str, Any]) -> list[list[Answer]]:
        batch = self.batch(rows)
        batch.pop("token_type_ids", None)
        told = bool(read["output_logprobs"])
        reads = told or any(read[name] is not None for name in ("stop_strings", *FORMS))
        stops = read["stop_strings"] is not None or read["stopping_criteria"] is not None
        tokenizer = {"tokenizer": self.tokenizer} if reads else {}
        made = self.model.generate(**batch, **tokenizer, **call, return_dict_in_generate=told)
        sequences = made.sequences if told else made  # [rows * copies, columns]
        two = self.model.is_encoder_decoder
        start = 1 if two else batch["input_ids"].shape[1]
        ends, fill = set(read.ids("eos_token_id", None)), read.one_id("pad_token_id", None)
        found = [Answer(_ended(row, ends, fill, stops)) for row in sequences[:, start:].tolist()]
        if told:
            parts = zip(found, made.logprobs, made.prompt_logprobs, strict=True)
            found = [Answer([t.id for t in own], own, None if two else prompt) for _, own, prompt in parts]
        copies = len(found) // len(rows)
        return [found[i * copies : (i + 1) * copies] for i in range(len(rows))]

    def decode(self, tokens: Sequence[int], settings: Mapping[str, Any]) -> str:
        """New tokens as text."""
        skip = settings.get("skip_special_tokens")
        text: str = self.tokenizer.decode(
            list(tokens),
            skip_special_tokens=True if skip is None else skip,
            clean_up_tokenization_spaces=settings.get("clean_up_tokenization_spaces"),
        )
        return text

    @abstractmethod
    def whole(self, item: Any, answer: str, settings: Mapping[str, Any]) -> str | list[dict[str, Any]]:
        """The answer as `Written.texts` shows it."""

    def finish(self, item: Any, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> Written:
        written: list[Answer] = outputs[0]
        answers = tuple(self.decode(one.tokens, settings) for one in written)
        told = tuple(one.logprobs for one in written if one.logprobs is not None)
        return Written(
            tuple(self.whole(item, answer, settings) for answer in answers),
            answers,
            tuple(tuple(one.tokens) for one in written),
            tuple(rows[0].inputs["input_ids"]),
            rows[0].cut,
            told or None,
            written[0].prompt_logprobs,
        )


def _ended(tokens: list[int], ends: set[int], fill: int | None, stops: bool) -> list[int]:
    """A row of new tokens up to its end token, or without the filling where something else may have ended it."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    last = len(tokens)
    while stops and last and tokens[last - 1] == fill:
        last -= 1
    return tokens[:last]
