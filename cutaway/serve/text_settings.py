"""Settings of written text that several kinds of clients name, and what they are called in `generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from cutaway.generate.settings import NOT_BUILT, model_settings
from cutaway.serve.body import Body
from cutaway.serve.problem import Problem

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Count = Annotated[int, Field(ge=1)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


# What a model's files may ask for that is no text of one token after another.
_OTHER_SEARCHES: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "early_stopping": False,
    "force_words_ids": None,
    "guidance_scale": None,
    "prompt_lookup_num_tokens": None,
    "return_dict_in_generate": False,
    "use_cache": True,
    "output_scores": False,
    "output_logits": False,
    "output_logprobs": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


class Sampling(Body):
    """How tokens are chosen; fields beyond OpenAI's are those of `generate`."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Share | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    regex: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    grammar: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class CountPenalty:
    """OpenAI's penalties: a token loses `frequency` for each time the answer has it, and `presence` for the first."""

    def __init__(self, prompt: int, frequency: float, presence: float) -> None:
        self.prompt, self.frequency, self.presence = prompt, frequency, presence

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """ids [B, L], scores [B, V]."""
        new = ids[:, self.prompt :]
        counts = torch.zeros_like(scores).scatter_add_(1, new, torch.ones_like(new, dtype=scores.dtype))
        return scores - self.frequency * counts - self.presence * (counts > 0).to(scores.dtype)


def generate_settings(given: Sampling, model: LanguageModel, prompt: int, n: int) -> dict[str, Any]:
    """The settings of `generate` for a prompt of so many tokens."""
    stored = model_settings(model).to_dict()
    found: dict[str, Any] = {name: off for name, off in NOT_BUILT.items() if stored.get(name)}
    found |= {name: value for name, value in _OTHER_SEARCHES.items() if name in stored}
    found["num_return_sequences"] = n
    heat = given.temperature
    if heat is None:
        heat = stored.get("temperature", 1.0) if stored.get("do_sample") or "temperature" not in stored else 1.0
    if heat == 0:
        found["do_sample"] = False
        for name in ("top_p", "top_k", "min_p", "typical_p", "temperature"):
            found[name] = None  # a file's, which would act on nothing
    else:
        found |= {"do_sample": True, "temperature": heat}
        found["top_k"] = given.top_k if given.top_k is not None else stored.get("top_k", 0)
        for name in ("top_p", "min_p", "typical_p", "seed"):
            if getattr(given, name) is not None:
                found[name] = getattr(given, name)
    if given.repetition_penalty is not None:
        found["repetition_penalty"] = given.repetition_penalty
    if given.frequency_penalty or given.presence_penalty:
        penalty = CountPenalty(prompt, given.frequency_penalty or 0.0, given.presence_penalty or 0.0)
        found["logits_processor"] = [penalty]
    if given.logit_bias:
        found["sequence_bias"] = _bias(given.logit_bias, model)
    if given.stops():
        found["stop_strings"] = given.stops()
    for name in ("regex", "grammar"):
        if getattr(given, name) is not None:
            found[name] = getattr(given, name)
    return found


def _bias(given: dict[str, float], model: LanguageModel) -> dict[tuple[int, ...], float]:
    size = model.architecture.writer.embedding.vocab_size
    found: dict[tuple[int, ...], float] = {}
    for key, bias in given.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 20 and int(key) < size):  # Python reads no 5,000 digits
            raise Problem(400, f"logit_bias holds {key!r:.40}: its keys are token ids, 0 to {size - 1}.",
                          param="logit_bias")  # fmt: skip
        found[(int(key),)] = bias
    return found
