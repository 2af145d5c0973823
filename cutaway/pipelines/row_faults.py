"""What is wrong with rows, in one sentence for all of them; and what counts as a blank cell, everywhere."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from cutaway.errors import counted

SHOWN = 5  # faults, and rows of each, that a sentence names


def is_blank(value: object) -> bool:
    """Whether a cell holds nothing: missing, NaN, or a text of white space alone. "NA" and "null" are texts."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def has_blank(
    row: Mapping[str, object], names: Iterable[str], optional: Container[str], renamed: Mapping[str, str]
) -> bool:
    """Whether a column of `names` that a task reads of the row is there and blank, so that there is nothing to answer.

    optional: names that may lack, unless `renamed` ({name: the row's column}) says that the row has them.
    """
    needed = (renamed.get(name, name) for name in names if name not in optional or name in renamed)
    return any(column in row and is_blank(row[column]) for column in needed)


def named_rows(numbers: Sequence[int], what: str = "row") -> str:
    """Rows (or what else) by their numbers, up to `SHOWN` of them: "row 4", "rows 1, 2, 3, 4, 5 and 10 more"."""
    more = f" and {len(numbers) - SHOWN:,} more" if len(numbers) > SHOWN else ""
    return f"{what if len(numbers) == 1 else what + 's'} {', '.join(map(str, numbers[:SHOWN]))}{more}"


def faults(bad: Sequence[tuple[int, str]]) -> str:
    """What is wrong with which rows: each fault once, with the rows that have it, up to `SHOWN` of both."""
    rows: dict[str, list[int]] = {}
    for number, error in bad:
        rows.setdefault(error, []).append(number)
    said = [f"{named_rows(numbers)}: {error}" for error, numbers in list(rows.items())[:SHOWN]]
    left = sum(len(numbers) for numbers in list(rows.values())[SHOWN:])
    return "; ".join(said) + (f"; and {counted(left, 'row')} with other faults" if left else "")


def blank_rows(numbers: Sequence[int], consequence: str) -> str:
    """The sentence about rows whose text is blank: "2 rows have no text and no answer (rows 3, 9)."; "" for none.

    consequence: what becomes of them.
    """
    if not numbers:
        return ""
    verb = "has" if len(numbers) == 1 else "have"
    return f"{counted(len(numbers), 'row')} {verb} no text and {consequence} ({named_rows(numbers)})."
