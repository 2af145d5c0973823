"""`cutaway generate`: texts continued."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.commands.display import as_line, write
from cutaway.commands.option import AsJson, Dtypes, ModelName, Offline, Revision, Texts, Threads, load_arguments
from cutaway.commands.text_input import texts_or_stdin
from cutaway.errors import InputError


def generate(
    texts: Texts = None,
    model: ModelName = "gpt2",
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
    num_beams: Annotated[int, typer.Option(min=1, help="Search with this many answers side by side.")] = 1,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Continue texts, token by token."""
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if given and not sample:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{names} only counts with --sample; without it the likeliest token is taken.")
    forms = {"json_schema": json_schema, "regex": regex, "grammar": grammar and grammar.read_text(encoding="utf-8")}
    given |= {name: value for name, value in forms.items() if value is not None}
    if num_beams > 1:
        given["num_beams"] = num_beams
    inputs = texts_or_stdin(texts)
    load = load_arguments(revision, offline, threads, dtype)
    from cutaway.generate import stream
    from cutaway.inspect.explainer import load_model
    from cutaway.show.label import visible_lines

    loaded, tokenizer = load_model(model, **load)
    if not loaded.can_generate():
        raise InputError(f"{model!r} ({type(loaded).__name__}) writes no text. Give a decoder, for example gpt2.")
    loaded.eval()
    for text in inputs:
        encoding = tokenizer(text, return_tensors="pt")
        tokens = stream(
            loaded,
            encoding["input_ids"].to(loaded.device),
            encoding["attention_mask"].to(loaded.device),
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            do_sample=sample,
            **given,
        )
        answer = ""
        if not as_json and not loaded.is_encoder_decoder:
            write(visible_lines(text), end="")
        for step in tokens:
            answer += step.text or ""
            if not as_json:
                write(visible_lines(step.text or ""), end="")
        write(as_line({"text": text, "generated": answer}) if as_json else "")
