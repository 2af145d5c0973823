"""Texts in every script, and the tokenizers that are tried on them."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

from cutaway.tokenization.base import PreTrainedTokenizerFast

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
            return "".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 7)))
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


FEW = (
    "electra",
    "mpnet",
    "albert",
    "xlm-roberta",
    "deberta-v2",
    "camembert",
    "xlnet",
)  # close to others: tried on fewer strings
KINDS = ("bert", "bert-cased", "gpt2", "roberta", "bart", "t5", "llama", "smollm2", *FEW)
Pair = tuple[PreTrainedTokenizerFast, Any]


def padded(both: Pair) -> Pair:
    """Both with a padding token, also where the vocabulary was published without one."""
    for one in both:
        if one.pad_token is None:
            one.pad_token = one.eos_token
    return both
