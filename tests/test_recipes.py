"""The recipe of the built-in model: its student learns on `Trainer` as in a loop that is written out here."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import classifier
from torch import nn

import cutaway

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SIZE, EPOCHS = 12, 2


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The recipe's module, whose neighbours have names of their own."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(RECIPES))
    import student

    monkeypatch.setattr(student, "BATCH", 8)
    yield student
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == RECIPES:
            del sys.modules[name]


def examples(student: ModuleType, epoch: int) -> list[Any]:
    draw = random.Random(epoch)
    ids = [[2, *(draw.randrange(5, 40) for _ in range(draw.randint(2, 12))), 3] for _ in range(30)]
    vectors = torch.randn(len(ids), SIZE, generator=torch.Generator().manual_seed(epoch)).half()
    return [student.Example(text, draw.uniform(-3, 3), vectors[i] if i % 3 else None) for i, text in enumerate(ids)]


def looped(student: ModuleType, base: Path, course: Any) -> dict[str, torch.Tensor]:
    """The weights after the course, by the loop that the recipe had before."""
    from batches import rate, shuffled

    pupil = student.Pupil(base, SIZE).train()
    optimizer = torch.optim.AdamW(
        student.groups(pupil.model, pupil.vector, course.rate), betas=(0.9, 0.98), eps=1e-6, fused=True
    )
    highest = [group["lr"] for group in optimizer.param_groups]
    for epoch in range(course.epochs):
        read = examples(student, epoch)
        batches = shuffled([len(one.ids) for one in read], student.BATCH, random.Random(course.seed + epoch))
        for step, batch in enumerate(batches, 1):
            share = rate(epoch * len(batches) + step, course.epochs * len(batches), warm=student.WARM)
            for group, most in zip(optimizer.param_groups, highest, strict=True):
                group["lr"] = most * share
            with torch.autocast("cpu", torch.bfloat16):
                loss = pupil(**pupil.collate([read[i] for i in batch]))["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_([w for group in optimizer.param_groups for w in group["params"]], 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return dict(pupil.model.state_dict())


def test_the_student_learns_what_a_loop_would_teach_it(student: ModuleType, tmp_path: Path) -> None:
    base = classifier(tmp_path / "base", labels=2, head="BertModel")
    course = student.Course(epochs=EPOCHS, rate=1e-2, seed=3)

    def found(name: str, *callbacks: Any) -> Any:
        return student.taught(base, SIZE, tmp_path / name, course, lambda epoch: examples(student, epoch), callbacks)

    wanted, before = looped(student, base, course), student.start(base).state_dict()
    assert any(not torch.equal(wanted[name], before[name]) for name in wanted)
    whole = found("whole").state_dict()
    # a mean over 30 = 8 + 8 + 8 + 6 rows is weighed by its rows, which rounds where they are six
    assert all(torch.allclose(whole[name], wanted[name], atol=2e-4) for name in wanted)

    class Stop(cutaway.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found("stopped", Stop())
    resumed = found("stopped").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_course_of_epochs_that_differ_is_refused(student: ModuleType, tmp_path: Path) -> None:
    base = classifier(tmp_path / "base", labels=2, head="BertModel")
    course = student.Course(epochs=EPOCHS, rate=1e-2)
    with pytest.raises(ValueError, match="batches"):
        student.taught(base, SIZE, tmp_path / "run", course, lambda epoch: examples(student, epoch)[: 30 - 10 * epoch])
