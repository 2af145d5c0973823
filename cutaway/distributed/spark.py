"""Rows through Spark: the function that `DataFrame.mapInPandas` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cutaway.distributed.scorer import Scorer, Work


def spark_function(work: Work) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """An iterator of pandas tables to an iterator of them, with the answers' columns added.

    Each of Spark's tasks loads the model once, when its first table comes. The schema that `mapInPandas` asks for is
    the table's own columns, then the answer's, then the error, a string.
    """

    def scored(tables: Iterator[Any]) -> Iterator[Any]:
        scorer = Scorer(work)
        for table in tables:
            yield scorer.table(table)

    return scored
