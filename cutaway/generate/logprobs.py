"""How likely a model finds each token of a text, given those before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.generate.cache_reuse import real_ids
from cutaway.generate.incremental_decoding import CONTEXT, REPLACEMENT, IncrementalDecoder
from cutaway.generate.results import Alternative, TokenLogprob
from cutaway.generate.search import Search

if TYPE_CHECKING:
    from cutaway.models.protocols import GenerativeModel
    from cutaway.tokenization.protocols import TokenizerLike

AT_ONCE = 256  # positions whose logits are held at the same time


def token_logits(
    model: GenerativeModel, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]
) -> Iterator[tuple[Tensor, ...]]:
    """Runs a model once over whole texts; yields (logits [n, V] that predict tokens, the tokens [n]), in order.

    Args:
        model: a model with a language-model head.
        inputs: what its base model reads; the texts are `decoder_input_ids`, or `input_ids` of a decoder.
        places: (row, position) of each token that is wanted; positions from 1 up.
    """
    hidden = model.base(**inputs, use_cache=False).last_hidden_state  # [rows, length, hidden]
    ids = inputs["decoder_input_ids" if model.is_encoder_decoder else "input_ids"]
    for start in range(0, len(places), AT_ONCE):
        row, token = torch.tensor(places[start : start + AT_ONCE], device=ids.device).T
        yield model.logits(hidden[row, token - 1]).float(), ids[row, token]


def search_logprobs(search: Search, tokenizer: TokenizerLike | None) -> dict[str, Any]:
    """`prompt_logprobs` and `logprobs` of a search that is done: for each sequence its tokens, by one more pass."""
    columns, number = search.plan.prompt_columns, len(search.sequences) // len(search.prompt.ids)
    prompts = [prompt for prompt in real_ids(search.prompt) for _ in range(number)]
    texts = [
        [*prompt, *row[columns : columns + length]]
        for prompt, row, length in zip(prompts, search.sequences.tolist(), search.lengths, strict=True)
    ]
    with torch.no_grad(), search.evaluating():
        stats = _token_stats(search, texts, number)
    read = [_read(text, tokens, tokenizer) for text, tokens in zip(texts, stats, strict=True)]
    starts = [len(prompt) for prompt in prompts]
    return {
        "prompt_logprobs": tuple(tokens[:start] for tokens, start in zip(read, starts, strict=True)),
        "logprobs": tuple(tokens[start:] for tokens, start in zip(read, starts, strict=True)),
    }


# A token's logprob and rank, and the likeliest tokens' ids and logprobs.
TokenStats = tuple[float, int, list[tuple[int, float]]]


def _token_stats(search: Search, texts: list[list[int]], number: int) -> list[list[TokenStats]]:
    """Of each text all tokens but the first."""
    top, device = search.plan.logprobs or 0, search.sequences.device
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=device)
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if search.model.is_encoder_decoder:
        inputs = {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        for name, value in (("input_ids", search.prompt.encoder_ids), ("attention_mask", search.prompt.encoder_mask)):
            if value is not None:
                inputs[name] = value.repeat_interleave(number, dim=0)
        if search.prompt.encoder_outputs is not None:
            inputs["encoder_outputs"] = (search.prompt.encoder_outputs[0].repeat_interleave(number, dim=0),)
    places = [(row, token) for row, text in enumerate(texts) for token in range(1, len(text))]
    stats: list[TokenStats] = []
    for logits, tokens in token_logits(search.model, inputs, places):
        token_scores = logits.gather(1, tokens[:, None])  # [n, 1]
        total = logits.logsumexp(dim=-1, keepdim=True)  # [n, 1]
        best = logits.topk(top, dim=-1) if top else None
        likeliest = [[]] * len(tokens) if best is None else _pairs(best.indices, best.values - total)
        ranks = 1 + (logits > token_scores).sum(dim=-1)
        stats += zip((token_scores - total)[:, 0].tolist(), ranks.tolist(), likeliest, strict=True)
    rest = iter(stats)
    return [[next(rest) for _ in text[1:]] for text in texts]


def _pairs(ids: Tensor, values: Tensor) -> list[list[tuple[int, float]]]:
    """Two tables [n, k] as n lists of k pairs."""
    return [list(zip(a, b, strict=True)) for a, b in zip(ids.tolist(), values.tolist(), strict=True)]


def _read(text: list[int], stats: list[TokenStats], tokenizer: TokenizerLike | None) -> tuple[TokenLogprob, ...]:
    """The tokens of one text with their characters."""
    reader = None if tokenizer is None else IncrementalDecoder(tokenizer, skip_special_tokens=False)
    logprobs = []
    for place, token in enumerate(text):
        piece = None
        if reader is not None:
            piece = reader.add(token) + (reader.flush() if place + 1 == len(text) else "")
        if not place:
            logprobs.append(TokenLogprob(token, piece, None, None))
            continue
        logprob, rank, likeliest = stats[place - 1]
        pieces = _added(tokenizer, text[max(0, place - CONTEXT) : place], [id for id, _ in likeliest])
        top = tuple(Alternative(id, other, value) for (id, value), other in zip(likeliest, pieces, strict=True))
        logprobs.append(TokenLogprob(token, piece, logprob, rank, top))
    return tuple(logprobs)


def _added(tokenizer: TokenizerLike | None, before: list[int], tokens: list[int]) -> list[str | None]:
    """The characters that each of `tokens` would add to those before it."""
    if tokenizer is None or not tokens:
        return [None] * len(tokens)
    context: str = tokenizer.decode(before, skip_special_tokens=False)
    texts: list[str] = [tokenizer.decode([*before, token], skip_special_tokens=False) for token in tokens]
    whole = context.rstrip(REPLACEMENT)  # a character that was unfinished is no longer
    return [text[len(context if text.startswith(context) else whole) :] for text in texts]
