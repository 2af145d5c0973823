"""Plan: the settings of one call, merged, checked against each other and against the model."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.errors import GenerationError, counted
from cutaway.generate.beam_settings import BeamSettings, read_beam_settings
from cutaway.generate.cache_reuse import read_past, read_prompt_lookup
from cutaway.generate.options import Settings
from cutaway.generate.processor_settings import ProcessorSettings, read_processor_settings
from cutaway.generate.settings import DEFAULT_NEW_TOKENS
from cutaway.generate.stopping import Limits, read_limits
from cutaway.nn.kv_cache import Cache

if TYPE_CHECKING:
    from cutaway.generate.assistant import Assistant
    from cutaway.tokenization.protocols import TokenizerLike

MOST_ROWS = 1 << 24  # texts that are written at once; long before it the memory of any machine ends
SAMPLING_ONLY: dict[str, tuple[Any, ...]] = {  # the values beside each rule nothing out, so they contradict nothing
    "temperature": (1.0,),
    "top_k": (0, 50),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}


@dataclass(frozen=True)
class Plan:
    """What the search does. Lengths are columns of `sequences`; ids are non-negative."""

    prompt_columns: int
    max_length: int
    min_length: int
    eos: tuple[int, ...]
    pad: int
    forced_bos: int | None
    forced_eos: tuple[int, ...]
    stop_strings: tuple[str, ...]
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    rules: ProcessorSettings
    beams: BeamSettings | None
    seed: tuple[int, ...] | None
    copies: int  # sequences of each prompt that run side by side
    use_cache: bool
    return_dict: bool
    output_scores: bool
    output_logits: bool
    logprobs: int | None  # likeliest tokens given beside each token; None where no log-probabilities are asked for
    output_attentions: bool | list[int]
    output_hidden_states: bool | list[int]
    limits: Limits
    past: Cache | None
    prompt_lookup: tuple[int, int] | None  # tokens guessed at a time, and the longest run of tokens that is looked up
    assistant: Assistant | None = None


def refuse_contradictions(s: Settings) -> None:
    """Raises GenerationError for settings of the call that cannot both hold."""
    if not s.flag("do_sample"):
        for name, neutral in SAMPLING_ONLY.items():
            if name in s.call and s.call[name] not in neutral:
                raise GenerationError(
                    f"{name}={s.call[name]!r} only acts on sampling, and do_sample is False. "
                    f"Pass do_sample=True, or leave {name} out."
                )
        if (s.integer("num_return_sequences", 1) or 1) > 1 and (s.integer("num_beams", 1) or 1) == 1:
            raise GenerationError(
                f"num_return_sequences={s['num_return_sequences']}: greedy search has one answer. Pass do_sample=True, "
                "or num_beams."
            )
    if not s.flag("return_dict_in_generate"):
        for name in ("output_scores", "output_logits", "output_logprobs", "output_attentions", "output_hidden_states"):
            if s.call.get(name):
                raise GenerationError(
                    f"{name}={s.call[name]!r} has nowhere to go: pass return_dict_in_generate=True as well, "
                    f"or leave {name} out."
                )


def read_lengths(s: Settings, columns: int, longest_prompt: int, positions: int | None) -> tuple[int, int]:
    """max_length and min_length in columns of `sequences`.

    Args:
        s: the settings.
        columns: columns of the prompt (decoder prompt for an encoder-decoder), padding included.
        longest_prompt: real tokens of the longest row: what counts against the model's positions.
        positions: the most tokens the model can take, None where it sets no bound.
    """
    new, length = s.integer("max_new_tokens", 1), s.integer("max_length", 1)
    free = None if positions is None else positions - longest_prompt
    if positions is not None and positions <= longest_prompt:
        raise GenerationError(
            f"The prompt has {longest_prompt} tokens and the model has {positions} positions: there is no room "
            "for an answer. Shorten the prompt, or have the tokenizer cut it with truncation=True and "
            f"max_length={positions - 1}."
        )
    if "max_new_tokens" in s.call and "max_length" in s.call and columns + s.call["max_new_tokens"] != length:
        raise GenerationError(
            f"max_new_tokens={new} and max_length={length} contradict each other for a prompt of {columns} tokens. "
            "Pass one of them; max_length counts the prompt."
        )
    if "max_length" in s.call and "max_new_tokens" not in s.call:
        new = None  # the call's way of counting wins over the file's
    asked = "max_new_tokens" in s.call or "max_length" in s.call
    if new is not None:
        longest = columns + new
    elif length is not None:
        longest = length
        if longest <= columns:
            raise GenerationError(
                f"max_length={length} counts the prompt, which has {columns} tokens already: nothing can be generated. "
                "Raise max_length, or pass max_new_tokens."
            )
    else:
        longest = columns + DEFAULT_NEW_TOKENS
    if free is not None and longest - columns > free:
        if asked:
            name = "max_new_tokens" if new is not None else "max_length"
            raise GenerationError(
                f"{name}={s[name]} asks for {longest - columns} tokens after a prompt of {longest_prompt}, and the "
                f"model has {positions} positions. Pass max_new_tokens={free} or less, or shorten the prompt."
            )
        longest = columns + free
    least = s.integer("min_length", 0) or 0
    least_new = s.integer("min_new_tokens", 0)
    if least_new is not None:
        least = columns + least_new
    if least > longest:
        name = "min_length" if least_new is None else "min_new_tokens"
        if asked or name in s.call:
            raise GenerationError(
                f"{name}={s[name]} cannot be reached: the text ends at {longest} tokens, prompt included. "
                f"Lower {name}, or raise max_new_tokens."
            )
        least = longest
    return longest, least


def read_seed(s: Settings, rows: int) -> tuple[int, ...] | None:
    """One seed per prompt; a single seed is every prompt's."""
    seed = s["seed"]
    if seed is None:
        return None
    if hasattr(seed, "tolist"):
        seed = seed.tolist()
    seeds = list(seed) if isinstance(seed, Sequence) and not isinstance(seed, str) else [seed] * rows
    if len(seeds) != rows:
        raise GenerationError(f"seed has {len(seeds)} numbers for {rows} prompts. Pass one number, or one per prompt.")
    for value in seeds:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= int(value) < 2**63:
            raise GenerationError(f"seed={value!r}: pass an integer from 0 to 2**63 - 1.")
    return tuple(int(value) for value in seeds)


def read_stop_strings(s: Settings, tokenizer: TokenizerLike | None) -> tuple[str, ...]:
    value = s["stop_strings"]
    listed = value is None or isinstance(value, list | tuple | set | frozenset)
    strings = tuple(value or ()) if listed else (value,)
    if not all(isinstance(text, str) and text for text in strings):
        raise GenerationError(f"stop_strings={value!r}: pass a text or a list of texts, none of them empty.")
    if strings and tokenizer is None:
        raise GenerationError(
            f"stop_strings={value!r} needs the tokenizer to read the answer: pass tokenizer= as well."
        )
    return strings


def read_logprobs(s: Settings, vocab_size: int | None) -> int | None:
    """True: of the text's own tokens, no others beside them; a number: with so many of the likeliest."""
    value = s["output_logprobs"]
    if isinstance(value, bool) or value is None:
        return 0 if value else None
    top = s.integer("output_logprobs", 1)
    if vocab_size is not None and top is not None and top > vocab_size:
        raise GenerationError(f"output_logprobs={top}: the model has {vocab_size} tokens. Pass that many or fewer.")
    return top


def make_plan(
    s: Settings,
    *,
    rows: int,
    columns: int,
    longest_prompt: int,
    positions: int | None,
    vocab_size: int | None,
    tokenizer: TokenizerLike | None = None,
) -> Plan:
    """Checks everything that can be checked before the model runs; raises GenerationError."""
    refuse_contradictions(s)
    longest, least = read_lengths(s, columns, longest_prompt, positions)
    do_sample = s.flag("do_sample")
    eos = s.ids("eos_token_id", vocab_size)
    pad = s.one_id("pad_token_id", None)  # padding may lie outside the model's vocabulary: it is never run
    rule = "pass a number above 0, or do_sample=False for the likeliest tokens"
    heat = s.above_zero("temperature", rule) if do_sample else s.number("temperature", 0.0, math.inf, rule)
    top_k = s.integer("top_k", 0)
    beams = read_beam_settings(s, longest - columns, vocab_size)
    copies = beams.number if beams is not None else s.integer("num_return_sequences", 1) or 1
    if rows * copies > MOST_ROWS:
        name = "num_return_sequences" if beams is None else "num_beams"
        raise GenerationError(
            f"{name}={copies}: with {counted(rows, 'prompt')} these are {rows * copies:,} texts at once, and at most "
            f"{MOST_ROWS:,} can be. Lower it."
        )
    return Plan(
        prompt_columns=columns,
        max_length=longest,
        min_length=least,
        eos=eos,
        pad=pad if pad is not None else eos[0] if eos else 0,
        forced_bos=s.one_id("forced_bos_token_id", vocab_size),
        forced_eos=s.ids("forced_eos_token_id", vocab_size),
        stop_strings=read_stop_strings(s, tokenizer),
        do_sample=do_sample,
        temperature=heat,
        top_k=top_k or 0,
        top_p=s.above_zero("top_p", "pass a number above 0 and at most 1", 1.0),
        min_p=s.number("min_p", 0.0, 1.0, "pass a number from 0 to 1"),
        typical_p=s.above_zero("typical_p", "pass a number above 0 and at most 1", 1.0),
        epsilon_cutoff=s.number("epsilon_cutoff", 0.0, 1.0, "pass a number from 0 to 1"),
        eta_cutoff=s.number("eta_cutoff", 0.0, 1.0, "pass a number from 0 to 1"),
        rules=read_processor_settings(s, eos, vocab_size, tokenizer),
        beams=beams,
        seed=read_seed(s, rows) if do_sample else None,
        copies=copies,
        use_cache=s.flag("use_cache"),
        return_dict=s.flag("return_dict_in_generate"),
        output_scores=s.flag("output_scores"),
        output_logits=s.flag("output_logits"),
        logprobs=read_logprobs(s, vocab_size),
        output_attentions=s.layers("output_attentions"),
        output_hidden_states=s.layers("output_hidden_states"),
        limits=read_limits(s),
        past=read_past(s),
        prompt_lookup=read_prompt_lookup(s, rows),
    )
