"""How texts are cut into words before they are compared: which tokenizer suits a script, and one for every script.

rouge-score keeps only a-z and 0-9 of a text, and sacreBLEU's default takes a Chinese sentence for one word: a perfect
answer then counts nothing. Which script a text is in decides what is used, unless the call says it.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

# Letters of scripts that put no space between words, each a word of its own where nothing better is known: kana, Han,
# Thai, Lao, Tibetan, Myanmar, Khmer.
HAN = "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"
SPACELESS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
_HAN, _KANA, _SPACELESS = (re.compile(f"[{letters}]") for letters in (HAN, KANA, SPACELESS))
_ALONE = re.compile(f"[{HAN}{KANA}{SPACELESS}]")

BLEU = ("13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab")  # sacreBLEU's that need no download
ROUGE = ("rouge", "unicode", "char")


class Unicode:
    """Words of any script, for rouge-score: runs of letters, marks and digits, in lower case, in normal form (NFKC).

    Letters of scripts without spaces (Chinese, Japanese, Thai, ...) are words of their own. No word is cut to its stem.
    """

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        words: list[str] = []
        inside = False
        for letter in unicodedata.normalize("NFKC", text).lower():
            if _ALONE.match(letter) and not unicodedata.category(letter).startswith(("M", "P", "S", "Z")):
                words.append(letter)
                inside = False
            elif unicodedata.category(letter)[0] in "LMN":
                if inside or (words and unicodedata.category(letter)[0] == "M"):
                    words[-1] += letter
                else:
                    words.append(letter)
                inside = True
            else:
                inside = False
        return words


class Characters:
    """Each letter a word, for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """The letters of a text, without white space."""
        return [letter for letter in unicodedata.normalize("NFKC", text).lower() if not letter.isspace()]


def bleu_tokenizer(texts: Iterable[str]) -> str:
    """sacreBLEU's tokenizer for texts: the one of their language where it is there, else by letters or 13a.

    Japanese and Korean have tokenizers of their own in sacreBLEU's extras `ja` and `ko`; without them Japanese counts
    by letters, and Korean, which has spaces, by 13a.
    """
    counts = dict.fromkeys(("han", "kana", "spaceless", "hangul", "other"), 0)
    for text in texts:
        kana, han, spaceless = (len(kind.findall(text)) for kind in (_KANA, _HAN, _SPACELESS))
        hangul = sum("\uac00" <= letter <= "\ud7a3" for letter in text)
        counts["han"] += han
        counts["kana"] += kana
        counts["spaceless"] += spaceless
        counts["hangul"] += hangul
        counts["other"] += sum(letter.isalpha() for letter in text) - han - kana - spaceless - hangul
    whole = sum(counts.values())
    if counts["han"] + counts["kana"] > whole / 4:
        if counts["kana"] * 10 <= counts["han"]:
            return "zh"
        return "ja-mecab" if _there("ja-mecab") else "char"
    if counts["hangul"] > whole / 4 and _there("ko-mecab"):
        return "ko-mecab"
    return "char" if counts["spaceless"] > whole / 4 else "13a"


def rouge_tokenizer(texts: Iterable[str]) -> str:
    """What cuts texts for ROUGE: "rouge" where rouge-score's own sees nearly every letter (English), else "unicode".

    English has a letter beyond a-z now and then (café); German, French or Polish have one in fifty or more.
    """
    letters = seen = 0
    for text in texts:
        for letter in unicodedata.normalize("NFKC", text):
            letters += letter.isalpha()
            seen += letter.isalpha() and letter.isascii()
    return "unicode" if letters - seen > letters / 100 else "rouge"


@functools.cache
def _there(name: str) -> bool:
    from sacrebleu.metrics.bleu import BLEU as Metric

    try:
        Metric(tokenize=name)
    except (RuntimeError, ImportError):
        return False
    return True
