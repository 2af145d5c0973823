"""Streams, streamers, whole characters and stop strings."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
import torch
from fake_model import FakeModel
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cutaway.errors import GenerationError
from cutaway.generate import TextIteratorStreamer, TextStreamer, Token, generate, stream
from cutaway.generate.incremental_decoding import IncrementalDecoder

PROMPT = torch.tensor([[72, 105]])


class Bytes:
    """One token per byte, and 256 for the end."""

    def __init__(self) -> None:
        alphabet = {c: b for b, c in self.alphabet().items()}
        self.inner = Tokenizer(models.BPE(vocab={**alphabet, "<end>": 256}, merges=[]))
        self.inner.decoder = decoders.ByteLevel()
        self.inner.add_special_tokens(["<end>"])

    @staticmethod
    def alphabet() -> dict[int, str]:
        """The visible character that stands for each byte in byte-level BPE (Radford et al. 2019)."""
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [b for b in range(256) if b not in visible]
        return {b: chr(b) for b in visible} | {b: chr(256 + n) for n, b in enumerate(others)}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return self.inner.decode(ids, skip_special_tokens=skip_special_tokens)


class Words:
    """Words with a leading space that a text's first word loses, as with sentencepiece."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.words[i] for i in ids).removeprefix(" ")


BYTES = Bytes()


def speaking(text: str, prompt: tuple[int, ...] = (72, 105)) -> FakeModel:
    """A model that says `text`, byte by byte, and ends."""
    model = FakeModel(vocab=257, positions=None, eos_token_id=256)
    said = list(prompt)
    for token in [*text.encode(), 256]:
        model.rig[tuple(said)] = token
        said.append(token)
    return model


def test_the_alphabet_is_that_of_the_tokenizers_library() -> None:
    assert sorted(Bytes.alphabet().values()) == sorted(pre_tokenizers.ByteLevel.alphabet())


@given(st.text(), st.text())
def test_pieces_are_whole_characters_and_join_to_the_text(before: str, text: str) -> None:
    reader = IncrementalDecoder(BYTES, list(before.encode()))
    pieces = [reader.add(token) for token in text.encode()]
    assert "".join(pieces) + reader.flush() == text
    if "\ufffd" not in text:
        assert [piece for piece in pieces if piece] == list(text)


def test_unfinished_characters_are_told_at_the_end() -> None:
    reader = IncrementalDecoder(BYTES)
    assert [reader.add(b) for b in "né".encode()[:2]] == ["n", ""]
    assert reader.flush() == "\ufffd"
    assert reader.flush() == ""


def test_words_keep_their_space_after_a_prompt() -> None:
    tokenizer = Words([" a", " b", "c"])
    for context, expected in (([], ["a", " b", "c"]), ([2, 1], [" a", " b", "c"])):
        reader = IncrementalDecoder(tokenizer, context)
        assert [reader.add(i) for i in (0, 1, 2)] == expected


@given(st.lists(st.integers(0, 2), max_size=12))
def test_words_join_to_the_decoded_text(ids: list[int]) -> None:
    tokenizer = Words([" a", " b", "c"])
    reader = IncrementalDecoder(tokenizer)
    assert "".join(reader.add(i) for i in ids) + reader.flush() == tokenizer.decode(ids)


def test_stream_yields_tokens_as_they_come() -> None:
    model = speaking("né €!")
    tokens = stream(model, PROMPT, max_new_tokens=50, tokenizer=BYTES)
    assert next(tokens) == Token(0, 110, "n", False)
    assert len(model.calls) == 1
    rest = list(tokens)
    assert "".join(t.text for t in rest) == "é €!"
    assert [t.text for t in rest if t.text] == ["é", " ", "€", "!"]
    assert rest[-1] == Token(0, 256, "", True)
    assert not any(t.last for t in rest[:-1])


def test_stream_of_a_batch_is_generate() -> None:
    model = FakeModel()
    ids = torch.tensor([[3, 4], [5, 6], [7, 8]])
    settings: dict[str, Any] = {
        "max_new_tokens": 12,
        "eos_token_id": [4, 9],
        "do_sample": True,
        "seed": 2,
        "pad_token_id": 30,
    }
    wanted = generate(model, ids, **settings)
    rows: list[list[int]] = [[], [], []]
    ends = [0, 0, 0]
    for token in stream(model, ids, **settings):
        assert token.text is None
        rows[token.row].append(token.id)
        ends[token.row] += token.last
    assert ends == [1, 1, 1]
    assert [row + [30] * (wanted.shape[1] - 2 - len(row)) for row in rows] == wanted[:, 2:].tolist()
    assert torch.is_grad_enabled()


def test_stream_refuses_at_the_call() -> None:
    with pytest.raises(GenerationError, match="max_new_tokens"):
        stream(FakeModel(), PROMPT % 30, max_new_tokens=-1)
    with pytest.raises(GenerationError, match="yields tokens only"):
        stream(FakeModel(), PROMPT % 30, return_dict_in_generate=True)


def test_text_streamer(capsys: pytest.CaptureFixture[str]) -> None:
    generate(speaking("né €"), PROMPT, max_new_tokens=50, streamer=TextStreamer(BYTES, skip_special_tokens=True))
    assert capsys.readouterr().out == "Hiné €\n"
    streamer = TextStreamer(BYTES, skip_prompt=True)
    for _ in range(2):
        generate(speaking("x"), PROMPT, max_new_tokens=50, streamer=streamer)
        assert capsys.readouterr().out == "x<end>\n"
    with pytest.raises(GenerationError, match="shows one text and got 2"):
        generate(speaking("x"), PROMPT.repeat(2, 1), streamer=streamer)


def test_text_iterator_streamer() -> None:
    streamer = TextIteratorStreamer(BYTES, skip_prompt=True, timeout=10, skip_special_tokens=True)
    thread = Thread(target=generate, args=(speaking("h€y"), PROMPT), kwargs={"streamer": streamer, "max_new_tokens": 9})
    thread.start()
    assert list(streamer) == ["h", "€", "y"]
    thread.join()


def test_a_failed_generate_ends_its_streamer() -> None:
    model = speaking("x")
    model.broken = True
    streamer = TextIteratorStreamer(BYTES, timeout=10)
    with pytest.raises(GenerationError, match="not finite"):
        generate(model, PROMPT, streamer=streamer)
    assert list(streamer) == ["Hi"]


@pytest.mark.parametrize(
    ("stops", "expected"),
    [("b€", "ab€"), (["zz", "cd", "€c"], "ab€c"), (["Hi", "ia"], "ab€cdab"), (["never"], "ab€cdab"), ("a", "a")],
)
def test_stop_strings(stops: str | list[str], expected: str) -> None:
    out = generate(speaking("ab€cdab"), PROMPT, max_new_tokens=50, stop_strings=stops, tokenizer=BYTES, pad_token_id=0)
    assert BYTES.decode(out[0, 2:].tolist(), skip_special_tokens=True) == expected


def test_stop_strings_of_a_batch() -> None:
    model = speaking("one. two.")
    said = [72, 111]
    for token in b"three. four.":
        model.rig[tuple(said)] = token
        said.append(token)
    ids, mask = torch.tensor([[72, 105], [72, 111]]), None
    out = generate(model, ids, mask, max_new_tokens=50, stop_strings=["."], tokenizer=BYTES, pad_token_id=256)
    assert [BYTES.decode(row[2:].tolist(), skip_special_tokens=True) for row in out] == ["one.", "three."]
