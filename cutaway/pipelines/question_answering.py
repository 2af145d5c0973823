"""Where in a text the answer to a question stands."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cutaway.errors import InputError
from cutaway.pipelines.base import Pipeline
from cutaway.pipelines.fit import longest_input
from cutaway.pipelines.plan import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding

LONGEST_ROW, OVERLAP = 384, 128  # those of SQuAD's own training (Devlin et al., 2019)


@dataclass(frozen=True)
class Answer:
    """answer: context[start:end], "" for none. score: the probability of its start times that of its end."""

    score: float
    start: int
    end: int
    answer: str


@dataclass(frozen=True)
class Answers:
    """answers: best first. cut: how many tokens of the context were left out."""

    answers: tuple[Answer, ...]
    cut: int = 0


class QuestionAnsweringPipeline(Pipeline):
    """`pipe(question=..., context=...)`, or {"question": ..., "context": ...}, or lists of either.

    One question gives a dict {"score", "start", "end", "answer"}, or a list of `top_k` of them; a list of several
    questions gives a list of these. With `handle_impossible_answer=True` an empty answer competes with the others.
    `max_answer_len` (15) bounds the tokens of an answer; `align_to_words` widens it to whole words.

    A context that does not fit into `max_seq_len` tokens (at most 384, question included) is read in windows that share
    `doc_stride` tokens (128). Starts and ends are softmaxes over the context and the first token of each window; the
    answer is the best of all windows, and a span that two windows share is one answer.
    """

    settings: ClassVar[dict[str, Any]] = {
        "top_k": 1,
        "topk": None,
        "doc_stride": None,
        "max_seq_len": None,
        "max_answer_len": 15,
        "handle_impossible_answer": False,
        "align_to_words": True,
        "long": "window",
    }
    tokenizer_settings: ClassVar[tuple[str, ...]] = ("padding",)
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate", "window")

    def __call__(
        self,
        inputs: object = None,
        *,
        question: object = None,
        context: object = None,
        batch_size: int | None = None,
        **settings: object,
    ) -> Any:
        """See the class. Lists of questions and contexts go together; one context serves a list of questions."""
        if question is not None or context is not None:
            if inputs is not None or question is None or context is None:
                raise InputError("question-answering takes question= and context= together, or one mapping of both.")
            inputs = _together(question, context)
        return super().__call__(inputs, batch_size=batch_size, **settings)

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        top_k = settings["top_k"] if settings["topk"] is None else settings["topk"]
        bound = longest_input(self.model, self.tokenizer)
        longest = settings["max_seq_len"]
        if longest is None:
            longest = min(LONGEST_ROW, bound or LONGEST_ROW)
        elif bound is not None and isinstance(longest, int) and longest > bound:
            raise InputError(f"max_seq_len={longest}: the model takes {bound}. Leave it out, or pass at most that.")
        for name, value in (("top_k", top_k), ("max_answer_len", settings["max_answer_len"]), ("max_seq_len", longest)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}={value!r} must be a whole number from 1 up.")
        overlap = settings["doc_stride"]
        return {**settings, "top_k": top_k, "max_seq_len": longest, "overlap": overlap}

    def check(self, item: object) -> tuple[str, str]:
        """The question and the context."""
        if isinstance(item, Mapping) and "question" in item and "context" in item:
            question, context = item["question"], item["context"]
            if isinstance(question, str) and isinstance(context, str) and question.strip() and context.strip():
                return question, context
        raise InputError(
            f"question-answering got {item!r:.80}. An input is {{'question': ..., 'context': ...}}, two texts that are "
            "not empty."
        )

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        # The question stands first unless the tokenizer pads on the left, as upstream has it.
        first = self.tokenizer.padding_side == "right"
        pairs = [(question, context) if first else (context, question) for question, context in items]
        found: list[list[Row]] = []
        for pair in pairs:
            asked = pair[0] if first else pair[1]
            frame = len(
                self.tokenizer(asked, add_special_tokens=False)["input_ids"]
            ) + self.tokenizer.num_special_tokens_to_add(True)
            room = max(settings["max_seq_len"] - frame, 1)
            overlap = settings["overlap"]
            found += self.fitted(
                [pair],
                settings,
                longest=settings["max_seq_len"],
                overlap=min(OVERLAP, settings["max_seq_len"] // 2, room - 1) if overlap is None else overlap,
                part=1 if first else 0,
                cutting="only_second" if first else "only_first",
                spans=True,
            )
        return found

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """Of each row (start, end, null): probabilities [tokens] of its context, and of no answer."""
        out = self.model(**self.batch(rows))
        starts, ends = out.start_logits.float().cpu().numpy(), out.end_logits.float().cpu().numpy()  # [rows, longest]
        found = []
        for row, start, end in zip(rows, starts, ends, strict=True):
            window = row.window
            assert window is not None
            own = slice(window.row, window.row + window.end - window.start)
            # the first special token (BERT's [CLS]) is where models point that find no answer
            ids = row.inputs["input_ids"]
            null = ids.index(self.tokenizer.cls_token_id) if self.tokenizer.cls_token_id in ids else None
            probabilities = [_softmax(values[own], None if null is None else values[null]) for values in (start, end)]
            (start_own, start_null), (end_own, end_null) = probabilities
            found.append((start_own, end_own, start_null * end_null))
        return found

    def finish(
        self, item: tuple[str, str], rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]
    ) -> Answers:
        context, top_k = item[1], settings["top_k"]
        best: dict[tuple[int, int], float] = {}
        for row, (start, end, _) in zip(rows, outputs, strict=True):
            window, encoding = row.window, row.encoding
            assert window is not None and encoding is not None
            at, count, own = window.text + window.start, top_k, dict[tuple[int, int], float]()
            while True:  # several spans of tokens can be the same words
                found = spans(start, end, settings["max_answer_len"], count)
                for score, a, b in found:
                    place = self._characters(encoding, at + a, at + b, settings["align_to_words"])
                    own[place] = max(own.get(place, 0.0), score)
                if len(own) >= top_k or len(found) < count:
                    break
                count *= 4
            for place, score in own.items():
                best[place] = max(best.get(place, 0.0), score)
        answers = [Answer(score, a, b, context[a:b]) for (a, b), score in best.items()]
        if settings["handle_impossible_answer"]:
            answers.append(Answer(float(min(null for _, _, null in outputs)), 0, 0, ""))
        answers.sort(key=lambda answer: -answer.score)
        return Answers(tuple(answers[:top_k]), rows[0].cut)

    def _characters(self, encoding: Encoding, first: int, last: int, whole_words: bool) -> tuple[int, int]:
        start, end = encoding.offsets[first][0], encoding.offsets[last][1]
        if whole_words:
            words, part = encoding.word_ids, encoding.sequence_ids[first]
            first_word, last_word = words[first], words[last]
            if first_word is not None and last_word is not None and part is not None:
                begins, ends = encoding.word_to_chars(first_word, part), encoding.word_to_chars(last_word, part)
                start, end = begins[0] if begins else start, ends[1] if ends else end
        return start, end

    def shaped(self, result: Answers, settings: Mapping[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        answers = [dict(vars(answer)) for answer in result.answers]
        return answers[0] if len(answers) == 1 else answers

    def several(self, answers: list[Any], settings: Mapping[str, Any]) -> object:
        return answers[0] if len(answers) == 1 else answers


def spans(
    start: NDArray[np.float32], end: NDArray[np.float32], longest: int, top_k: int
) -> list[tuple[float, int, int]]:
    """The `top_k` best (start[a] * end[b], a, b) with a <= b < a + longest; start, end: [tokens]."""
    n = len(start)
    wide = min(longest, n)
    padded = np.concatenate([end, np.zeros(wide - 1, end.dtype)])  # [n + wide - 1]
    scores = start[:, None] * np.lib.stride_tricks.sliding_window_view(padded, wide)  # [n, wide]
    flat = scores.ravel()
    few = min(top_k, flat.size)
    order = np.argpartition(-flat, few - 1)[:few]
    order = order[np.argsort(-flat[order], kind="stable")]
    found = ((float(flat[i]), int(i) // wide, int(i) // wide + int(i) % wide) for i in order)
    return [one for one in found if one[2] < n]


def _softmax(own: NDArray[np.float32], null: np.float32 | None) -> tuple[NDArray[np.float32], float]:
    """Probabilities of the context's tokens and of no answer; one softmax over both."""
    values = own if null is None else np.append(own, null)
    grown = np.exp(values - values.max())
    grown /= grown.sum()
    return (grown, 0.0) if null is None else (grown[:-1], float(grown[-1]))


def _together(question: Any, context: Any) -> object:
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    if isinstance(context, str):
        context = itertools.repeat(context, len(question))
    elif isinstance(question, str) or len(question) != len(context):
        raise InputError("question-answering needs as many contexts as questions, or one context for all questions.")
    return [{"question": q, "context": c} for q, c in zip(question, context, strict=True)]
