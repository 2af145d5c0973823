"""The student: MiniLM-L6 learns a logit for each text, and where the teacher's vectors are kept, to foretell those."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from batches import padded, rate, shuffled
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import cutaway

LABELS = {0: "NEGATIVE", 1: "POSITIVE"}
STEEPNESS = 1.5  # a rating's logit: P(positive) = sigmoid(STEEPNESS * rating)
BATCH, DECAY, WEIGHT_DECAY = 64, 0.9, 0.01
WARM = 0.05  # share of the steps in which the rate rises
SEED = 0

Model = cutaway.BertForSequenceClassification


@dataclass(frozen=True)
class Example:
    """Token ids of one text, the logit of P(positive) to learn, and the teacher's vector [768] or None."""

    ids: list[int]
    logit: float
    vector: Tensor | None = None


@dataclass(frozen=True)
class Course:
    """One schedule of training.

    Attributes:
        epochs: how many.
        rate: the highest learning rate.
        after: the state whose weights it begins with.
        seed: of the order of the texts.
    """

    epochs: int
    rate: float
    after: Path | None = None
    seed: int = SEED


def load(folder: Path) -> Model:
    """The classifier over the encoder in `folder`, without dropout: every text it learns from has a graded target."""
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    return Model.from_pretrained(
        folder, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **names
    )


def forward(model: Model, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The logit of P(positive), [batch], and the mean of the last hidden states, [batch, hidden], in float32."""
    out = model.base_model(input_ids=ids, attention_mask=mask)
    found = model.classifier(out.pooler_output).float()  # [batch, 2]
    weight = mask[..., None].float()
    mean = (out.last_hidden_state.float() * weight).sum(1) / weight.sum(1)  # [batch, hidden]
    return found[:, 1] - found[:, 0], mean


@torch.no_grad()
def predict(model: Model, texts: Sequence[Sequence[int]]) -> Tensor:
    """The logit of P(positive) of each text, [texts], in full float32."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.zeros(len(texts))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        out[batch] = forward(model, *padded([texts[i] for i in batch], model.config.pad_token_id))[0]
    return out


def start(base: Path) -> Model:
    """The base model with a fresh classifier; the embeddings stay as they are, so that rare words keep their place."""
    model = load(base)
    torch.manual_seed(SEED)
    nn.init.normal_(model.classifier.weight, std=model.config.initializer_range)
    nn.init.zeros_(model.classifier.bias)
    model.get_input_embeddings().requires_grad_(False)
    return model


def groups(model: Model, extra: nn.Module, highest: float) -> list[dict[str, object]]:
    """Weights by learning rate: lower layers learn more slowly (Howard and Ruder, 2018)."""
    layers = model.config.num_hidden_layers
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in [*model.named_parameters(), *extra.named_parameters()]:
        if not weight.requires_grad:
            continue
        block = re.search(r"\.blocks\.(\d+)\.", name)
        depth = layers - int(block[1]) if block else layers + 1 if ".embed." in name else 0
        found.setdefault((highest * DECAY**depth, WEIGHT_DECAY if weight.dim() > 1 else 0.0), []).append(weight)
    return [{"params": w, "lr": lr, "base": lr, "weight_decay": decay} for (lr, decay), w in found.items()]


class Student:
    """A model in training. After each epoch its whole state lies in one file, from which it goes on.

    Args:
        base: folder of the base model.
        size: length of the teacher's vectors.
        file: the state, model and optimizer.
        course: how it is trained.
    """

    def __init__(self, base: Path, size: int, file: Path, course: Course) -> None:
        self.model = start(base)
        self._vector = nn.Linear(self.model.config.hidden_size, size)
        self._groups = groups(self.model, self._vector, course.rate)
        self._optimizer = torch.optim.AdamW(self._groups, betas=(0.9, 0.98), eps=1e-6, fused=True)
        self._file = file
        self._course = course
        self.done = 0  # epochs
        if file.exists():
            self._restore(load_file(file))
        elif course.after is not None:
            self._weights_from(load_file(course.after))

    def learn(self, examples: Sequence[Example]) -> float:
        """One epoch, the next of the course; returns the mean loss.

        The loss is the cross-entropy with P(positive), plus the squared error of the logit in units of two ratings,
        plus one minus the cosine of the vector that was foretold and the teacher's.
        """
        rng = random.Random(self._course.seed + self.done)
        batches = shuffled([len(example.ids) for example in examples], BATCH, rng)
        total = 0.0
        self.model.train()
        for step, batch in enumerate(batches, 1):
            share = rate(self.done * len(batches) + step, self._course.epochs * len(batches), warm=WARM)
            for group in self._optimizer.param_groups:
                group["lr"] = group["base"] * share
            loss = self._loss([examples[i] for i in batch])
            loss.backward()
            nn.utils.clip_grad_norm_(self._weights(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            total += float(loss.detach()) * len(batch)
        self.model.eval()
        self.done += 1
        self._keep()
        return total / len(examples)

    def _loss(self, batch: Sequence[Example]) -> Tensor:
        target = torch.tensor([example.logit for example in batch])
        ids, mask = padded([example.ids for example in batch], self.model.config.pad_token_id)
        # The fused kernel's backward pass is slow in bfloat16 on a processor: this halves the time of a step.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
            out, mean = forward(self.model, ids, mask)
        unit = 2 * STEEPNESS
        loss = F.binary_cross_entropy_with_logits(out, target.sigmoid()) + F.mse_loss(out / unit, target / unit)
        known = [i for i, example in enumerate(batch) if example.vector is not None]
        if known:
            vectors = torch.stack([v for example in batch if (v := example.vector) is not None]).float()
            away = 1 - F.cosine_similarity(self._vector(mean[known]), vectors)
            loss = loss + away.sum() / len(batch)
        return loss

    def _weights(self) -> Iterator[nn.Parameter]:
        for group in self._optimizer.param_groups:
            yield from group["params"]

    def _keep(self) -> None:
        state = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        state |= {f"vector.{name}": weight for name, weight in self._vector.state_dict().items()}
        for number, weight in enumerate(self._weights()):
            for name, value in self._optimizer.state[weight].items():
                state[f"optimizer.{number}.{name}"] = value
        state["done"] = torch.tensor(self.done)
        aside = self._file.with_suffix(".new")
        save_file({name: value.contiguous() for name, value in state.items()}, aside)
        aside.rename(self._file)

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.done = int(state["done"])
        self._weights_from(state)
        for number, weight in enumerate(self._weights()):
            mine = f"optimizer.{number}."
            self._optimizer.state[weight] = {n[len(mine) :]: v for n, v in state.items() if n.startswith(mine)}

    def _weights_from(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict({n[6:]: value for n, value in state.items() if n.startswith("model.")})
        self._vector.load_state_dict({n[7:]: value for n, value in state.items() if n.startswith("vector.")})
