"""What need not be computed again: keys and values of a text that a cache holds already, and of a common beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.options import Settings
from cutaway.generate.prompt import Prompt
from cutaway.nn.kv_cache import Cache

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

# Tokens that must be spared before a common beginning is run by itself: a pass of its own has a cost.
MIN_SPARED_TOKENS = 64


def read_past(s: Settings) -> Cache | None:
    """The cache to go on from."""
    past = s["past_key_values"]
    if past is None:
        return None
    if not isinstance(past, Cache):
        raise GenerationError(
            f"past_key_values is a {type(past).__name__}: pass the cache that generate(return_dict_in_generate=True) "
            "or the model returned, or Cache.load(path)."
        )
    wanted = {name: s.layers(name) for name in ("output_attentions", "output_hidden_states")}
    for name, runs_all in {"use_cache": not s.flag("use_cache"), **wanted}.items():
        if runs_all:
            raise GenerationError(f"{name}={s[name]!r} needs the whole text to be run: leave past_key_values out.")
    return past


def read_prompt_lookup(s: Settings, rows: int) -> tuple[int, int] | None:
    """How many tokens to guess at a time, and the longest run to look up."""
    guessed, longest = s.integer("prompt_lookup_num_tokens", 1), s.integer("max_matching_ngram_size", 1)
    if guessed is None:
        return None
    greedy = not s.flag("do_sample") and (s.integer("num_beams", 1) or 1) == 1 and s.flag("use_cache")
    looked_into = s["output_attentions"] or s["output_hidden_states"]
    if "prompt_lookup_num_tokens" not in s.call and (rows > 1 or not greedy or looked_into):
        return None  # a wish of the model's files, where this call has no use for it
    if rows > 1:
        raise GenerationError(
            f"prompt_lookup_num_tokens={guessed} guesses for one text at a time, and there are {rows}. Pass one, or "
            "leave it out."
        )
    if not greedy:
        raise GenerationError(
            f"prompt_lookup_num_tokens={guessed} speeds up greedy search with a cache: leave out do_sample, num_beams "
            "and use_cache=False, or leave it out."
        )
    if looked_into:
        raise GenerationError(
            f"prompt_lookup_num_tokens={guessed} runs several tokens at once, so there are no attentions or hidden "
            "states of each step. Leave it out, or leave those out."
        )
    return guessed, longest or 2


def real_ids(prompt: Prompt) -> list[list[int]]:
    """The tokens of each prompt, padding and hidden words left out."""
    ids: list[list[int]] = prompt.ids.tolist()
    if prompt.mask is None:
        return ids
    rows = zip(ids, prompt.mask.tolist(), strict=True)
    return [[token for token, shown in zip(text, real, strict=True) if shown] for text, real in rows]


def check_hidden(prompt: Prompt, past: Cache | None, logprobs: int | None) -> None:
    """GenerationError where words that a mask hides meet what counts on all words of a text."""
    if past is not None and past.scattered:
        raise GenerationError(
            "past_key_values was made from a text with words that its attention_mask hid in the middle, which generate "
            "does not go on from: leave it out, and pass the whole text with its mask."
        )
    cache = None if past is None or past.empty else past
    if cache is None and logprobs is None:
        return
    hidden = prompt.hidden
    row = next((i for i, n in enumerate(hidden) if n), None)
    for name, value in (("past_key_values", cache), ("output_logprobs", logprobs)):
        if row is not None and value is not None:
            raise GenerationError(
                f"attention_mask hides {hidden[row]} words in the middle of prompt {row}, and {name} needs all of a "
                f"text's words: leave {name} out."
            )


def common_prefix_length(a: list[int], b: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def source_ids(prompt: Prompt) -> list[list[int]] | None:
    """What an encoder reads of each prompt, -1 where its mask hides a token; None where it is not given as ids."""
    if prompt.encoder_ids is None or prompt.embeds is not None:
        return None
    ids, mask = prompt.encoder_ids, prompt.encoder_mask
    found: list[list[int]] = (ids if mask is None else ids.masked_fill(mask == 0, -1)).tolist()
    return found


def check_sources(held: list[list[int]], sources: list[list[int]]) -> None:
    """GenerationError where a cache was filled from other sources [B, length] than those of the call."""
    row = next((i for i, (a, b) in enumerate(zip(held, sources, strict=True)) if a != b), None)
    if row is not None:
        raise GenerationError(
            f"past_key_values was filled from another source than row {row} of input_ids (with attention_mask): pass "
            "the source that the answer was begun with, or leave past_key_values out."
        )


def cached_lengths(past: Cache, texts: list[list[int]]) -> list[int]:
    """How many tokens of each text `past` holds; a cache of one text serves any number.

    Where the cache knows its tokens, what they have in common with the text; else all of them, as upstream.
    """
    if past.batch not in (1, len(texts)):
        raise GenerationError(
            f"past_key_values holds {past.batch} texts and there are {len(texts)} prompts: pass a cache of one text "
            "(every prompt begins with it) or of as many."
        )
    lengths = past.lengths.tolist()
    n_cached = []
    for row, text in enumerate(texts):
        i = row if past.batch > 1 else 0
        if past.ids is None and lengths[i] >= len(text):
            raise GenerationError(
                f"past_key_values holds {lengths[i]} tokens and prompt {row} has {len(text)}: pass the whole text as "
                "input_ids, the tokens that the cache holds included, and at least one more."
            )
        n_cached.append(lengths[i] if past.ids is None else common_prefix_length(past.ids[i], text))
    return n_cached


def shared_prefix_length(texts: list[list[int]]) -> int:
    """How many tokens all texts begin with, where running them once is worth it; else 0."""
    n = common_prefix_length(min(texts), max(texts))  # in the order of lists, all others lie between
    rest = remaining_length([n] * len(texts), texts)
    spared = sum(len(text) - rest for text in texts) - n
    return n if spared >= MIN_SPARED_TOKENS and min(map(len, texts)) >= rest else 0


def remaining_length(kept: list[int], texts: list[list[int]]) -> int:
    """How many tokens must be run of each text when `kept` are held: at least the last, whose logits are wanted."""
    return max(len(text) - min(n, len(text) - 1) for n, text in zip(kept, texts, strict=True))


def positions_are_fixed(model: LanguageModel) -> bool:
    """Whether a token's keys depend on nothing after it: some rotary positions change with the length of the text."""
    return not any(rotary is not None and rotary.by_length for rotary in model.architecture.writer.rotary)


def continue_from(past: Cache, kept: list[int], texts: list[list[int]], device: torch.device) -> Tensor | None:
    """Leaves in `past` what it holds of the texts, and returns the rest of each, ids [B, rest]; None for all of them.

    Every text has a rest of the same length, so that no padding is run: a text of which more is held than of the others
    has some of it computed again.
    """
    rest = remaining_length(kept, texts)
    kept = [len(text) - rest for text in texts]
    if min(kept) < 0 or max(kept) <= 0:
        return None
    if past.batch != len(texts):
        past.select(torch.zeros(len(texts), dtype=torch.int64, device=past.lengths.device))
    past.crop(kept)
    return torch.tensor([text[len(text) - rest :] for text in texts], device=device)


def guess(text: Tensor, guessed: int, longest: int) -> list[int]:
    """The tokens that followed the last place where the text's end stood before; text [L] (Saxena, 2023).

    The longest run of at most `longest` tokens that is found decides; [] where even the last token is new.
    """
    for n in range(min(longest, len(text) - 1), 0, -1):
        windows = text[:-1].unfold(0, n, 1)  # [L - n, n]; the end itself is not among them
        places: Tensor = windows.eq(text[-n:]).all(1).nonzero()
        if len(places):
            after = int(places[-1]) + n
            guesses: list[int] = text[after : after + guessed].tolist()
            return guesses
    return []
