"""Which numbers a model computes with: int8 on request, or what a small measurement says is worth it.

int8 is here a way to compute, not to store (`keep_weights=True`): the weights stay what the checkpoint holds, so that
saving, printing, recording and training are as ever, and evaluation on a CPU multiplies bytes (`cutaway.nn.cpu.int8`).
Without it the weights become bytes while they are read (`cutaway.models.loading`).
"""

from __future__ import annotations

import copy
import inspect
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.models.number_format import Candidate as Candidate
from cutaway.models.number_format import Precision as Precision
from cutaway.nn import linear
from cutaway.nn.engine_modules import engine_modules

if TYPE_CHECKING:
    from cutaway.models.configured import ConfiguredModel
    from cutaway.outputs import ModelOutput

log = logging.getLogger("cutaway.precision")

MODES = ("int8", "fastest")
FOUR = "int4"  # which is done while the weights are read
WORTH, ALIKE = 1.1, 0.99  # the least speed-up and agreement for which a narrower format is taken
NARROWEST = 32  # layers with fewer inputs or outputs (the last one of a classifier) are not worth bytes
ROUNDS = 5
LONGEST = 48  # tokens of a probe's text that are read
TEXTS = (
    "A film that starts well and then forgets what it wanted to say.",
    "The two leads carry it; the script, alas, does not carry them.",
    "I laughed twice, and both times I had seen the joke coming.",
    "Slow, patient, and in the end deeply moving.",
    "What a waste of a fine cast!",
    "It was raining when we left the station, and nobody had thought of bringing an umbrella.",
    "The committee will meet again on Thursday to discuss next year's budget and the new library.",
    "Is there anything left to eat?",
    "Researchers found that the effect disappears once the age of the patients is taken into account.",
    "He closed the door quietly, sat down at the table and began to read the letter from his sister in Lisbon.",
    "Prices rose by three per cent in March, less than economists had expected, but more than a year ago.",
    "This is by far the best album they have made since the early years.",
)


def set_up(model: ConfiguredModel, mode: str, name: str | Path, how: dict[str, Any]) -> ConfiguredModel:
    """The model in int8 (`mode` "int8"), or in the format that a measurement chooses ("fastest").

    `name` and `how` say where the tokenizer is that the probe is read with.
    """
    if model.dtype not in (torch.float32, torch.bfloat16):
        model = model.float()
    if mode == "int8":
        enable_int8(model)
        model.precision = Precision("int8", 'dtype="int8" was asked for.')
        return model
    model = _choose(model, name, how)
    log.info("%s: %s. %s", name, model.precision.name, model.precision.why)
    return model


def enable_int8(model: ConfiguredModel) -> None:
    """Let every layer of `model` that is large enough multiply bytes."""
    for _, module in engine_modules(model):
        if type(module) is linear.Linear and min(module.in_features, module.out_features) >= NARROWEST:
            module.int8 = True


def _choose(model: ConfiguredModel, name: str | Path, how: dict[str, Any]) -> ConfiguredModel:
    stored = str(model.dtype).removeprefix("torch.")
    tried: dict[str, ConfiguredModel] = {}
    if model.dtype == torch.float32 and torch.bfloat16 in linear.DTYPES:
        tried["bfloat16"] = copy.deepcopy(model).bfloat16()
    # the weights are shared: only what is packed from them is its own
    tried["int8"] = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    enable_int8(tried["int8"])
    batch = _probe(model, name, how)
    try:
        times, answers = _measure([model, *tried.values()], batch)
    except CutawayError as error:
        model.precision = Precision(stored, f"The probe did not run ({error}), so nothing was changed.")
        return model
    measured = tuple(
        Candidate(name, times[0] / seconds, _agreement(answers[0], answer, batch["attention_mask"]))
        for name, seconds, answer in zip(tried, times[1:], answers[1:], strict=True)
    )
    said = "; ".join(f"{c.name} {c.speedup:.2f} times as fast, {c.agreement:.1%} agreement" for c in measured)
    good = [c for c in measured if c.speedup >= WORTH and c.agreement >= ALIKE]
    best = max(good, key=lambda c: c.speedup, default=None)
    needs = f"{WORTH} times and {ALIKE:.0%} are asked for"
    chosen = model if best is None else tried[best.name]
    chosen.precision = Precision(
        stored if best is None else best.name, f"Against {stored}: {said} ({needs}).", measured
    )
    return chosen


def _probe(model: ConfiguredModel, name: str | Path, how: dict[str, Any]) -> dict[str, Tensor]:
    """Texts as ids and mask [texts, longest]; ids at random where the checkpoint has no tokenizer."""
    from cutaway.tokenization.registry import load_tokenizer

    try:
        tokenizer = load_tokenizer(name, **how)
        rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    except CutawayError:
        draws = torch.Generator().manual_seed(0)
        size = model.get_input_embeddings().num_embeddings
        rows = [torch.randint(size, (len(text.split()),), generator=draws).tolist() for text in TEXTS]
    rows = [row[:LONGEST] for row in rows]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    batch = {"input_ids": ids, "attention_mask": mask}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        batch["decoder_input_ids"] = ids
        batch["decoder_attention_mask"] = mask
    return batch


@torch.inference_mode()
def _measure(models: list[ConfiguredModel], batch: dict[str, Tensor]) -> tuple[list[float], list[Any]]:
    """Seconds of each model, the best of ROUNDS in turns, and its output for `batch`.

    A model that writes is timed on one token, which is what it does most; others on the batch.
    """
    answers = [model(**batch) for model in models]
    timed = {key: value[:1, :1] for key, value in batch.items()} if models[0].can_generate() else batch
    times = [float("inf")] * len(models)
    for _ in range(ROUNDS):
        for i, model in enumerate(models):
            times[i] = min(times[i], _seconds(lambda model=model: model(**timed)))  # type: ignore[misc]
    return times, answers


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _rows(out: ModelOutput, mask: Tensor) -> tuple[Tensor, bool]:
    """What a user would read from an output, [rows, width], and whether it is the best of each row."""
    if out.get("start_logits") is not None:
        spans = torch.cat((out["start_logits"], out["end_logits"]))  # [2 texts, longest]
        return spans.masked_fill(mask.repeat(2, 1) == 0, -torch.inf), True
    answers = out.get("logits")
    labels = answers is not None and answers.shape[-1] > 1
    answers = out["last_hidden_state"] if answers is None else answers
    if answers.dim() == 3:
        return answers[mask != 0], labels  # [tokens, width]
    return (answers, True) if labels else (answers.T, False)  # one number a text: all of them are one row


def _agreement(a: ModelOutput, b: ModelOutput, mask: Tensor) -> float:
    """The share of equal best labels, or the mean cosine where the numbers are no scores of labels."""
    (mine, labels), (other, _) = _rows(a, mask), _rows(b, mask)
    if labels:
        return float((mine.argmax(-1) == other.argmax(-1)).double().mean())
    return float(F.cosine_similarity(mine.double(), other.double(), dim=-1).mean())
