"""Whatever a call asks for belongs to that call: threads and tasks that share one model get what each gets alone.

CUTAWAY_THREAD_CALLS=2000 makes the mixed run a long one.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.pairs import inputs
from tiny import classifier
from torch import Tensor, nn
from training_samples import SIZES, arguments, rows

import cutaway
from cutaway.errors import CutawayError
from cutaway.generate import stream
from cutaway.inspect import Edit, TunedLens, explain, integrated_gradients
from cutaway.nn import call_context
from cutaway.nn.activations.recorder import Recorder
from cutaway.nn.engine_modules import engine_modules
from cutaway.nn.linear import PackedCache
from cutaway.outputs import strict_outputs

CALLS = int(os.environ.get("CUTAWAY_THREAD_CALLS", "200"))
THREADS = 8
HEADS = {
    "bert": "BertForSequenceClassification",
    "mask": "BertForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
}
DROPOUT = {
    "Bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "GPT2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    "Llama": ("attention_dropout",),
    "T5": ("dropout_rate",),
    "Bart": ("dropout", "attention_dropout", "activation_dropout"),
}


def make(name: str) -> Any:
    """A tiny model with much dropout, in evaluation mode."""
    head = HEADS[name]
    family = next(family for family in DROPOUT if head.startswith(family))
    fields = {**SIZES[family], **dict.fromkeys(DROPOUT[family], 0.4)}
    torch.manual_seed(0)
    config = getattr(cutaway, f"{family}Config")(vocab_size=99, num_labels=3, **fields)
    model = getattr(cutaway, head)(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    return model


def with_adapters(model: Any) -> Any:
    for name in ("a", "b"):
        model.add_adapter(cutaway.LoraConfig(r=2, target_modules="all-linear"), name)
    with torch.no_grad():
        for p in model.adapters.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cutaway.pipeline("text-classification", str(classifier(tmp_path_factory.mktemp("pipe"), labels=3)))


# -- the mixed run -----------------------------------------------------------------------------------------------------

TRAINING = threading.Lock()  # whoever trains draws its dropout from torch's one generator, and so is alone with it
TEXTS = ("a good film", "not one very bad film , and it was", "i trust that the eu is great !", "bad")


class Shared:
    """What all threads use. `learner` is in training mode, the others are not."""

    def __init__(self, pipe: Any) -> None:
        self.model = {name: make(name) for name in HEADS}
        self.learner = make("gpt2").train()
        self.adapted = with_adapters(make("gpt2"))
        for model in (self.learner, self.adapted):
            _ = model.generation_config  # made when it is first asked for
        self.pipe = type(pipe)(copy.deepcopy(pipe.model), copy.deepcopy(pipe.tokenizer), task=pipe.task)


def ids(rng: random.Random, lengths: tuple[int, ...] = (9, 9)) -> Tensor:
    return torch.tensor([[rng.randrange(5, 99) for _ in range(n)] for n in lengths])


def given(name: str, rng: random.Random) -> dict[str, Tensor]:
    read = {"input_ids": ids(rng)}
    if name in ("t5", "bart"):
        read["decoder_input_ids"] = ids(rng, (4, 4))
    elif name != "llama" and rng.random() < 0.5:
        read["attention_mask"] = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    return read


@torch.no_grad()
def plain(shared: Shared, rng: random.Random) -> Any:
    name = rng.choice(list(HEADS))
    return shared.model[name](**given(name, rng)).logits


@torch.no_grad()
def edit(shared: Shared, rng: random.Random) -> Any:
    name = rng.choice(list(HEADS))
    model, read = shared.model[name], given(name, rng)
    address = rng.choice([a for a in model.addresses() if a.endswith((".resid", ".attn.z", ".mlp.act"))])
    with model.edit({address: Edit(lambda x: x * 0.5 + 0.25, rows=1)}):
        changed = model(**read).logits
    return changed, model(**read).logits


@torch.no_grad()
def record(shared: Shared, rng: random.Random) -> Any:
    name = rng.choice(list(HEADS))
    model, read = shared.model[name], given(name, rng)
    with model.record("*blocks.1.attn.pattern", "*blocks.0.resid", "logits") as seen:
        model(**read)
    assert len(seen.runs) == (2 if name in ("t5", "bart") else 1)
    return [seen[address] for address in seen]


@torch.no_grad()
def adapters(shared: Shared, rng: random.Random) -> Any:
    model, read = shared.adapted, {"input_ids": ids(rng)}
    one, two = rng.choice(("a", "b", None)), rng.choice(("a", "b", None))
    with model.use_adapter(one):
        inside = model(**read).logits
        written = model.generate(read["input_ids"], max_new_tokens=4, eos_token_id=[])
    mixed = model(**read, adapters=[one, two]).logits
    return inside, written, mixed, model.generate(read["input_ids"], max_new_tokens=4, adapters=[two, one])


def generate(shared: Shared, rng: random.Random) -> Any:
    name = rng.choice(("gpt2", "llama", "t5", "learner"))
    model = shared.learner if name == "learner" else shared.model[name]
    how = rng.choice(({}, {"num_beams": 3}, {"do_sample": True, "seed": rng.randrange(99)}, {"guidance_scale": 1.5}))
    how = {} if name == "t5" and "guidance_scale" in how else how
    return model.generate(ids(rng), max_new_tokens=6, eos_token_id=[], **how)


def train(shared: Shared, rng: random.Random) -> Any:
    """One step's loss and gradients, with dropout."""
    model, read = shared.learner, ids(rng)
    weights = list(model.parameters())
    only = {"return_logits": False} if rng.random() < 0.5 else {}
    with TRAINING:
        torch.manual_seed(rng.randrange(999))
        assert model.training and all(m.training for m in model.modules())
        loss = model(read, labels=read, **only).loss
        return loss.detach(), torch.autograd.grad(loss, weights)


def pipeline(shared: Shared, rng: random.Random) -> Any:
    texts = rng.sample(TEXTS, 3)
    return [
        tuple(sorted(answer.items())) for answer in shared.pipe(texts, truncation=True, max_length=rng.choice((4, 8)))
    ]


def tokens(shared: Shared, rng: random.Random) -> Any:
    how = rng.choice(({}, {"padding": True}, {"padding": "max_length", "max_length": 12}, {"truncation": True}))
    if how.get("truncation"):
        how = {"truncation": True, "max_length": rng.choice((3, 5))}
    return shared.pipe.tokenizer(rng.sample(TEXTS, 2), **how)["input_ids"]


def attribute(shared: Shared, rng: random.Random) -> Any:
    """Reads other vectors in place of the text's."""
    return integrated_gradients(shared.model["bert"], {"input_ids": ids(rng, (5,))}, steps=2, most=4).scores


KINDS: tuple[Callable[[Shared, random.Random], Any], ...] = (
    plain, edit, record, adapters, generate, train, pipeline, tokens, attribute,
)  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_each_result_is_bit_for_bit_that_of_its_call_alone(pipe: Any) -> None:
    jobs = [(kind, seed) for seed, kind in enumerate(KINDS * (CALLS // len(KINDS) + 1))][:CALLS]
    alone, shared = Shared(pipe), Shared(pipe)
    wanted = [kind(alone, random.Random(seed)) for kind, seed in jobs]
    before = everything(shared.learner), everything(shared.adapted)
    order = list(range(len(jobs)))
    random.Random(5).shuffle(order)
    start = threading.Barrier(THREADS)  # together at the first call, for which nothing is packed yet

    def run(share: list[int]) -> list[tuple[int, Any]]:
        start.wait()
        return [(i, jobs[i][0](shared, random.Random(jobs[i][1]))) for i in share]

    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(pair for part in pool.map(run, [order[n::THREADS] for n in range(THREADS)]) for pair in part)
    wrong = [f"{jobs[i][0].__name__} {jobs[i][1]}" for i in order if not same(found[i], wanted[i])]
    assert wrong == []
    assert (everything(shared.learner), everything(shared.adapted)) == before


# -- nothing on a model changes ----------------------------------------------------------------------------------------


def everything(model: nn.Module) -> dict[str, Any]:
    """What every module holds: numbers as they are, objects by their identity, collections by what is in them."""
    found: dict[str, Any] = {}
    for path, module in engine_modules(model):
        for name, value in vars(module).items():
            found[f"{path}:{name}"] = _held(value)
    return found


def _held(value: Any) -> Any:
    if isinstance(value, PackedCache):
        return id(value)  # a cache beside the weight, which is made when it is first used
    if isinstance(value, dict):
        return [(_held(key), _held(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple, set)):
        return [_held(one) for one in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_a_call_changes_nothing_on_a_module(name: str, training: bool, tmp_path: Path) -> None:
    model = make(name).train(training)
    read = given(name, random.Random(0))
    _ = model.generation_config  # read from its file, or made, when it is first asked for
    before, during = everything(model), 0

    def look(value: Tensor) -> Tensor:
        nonlocal during
        during += 1
        assert everything(model) == before
        return value

    def calls() -> Iterator[Callable[[], Any]]:
        yield lambda: model(**read)
        with model.record("logits"):
            yield lambda: model(**read)
        if model.can_generate():
            yield lambda: model.generate(read["input_ids"], max_new_tokens=3, eos_token_id=[])
            yield lambda: model.generate(read["input_ids"], max_new_tokens=3, eos_token_id=[], num_beams=2)
            yield lambda: list(stream(model, read["input_ids"][:1], max_new_tokens=3, eos_token_id=[]))
        data = rows(HEADS[name])
        trainer = cutaway.Trainer(model=model, args=arguments(tmp_path), eval_dataset=data)
        yield trainer.evaluate
        yield lambda: integrated_gradients(model, _one(name, read), steps=2, most=2)

    with model.edit({"*blocks.0.resid": look}):
        for n, call in enumerate(calls()):
            seen = during
            call()
            assert during > seen, n
            assert everything(model) == before, n


def _one(name: str, read: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value[:1] for key, value in read.items()}


def test_pipelines_and_explain_leave_a_model_in_training(pipe: Any) -> None:
    model, tokenizer = copy.deepcopy(pipe.model), pipe.tokenizer
    text = "a very good film"
    wanted = pipe(text), explain(text, copy.deepcopy(pipe.model), tokenizer).answers
    model.train()
    before = everything(model)
    own = type(pipe)(model, tokenizer, task=pipe.task)
    assert own(text) == wanted[0]
    assert explain(text, model, tokenizer, evidence=True).answers == wanted[1]
    assert everything(model) == before


def test_fitting_a_lens_touches_no_weight() -> None:
    model = make("gpt2")
    before = everything(model), [(p.requires_grad, p.grad) for p in model.parameters()]
    TunedLens(model).fit(model, [{"input_ids": ids(random.Random(0))}], steps=3)
    assert (everything(model), [(p.requires_grad, p.grad) for p in model.parameters()]) == before


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_generation_beside_training(name: str) -> None:
    """Each pass of a training thread stands between two passes of a generation."""
    model = make(name)
    prompt = ids(random.Random(1))
    wanted = model.generate(prompt, max_new_tokens=5, eos_token_id=[])
    model.train()
    labels = {"labels": prompt}
    torch.manual_seed(3)
    alone = [model(prompt, **labels).loss.item() for _ in range(5)]
    assert len(set(alone)) > 1  # there is dropout
    beside: list[float] = []
    torch.manual_seed(3)

    def during(value: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            beside.append(pool.submit(lambda: model(prompt, **labels).loss.item()).result())
        return value

    address = "decoder.blocks.0.resid" if name == "t5" else "blocks.0.resid"
    with model.edit({address: during}):
        assert torch.equal(model.generate(prompt, max_new_tokens=5, eos_token_id=[]), wanted)
    assert beside == alone


class Own(cutaway.PreTrainedModel):
    """A user's model: some of it is not the library's."""

    config_class = cutaway.BertConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = cutaway.BertModel(config)
        self.part = nn.Sequential(nn.Dropout(0.5), nn.Linear(config.hidden_size, 2))
        self.quiet = nn.Dropout(0.5).eval()
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, input_ids: Tensor) -> Any:
        self.modes.append((self.training, self.part[0].training))
        return self.quiet(self.part(self.bert(input_ids).pooler_output))


def test_modules_of_ones_own_are_evaluated_and_get_their_modes_back() -> None:
    torch.manual_seed(0)
    model = Own(cutaway.BertConfig(vocab_size=99, **{**SIZES["Bert"], "hidden_dropout_prob": 0.4}))
    model.train()
    model.quiet.eval()
    evaluation = cutaway.nn.call_context.Evaluation
    read = ids(random.Random(0))
    first, second = evaluation(model), evaluation(model)
    with ExitStack() as outer:
        outer.enter_context(first())
        with second():
            one = model(read)
        assert torch.equal(model(read), one)  # the first call still evaluates
    assert model.modes == [(False, False)] * 2
    assert model.training and model.part[0].training and not model.quiet.training
    assert not torch.equal(model(read), model(read))


# -- threads and tasks -------------------------------------------------------------------------------------------------


def in_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_thread_takes_part_only_in_a_copied_context() -> None:
    model = with_adapters(make("gpt2"))
    read = ids(random.Random(2))
    with torch.no_grad():
        plain_logits = model(read, adapters=None).logits

    @torch.no_grad()
    def call() -> Tensor:
        return model(read, adapters=None).logits  # type: ignore[no-any-return]

    with model.record("logits") as seen, model.edit({"blocks.1.resid": 0.0}):
        assert torch.equal(in_thread(call), plain_logits)
        assert not seen.runs
        context = contextvars.copy_context()
        changed = in_thread(lambda: context.run(call))
        assert len(seen.runs) == 1 and not torch.equal(changed, plain_logits)
        assert torch.equal(call(), changed)
    assert torch.equal(context.run(call), plain_logits)  # the blocks have ended, in the copy too
    assert len(seen.runs) == 2
    with model.use_adapter("a"):
        with torch.no_grad():
            adapted = model(read).logits
        assert torch.equal(in_thread(lambda: call_with(model, read)), call_with(model, read, adapters="b"))
        copied = contextvars.copy_context()
        assert torch.equal(in_thread(lambda: copied.run(call_with, model, read)), adapted)


@torch.no_grad()
def call_with(model: Any, read: Tensor, **how: Any) -> Tensor:
    return model(read, **how).logits  # type: ignore[no-any-return]


def test_blocks_may_end_in_any_order() -> None:
    model, read = make("bert"), ids(random.Random(2))
    first, second = model.record("embed"), model.record("embed")
    a, b = first.__enter__(), second.__enter__()
    call_with(model, read)
    first.__exit__(None, None, None)
    call_with(model, read)
    second.__exit__(None, None, None)
    call_with(model, read)
    assert (len(a.runs), len(b.runs)) == (1, 2)


def test_tasks_have_what_they_asked_for() -> None:
    model = with_adapters(make("gpt2"))
    reads = [ids(random.Random(n)) for n in range(6)]

    async def ask(read: Tensor, n: int) -> tuple[Tensor, int]:
        name = ("a", "b", None)[n % 3]
        found = []
        with model.use_adapter(name), model.record("logits") as seen, model.edit({"blocks.0.mlp.out": float(n % 2)}):
            for _ in range(3):
                await asyncio.sleep(0)
                found.append(call_with(model, read))
            found.append(await asyncio.to_thread(call_with, model, read))
        assert all(torch.equal(found[0], other) for other in found)
        assert all(torch.equal(run["logits"], found[0]) for run in seen.runs)
        return found[0], len(seen.runs)

    async def together() -> list[tuple[Tensor, int]]:
        return await asyncio.gather(*(ask(read, n) for n, read in enumerate(reads)))

    async def alone(n: int) -> tuple[Tensor, int]:
        return await ask(reads[n], n)

    found = asyncio.run(together())
    for n in range(len(reads)):
        logits, passes = asyncio.run(alone(n))
        assert passes == found[n][1] == 4
        assert torch.equal(logits, found[n][0])


def test_a_task_made_inside_takes_part() -> None:
    model, read = make("bert"), ids(random.Random(2))

    async def run() -> Recorder:
        with model.record("logits") as seen:
            await asyncio.gather(*(asyncio.create_task(one()) for _ in range(3)))
        return seen

    async def one() -> None:
        await asyncio.sleep(0)
        call_with(model, read)

    assert len(asyncio.run(run()).runs) == 3


def test_threads_of_one_context_share_a_recording_and_not_the_layout(tmp_path: Path) -> None:
    """Passes of other batches at once, each row with its adapter; each pass is kept whole, in memory and in files."""
    model = with_adapters(make("gpt2"))
    reads = [{**inputs("gpt2", (n, 3 + n % 5)), "adapters": None} for n in range(8, 20)]
    wanted = []
    for read in reads:
        with torch.no_grad(), model.record("blocks.0.resid", "logits") as one:
            model(**{**read, "adapters": ["a", "b"]})
        wanted.append({address: one[address] for address in one})
    for to in (None, tmp_path / "passes"):
        with model.use_adapter(["a", "b"], 2), model.record("blocks.0.resid", "logits", to=to) as seen:

            def call(read: dict[str, Any]) -> None:
                call_read = {key: value for key, value in read.items() if key != "adapters"}
                with torch.no_grad():
                    model(**call_read)

            contexts = [contextvars.copy_context() for _ in reads]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda pair: pair[0].run(call, pair[1]), zip(contexts, reads, strict=True)))
        assert len(seen.runs) == len(reads)
        for expected in wanted:
            shape = expected["logits"].shape
            (run,) = [run for run in seen.runs if run["logits"].shape == shape]
            assert all(torch.equal(run[address], value) for address, value in expected.items())


def test_an_adapter_that_is_switched_meanwhile_acts_from_the_next_call_on() -> None:
    model = with_adapters(make("gpt2"))
    read = ids(random.Random(4))
    wanted = {name: call_with(model, read, adapters=name) for name in ("a", "b")}
    written = {name: model.generate(read, max_new_tokens=4, eos_token_id=[], adapters=name) for name in ("a", "b")}
    model.set_adapter("a")

    def switch(value: Tensor) -> Tensor:
        in_thread(lambda: model.set_adapter("b"))
        return value

    with model.edit({"blocks.0.resid": switch}):
        assert torch.equal(call_with(model, read), wanted["a"])
    assert torch.equal(call_with(model, read), wanted["b"])
    model.set_adapter("a")
    with model.edit({"blocks.0.resid": switch}):
        assert torch.equal(model.generate(read, max_new_tokens=4, eos_token_id=[]), written["a"])
    assert model.active_adapter == "b"


def test_weights_are_packed_once_by_threads_that_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = make("bert"), ids(random.Random(2))
    packed: list[int] = []
    pack = PackedCache._joined
    monkeypatch.setattr(PackedCache, "_joined", staticmethod(lambda parts: packed.append(id(parts[0])) or pack(parts)))
    start = threading.Barrier(THREADS)

    def run(_: int) -> Tensor:
        start.wait()
        return call_with(model, read)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(THREADS)))
    assert all(torch.equal(found[0], one) for one in found)
    once = len(packed)
    packed.clear()
    call_with(copy.deepcopy(model), read)
    assert once == len(packed)


def test_only_the_loss_may_be_asked_for_in_the_call() -> None:
    model, read = make("mask"), ids(random.Random(2))
    whole, only = model(read, labels=read), model(read, labels=read, return_logits=False)
    assert only.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert only.logits is None
    with strict_outputs(), pytest.raises(CutawayError, match="logits"):
        _ = only.logits


def test_a_flag_inside_another_leaves_the_outer_one_set() -> None:
    with call_context.hidden_words_computed():
        with call_context.hidden_words_computed():
            assert call_context.current().whole
        assert call_context.current().whole
    assert not call_context.current().whole
