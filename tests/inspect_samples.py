"""Explanations with made-up numbers, for the tests of pictures, page and terminal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cutaway.inspect import measures
from cutaway.inspect.explanation import (
    Attention,
    Branch,
    Candidate,
    Evidence,
    Explanation,
    LensGrid,
    Model,
    Parts,
    Plane,
    Scores,
    States,
    Step,
    Token,
)
from cutaway.show.label import printable

TEXT = "I believe that the EU is trustworthy."
WORDS = ["[CLS]", "i", "believe", "that", "the", "eu", "is", "trust", "##worthy", ".", "[SEP]"]
SUMS = {"integrated gradients": 0.004, "input x gradient": None, "occlusion": None, "Shapley": 0.0}  # -> residual
HOSTILE = [
    "[CLS]",
    "$x^2$",
    "\\frac",
    "</script><script>alert(1)</script>",
    "\x00",
    "\x1b[31mred",
    "\u202eabc",
    "שלום",
    "مرحبا",
    "日本語",
    "😀",
    "e\u0301",
    "\ud800",
    "[bold]x[/bold]",
    "a" * 60,
    "&amp;",
    "\u2028",
    "[SEP]",
]


def tokens_of(words: list[str]) -> list[Token]:
    tokens, at = [], 0
    for i, word in enumerate(words):
        special = word.startswith("[") and word.endswith("]") and word.isupper()
        bare = word.removeprefix("##")
        start = TEXT.lower().find(bare.lower(), at) if not special else -1
        at = max(at, start)
        ends = (start, start + len(bare)) if start >= 0 else (None, None)
        tokens.append(Token(i, 1000 + i, word, printable(word), *ends, 1, special, 0))
    return tokens


def pattern_of(layers: int, heads: int, rows: int, columns: int, *, causal: bool = False) -> measures.Array:
    """Heads of several kinds: mixed, previous-token, first-token, self."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.2, (layers, heads, rows, columns))
    for layer in range(layers):
        for head in range(heads):
            kind = (layer * 5 + head * 3) % 7
            if kind == 0:
                scores[layer, head] += 5 * np.eye(rows, columns, -1)
            elif kind == 1:
                scores[layer, head, :, 0] += 5
            elif kind == 2:
                scores[layer, head] += 4 * np.eye(rows, columns)
            elif kind == 3:
                scores[layer, head] += 3 * np.eye(rows, columns, 1)
    if causal:
        scores = np.where(np.tri(rows, columns, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True), dtype=np.float32)


def attention_of(name: str, pattern: measures.Array, *, rows: str = "tokens", columns: str = "tokens") -> Attention:
    found = {"entropy": measures.entropy(pattern)}
    places = [list(range(1, size - 1)) or [0] for size in pattern.shape[-2:]]
    found["focus"] = measures.focus(pattern, *places, same=rows == columns)
    if rows == columns:
        found["distance"] = measures.distance(pattern)
    layer, head = np.unravel_index(int(found["focus"].argmax()), pattern.shape[:2])
    address = {"self": "blocks.{i}.attn.pattern", "cross": "decoder.blocks.{i}.cross.pattern"}.get(
        name, name + ".blocks.{i}.attn.pattern"
    )
    return Attention(name, address, rows, columns, pattern, found, int(layer), int(head), "sharpest focus")


def states_of(name: str, prefix: str, layers: int, length: int, tokens: str = "tokens") -> States:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(0, 1, (layers + 1, length, 16)), 0).astype(np.float32)
    places = [prefix + "embed"] + [f"{prefix}blocks.{i}.resid" for i in range(layers)]
    return States(
        name,
        tokens,
        places,
        np.linalg.norm(walk, axis=-1).astype(np.float32),
        measures.cosine(walk, walk[:1]),
        measures.cosine(walk, np.concatenate([walk[:1], walk[:-1]])),
        walk[:, :, :8].copy(),
    )


def encoder(words: list[str] | None = None, layers: int = 6, heads: int = 12, text: str = TEXT) -> Explanation:
    words = words or WORDS
    return Explanation(
        version="0.0.0",
        model=Model(
            "cutaway/sentiment", "BertForSequenceClassification", "bert", layers, heads, 384, 22_713_986, "float32"
        ),
        text=text,
        kind="labels",
        tokens=tokens_of(words),
        target=[],
        attention={"self": attention_of("self", pattern_of(layers, heads, len(words), len(words)))},
        shown="self",
        states={"self": states_of("self", "", layers, len(words))},
        token=min(2, len(words) - 1),
        answers=[Candidate(0, "NEGATIVE", -1.93, 0.0171), Candidate(1, "POSITIVE", 2.12, 0.9829)],
        function="softmax",
    )


def decoder(prompt: int = 6, new: int = 5, layers: int = 4, heads: int = 4) -> Explanation:
    words = ["Today", "I", "believe", "we", "can", "finally", "get", "to", "the", "point"][: prompt + new]
    tokens = [
        Token(i, i, "Ġ" + word, "·" + word, None, None, 1, False, None, generated=i >= prompt)
        for i, word in enumerate(words)
    ]
    picks = [Candidate(t.id, t.label, 9.1, 0.41) for t in tokens[prompt:]]
    rest = [Candidate(i, f"·word{i}", 8.0 - i, 0.2 / (i + 1)) for i in range(9)]
    return Explanation(
        version="0.0.0",
        model=Model("gpt2", "GPT2LMHeadModel", "gpt2", layers, heads, 768, 124_439_808, "float32"),
        text=" ".join(words[:prompt]),
        kind="next-token",
        tokens=tokens,
        target=[],
        attention={"self": attention_of("self", pattern_of(layers, heads, len(words), len(words), causal=True))},
        shown="self",
        states={"self": states_of("self", "", layers, len(words))},
        token=prompt - 1,
        answers=[picks[0], *rest] if picks else rest,
        function="softmax",
        steps=[Step(prompt + i, pick, [pick, *rest]) for i, pick in enumerate(picks)],
        generated=" ".join(words[prompt:]),
    )


def encoder_decoder(layers: int = 3, heads: int = 4) -> Explanation:
    source = tokens_of(WORDS)
    target = [
        Token(i, i, w, w, None, None, 1, i == 0, None, i > 0) for i, w in enumerate(["<pad>", "▁Ich", "▁glaube", "."])
    ]
    picks = [Candidate(t.id, t.label, 5.0, 0.5) for t in target[1:]]
    size = (layers, heads)
    return Explanation(
        version="0.0.0",
        model=Model("t5-small", "T5ForConditionalGeneration", "t5", layers, heads, 512, 60_506_624, "float32"),
        text=TEXT,
        kind="target",
        tokens=source,
        target=target,
        attention={
            "encoder": attention_of("encoder", pattern_of(*size, len(source), len(source))),
            "decoder": attention_of("decoder", pattern_of(*size, 4, 4, causal=True), rows="target", columns="target"),
            "cross": attention_of("cross", pattern_of(*size, 4, len(source)), rows="target"),
        },
        shown="cross",
        states={
            "encoder": states_of("encoder", "encoder.", layers, len(source)),
            "decoder": states_of("decoder", "decoder.", layers, 4, "target"),
        },
        token=2,
        answers=picks,
        function="softmax",
        steps=[Step(i + 1, pick, picks) for i, pick in enumerate(picks)],
        generated="Ich glaube.",
    )


def evidence_of(explanation: Explanation, label: str = "POSITIVE") -> Explanation:
    """The same with made-up evidence of the right shapes."""
    rng = np.random.default_rng(3)
    norms, rollout = {}, {}
    for name, a in explanation.attention.items():
        layers, heads, _, columns = a.pattern.shape
        norms[name] = rng.uniform(0.5, 3, (layers, heads, columns)).astype(np.float32)
        if a.rows == a.columns:
            rollout[name] = a.pattern.mean(1)
    length = len(explanation.tokens)
    values = rng.normal(0, 1, 30).astype(np.float32)
    states = explanation.model.layers + 1
    lens = LensGrid(
        "tokens", ["embed"] + [f"blocks.{i}.resid" for i in range(states - 1)], [[[7, 8, 9]] * length] * states,
        np.full((states, length, 3), 0.25, np.float32), np.ones((states, length), np.float32),
        {"7": label, "8": "b", "9": "c"},
    )  # fmt: skip
    scores = [
        Scores(name, rng.normal(0, 1, length).astype(np.float32), 2.1, -0.2, residual, 16, "")
        for name, residual in SUMS.items()
    ]
    names = [f"blocks.{i}.mlp.out" for i in range(30)]
    parts = Parts(names, values, float(values.sum()), float(values.sum()))
    planes = {
        name: Plane(rng.normal(0, 1, (*states.norm.shape, 2)).astype(np.float32), [0.5, 0.25])
        for name, states in explanation.states.items()
    }
    ways = [Branch(i, step.candidates[1:4]) for i, step in enumerate(explanation.steps) if len(step.candidates) > 1]
    it = Evidence(norms, rollout, lens, scores, parts, planes, ways, label)
    return replace(explanation, evidence=it)
