"""Writes docs/config-fields.md from the tables in the code: `python tests/field_tables.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cutaway.auto import FAMILIES, config_class
from cutaway.checkpoint.field_table import FieldTable, Row
from cutaway.checkpoint.gguf import metadata_table
from cutaway.checkpoint.gguf_names import DIALECTS
from cutaway.config import config_fields
from cutaway.config.config import PretrainedConfig
from cutaway.generate.settings import TABLE as GENERATION
from cutaway.nn.lora_config import TABLE as ADAPTER
from cutaway.pipelines.sentence_dense import TABLE as DENSE
from cutaway.pipelines.sentence_modules import TABLES as SENTENCE
from cutaway.tokenization.gguf import SPLITS
from cutaway.tokenization.gguf import TABLE as GGUF_TOKENIZER
from cutaway.tokenization.settings_files import SPECIAL_TABLE
from cutaway.tokenization.settings_files import TABLE as TOKENIZER

PAGE = Path(__file__).parent.parent / "docs" / "config-fields.md"
START = """# What each field of a checkpoint does

Made by `python tests/field_tables.py` from the tables in the code; a test compares the two. Every field of every file
of a checkpoint is one of three things here:

- **used**;
- **without effect**: it is known, and changes no number of cutaway's;
- **refused**, unless it has one of the values that are named: it would change the numbers, and is not built. Loading
  ends with an error that names the field, its value and the way out. What only training would do is refused when a
  model is put into training mode.

A field that stands in no table is kept as an attribute, written back by `save_pretrained`, and named once in a warning
of the log `cutaway`: nobody who published a model of this family has it, so it changes nothing there either. Fields
that other families use to change the numbers without leaving a trace among the weights (a window, a cap on logits) are
refused in a family that does not have them. A field that is absent is always fine.
"""


def tables() -> dict[str, list[Row]]:
    """Every table by its heading."""
    shared = config_fields.rows(PretrainedConfig)
    found = {"config.json, every family": sorted(shared.values(), key=lambda row: row.name)}
    for family in FAMILIES:
        rows = config_fields.rows(config_class(family))
        own = [row for name, row in rows.items() if shared.get(name) != row]
        found[f"config.json, {family}"] = sorted(own, key=lambda row: row.name)
    files: dict[str, FieldTable] = {
        "generation_config.json": GENERATION,
        "tokenizer_config.json": TOKENIZER,
        "special_tokens_map.json": SPECIAL_TABLE,
        "adapter_config.json": ADAPTER,
        **SENTENCE,
        "Dense/config.json": DENSE,
        "GGUF, `tokenizer.ggml.`": GGUF_TOKENIZER,
    }
    for name, table in files.items():
        found[name] = table.rows()
    for family, dialect in DIALECTS.items():
        found[f"GGUF, `{family}.`"] = metadata_table(dialect).rows()
    return found


def lines(heading: str, rows: Iterable[Row]) -> list[str]:
    """A table: fields that do the same for the same reason stand together."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        kinds.setdefault((row.does, row.note), []).append(f"`{row.name}`")
    out = [f"## {heading}", "", "| | fields | |", "| --- | --- | --- |"]
    out += [f"| {does} | {', '.join(names)} | {note} |" for (does, note), names in sorted(kinds.items(), reverse=True)]
    return [*out, ""]


def page() -> str:
    """The whole page."""
    body = [line for heading, rows in tables().items() for line in lines(heading, rows)]
    names = ", ".join(f"`{name}`" for name in SPLITS)
    end = [
        "## Other files",
        "",
        "tokenizer.json describes a tokenizer completely, and is followed to the letter by the `tokenizers` library, "
        "which refuses what it does not know. added_tokens.json holds tokens and no settings. Metadata of GGUF that "
        "begins with `general.`, `split.` or `quantize.` are notes, but for `split.count`: a part of a model is "
        "refused. "
        f"`tokenizer.ggml.pre` may be {names}; another way to split is refused.",
    ]
    return "\n".join([START, *body, *end]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
