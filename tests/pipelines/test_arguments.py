"""What a pipeline that labels tokens is called with."""

from __future__ import annotations

from typing import Any

import pytest

from cutaway.pipelines import TokenClassificationArgumentHandler


def test_texts_and_where_their_tokens_are() -> None:
    read = TokenClassificationArgumentHandler()
    spans = [(0, 2), (3, 5)]
    assert read("ab cd") == (["ab cd"], False, None, None)
    assert read("ab cd", offset_mapping=spans) == (["ab cd"], False, [spans], None)
    assert read(["ab", "cd"], offset_mapping=[spans, spans[:1]]).offset_mapping == [spans, spans[:1]]
    assert read(["ab", "cd"], is_split_into_words=True, delimiter=" ") == ([["ab", "cd"]], True, None, " ")
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception]]] = [
        (([],), {}, ValueError), (("ab",), {"offset_mapping": [spans, spans]}, ValueError),
        ((["ab", "cd"],), {"offset_mapping": spans}, ValueError), (("ab", "cd"), {}, TypeError),
        ((), {"offset_mapping": spans}, TypeError),
    ]  # fmt: skip
    for args, kwargs, kind in wrong:
        with pytest.raises(kind):
            read(*args, **kwargs)
