"""Reading sentencepiece models: what the package's own reader says, and damaged files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cutaway.errors import TokenizerError
from cutaway.tokenization.sentencepiece_model import merges_from, read_sentencepiece


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sentencepiece

    to = tmp_path_factory.mktemp("spm") / "m"
    draw = random.Random(1)
    lines = [" ".join("".join(draw.choices("abcdé", k=draw.randint(1, 6))) for _ in range(8)) for _ in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(to), vocab_size=320, model_type="bpe", byte_fallback=True,
        user_defined_symbols=["<me>"], minloglevel=2, num_threads=1, unk_id=3, bos_id=1, eos_id=2, pad_id=0,
    )  # fmt: skip
    return to.with_suffix(".model")


def test_it_reads_what_sentencepiece_reads(model: Path) -> None:
    import sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = read_sentencepiece(model)
    assert ours.pieces == [(theirs.id_to_piece(i), theirs.get_score(i)) for i in range(theirs.vocab_size())]
    assert ours.unk_id == theirs.unk_id() and ours.algorithm == 2 and len(ours.charsmap) > 1000
    assert ours.added == [("<pad>", True), ("<s>", True), ("</s>", True), ("<me>", False)]


def test_a_model_cut_off_anywhere_is_an_error_or_shorter(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    whole = read_sentencepiece(model)
    part = tmp_path / "part.model"
    draw = random.Random(2)
    for end in [*range(60), *(draw.randrange(len(content)) for _ in range(200))]:
        part.write_bytes(content[:end])
        try:
            found = read_sentencepiece(part)
        except TokenizerError:
            continue
        assert found.pieces == whole.pieces[: len(found.pieces)]
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[draw.randrange(len(content))] = draw.randrange(256)
        part.write_bytes(damaged)
        try:
            read_sentencepiece(part)
        except TokenizerError:
            continue


def test_merges_that_a_vocabulary_implies() -> None:
    vocab = {"a": 0, "b": 1, "ab": 2, "aba": 3, "ba": 4}
    assert merges_from(vocab) == [("a", "b"), ("a", "ba"), ("ab", "a"), ("b", "a")]
    scores = {"a": 0.0, "b": 0.0, "ab": -2.0, "aba": -3.0, "ba": -1.0}
    assert merges_from(vocab, scores) == [("b", "a"), ("a", "b"), ("ab", "a"), ("a", "ba")]
