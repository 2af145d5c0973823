"""`cutaway generate`: texts continued."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.default_model import default_decoder
from cutaway.commands.display import as_line, write
from cutaway.commands.option import AsJson, Dtypes, Offline, OrDefault, Revision, Texts, Threads, load_arguments
from cutaway.commands.text_input import texts_or_stdin
from cutaway.errors import InputError

if TYPE_CHECKING:
    from cutaway.tokenization.batch_encoding import BatchEncoding
    from cutaway.tokenization.protocols import TokenizerLike


def generate(
    texts: Texts = None,
    model: OrDefault = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write at most.")] = 50,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens instead of taking the likeliest.")] = False,
    temperature: Annotated[float | None, typer.Option(help="With --sample: above 1 bolder, below 1 safer.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="With --sample: only the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="With --sample: only the likeliest tokens that make up p.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --sample: the same seed gives the same text.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file: the answer follows this JSON schema.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="The whole answer matches this regular expression.")] = None,
    grammar: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file: the answer follows this Lark or GBNF grammar."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text itself, also where the model has a chat template.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(help="What a chat model is told before the text; not all of them take it.")
    ] = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Search with this many answers side by side.")] = 1,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Continue texts, token by token; a model with a chat template answers them."""
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if given and not sample:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{names} only counts with --sample; without it the likeliest token is taken.")
    forms = {"json_schema": json_schema, "regex": regex, "grammar": grammar and grammar.read_text(encoding="utf-8")}
    given |= {name: value for name, value in forms.items() if value is not None}
    if num_beams > 1:
        given["num_beams"] = num_beams
    if raw and system is not None:
        raise typer.BadParameter("--system belongs to a chat, and --raw makes none; leave one of them out.")
    inputs = texts_or_stdin(texts)
    load = load_arguments(revision, offline, threads, dtype)
    from cutaway.generate import stream
    from cutaway.inspect.explainer import load_model
    from cutaway.show.label import printable, visible_lines

    name = model or default_decoder(load)
    loaded, tokenizer = load_model(name, **load)
    if not loaded.can_generate():
        raise InputError(f"{name!r} ({type(loaded).__name__}) writes no text. Give a decoder, for example gpt2.")
    loaded.eval()
    chats = not raw and bool(getattr(tokenizer, "chat_template", None))
    if system is not None and not chats:
        raise InputError(f"--system: {name!r} has no chat template, so it continues texts; write it into the text.")
    for text in inputs:
        if not text.strip():
            raise InputError("The text is empty: there is nothing to go on from. Give at least one word.")
        encoding = _chat(tokenizer, text, system) if chats else tokenizer(text, return_tensors="pt")
        tokens = stream(
            loaded,
            encoding["input_ids"].to(loaded.device),
            encoding["attention_mask"].to(loaded.device),
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            do_sample=sample,
            **given,
        )
        answer, written = "", []
        if not as_json and not chats and not loaded.is_encoder_decoder:
            write(visible_lines(text), end="")
        for step in tokens:
            answer += step.text or ""
            written.append(step.id)
            if not as_json:
                write(visible_lines(step.text or ""), end="")
        write(as_line({"text": text, "generated": answer}) if as_json else "")
        if not answer.strip():
            sys.stderr.write(printable(_why_empty(tokenizer, written, answer, chats)) + "\n")


def _chat(tokenizer: TokenizerLike, text: str, system: str | None) -> BatchEncoding:
    """The text as a user's message in the words of the model's template, [1, L]."""
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    encoding: BatchEncoding = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    return encoding


def _why_empty(tokenizer: TokenizerLike, written: list[int], answer: str, chats: bool) -> str:
    """One sentence: why nothing is to be seen."""
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(written[:4])]
    if answer or (written and not set(written) <= set(tokenizer.all_special_ids)):
        return f"The answer is empty: the model wrote only white space, {len(written):,} tokens of it."
    if chats:
        way = "Ask in other words, or continue the text itself with --raw."
    elif tokenizer.chat_template:
        way = "The model follows instructions: leave out --raw."
    else:
        way = "Give a longer beginning, or --sample. A model for chats would need its template, and this one has none."
    return f"The answer is empty: the model ended at once (it wrote {', '.join(names) or 'nothing'}). {way}"
