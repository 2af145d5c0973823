"""generate and stream: from a prompt and settings to ids, all at once or one token at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cutaway.adapters.mixin import Adaptable
from cutaway.errors import GenerationError, UnfinishedError
from cutaway.generate.assisted import AssistedSearch, read_assistant
from cutaway.generate.beam import BeamSearch
from cutaway.generate.cache_reuse import check_hidden
from cutaway.generate.incremental_decoding import IncrementalDecoder
from cutaway.generate.logprobs import search_logprobs
from cutaway.generate.options import Settings
from cutaway.generate.plan import Plan, make_plan
from cutaway.generate.prompt import Prompt, read_prompt
from cutaway.generate.prompt_lookup import LookupSearch
from cutaway.generate.results import GenerateOutput
from cutaway.generate.search import Search, reads_both_ways
from cutaway.generate.settings import GenerationConfig

if TYPE_CHECKING:
    from cutaway.generate.prompt import TokenIds
    from cutaway.generate.streaming import BaseStreamer
    from cutaway.models.protocols import AdapterChoice, GenerativeModel, LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

INPUTS = ("decoder_input_ids", "decoder_attention_mask", "encoder_outputs", "inputs_embeds")


def generate(
    model: GenerativeModel,
    input_ids: TokenIds | None = None,
    attention_mask: TokenIds | None = None,
    *,
    inputs: TokenIds | None = None,
    generation_config: GenerationConfig | None = None,
    streamer: BaseStreamer | None = None,
    tokenizer: TokenizerLike | None = None,
    **settings: object,
) -> Tensor | GenerateOutput:
    """Continues texts (a decoder), or answers them (an encoder-decoder), greedily, by sampling or with beams.

    Args:
        model: a model with a language-model head.
        input_ids: ids [B, L] of the prompts, or of the texts the encoder reads. A decoder without them starts from bos.
        attention_mask: [B, L], 1 at real tokens. Without it the padding id marks padding, unless it ends texts too.
            Padding may be on either side: a decoder's prompts are moved to the right, so that the answers are always
            `sequences[:, L:]`. Padding counts neither as text nor as positions; a word that is hidden in the middle of
            a text is not seen, and keeps its position.
        inputs: another name of `input_ids`.
        generation_config: settings between those of the call and those of the model.
        streamer: gets the prompt and each step's tokens (`put`), and `end` when it is over.
        tokenizer: needed by `stop_strings`, `json_schema`, `regex` and `grammar`; gives log-probabilities their texts.
        settings: any of `cutaway.generate.settings.DEFAULTS`; also `decoder_input_ids`, `decoder_attention_mask` and
            `encoder_outputs`. `inputs_embeds` [B, L, hidden] is read in the place of ids; the result of a decoder is
            then the answers alone, or begins with the input_ids that are given too. `token_type_ids` is ignored, and
            `position_ids` may only be what they are without.

            Length: `max_new_tokens`, or `max_length`, which counts the prompt; without either, 20 new tokens, or as
            many as the model has positions for. `min_new_tokens`, `min_length`, `eos_token_id` (one or several),
            `stop_strings`. `max_time` (seconds) and `cancel` (a threading.Event, or a function) end all sequences
            after the step in which they come due.

            `past_key_values`: a cache of an earlier call (`output.past_key_values`, or `Cache.load(path)`), of one text
            or of as many as there are prompts. `input_ids` is the whole text all the same; what the cache holds of it
            is not run again. The cache goes on to hold the new text; it stays as it is where one text of it becomes
            several (more prompts, num_return_sequences, beams). What the prompts of one call begin with in common is
            run once without being asked.

            `prompt_lookup_num_tokens`: greedy search guesses that many tokens from what followed the same words
            (`max_matching_ngram_size`, 2) earlier in the text, and checks them in one pass: the same text, up to
            rounding, in fewer passes where it repeats itself.

            `assistant_model`: a smaller decoder with the same vocabulary writes up to `num_assistant_tokens` (5) ahead
            (greedily no token that it finds less likely than `assistant_confidence_threshold`, 0.4), and the model
            checks them in one pass. The text is the one of greedy search, up to rounding; sampled, it has the same
            distribution as without, though not the same text for the same seed.

            Sampling (`do_sample=True`): `temperature`, `top_k` (50 unless given; 0 for none), `top_p`, `min_p`, and
            `seed`. One seed is every prompt's, a list has one for each. Prompt b's sequence c of `num_return_sequences`
            draws from its own generator, seeded with seed[b] + c: its text depends neither on the batch nor on its
            place in it. Without a seed, torch's global generator is used.

            `output_logprobs` (with `return_dict_in_generate`): how likely the model finds each token of prompt and
            answer, as `TokenLogprob`s; a number gives as many of the likeliest tokens beside each. It costs one more
            pass of the model over the whole texts.

            `adapters`: the adapter of all prompts (None for the base alone), or a list with one of these for each.

            Beams (`num_beams` above 1): `length_penalty`, `early_stopping` (True, False, "never"), `num_beam_groups`
            with `diversity_penalty`, `force_words_ids`. With `do_sample` they are drawn. docs/generation.md says more,
            also of the rules on tokens and of `json_schema`, `regex` and `grammar`.

    Returns:
        ids int64 [B * num_return_sequences, columns], prompt included (the decoder's, for an encoder-decoder), ended
        rows filled with `pad_token_id` (without one: with the first end token). With `return_dict_in_generate`, a
        GenerateDecoderOnlyOutput or GenerateEncoderDecoderOutput, with beams GenerateBeamDecoderOnlyOutput or
        GenerateBeamEncoderDecoderOutput.

    Dropout is off while the model runs, whatever its mode, and no gradients are recorded.

    Raises:
        GenerationError: settings that contradict each other or the model, before the model runs; rules that leave no
            token or no answer.
        UnfinishedError: an answer was cut before it had the form that was asked for.
        InputError: ids or mask of a wrong shape.
    """
    search = prepare(model, input_ids, attention_mask, inputs, generation_config, tokenizer, settings)
    if streamer is not None and isinstance(search, BeamSearch):
        raise GenerationError(
            "streamer shows tokens as they are chosen, and beam search knows its answer at the end: pass num_beams=1, "
            "or leave it out."
        )
    try:
        if streamer is not None:
            streamer.put(search.sequences[:, search.unnamed : search.width].cpu())
        while not search.done:
            search.step()
            if streamer is not None:
                streamer.put(search.sequences[:, search.width - 1].cpu())
    finally:
        if streamer is not None:  # after an error too: a reader in another thread must not wait for ever
            streamer.end()
        search.close()
    require_finished(search)
    sequences = search.sequences[:, search.unnamed : search.width]
    if search.recorder is None:
        return sequences
    with search.adapted(all_rows=True):
        logprobs = {} if search.plan.logprobs is None else search_logprobs(search, tokenizer)
    return search.recorder.output(sequences, search.cache, logprobs)


def require_finished(search: Search) -> None:
    """Raises UnfinishedError where an answer was cut before it had the form that was asked for."""
    if search.unfinished and search.plan.rules.form is not None:
        new = search.width - search.plan.prompt_columns
        raise UnfinishedError(
            f"Sequences {search.unfinished} were cut after {new} tokens, before they were whole by "
            f"{search.plan.rules.form.kind}. Raise max_new_tokens, or ask for less (maxLength, maxItems). The error's "
            "`sequences` holds what was written.",
            tuple(search.unfinished),
            search.sequences[:, : search.width],
        )


class Token(NamedTuple):
    """One generated token.

    row: the sequence it belongs to. id: the token. text: the characters that are whole now, "" while one is not; None
    without a tokenizer. last: whether the sequence ends here.
    """

    row: int
    id: int
    text: str | None
    last: bool


def stream(
    model: GenerativeModel,
    input_ids: TokenIds | None = None,
    attention_mask: TokenIds | None = None,
    *,
    inputs: TokenIds | None = None,
    generation_config: GenerationConfig | None = None,
    tokenizer: TokenizerLike | None = None,
    skip_special_tokens: bool = True,
    **settings: object,
) -> Iterator[Token]:
    """The tokens of `generate`, each as soon as it is chosen; of a batch, row after row in each step.

    Arguments are those of `generate`. With a tokenizer, the texts of a row's tokens joined are its answer. Settings are
    checked in the call, before the first token is asked for. Stopping to read stops the model.
    """
    if settings.get("return_dict_in_generate"):
        raise GenerationError("return_dict_in_generate=True: stream() yields tokens only. Call generate() instead.")
    settings["return_dict_in_generate"] = False
    search = prepare(model, input_ids, attention_mask, inputs, generation_config, tokenizer, settings)
    readers = None
    if tokenizer is not None:
        readers = [
            IncrementalDecoder(tokenizer, context, skip_special_tokens=skip_special_tokens)
            for context in search.contexts()
        ]
    return read_tokens(search, readers)


def read_tokens(search: Search, readers: list[IncrementalDecoder] | None) -> Iterator[Token]:
    """Runs the search and yields its tokens."""
    try:
        while not search.done:
            step = search.step()
            if isinstance(search, BeamSearch):
                continue
            rows = range(search.total) if step.rows is None else step.rows.tolist()
            tokens = step.tokens.tolist()
            ended = [False] * len(tokens) if step.ended is None else step.ended.tolist()
            for row, token, last in sorted(zip(rows, tokens, ended, strict=True)):
                text = None
                if readers is not None:
                    text = readers[row].add(token) + (readers[row].flush() if last else "")
                yield Token(row, token, text, last)
    finally:
        search.close()
    if isinstance(search, BeamSearch):
        yield from read_answers(search, readers)
    require_finished(search)


def read_answers(search: BeamSearch, readers: list[IncrementalDecoder] | None) -> Iterator[Token]:
    """The tokens of beam search, row after row: they are known when it is over."""
    number, returned = search.beams.number, search.beams.returned
    for row, length in enumerate(search.lengths):
        for n, token in enumerate(search.sequences[row, search.plan.prompt_columns :].tolist()[:length], start=1):
            text = None
            if readers is not None:
                reader = readers[row // returned * number + row % returned]
                text = reader.add(token) + (reader.flush() if n == length else "")
            yield Token(row, token, text, n == length)


def read_adapters(model: LanguageModel, adapters: AdapterChoice, rows: int) -> tuple[str | None, ...] | None:
    """The adapters of the prompts, one for all of them or for each; () for none given: then what acts now."""
    if adapters == ():
        return model.chosen(rows) if isinstance(model, Adaptable) else None
    with model.use_adapter(adapters, rows):  # the same checks as in a call of the model
        return (adapters,) if adapters is None or isinstance(adapters, str) else tuple(adapters)


def check_positions(positions: object, input_ids: object, attention_mask: object) -> None:
    """GenerationError unless `position_ids` count each text's real tokens from 0, as is done without them."""
    position_ids = torch.as_tensor(positions)
    columns = torch.as_tensor(input_ids).shape[-1] if input_ids is not None else position_ids.shape[-1]
    real = torch.ones(1, columns) if attention_mask is None else torch.as_tensor(attention_mask) != 0
    counted = real.long().cumsum(-1) - 1
    if position_ids.shape[-1] != columns or bool(((position_ids.to(real.device) != counted) & (real != 0)).any()):
        raise GenerationError(
            f"position_ids={position_ids.tolist()!r:.80}: generate() counts the real tokens of each text from 0. Leave "
            "position_ids out, or write the steps yourself with the model's forward."
        )


def check_places(model: GenerativeModel, prompt: Prompt, plan: Plan) -> None:
    """GenerationError where a model that asks for a token at its place (XLNet) meets what reads texts in order."""
    needs = {
        "past_key_values": plan.past is not None, "output_logprobs": plan.logprobs is not None,
        "prompt_lookup_num_tokens": plan.prompt_lookup is not None, "assistant_model": plan.assistant is not None,
        "guidance_scale": plan.rules.guidance != 1.0,
    }  # fmt: skip
    for name, asked in needs.items():
        if asked:
            raise GenerationError(
                f"{name} is for models that read a text from its first word to its last, and {type(model).__name__} "
                f"reads it both ways: leave {name} out."
            )
    if prompt.embeds is not None:
        raise GenerationError(
            f"inputs_embeds: {type(model).__name__} reads the ids of a text anew for each token that it writes. Pass "
            "input_ids, and leave inputs_embeds out."
        )


def check_embedded(prompt: Prompt, plan: Plan, encoder_decoder: bool) -> None:
    """GenerationError where a prompt that is given as vectors meets what needs its ids."""
    if prompt.embeds is None or encoder_decoder:
        return
    needs = {
        "use_cache=False": not plan.use_cache,
        "output_logprobs": plan.logprobs is not None, "prompt_lookup_num_tokens": plan.prompt_lookup is not None,
        "guidance_scale": plan.rules.guidance != 1.0,
    }  # fmt: skip
    for name, asked in needs.items():
        if asked:
            raise GenerationError(f"{name} needs the ids of the prompt, and inputs_embeds has none: leave {name} out.")
    past = plan.past
    if past is None or past.empty:
        return
    rows, columns = prompt.embeds.shape[:2]
    if prompt.mask is not None or past.columns is not None or (past.batch, plan.copies) != (rows, 1):
        raise GenerationError(
            "past_key_values goes on with inputs_embeds where each text of the cache is one of the call and none has "
            "padding: leave past_key_values out, or run the texts one by one."
        )
    if past.seen >= columns:
        raise GenerationError(
            f"inputs_embeds has {columns} vectors, and past_key_values holds {past.seen}: pass those of the whole "
            "text, of which the cache holds the beginning."
        )


def prepare(
    model: GenerativeModel,
    input_ids: TokenIds | None,
    attention_mask: TokenIds | None,
    inputs: TokenIds | None,
    generation_config: GenerationConfig | None,
    tokenizer: TokenizerLike | None,
    settings: dict[str, Any],
) -> Search:
    """Checks a call and sets up its search; the model has not run when this returns."""
    if not getattr(model, "can_generate", lambda: True)():
        raise GenerationError(
            f"{type(model).__name__} has no language-model head to generate with. Load the model with "
            "AutoModelForCausalLM or AutoModelForSeq2SeqLM."
        )
    if hasattr(model, "unshard"):  # torch's FSDP2; texts that end apart would leave its processes waiting
        raise GenerationError(
            f"{type(model).__name__} is split over several processes (fsdp), and generates only as a whole: write it "
            "with trainer.save_model(folder), and load it with from_pretrained(folder) in one process."
        )
    if inputs is not None:
        if input_ids is not None:
            raise GenerationError("inputs and input_ids are two names of the same thing: pass one of them.")
        input_ids = inputs
    settings.pop("token_type_ids", None)  # tokenizers hand it to models that have no use for it
    decoder_inputs = {name: settings.pop(name, None) for name in INPUTS}
    adapters, positions = settings.pop("adapters", ()), settings.pop("position_ids", None)
    asks_places = reads_both_ways(model)
    if asks_places and settings.get("use_mems") is not None:
        settings["use_cache"] = settings["use_mems"]  # what a cache is called there
    if asks_places:
        settings.pop("use_mems", None)
    call = Settings(model, generation_config, settings)
    prompt = read_prompt(model, call, input_ids, attention_mask, decoder_inputs)
    if positions is not None:
        check_positions(positions, input_ids, attention_mask)
    architecture = getattr(model, "architecture", None)
    writer = None if architecture is None else architecture.writer
    plan = make_plan(
        call,
        rows=prompt.ids.shape[0],
        columns=prompt.ids.shape[1],
        longest_prompt=prompt.longest,
        positions=None if writer is None else writer.longest,
        vocab_size=None if writer is None else writer.embedding.vocab_size,
        tokenizer=tokenizer,
    )
    plan = replace(
        plan, assistant=read_assistant(call, model, prompt.ids.shape[0], reads_ids=prompt.encoder_ids is not None)
    )
    if asks_places:
        check_places(model, prompt, plan)
    kind: type[Search] = Search if plan.prompt_lookup is None else LookupSearch
    if plan.assistant is not None:
        kind = AssistedSearch
    if plan.beams is not None:
        kind = BeamSearch
    check_hidden(prompt, plan.past, plan.logprobs)
    check_embedded(prompt, plan, model.is_encoder_decoder)
    search = kind(model, prompt, plan, tokenizer)
    search.adapters = read_adapters(model, adapters, prompt.ids.shape[0])
    return search
