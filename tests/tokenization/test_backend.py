"""Damaged and hostile tokenizer files: one clear error in under a second, little memory, and the process lives on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from cutaway.errors import TokenizerError
from cutaway.jsonfile import MAX_DEPTH
from cutaway.tokenization import sentencepiece_model
from cutaway.tokenization.backend import LONGEST_ROW, MOST_IDS, MOST_OBJECTS, MOST_VALUES, backend_from_text, guarded
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.registry import load_tokenizer
from cutaway.tokenization.sentencepiece_model import merges_from
from cutaway.tokenization.unigram import AlbertTokenizer
from cutaway.tokenization.wordpiece import BertTokenizer

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "eu")
PAD = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}


def state() -> dict[str, Any]:
    """A small tokenizer.json that works."""
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(TOKENS)})
    made: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return made


def added(content: str, index: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, "special": True, **flags}


def hole(path: Path) -> None:
    """120 MB of nothing."""
    with path.open("wb") as file:
        file.truncate(120 << 20)


def write(folder: Path, made: dict[str, Any] | None = None, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text(json.dumps({**(made or state()), **changes}))
    return folder


LONG = LONGEST_ROW + 1
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    # each number is the first beyond a bound of ours
    "too much padding": ({"padding": {"strategy": {"Fixed": LONG}, **PAD}}, f"padding length is {LONG}"),
    "too large a multiple": (
        {"padding": {"strategy": "BatchLongest", **PAD, "pad_to_multiple_of": LONG}},
        f"pad_to_multiple_of is {LONG}",
    ),
    "too long a truncation": (
        {"truncation": {"max_length": LONG, "strategy": "LongestFirst", "stride": 0}},
        f"max_length is {LONG}",
    ),
    "too long a stride": (
        {"truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": LONG}},
        f"stride is {LONG}",
    ),
    "a negative length": ({"padding": {"strategy": {"Fixed": -1}, **PAD}}, "padding length is -1"),
    "a pattern that is none": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "((("}, "behavior": "Isolated", "invert": False}},
        "cannot be loaded",
    ),
    "an added token far out of range": ({"added_tokens": [added("[new]", MOST_IDS)]}, f"has the id {MOST_IDS}"),
    "an added token in a gap": ({"added_tokens": [added("[new]", 12)]}, "has the id 12, .* next one is 7"),
    "a negative added token": ({"added_tokens": [added("[new]", -1)]}, "cannot be loaded"),
    "an id far out of range": (
        {"model": {"type": "WordPiece", "vocab": {"[UNK]": MOST_IDS}}},
        f"'\\[UNK\\]' is {MOST_IDS}",
    ),
    "an id that is none": ({"model": {"type": "WordPiece", "vocab": {"[UNK]": "0"}}}, "'\\[UNK\\]' is '0'"),
    "no vocabulary": ({"model": {"type": "WordPiece", "vocab": {}}, "added_tokens": []}, "no vocabulary"),
    "no model": ({"model": None}, "no vocabulary"),
    "a model that is none": ({"model": {"type": "Nothing", "vocab": {"a": 0}}}, "cannot be loaded"),
    "no unknown token": ({"model": {**UNIGRAM, "unk_id": 9}, "added_tokens": []}, "cannot be loaded"),
    "pieces that are none": ({"model": {**UNIGRAM, "vocab": [["a"], 3]}, "added_tokens": []}, "pairs of a token"),
    "a merge of nothing": (
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}, "added_tokens": []},
        "`b` out of vocabulary",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_damaged_tokenizer_json(tmp_path: Path, case: str) -> None:
    changes, says = CHANGES[case]
    folder = write(tmp_path, **changes)
    start = time.process_time()
    with pytest.raises(TokenizerError, match=says):
        load_tokenizer(str(folder))
    assert time.process_time() - start < 1
    assert load_tokenizer(str(write(tmp_path)))("the eu")["input_ids"] == [2, 5, 6, 3]


CONTENTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON"),
    "no JSON": (b"\x00\xff\xfe garbage", "not valid JSON"),
    "half a file": (b'{"version": "1.0", "model": {"vocab": {"a": 0', "not valid JSON"),
    "a list": (b"[1, 2]", "not an object"),
    "a text": (b'"tokenizer"', "not an object"),
    "another object": (b"{}", "no vocabulary"),
    "deep brackets": (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested deeper"),
    "deep objects": (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper"),
    "a wide list": (b'{"model": {"vocab": [' + b"0," * MOST_VALUES + b"0]}}", "values"),
    "many objects": (b'{"added_tokens": [' + b"{}," * MOST_OBJECTS + b"{}]}", "more than 200,000 objects"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_a_file_that_is_no_tokenizer(tmp_path: Path, case: str) -> None:
    content, says = CONTENTS[case]
    (tmp_path / "tokenizer.json").write_bytes(content)
    start = time.process_time()
    with pytest.raises(TokenizerError, match=says):
        PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"16777216": {"content": "x"}}}',
            "'16777216' is no token",
        ),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"-1": {"content": "x"}}}', "'-1' is no token id"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"99": {"content": "x"}}}', "has the id 99"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"7": {"content": 3}}}', "is no token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"7": {"content": "x", "lstrip": 1}}}', "is no token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}', "must map ids to tokens"),
        ("added_tokens.json", '{"x": 16777216}', "16777216 is no token id"),
        ("added_tokens.json", '{"x": 1.5}', "1.5 is no token id"),
        ("added_tokens.json", '{"x": 99}', "has the id 99"),
        ("special_tokens_map.json", "{", "not valid JSON"),
        ("special_tokens_map.json", '{"pad_token": 3}', "pad_token is 3"),
        ("special_tokens_map.json", '{"additional_special_tokens": "x"}', "must be a list"),
        ("tokenizer_config.json", '{"model_max_length": "many"}', "model_max_length is 'many'"),
        ("tokenizer_config.json", '{"model_max_length": -4}', "model_max_length is -4"),
        ("tokenizer_config.json", '{"model_max_length": NaN}', "NaN"),
        ("tokenizer_config.json", '{"padding_side": "up"}', "padding_side is 'up'"),
        ("tokenizer_config.json", '{"do_lower_case": "yes"}', "do_lower_case is 'yes'"),
        ("tokenizer_config.json", '{"strip_accents": 3}', "strip_accents is 3"),
        ("tokenizer_config.json", '{"model_input_names": 3}', "model_input_names is 3"),
        ("tokenizer_config.json", '{"chat_template": 3}', "chat_template must be"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "a"}]}', "'name' and 'template'"),
        ("tokenizer_config.json", '{"pad_token_type_id": -1}', "pad_token_type_id is -1"),
        ("tokenizer_config.json", '{"extra_ids": 10001}', "extra_ids is 10001"),
    ],
)
def test_damaged_settings(tmp_path: Path, name: str, content: str, says: str) -> None:
    folder = write(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(TokenizerError, match=says):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("model_type", "files", "says"),
    [
        ("bert", {"vocab.txt": b"\xff\xfe\x00"}, "not UTF-8"),
        ("gpt2", {"vocab.json": b"{}", "merges.txt": b"a b c\n"}, "line 1.*is not a pair"),
        ("gpt2", {"vocab.json": b'{"a": -1}', "merges.txt": b""}, "no token id"),
        ("gpt2", {"vocab.json": b'{"a": 0}', "merges.txt": b"a b\n"}, "out of vocabulary"),
        ("gpt2", {"vocab.json": b'{"a": 0}', "merges.txt": b"\xff"}, "not UTF-8"),
        ("t5", {"spiece.model": b"garbage"}, "not a sentencepiece model"),
        ("llama", {"tokenizer.model": b""}, "holds no pieces"),
    ],
)
def test_damaged_vocabularies(tmp_path: Path, model_type: str, files: dict[str, bytes], says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=says):
        load_tokenizer(str(tmp_path))


HALF = "\ud83d"  # of a surrogate pair


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tokenizer_config.json", {"pad_token": HALF}),
        ("tokenizer_config.json", {"pad_token": {"content": HALF}}),
        ("tokenizer_config.json", {"image_token": HALF}),
        ("tokenizer_config.json", {"additional_special_tokens": [HALF]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"image_token": HALF}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": {"content": HALF}}}),
        ("special_tokens_map.json", {"cls_token": HALF}),
        ("added_tokens.json", {HALF: 7}),
    ],
)
def test_half_a_character_in_a_special_token(tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    folder = write(tmp_path)
    (folder / name).write_text(json.dumps(fields))
    with pytest.raises(TokenizerError, match=r"U\+D83D is half of a surrogate pair"):
        load_tokenizer(str(folder))


def test_half_a_character_in_calls() -> None:
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(TOKENS)})
    for act in (
        lambda: setattr(tokenizer, "pad_token", HALF),
        lambda: tokenizer.add_special_tokens({"pad_token": HALF}),
        lambda: tokenizer.add_special_tokens({"additional_special_tokens": [HALF]}),
        lambda: tokenizer.add_tokens([HALF]),
        lambda: tokenizer.convert_tokens_to_ids(HALF),
        lambda: tokenizer.convert_tokens_to_ids([HALF]),
        lambda: BertTokenizer(vocab={"[UNK]": 0, HALF: 1}),
        lambda: AlbertTokenizer(vocab=[("<unk>", 0.0), (HALF, 0.0)]),
        lambda: setattr(tokenizer, "pad_token_id", -1),
        lambda: setattr(tokenizer, "pad_token_id", 2**70),
    ):
        with pytest.raises(TokenizerError):
            act()


def test_rules_of_normalization_that_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def give_up(rules: bytes) -> None:
        raise PanicException("rules that are none")

    (tmp_path / "spiece.model").write_bytes(sentencepiece(b"rules"))
    monkeypatch.setattr("cutaway.tokenization.unigram.normalizers.Precompiled", give_up)
    with pytest.raises(TokenizerError, match="rules of normalization cannot be used: the tokenizers library gave up"):
        AlbertTokenizer.from_pretrained(str(tmp_path / "spiece.model"))


def sentencepiece(rules: bytes) -> bytes:
    """A model of five pieces, with these compiled rules."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    pieces = b"".join(field(1, field(1, piece)) for piece in (b"<pad>", b"<unk>", b"[CLS]", b"[SEP]", b"[MASK]"))
    return pieces + field(3, field(2, rules))


@pytest.mark.parametrize(
    ("bound", "most", "says"),
    [
        ("LONGEST_PIECE", 3, r"'abcd'\.\.\. has 4 characters; at most 3"),
        ("MOST_LETTERS", 9, "the vocabulary has 10 characters; at most 9"),
        ("MOST_MERGES", 3, "more than 3 of them"),
    ],
)
def test_merges_from_a_vocabulary_are_bounded(
    monkeypatch: pytest.MonkeyPatch, bound: str, most: int, says: str
) -> None:
    vocab = {piece: index for index, piece in enumerate(("a", "b", "ab", "cd", "abcd"))}
    assert merges_from(vocab) == [("a", "b"), ("ab", "cd")]
    monkeypatch.setattr(sentencepiece_model, "MOST_MERGES", most if bound == "MOST_MERGES" else 10)
    vocab = {**vocab, **({"c": 5, "d": 6, "bcd": 7, "cda": 8, "aa": 9} if bound == "MOST_MERGES" else {})}
    monkeypatch.setattr(sentencepiece_model, bound, most)
    with pytest.raises(TokenizerError, match=says + r".*tokenizer\.json"):
        merges_from(vocab)


def test_the_bounds_of_merges_keep_the_time() -> None:
    vocab = {f"{i:x}".rjust(8, "g") + "ab" * 28: i for i in range(40_000)}  # 2.6 million characters
    start = time.process_time()
    assert merges_from(vocab) == []
    assert time.process_time() - start < 1.5


class PanicException(BaseException):
    """What the Rust library raises where it gives up: by this name, and not an Exception."""


class GivesUp:
    """A Rust tokenizer that gives up in the methods that are named; the rest is the tokenizer's own.

    The library did so on rules of normalization that are no rules, when it read the file, and on a frame that names a
    special token which the frame does not describe, when it was called.
    """

    def __init__(self, backend: Any, *methods: str) -> None:
        self.backend, self.methods = backend, methods

    def __getattr__(self, name: str) -> Any:
        def give_up(*args: Any, **kwargs: Any) -> None:
            raise PanicException("no entry found for key")

        return give_up if name in self.methods else getattr(self.backend, name)


def test_a_panic_in_a_call_is_an_error_and_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(str(write(tmp_path)))
    backend = tokenizer._backend
    monkeypatch.setattr(tokenizer, "_backend", GivesUp(backend, "encode", "encode_batch", "encode_batch_fast"))
    for _ in range(2):
        with pytest.raises(TokenizerError, match="the tokenizers library gave up: no entry found"):
            tokenizer("the eu")
    monkeypatch.undo()
    assert tokenizer("the eu", add_special_tokens=False)["input_ids"] == [5, 6]


def test_a_panic_while_a_file_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    monkeypatch.setattr("cutaway.tokenization.backend.Tokenizer", GivesUp(Tokenizer, "from_str"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be loaded: the tokenizers library gave up"):
        load_tokenizer(str(folder))


def test_only_panics_are_turned_into_errors() -> None:
    for stop in (KeyboardInterrupt, SystemExit):
        with pytest.raises(stop), guarded("It"):
            raise stop
    with pytest.raises(TokenizerError, match=r"It: first$"), guarded("It"):
        raise ValueError("first\nsecond")


def test_scores_are_the_files_to_the_last_digit() -> None:
    scores = [0.1 + 0.2, -1 / 3, -5.123456789012345e-7]
    pieces = [["<unk>", 0.0], *([chr(97 + i), score] for i, score in enumerate(scores))]
    text = json.dumps({"version": "1.0", "model": {**UNIGRAM, "vocab": pieces}, "added_tokens": []})
    again = json.loads(backend_from_text(text).to_str())["model"]["vocab"]
    assert again == pieces
    assert isinstance(backend_from_text(text), Tokenizer)


HUGE: dict[str, Callable[[Path], Any]] = {
    "a file of 120 MB": lambda folder: hole(folder / "tokenizer.json"),
    "a wide list of 45 MB": lambda folder: (folder / "tokenizer.json").write_bytes(
        b'{"model": {"vocab": [' + b"[]," * 15_000_000 + b"[]]}}"
    ),
    "a long text of 45 MB": lambda folder: (folder / "tokenizer.json").write_bytes(
        b'{"model": {"vocab": "' + b"x" * (45 << 20) + b'"}}'
    ),
    "as many values as are read": lambda folder: (folder / "tokenizer.json").write_bytes(
        b'{"model": {"vocab": [' + b"[]," * 1_400_000 + b"[]]}}"
    ),
    "more fields than are read": lambda folder: (folder / "tokenizer.json").write_text(
        '{"model": {"vocab": {' + ",".join(f'"{i:x}":{i}' for i in range(2_000_000)) + "}}}"
    ),
    "many short lines": lambda folder: (
        (folder / "tokenizer.json").unlink(),
        (folder / "vocab.txt").write_text("\n".join(f"{i:x}" for i in range(2_000_000))),
    ),
    "settings of 120 MB": lambda folder: hole(folder / "tokenizer_config.json"),
    "a vocabulary of 120 MB": lambda folder: (
        (folder / "tokenizer.json").unlink(),
        hole(folder / "vocab.txt"),
    ),
    "padding of more than a row": lambda folder: write(folder, padding={"strategy": {"Fixed": LONG}, **PAD}),
    "a model of a billion tokens": lambda folder: (folder / "tokenizer_config.json").write_text(
        '{"model_max_length": 1000000000}'
    ),
}

MEASURE = """
import sys, time
from pathlib import Path
from cutaway.errors import TokenizerError
from cutaway.jsonfile import MAX_DEPTH
from cutaway.tokenization.registry import load_tokenizer
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
before, start = peak(), time.process_time()
try:
    load_tokenizer(sys.argv[1])("the eu", padding="max_length")
except TokenizerError as error:
    print(time.process_time() - start, peak() - before, error)
"""


@pytest.mark.parametrize("case", HUGE)
def test_hostile_files_cost_neither_time_nor_memory(tmp_path: Path, case: str) -> None:
    HUGE[case](write(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], check=True, capture_output=True, text=True, timeout=60
    )
    seconds, megabytes, says = done.stdout.split(" ", 2)
    assert float(seconds) < 1 and float(megabytes) < 300, done.stdout
    assert says.strip()
