"""A part of the rows set aside, each label with its share."""

from __future__ import annotations

import random
from collections import defaultdict

from cutaway.errors import InputError, counted
from cutaway.tuning.labelled import Labelled


def stratified(data: Labelled, share: float, seed: int) -> tuple[list[int], list[int]]:
    """(rows to train on, rows set aside), each in the data's order; the same for the same seed.

    Single labels are split label by label: each gives its share, rounded so that the shares add up to that of all rows
    (largest remainders), and keeps at least one row to train on. Other labels are drawn from all rows.

    Raises:
        InputError: one of both parts would be empty.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(data.labels):
        groups[label if data.kind == "one" else ""].append(row)
    draw = random.Random(seed)
    for rows in groups.values():
        draw.shuffle(rows)
    wanted = round(len(data) * share)
    takes = {name: min(int(len(rows) * share), len(rows) - 1) for name, rows in groups.items()}
    order = sorted(groups, key=lambda name: (takes[name] - len(groups[name]) * share, name))
    for name in order:
        if sum(takes.values()) < wanted and takes[name] < len(groups[name]) - 1:
            takes[name] += 1
    aside = sorted(row for name, rows in groups.items() for row in rows[: takes[name]])
    if not aside or len(aside) == len(data):
        raise InputError(
            f"{counted(len(data), 'row')} cannot be split with a validation share of {share}; give more, or a file."
        )
    chosen = set(aside)
    return [row for row in range(len(data)) if row not in chosen], aside
