"""PEGASUS's tokenizer against transformers."""

from __future__ import annotations

from pathlib import Path

import sentencepiece
import transformers

import cutaway


def test_pegasus(tmp_path: Path) -> None:
    texts = ["the house is small", "where is the garden", "the garden is green and the house is old"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4), model_prefix=str(tmp_path / "spiece"), vocab_size=45, hard_vocab_limit=False,
        minloglevel=2, bos_id=-1, pad_id=-1, eos_id=-1, unk_id=0,
    )  # fmt: skip
    ours = cutaway.PegasusTokenizer.from_pretrained(tmp_path)
    vocab = [(ours.convert_ids_to_tokens(i), 0.0) for i in range(105)]
    model = sentencepiece.SentencePieceProcessor(str(tmp_path / "spiece.model"))
    vocab += [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    theirs = transformers.PegasusTokenizer(vocab=vocab)
    assert len(ours) == len(theirs) and ours.unk_token_id == 105
    for text in ["the house", "the  garden\nis small", "", "zebra <mask_2>"]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
