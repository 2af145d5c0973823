"""The Rust tokenizer behind a tokenizer: built from a file or from parts, checked before it is trusted.

The `tokenizers` library aborts with a panic, not with an exception, on some damaged files, and it gives an added token
another id than the file says without a word. Everything that reaches it goes through here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece

from cutaway.errors import TokenizerError
from cutaway.jsonfile import parse_json

# The largest published tokenizer.json are near 35 MB: half a million tokens or merges, two million values, a few
# thousand objects. Parsed, a value costs about 60 bytes and a field or an object 250, so these bounds keep every file
# under 300 MB.
MOST_BYTES = 48 * 2**20
MOST_VALUES = 3_000_000
MOST_FIELDS = 700_000
MOST_OBJECTS = 200_000
MOST_LINES = 1_000_000
# No vocabulary is larger; an id beyond it is a damaged file, and it would be an index into an embedding matrix.
MOST_IDS = 2**24
# A row of 2**20 tokens takes the Rust library about 100 MB; longer rows are never meant.
LONGEST_ROW = 2**20

METASPACE = "▁"


class guarded:
    """Turn every failure of the Rust library into one TokenizerError that starts with `what`."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, TokenizerError):
            return
        if isinstance(error, Exception):  # the library raises plain Exceptions
            raise TokenizerError(f"{self.what}: {_first_line(error)}") from None
        # a Rust panic derives from BaseException, so that nobody catches it by accident
        if type(error).__name__ == "PanicException":
            raise TokenizerError(f"{self.what}: the tokenizers library gave up: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file that is not absurdly large.

    Raises:
        TokenizerError: the file is larger than `most` bytes, cannot be read, or holds too many entries.
    """
    try:
        size = path.stat().st_size
        if size > most:
            raise TokenizerError(
                f"{path.name} is {size / 2**20:.0f} MB; a tokenizer file has at most {most / 2**20:.0f} MB. "
                "This is not a tokenizer file, or it is damaged."
            )
        content = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror or error}.") from None
    return content


def read_object(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON object in `content`. Raises TokenizerError for anything else, however large, deep or broken."""
    for mark, most, what in ((b"{", MOST_OBJECTS, "objects"), (b":", MOST_FIELDS, "fields")):
        if content.count(mark) > most:
            raise TokenizerError(f"{path.name} holds more than {most:,} {what}; no tokenizer needs that many.")
    return parse_json(content, path.name, TokenizerError, max_bytes=MOST_BYTES, max_values=MOST_VALUES)


def check_text(name: str, text: object) -> None:
    """TokenizerError where a text holds half of a surrogate pair, which is no character and has no UTF-8."""
    if isinstance(text, str) and not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            raise TokenizerError(
                f"{name} is {text[:40]!r}: {half} is half of a surrogate pair and no character; write the whole one."
            ) from None


def check_length(name: str, value: object, most: int = LONGEST_ROW) -> None:
    """Raises TokenizerError unless `value` is None or an integer from 0 to `most`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most):
        raise TokenizerError(f"{name} is {value!r}; it must be a whole number from 0 to {most:,}.")


def load_backend(path: Path) -> Tokenizer:
    """The Rust tokenizer of a tokenizer.json, after checking every size that the file states.

    Raises:
        TokenizerError: the file is not a tokenizer, or asks for something absurd.
    """
    content = read_bytes(path)
    name = path.name
    state = read_object(path, content)
    padding, truncation = state.get("padding"), state.get("truncation")
    if isinstance(padding, Mapping):
        strategy = padding.get("strategy")
        if isinstance(strategy, Mapping):
            check_length(f"{name}: padding length", strategy.get("Fixed"))
        check_length(f"{name}: padding pad_to_multiple_of", padding.get("pad_to_multiple_of"))
    if isinstance(truncation, Mapping):
        check_length(f"{name}: truncation max_length", truncation.get("max_length"))
        check_length(f"{name}: truncation stride", truncation.get("stride"))
    model = state.get("model")
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(vocab, (Mapping, list)) or (not vocab and not state.get("added_tokens")):
        raise TokenizerError(f"{name} has no vocabulary (model.vocab); it is not a tokenizer file, or it is damaged.")
    if isinstance(vocab, Mapping):
        for token, index in vocab.items():
            if type(index) is not int or not 0 <= index < MOST_IDS:
                raise TokenizerError(
                    f"{name}: the id of {token[:40]!r} is {index!r}; ids go from 0 to {MOST_IDS - 1:,}."
                )
    elif not all(
        type(piece) is list and len(piece) == 2 and type(piece[0]) is str and type(piece[1]) in (float, int)
        for piece in vocab
    ):
        raise TokenizerError(f"{name}: model.vocab must map tokens to ids, or list pairs of a token and its score.")
    listed = state.get("added_tokens") or []
    added = [token for token in listed if isinstance(token, Mapping)] if isinstance(listed, list) else []
    pieces = model if isinstance(vocab, list) and isinstance(model, Mapping) else None
    del state, model, vocab
    with guarded(f"{name} cannot be loaded"):
        backend = Tokenizer.from_str(content.decode("utf-8"))
        if pieces is not None:
            _keep_scores(backend, pieces)
    for token in added:
        check_token_id(backend, name, str(token.get("content")), token.get("id"))
    return backend


class OwnedBackend(NamedTuple):
    """A Rust tokenizer that was made for one tokenizer alone, which therefore takes it as it is instead of a copy."""

    backend: Tokenizer


def backend_from_text(text: str) -> Tokenizer:
    """The Rust tokenizer that `Tokenizer.to_str` wrote."""
    backend = Tokenizer.from_str(text)
    if isinstance(backend.model, Unigram):
        _keep_scores(backend, json.loads(text)["model"])
    return backend


def _keep_scores(backend: Tokenizer, model: Mapping[str, Any]) -> None:
    """Give a unigram model the scores that its JSON states.

    The Rust library reads decimal numbers with an error of up to one unit in the last place, which decides between
    equally probable ways to cut a long run of the same letters.
    """
    if isinstance(backend.model, Unigram):
        pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
        backend.model = Unigram(pieces, unk_id=model.get("unk_id"), byte_fallback=bool(model.get("byte_fallback")))


def check_token_id(backend: Tokenizer, source: str, token: str, index: object) -> None:
    """Raises TokenizerError where the backend knows `token` under another id than the file says."""
    check_text(f"{source}: an added token", token)
    actual = backend.token_to_id(token)
    if actual is not None and actual != index:
        raise TokenizerError(
            f"{source}: the added token {token[:40]!r} has the id {index!r}, but ids are given without gaps and the "
            f"next one is {actual} (of {backend.get_vocab_size()}). The file is damaged, or for another vocabulary."
        )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises TokenizerError for more than a million, or where it is no text."""
    content = read_bytes(path)
    if content.count(b"\n") > MOST_LINES:
        raise TokenizerError(f"{path.name} has more than {MOST_LINES:,} lines; no vocabulary is that large.")
    try:
        return content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path.name} is not UTF-8 text: {error.reason}.") from None


def read_wordpiece(path: Path) -> dict[str, int]:
    """vocab.txt, one token a line, the line number is the id."""
    read_lines(path)
    with guarded(f"{path.name} cannot be read"):
        return WordPiece.read_file(str(path))


def read_byte_pairs(vocab: Path, merges: Path | None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json (token -> id) and merges.txt (one pair a line)."""
    table = read_object(vocab, read_bytes(vocab))
    for token, index in table.items():
        if type(index) is not int or not 0 <= index < MOST_IDS:
            raise TokenizerError(f"{vocab.name}: the id of {token[:40]!r} is {index!r}, which is no token id.")
    pairs: list[tuple[str, str]] = []
    if merges is not None:
        for number, line in enumerate(read_lines(merges), 1):
            if not (line := line.rstrip("\r")) or line.startswith("#version"):
                continue
            left, _, right = line.partition(" ")
            if not left or not right or " " in right:
                raise TokenizerError(f"{merges.name}, line {number}: {line[:40]!r} is not a pair of two tokens.")
            pairs.append((left, right))
    return table, pairs


def wordpiece_backend(
    vocab: dict[str, int], unk: str, *, lower: bool, strip_accents: bool | None, chinese: bool
) -> Tokenizer:
    """BERT's pipeline: clean, lower, split at spaces and punctuation, then the longest known pieces."""
    with guarded("The WordPiece tokenizer cannot be built"):
        backend = Tokenizer(WordPiece(vocab, unk_token=unk))
        backend.normalizer = bert_normalizer(lower, strip_accents, chinese)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def bert_normalizer(lower: bool, strip_accents: bool | None, chinese: bool) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lower
    )


# How Llama 3's and Qwen2's byte-level vocabularies split text before they merge: numbers in threes, digits one by one.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level_backend(
    vocab: dict[str, int], merges: Sequence[tuple[str, str]], *, add_prefix_space: bool, split: str | None = None
) -> Tokenizer:
    """GPT-2's pipeline: bytes as letters, split by GPT-2's pattern (or by `split`), then merges."""
    with guarded("The byte-level tokenizer cannot be built"):
        backend = Tokenizer(
            BPE(
                vocab=vocab,
                merges=list(merges),
                continuing_subword_prefix="",
                end_of_word_suffix="",
                fuse_unk=False,
            )
        )
        if split is None:
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
        else:
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(split), behavior="isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        backend.decoder = decoders.ByteLevel()
    return backend


def metaspace_backend(
    vocab: dict[str, int], merges: Sequence[tuple[str, str]], *, add_prefix_space: bool, legacy: bool
) -> Tokenizer:
    """Llama's pipeline: spaces as ▁, no splitting, merges, unknown characters as bytes."""
    with guarded("The byte-pair tokenizer cannot be built"):
        backend = Tokenizer(BPE(vocab=vocab, merges=list(merges), fuse_unk=True, byte_fallback=True))
        use_metaspace(backend, add_prefix_space=add_prefix_space, legacy=legacy)
    return backend


def use_metaspace(backend: Tokenizer, *, add_prefix_space: bool, legacy: bool) -> None:
    """Give a byte-pair tokenizer Llama's treatment of spaces, on the way in and out."""
    scheme = ("always" if legacy else "first") if add_prefix_space else "never"
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=METASPACE, prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace(METASPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if add_prefix_space else steps)


def unigram_backend(pieces: Sequence[tuple[str, float]], unk_id: int, charsmap: bytes | None) -> Tokenizer:
    """T5's pipeline: sentencepiece's own normalization, words that start with ▁, the most probable pieces."""
    with guarded("The unigram tokenizer cannot be built"):
        backend = Tokenizer(Unigram(list(pieces), unk_id=unk_id, byte_fallback=False))
        if charsmap:
            backend.normalizer = normalizers.Precompiled(charsmap)
        space: dict[str, Any] = {"replacement": METASPACE, "prepend_scheme": "always", "split": True}
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space)]
        )
        backend.decoder = decoders.Metaspace(**space)
    return backend


def framed(single: str, pair: str, special: Sequence[tuple[str, int | None]]) -> processors.TemplateProcessing:
    """A post-processor that puts special tokens around the text: `$A`, `$B` are the texts, `:1` a type id."""
    for token, index in special:
        if index is None:
            raise TokenizerError(f"The special token {token!r} is not in the vocabulary; name one that is.")
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(t, i) for t, i in special if i is not None]
    )


def retrained(
    backend: Tokenizer,
    texts: Iterable[Any],
    vocab_size: int,
    length: int | None,
    new_special: Sequence[Any],
    renamed: Mapping[str, str],
    **options: object,
) -> Tokenizer:
    """A tokenizer of the same pipeline with a vocabulary that is learned from `texts`.

    Args:
        backend: whose normalizer, pre-tokenizer, kind of model, special tokens and frame are taken.
        texts: texts, or lists of them.
        vocab_size: of the new vocabulary, special tokens included.
        length: how many texts there are, for the progress bar.
        new_special: special tokens beside those there are.
        renamed: special tokens that are called otherwise from now on.
        options: for the trainer of the `tokenizers` library.

    Raises:
        TokenizerError: the model is of a kind that cannot be trained.
    """
    data = json.loads(backend.to_str())
    old, frame, model = data.pop("added_tokens"), data.pop("post_processor"), data["model"]
    kind = model["type"]
    if kind not in ("BPE", "Unigram", "WordLevel", "WordPiece"):
        raise TokenizerError(f"A {kind} vocabulary cannot be learned anew; BPE, Unigram, WordLevel and WordPiece can.")
    if kind == "Unigram":
        if model["unk_id"] is not None:
            unknown = model["vocab"][model["unk_id"]][0]
            options.setdefault("unk_token", renamed.get(unknown, unknown))
            model |= {"unk_id": 0, "vocab": [[options["unk_token"], 0.0]]}
    else:
        model |= {"vocab": {}} | ({"merges": []} if kind == "BPE" else {})
        if model.get("unk_token") in renamed:
            model["unk_token"] = renamed[model["unk_token"]]
    if kind == "BPE":
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model[name] is not None:
                options.setdefault(name, model[name])
    steps = data["pre_tokenizer"] or {}
    if "ByteLevel" in {steps.get("type"), *(step["type"] for step in steps.get("pretokenizers", ()))}:
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    special = []
    for token in old:
        if token.pop("special") or kind == "Unigram":
            token.pop("id")
            token["content"] = renamed.get(token["content"], token["content"])
            special.append(AddedToken(**token))
    made = Tokenizer.from_str(json.dumps(data))
    with guarded("The vocabulary cannot be learned"):
        trainer = getattr(trainers, f"{kind}Trainer" if kind != "BPE" else "BpeTrainer")
        made.train_from_iterator(
            texts, trainer(vocab_size=vocab_size, special_tokens=[*special, *new_special], **options), length=length
        )
    if frame is None:
        return made
    data = json.loads(made.to_str())
    data["post_processor"] = _reframed(frame, made, renamed)
    return Tokenizer.from_str(json.dumps(data))


def _reframed(frame: dict[str, Any], made: Tokenizer, renamed: Mapping[str, str]) -> dict[str, Any]:
    """A post-processor with the ids that its special tokens have in `made`."""

    def found(token: str) -> tuple[str, int]:
        token = renamed.get(token, token)
        index = made.token_to_id(token)
        if index is None:
            raise TokenizerError(f"{token!r} is put around texts, and the new vocabulary lacks it: pass it as special.")
        return token, index

    for entry in frame.get("special_tokens", {}).values():
        pairs = [found(token) for token in entry["tokens"]]
        entry |= {"tokens": [token for token, _ in pairs], "ids": [index for _, index in pairs]}
    for name in ("cls", "sep"):
        if name in frame:
            frame[name] = list(found(frame[name][0]))
    for part in frame.get("processors", ()):
        _reframed(part, made, renamed)
    return frame
