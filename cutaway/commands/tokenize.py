"""`cutaway tokenize`: how texts are cut into tokens."""

from __future__ import annotations

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.option import (
    SENTIMENT,
    AsJson,
    ModelName,
    Offline,
    Revision,
    Texts,
    Truncation,
    gguf_arguments,
    load_arguments,
)
from cutaway.commands.text_input import texts_or_stdin


def tokenize(
    texts: Texts = None,
    model: ModelName = SENTIMENT,
    truncation: Truncation = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Show how texts are cut into tokens."""
    inputs = texts_or_stdin(texts)
    load = load_arguments(revision, offline, None, None)
    from cutaway.auto import AutoTokenizer
    from cutaway.show.label import printable, token_label

    name, load = gguf_arguments(model, load)
    tokenizer = AutoTokenizer.from_pretrained(name, **load)
    for text in inputs:
        encoding = tokenizer(text, truncation=truncation, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids = [int(id) for id in encoding["input_ids"]]
        tokens = tokenizer.convert_ids_to_tokens(ids)
        special = [bool(flag) for flag in encoding["special_tokens_mask"]]
        offsets = [[int(start), int(end)] for start, end in encoding["offset_mapping"]]
        if as_json:
            write(as_line({"text": text, "tokens": tokens, "ids": ids, "offsets": offsets, "special": special}))
            continue
        table = table_of("#>", "token", "id>", "chars>", "special")
        for i, (id, token, flag, (start, end)) in enumerate(zip(ids, tokens, special, offsets, strict=True)):
            label = plain(token_label(tokenizer, token, id, flag))
            table.add_row(str(i), label, str(id), "" if flag else f"{start}-{end}", "yes" if flag else "")
        screen = console()
        screen.print(plain(printable(text), "bold"))
        screen.print(table)
        screen.print()
