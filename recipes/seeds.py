"""How much the seed matters: the film reviews alone on cutaway's Trainer, beside simpler ways.

    python recipes/seeds.py          # five seeds, a linear probe, VADER's own scorer

A short version of the recipe: three epochs over the rated film reviews that are not held out, no teacher and no other
texts. All are measured on the same held-out part as the built-in model.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import reviews
import torch
from evaluation import scores, vader_accuracy
from reviews import Rated, Source, split
from sentiment import DEFAULT_WORK, LONGEST, base_model
from sklearn.linear_model import LogisticRegression
from student import LABELS, STEEPNESS
from torch import Tensor

import cutaway

SEEDS = range(5)
T_95 = 2.776  # Student's t for 4 degrees of freedom, two-sided 95%
EPOCHS, BATCH, RATE = 3, 64, 2e-4


def rows(tokenizer: cutaway.PreTrainedTokenizerFast, rated: Sequence[Rated]) -> list[dict[str, object]]:
    """Examples with soft labels: P(negative), P(positive) = sigmoid(1.5 x rating)."""
    found = []
    for row in rated:
        share = float(torch.sigmoid(torch.tensor(STEEPNESS * row.rating)))
        found.append({**tokenizer(row.text, truncation=True, max_length=LONGEST), "labels": [1 - share, share]})
    return found


def fine_tuned(base: Path, train: Sequence[Rated], test: Sequence[Rated], seed: int) -> Tensor:
    """The logit of P(positive) of each test text, [texts], by a model that Trainer fine-tuned."""
    torch.manual_seed(seed)
    model = cutaway.AutoModelForSequenceClassification.from_pretrained(
        base, id2label=LABELS, problem_type="multi_label_classification"
    )
    tokenizer = cutaway.AutoTokenizer.from_pretrained(base)
    with TemporaryDirectory() as folder:
        arguments = cutaway.TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            group_by_length=True,
            learning_rate=RATE,
            layer_lr_decay=0.9,
            lr_scheduler_type="cosine",
            warmup_ratio=0.1,
            weight_decay=0.01,
            freeze=["embed"],
            bf16=True,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = cutaway.Trainer(model, arguments, train_dataset=rows(tokenizer, train), processing_class=tokenizer)
        trainer.train()
        logits = torch.as_tensor(trainer.predict(rows(tokenizer, test)).predictions).float()  # [texts, 2]
    return logits[:, 1] - logits[:, 0]


@torch.no_grad()
def embeddings(base: Path, texts: Sequence[str]) -> Tensor:
    """Means of the last hidden states of the model in `base`, [texts, hidden]."""
    model = cutaway.AutoModel.from_pretrained(base).eval()
    tokenizer = cutaway.AutoTokenizer.from_pretrained(base)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found = torch.zeros(len(texts), model.config.hidden_size)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        inputs = tokenizer(
            [texts[i] for i in batch], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        weight = inputs["attention_mask"][..., None].float()
        found[batch] = (model(**inputs).last_hidden_state * weight).sum(1) / weight.sum(1)  # [batch, hidden]
    return found


def probe(base: Path, train: Sequence[Rated], test: Sequence[Rated]) -> Tensor:
    """The logit of P(positive), [texts], by a logistic regression on the frozen base model's embeddings."""
    regression = LogisticRegression(max_iter=2000)
    regression.fit(embeddings(base, [row.text for row in train]), [row.rating >= 0 for row in train])
    return torch.as_tensor(regression.decision_function(embeddings(base, [row.text for row in test])))


def main() -> None:
    """Reads the command line, trains, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where downloads are kept")
    work = parser.parse_args().work
    archive = reviews.fetch(work / "data")
    films = Source(archive).films()
    parts = split(films)
    train = [films[row] for row in parts.train + parts.validation]
    test = [films[row] for row in parts.held_out]
    texts, positive = [row.text for row in test], torch.tensor([row.rating >= 0 for row in test])

    print(f"VADER's own scorer: {vader_accuracy(archive, work / 'data', texts, positive):.2f}%", flush=True)
    base = base_model()
    print("linear probe:", scores(probe(base, train, test), positive), flush=True)
    reached = []
    for seed in SEEDS:
        found = scores(fine_tuned(base, train, test, seed), positive)
        reached.append(found.accuracy)
        print(f"Trainer, seed {seed}:", found, flush=True)
    mean, spread = statistics.mean(reached), statistics.stdev(reached)
    half = T_95 * spread / len(reached) ** 0.5
    print(f"Trainer, {len(reached)} seeds: {mean:.2f}% [{mean - half:.2f}, {mean + half:.2f}], deviation {spread:.2f}")


if __name__ == "__main__":
    main()
