"""The student: MiniLM-L6 learns a logit for each text, and where the teacher's vectors are kept, to foretell those."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from batches import padded
from course import Lessons, newest, train
from safetensors.torch import load_file
from torch import Tensor, nn

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
        after: the folder of the course whose weights it begins with.
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


def groups(model: Model, extra: nn.Module, highest: float) -> list[dict[str, Any]]:
    """Weights by learning rate: lower layers learn more slowly (Howard and Ruder, 2018)."""
    layers = model.config.num_hidden_layers
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in [*model.named_parameters(), *extra.named_parameters()]:
        if not weight.requires_grad:
            continue
        block = re.search(r"\.blocks\.(\d+)\.", name)
        depth = layers - int(block[1]) if block else layers + 1 if ".embed." in name else 0
        found.setdefault((highest * DECAY**depth, WEIGHT_DECAY if weight.dim() > 1 else 0.0), []).append(weight)
    return [{"params": w, "lr": lr, "weight_decay": decay} for (lr, decay), w in found.items()]


class Pupil(nn.Module):
    """The model in training, with a layer that foretells the teacher's vector.

    Args:
        base: folder of the base model.
        size: length of the teacher's vectors.
    """

    def __init__(self, base: Path, size: int) -> None:
        super().__init__()
        self.model = start(base)
        self.vector = nn.Linear(self.model.config.hidden_size, size)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, target: Tensor, known: Tensor, vectors: Tensor
    ) -> dict[str, Tensor]:
        """The loss, a mean over the batch: cross-entropy with P(positive), plus the squared error of the logit in units
        of two ratings, plus one minus the cosine of the vector that is foretold and the teacher's.

        Args:
            target: the logits to learn, [batch].
            known: the places of the texts that have a vector, [n]. vectors: theirs, [n, size].
        """
        out, mean = forward(self.model, input_ids, attention_mask)
        unit = 2 * STEEPNESS
        with torch.autocast("cpu", enabled=False):
            loss = F.binary_cross_entropy_with_logits(out, target.sigmoid()) + F.mse_loss(out / unit, target / unit)
            if len(known):
                away = 1 - F.cosine_similarity(self.vector(mean[known]), vectors)
                loss = loss + away.sum() / len(target)
        return {"loss": loss}

    def collate(self, batch: Sequence[Example]) -> dict[str, Tensor]:
        """What `forward` takes."""
        ids, mask = padded([example.ids for example in batch], self.model.config.pad_token_id)
        known = [place for place, example in enumerate(batch) if example.vector is not None]
        vectors = [v.float() for example in batch if (v := example.vector) is not None]
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "target": torch.tensor([example.logit for example in batch]),
            "known": torch.tensor(known, dtype=torch.int64),
            "vectors": torch.stack(vectors) if vectors else torch.zeros(0, self.vector.out_features),
        }


def taught(
    base: Path,
    size: int,
    folder: Path,
    course: Course,
    examples: Callable[[int], list[Example]],
    callbacks: Sequence[cutaway.TrainerCallback] = (),
) -> Model:
    """The model after a course, which goes on from where `folder` says that it was stopped.

    Args:
        base: folder of the base model.
        size: length of the teacher's vectors.
        examples: what is read in each epoch.
    """
    pupil = Pupil(base, size)
    if course.after is not None:
        pupil.load_state_dict(load_file(newest(course.after) / "model.safetensors"))
    train(
        pupil,
        groups(pupil.model, pupil.vector, course.rate),
        Lessons(examples, BATCH, course.seed),
        pupil.collate,
        folder,
        epochs=course.epochs,
        scheduled=course.epochs,
        warm=WARM,
        eps=1e-6,
        seed=SEED,
        callbacks=callbacks,
    )
    return pupil.model.eval()
