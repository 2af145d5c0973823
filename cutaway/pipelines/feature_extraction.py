"""Texts to vectors: one for each token, or one for the text (mean, cls and others, or as the checkpoint says)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cutaway.errors import InputError, nearest
from cutaway.pipelines.base import Pipeline, text_only
from cutaway.pipelines.fit import longest_input
from cutaway.pipelines.plan import Row
from cutaway.pipelines.sentence_modules import POOLINGS, SentenceModules, sentence_modules

TENSORS = ("pt", "np")
# What the sum over a text is divided by, from the number of its windows and of its tokens.
_SHARES: dict[str, Callable[[int, int], float]] = {
    "cls": lambda windows, tokens: windows,
    "mean": lambda windows, tokens: tokens,
    "mean_sqrt_len_tokens": lambda windows, tokens: math.sqrt(tokens),
    "weightedmean": lambda windows, tokens: tokens * (tokens + 1) / 2,
}


@dataclass(frozen=True)
class Features:
    """vectors: a float32 tensor, [tokens, hidden], or [hidden] of the whole text where it is pooled.

    cut: how many tokens of the text were left out.
    """

    vectors: Tensor
    cut: int = 0


class FeatureExtractionPipeline(Pipeline):
    """Hidden states of the last layer.

    Without `pooling`, shapes are upstream's: each text gives nested lists [1, tokens, hidden], special tokens included.
    With it each text gives one vector [hidden]: "mean" over all tokens, "cls" (the first token's), "lasttoken", "max"
    (the largest of each number), "mean_sqrt_len_tokens" (the sum over the root of their number), "weightedmean" (the
    n-th token counts n times), or "model": what the folder's modules.json asks for (sentence-transformers: pooling,
    dense layers, normalization, a prompt before each text), the mean without one. `normalize=True` scales vectors to
    length 1. `prompt=` is put before each text.

    `return_tensors` "np" or "pt" gives arrays that never were lists; a list of texts with `pooling` is one array
    [texts, hidden].

    `long="window"` reads a long text in overlapping windows. Each token counts once, from the window in which it has
    the most context; "cls" is the mean of the windows' first tokens, "lasttoken" the last window's last.
    """

    settings: ClassVar[dict[str, Any]] = {
        "pooling": None,
        "normalize": None,
        "prompt": None,
        "return_tensors": None,
        "long": None,
        "overlap": None,
        "tokenize_kwargs": None,
    }
    ways: ClassVar[tuple[str, ...]] = ("error", "truncate", "window")
    _modules: SentenceModules | None = None

    def ready(self, settings: dict[str, Any]) -> dict[str, Any]:
        if hasattr(self.model, "reads_again") and not self.model.shifts_input:
            raise InputError(
                f"{type(self.model).__name__} reads with an encoder and writes with a decoder, and gives no vectors of "
                "what it reads. Load its encoder alone (T5EncoderModel), or take a model that is made for vectors."
            )
        pooling, tensors = settings["pooling"], settings["return_tensors"]
        known = (*POOLINGS, "model")
        if pooling is not None and pooling not in known:
            raise InputError(f"pooling={pooling!r} is not known.{nearest(str(pooling), known)}")
        if tensors not in (None, False, True, *TENSORS):
            raise InputError(f"return_tensors={tensors!r} is not known; use 'pt' (torch) or 'np' (numpy).")
        longest, lower, after = longest_input(self.model, self.tokenizer), False, tuple[Any, ...]()
        prompt = settings["prompt"]
        poolings: tuple[str, ...] = () if pooling is None else (pooling,)
        if pooling == "model":
            modules = self.modules()
            poolings, lower, after = modules.pooling, modules.lower, modules.after
            longest = min((n for n in (longest, modules.longest) if n is not None), default=None)
            prompt = modules.prompt if prompt is None else prompt
        if settings["normalize"] is not None:
            after = after[:-1] if after and after[-1] == "normalize" else after
            after = (*after, "normalize") if settings["normalize"] else after
        return {
            **settings,
            **(settings["tokenize_kwargs"] or {}),
            "pooling": poolings,
            "prompt": prompt or "",
            "after": after,
            "return_tensors": "pt" if tensors is True else tensors or None,
            "longest": longest,
            "lower": lower,
        }

    def modules(self) -> SentenceModules:
        """The checkpoint's sentence-transformers modules; mean pooling where it has none."""
        if self._modules is None:
            name = str(getattr(self.model, "name_or_path", "") or "")
            self._modules = (sentence_modules(name) if name else None) or SentenceModules(("mean",))
        return self._modules

    def check(self, item: object) -> object:
        return text_only(self.task, item)

    def encode(self, items: list[Any], settings: Mapping[str, Any]) -> list[list[Row]]:
        texts = [settings["prompt"] + item for item in items]
        texts = [text.lower() for text in texts] if settings["lower"] else texts
        return self.fitted(texts, settings, longest=settings["longest"])

    def forward(self, rows: list[Row], settings: Mapping[str, Any]) -> Sequence[Any]:
        """Of each row its own tokens' vectors, or what each way of pooling needs of them."""
        hidden = self.model(**self.batch(rows))[0].float()  # [rows, longest, hidden]
        spans = [row.own for row in rows]
        if not settings["pooling"]:
            return [hidden[i, a:b].clone() for i, (a, b) in enumerate(spans)]  # [tokens, hidden] each
        masked, is_whole = hidden, all(span == (0, hidden.shape[1]) for span in spans)
        if not is_whole or "weightedmean" in settings["pooling"]:
            steps = torch.arange(hidden.shape[1], device=hidden.device)
        if not is_whole:
            edges = torch.tensor(spans, device=hidden.device)  # [rows, 2]
            own = ((steps >= edges[:, :1]) & (steps < edges[:, 1:]))[..., None]  # [rows, longest, 1]
            masked = hidden * own
        parts = []
        for pooling in settings["pooling"]:
            if pooling == "cls":
                parts.append(hidden[:, 0].clone())
            elif pooling == "lasttoken":
                parts.append(hidden[torch.arange(len(rows)), torch.tensor([end - 1 for _, end in spans])])
            elif pooling == "weightedmean":
                first = torch.tensor([_before(row) for row in rows], device=hidden.device)[:, None]
                parts.append((masked * (steps + 1 + first)[..., None]).sum(1))
            elif pooling == "max":
                parts.append((hidden if masked is hidden else hidden.masked_fill(~own, -torch.inf)).amax(1))
            else:
                parts.append(masked.sum(1))
        stacked = parts[0][:, None] if len(parts) == 1 else torch.stack(parts, 1)  # [rows, poolings, hidden]
        return stacked.unbind(0)  # [poolings, hidden] each

    def finish(self, item: Any, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> object:
        return Features(self.vector(rows, outputs, settings), rows[0].cut)

    def vector(self, rows: list[Row], outputs: list[Any], settings: Mapping[str, Any]) -> Tensor:
        """The vectors of one text from those of its windows: [tokens, hidden], or [hidden] where it is pooled."""
        if not settings["pooling"]:
            vectors = torch.cat(outputs)  # [tokens, hidden]
        else:
            tokens = sum(b - a for a, b in (row.own for row in rows))
            parts = []
            for i, pooling in enumerate(settings["pooling"]):
                own = [output[i] for output in outputs]  # [hidden] of each window
                if pooling == "lasttoken":
                    parts.append(own[-1].clone())
                elif pooling == "max":
                    parts.append(own[0].clone() if len(own) == 1 else torch.stack(own).amax(0))
                else:
                    total = own[0] if len(own) == 1 else torch.stack(own).sum(0)
                    parts.append(total / _SHARES[pooling](len(rows), tokens))
            # none of them is a part of a batch, which it would keep in memory
            vectors = parts[0] if len(parts) == 1 else torch.cat(parts)  # [poolings * hidden]
        for step in settings["after"]:
            vectors = torch.nn.functional.normalize(vectors, dim=-1) if step == "normalize" else step(vectors)
        return vectors

    def shaped(self, result: Features, settings: Mapping[str, Any]) -> object:
        vectors = result.vectors if settings["pooling"] else result.vectors[None]  # [1, tokens, hidden]
        kind = settings["return_tensors"]
        if kind is None:
            return vectors.tolist()
        return vectors if kind == "pt" else vectors.cpu().numpy()

    def several(self, answers: list[Any], settings: Mapping[str, Any]) -> object:
        if not answers or not settings["pooling"] or settings["return_tensors"] is None:
            return answers
        if settings["return_tensors"] == "pt":
            return torch.stack(answers)
        import numpy as np

        return np.stack(answers)


def _before(row: Row) -> int:
    """How many of a text's tokens stand before the first position of this row, as the row's own tokens count them."""
    window = row.window
    return 0 if window is None else window.start + window.text - window.row
