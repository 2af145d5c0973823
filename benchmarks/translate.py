"""Encoder-decoders: tokens per second of a T5, a BART and a Marian of published sizes with random weights.

Greedy and by four beams, one text and eight, beside CTranslate2 and transformers; every text must be transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from process import BUILD, JOB_SECONDS, Entry, Worker, leave_out, measured, turns, workers

OURS, THEIRS = "peers.cutaway_peer:Translator", "peers.transformers_peer:Translator"
CTRANSLATE2 = "peers.ctranslate2_peer:Translator"
PARTS = ("t5", "bart", "marian")
SOURCE, NEW, VOCABULARY = 24, 32, 8000  # tokens, and words
ENTRIES = [
    Entry("cutaway", OURS, "fp32"),
    Entry("cutaway", OURS, "int8"),
    Entry("transformers", THEIRS, "fp32"),
    Entry("CTranslate2", CTRANSLATE2, "fp32"),
    Entry("CTranslate2", CTRANSLATE2, "int8"),
]
IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
LAST = VOCABULARY - 1  # where Marian's padding stands, as CTranslate2's converter takes for granted


def configs() -> dict[str, Any]:
    """Sizes of t5-small, bart-base and an opus-mt model."""
    import transformers as t

    return {
        "t5": t.T5Config(vocab_size=VOCABULARY, initializer_factor=2.0, **IDS),
        "bart": t.BartConfig(
            vocab_size=VOCABULARY, d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
            decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, init_std=0.1, bos_token_id=2,
            forced_eos_token_id=None, forced_bos_token_id=None, normalize_before=False, normalize_embedding=True, **IDS,
        ),
        "marian": t.MarianConfig(
            vocab_size=VOCABULARY, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
            decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, init_std=0.1,
            forced_eos_token_id=None, pad_token_id=LAST, eos_token_id=1, decoder_start_token_id=LAST,
        ),
    }  # fmt: skip


def words(pad: int) -> Any:
    """A tokenizer of words w0, w1, ..., which the engines that want names need; `pad` is the id of padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {pad: "<pad>", 1: "</s>", 2: "<unk>"}
    vocabulary = {special.get(i, f"w{i}"): i for i in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<unk>"
    )


def made(name: str) -> Path:
    """A model of that kind, under `BUILD`."""
    target = BUILD / f"translate-{name}"
    if not (target / "tokenizer.json").exists():
        import torch
        import transformers

        torch.manual_seed(0)
        model = transformers.AutoModelForSeq2SeqLM.from_config(configs()[name])
        model.generation_config.update(forced_eos_token_id=None, forced_bos_token_id=None)
        model.save_pretrained(target)
        words(model.config.pad_token_id).save_pretrained(target)
    return target


def figures(running: dict[Entry, Worker], count: int, beams: int, rounds: int) -> list[dict[str, Any]]:
    """New tokens per second over `count` texts, and how much of each is transformers' text."""
    sources = np.random.default_rng(count).integers(3, LAST, (count, SOURCE)).tolist()
    texts: dict[Entry, np.ndarray] = {}
    for entry in list(running):
        try:
            texts[entry] = running[entry].result("translated", sources, NEW, beams)
        except RuntimeError as error:
            leave_out(entry, error)
            del running[entry]
    right = next((text for entry, text in texts.items() if entry.where == THEIRS), None)
    calls = dict.fromkeys(running, ("translated", sources, NEW, beams))
    took = turns(running, calls, rounds, is_warm=True, at_most=JOB_SECONDS)

    def alike(text: np.ndarray) -> float | None:
        return None if right is None or text.shape != right.shape else float((text == right).mean())

    return [measured(e, seconds, count * NEW, same_text=alike(texts[e])) for e, seconds in took.items()]


def suite(threads: int, rounds: int, parts: Iterable[str] = PARTS) -> Iterator[tuple[str, Any]]:
    """Each kind, one text and eight, greedy and by four beams."""
    make: Callable[[str], Path] = made
    for name in parts:
        with workers(ENTRIES, make(name), threads) as running:
            for count in (1, 8):
                for beams in (1, 4):
                    yield f"{name}_{count}_beams_{beams}", figures(running, count, beams, rounds)
