"""What scripts written for upstream do beside the usual: a command line, Seq2SeqTrainer, pipelines of their own."""

from __future__ import annotations

import asyncio
import copy
import enum
import json
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import tiny
import torch
import transformers

import cutaway
from cutaway.errors import CheckpointError, ConfigError, GenerationError, HubError, InputError, TokenizerError

# -- HfArgumentParser --------------------------------------------------------------------------------------------------


class Kind(enum.Enum):
    ONE = "one"
    TWO = "two"


@dataclass
class Given:
    foo: int
    bar: float = 1.5
    name: Optional[str] = None  # noqa: UP045 - the way most scripts write it
    flag: bool = False
    on: bool = True
    maybe: bool | None = None
    kind: Kind = Kind.ONE
    pick: Literal["a", "b", 3] = "a"
    many: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=lambda: ["x"])
    long_name: str = field(default="z", metadata={"help": "100% of it", "aliases": ["--ln", "-n"]})

    def __post_init__(self) -> None:
        self.kind = Kind(self.kind)


LINES = (
    "--foo 1",
    "--foo 1 --bar 2 --name q --flag --no_on --maybe true --kind two --pick 3 --many 1 2 3 --words a b --long-name w",
    "--foo=-4 --flag false --on no --pick b --ln v",
    "--foo 7 --flag 1 --no-on -n u",
)


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_gives_what_upstream_gives(line: str) -> None:
    (mine,) = cutaway.HfArgumentParser(Given).parse_args_into_dataclasses(line.split(), look_for_args_file=False)
    (theirs,) = transformers.HfArgumentParser(Given).parse_args_into_dataclasses(line.split(), look_for_args_file=False)
    assert mine == theirs


def test_files_and_dicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = cutaway.HfArgumentParser([Given, cutaway.TrainingArguments])
    values = {"foo": 2, "many": [4], "output_dir": "out", "learning_rate": 1e-3, "do_train": True}
    given, args = parser.parse_dict(values)
    assert given.many == [4] and args.learning_rate == 1e-3 and args.do_train
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.yaml").write_text("foo: 2\nmany: [4]\noutput_dir: out\nlearning_rate: 0.001\ndo_train: true\n")
    assert parser.parse_json_file(tmp_path / "a.json")[0] == parser.parse_yaml_file(tmp_path / "a.yaml")[0] == given
    with pytest.raises(ConfigError, match="nope"):
        parser.parse_dict({**values, "nope": 1})
    assert parser.parse_dict({**values, "nope": 1}, allow_extra_keys=True)[0] == given
    (tmp_path / "script.args").write_text("--foo 5 --bar 3.0")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), "--bar", "4.0"])
    (found,) = cutaway.HfArgumentParser(Given).parse_args_into_dataclasses()
    assert (found.foo, found.bar) == (5, 4.0)  # the command line wins
    more = cutaway.HfArgumentParser(Given)
    more.add_argument("--extra", type=int, default=1)
    _, rest, left = more.parse_args_into_dataclasses(["--foo", "1", "--unknown"], return_remaining_strings=True)
    assert rest.extra == 1 and left == ["--unknown"]
    with pytest.raises(ConfigError, match="--unknown"):
        more.parse_args_into_dataclasses(["--foo", "1", "--unknown"])


def test_all_training_arguments_from_a_command_line() -> None:
    parser = cutaway.HfArgumentParser(cutaway.Seq2SeqTrainingArguments)
    line = "--output_dir x --do_train --fp16 false --eval_strategy epoch --report_to none --warmup_steps 10 "
    line += (
        '--save_steps 0.5 --class_weights balanced --lr_scheduler_type polynomial --lr_scheduler_kwargs {"power":2} '
    )
    line += '--predict_with_generate --generation_num_beams 2 --learning_rates {"embed":0.1} --freeze embed blocks.0'
    (args,) = parser.parse_args_into_dataclasses(line.split(), look_for_args_file=False)
    assert args.do_train and args.do_eval and args.warmup_steps == 10 and args.save_steps == 0.5
    assert (
        args.class_weights == "balanced" and args.lr_scheduler_kwargs == {"power": 2} and args.generation_num_beams == 2
    )
    assert args.learning_rates == {"embed": 0.1} and args.freeze == ["embed", "blocks.0"]
    assert "--lr-scheduler-type" in parser.format_help()


# -- training ----------------------------------------------------------------------------------------------------------

ROWS = [{"input_ids": [5 + i, 6, 7, 1], "attention_mask": [1, 1, 1, 1], "labels": [8, 9 + i, 1]} for i in range(6)]


def test_seq2seq_trainer_writes(tmp_path: Path) -> None:
    folder = tiny.encoder_decoder(tmp_path / "model")
    model = cutaway.AutoModelForSeq2SeqLM.from_pretrained(folder)
    seen: dict[str, Any] = {}

    def measure(found: Any) -> dict[str, float]:
        seen["ids"], seen["labels"] = found
        return {"columns": float(found.predictions.shape[1])}

    args = cutaway.Seq2SeqTrainingArguments(
        str(tmp_path / "out"), predict_with_generate=True, generation_max_length=9, generation_num_beams=2,
        use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=4, max_steps=2,
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs={"num_cycles": 2},
    )  # fmt: skip
    trainer = cutaway.Seq2SeqTrainer(
        model, args, train_dataset=ROWS, eval_dataset=ROWS, compute_metrics=measure,
        data_collator=cutaway.DataCollatorForSeq2Seq(tiny.wordpiece()),
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_columns"] == 9 and metrics["eval_loss"] > 0 and seen["ids"].shape == (6, 9)
    ids = torch.tensor([row["input_ids"] for row in ROWS])
    written = model.generate(ids, max_length=9, num_beams=2)
    assert (seen["ids"][:, : written.shape[1]] == written.numpy()).all()
    assert trainer.evaluate(max_length=5, num_beams=1)["eval_columns"] == 5
    said = trainer.predict([{k: v for k, v in row.items() if k != "labels"} for row in ROWS], max_new_tokens=3)
    assert said.predictions.shape == (6, 4) and said.label_ids is None
    plain = cutaway.Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True)
    logits = cutaway.Seq2SeqTrainer(model, plain, data_collator=trainer.data_collator).predict(ROWS).predictions
    assert logits.shape[:2] == (6, 3)
    with pytest.raises(ConfigError, match="group_by_length"):
        cutaway.Seq2SeqTrainingArguments("x", sortish_sampler=True)


def test_a_loss_function_of_ones_own(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "model")
    rows = [{"input_ids": [5, 6, 7, 8 + i], "labels": [5, 6, -100 if i else 7, 8 + i]} for i in range(4)]
    states = []
    for func in (None, "own"):
        model = cutaway.AutoModelForCausalLM.from_pretrained(folder)

        def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
            logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            return torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch

        args = cutaway.TrainingArguments(str(tmp_path / str(func)), use_cpu=True, disable_tqdm=True, max_steps=2,
                                         per_device_train_batch_size=2, gradient_accumulation_steps=2)  # fmt: skip
        cutaway.Trainer(model, args, train_dataset=rows, compute_loss_func=None if func is None else loss).train()
        states.append(model.state_dict())
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_a_schedule_that_follows_a_metric(tmp_path: Path) -> None:
    model = cutaway.AutoModelForSeq2SeqLM.from_pretrained(tiny.encoder_decoder(tmp_path / "model"))
    args = cutaway.TrainingArguments(
        str(tmp_path / "out"), lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"patience": 0, "threshold": 9},
        eval_strategy="steps", eval_steps=1, max_steps=4, use_cpu=True, disable_tqdm=True, save_strategy="no",
        learning_rate=1e-3,
    )  # fmt: skip
    trainer = cutaway.Trainer(model, args, train_dataset=ROWS, eval_dataset=ROWS,
                              data_collator=cutaway.DataCollatorForSeq2Seq(tiny.wordpiece()))  # fmt: skip
    rates: list[float] = []

    class Watch(cutaway.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    trainer.add_callback(Watch())
    trainer.train()
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0]


# -- models ------------------------------------------------------------------------------------------------------------


def test_methods_of_a_model(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "a")
    mine, theirs = (m.AutoModelForCausalLM.from_pretrained(folder).eval() for m in (cutaway, transformers))
    assert mine.can_generate() and not cutaway.AutoModel.from_pretrained(folder).can_generate()
    assert mine.get_memory_footprint(False) == theirs.get_memory_footprint(False)
    assert mine.get_decoder() is mine.base_model and isinstance(mine, cutaway.GenerationMixin)
    both = cutaway.AutoModelForSeq2SeqLM.from_pretrained(tiny.encoder_decoder(tmp_path / "b"))
    assert both.get_encoder() is not both.get_decoder()
    for p in mine.parameters():
        p.requires_grad_(False)
    mine.enable_input_require_grads()
    assert mine(torch.tensor([[5, 6]])).logits.requires_grad
    mine.disable_input_require_grads()
    assert not mine(torch.tensor([[5, 6]])).logits.requires_grad
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    out = mine(ids[:, :3], use_cache=True)
    step = mine.prepare_inputs_for_generation(ids, past_key_values=out.past_key_values)
    assert step["input_ids"].tolist() == [[8, 9]]
    assert torch.allclose(mine(**step).logits[:, -1], mine(ids).logits[:, -1], atol=1e-5)


def test_inputs_of_forward(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "a")
    mine, theirs = (m.AutoModelForCausalLM.from_pretrained(folder).eval() for m in (cutaway, transformers))
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    labels = ids.masked_fill(ids == 7, -100)
    moved = torch.cat((labels[:, 1:], torch.full((2, 1), -100)), 1)
    for how in ({"labels": labels, "num_items_in_batch": 9}, {"labels": labels, "shift_labels": moved},
                {"labels": labels, "cache_position": torch.arange(4)}):  # fmt: skip
        assert mine(ids, **how).loss.item() == pytest.approx(theirs(ids, **how).loss.item(), abs=1e-5)
    encoder = cutaway.AutoModelForSequenceClassification.from_pretrained(tiny.classifier(tmp_path / "b"))
    assert torch.equal(encoder(ids, use_cache=False, cache_position=None).logits, encoder(ids).logits)


def test_generate_takes_what_upstream_takes(tmp_path: Path) -> None:
    model = cutaway.AutoModelForCausalLM.from_pretrained(tiny.decoder(tmp_path)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = model.generate(ids, max_new_tokens=5, eos_token_id=-1)
    assert plain.shape == (1, 9)
    assert torch.equal(
        model.generate(ids, max_new_tokens=5, eos_token_id=-1, position_ids=torch.arange(4)[None]), plain
    )
    assert torch.equal(model.generate(ids, max_new_tokens=5, eos_token_id=-1, assistant_model=model), plain)
    own = model.generate(ids, custom_generate=lambda model, *args, **kwargs: (args[0] is ids, kwargs), max_new_tokens=3)
    assert own == (True, {"max_new_tokens": 3})
    with pytest.raises(GenerationError, match="never run"):
        model.generate(ids, custom_generate="some/repository")
    with pytest.raises(GenerationError, match="position_ids"):
        model.generate(ids, max_new_tokens=2, position_ids=torch.arange(4)[None] + 3)


def test_an_asynchronous_streamer(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path)
    model, tokenizer = (
        cutaway.AutoModelForCausalLM.from_pretrained(folder),
        cutaway.AutoTokenizer.from_pretrained(folder),
    )
    ids = tokenizer("a good film", return_tensors="pt")["input_ids"]

    async def read() -> str:
        streamer = cutaway.AsyncTextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
        thread = threading.Thread(
            target=model.generate, args=(ids,), kwargs={"streamer": streamer, "max_new_tokens": 6}
        )
        thread.start()
        pieces = [piece async for piece in streamer]
        thread.join()
        return "".join(pieces)

    said = asyncio.run(read())
    new = model.generate(ids, max_new_tokens=6)[0, ids.shape[1] :]
    assert said == tokenizer.decode(new)


# -- caches ------------------------------------------------------------------------------------------------------------


def test_caches_under_upstreams_names(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path)
    mine, theirs = (m.AutoModelForCausalLM.from_pretrained(folder).eval() for m in (cutaway, transformers))
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    held, other = cutaway.DynamicCache(config=mine.config), transformers.DynamicCache(config=theirs.config)
    with torch.no_grad():
        mine(ids, past_key_values=held, use_cache=True)
        theirs(ids, past_key_values=other, use_cache=True)
    assert isinstance(held, cutaway.Cache) and len(held) == len(other) and held.get_seq_length() == 4
    for a, b in zip(held.layers, other.layers, strict=True):
        assert torch.allclose(a.keys, b.keys, atol=1e-5) and torch.allclose(a.values, b.values, atol=1e-5)
    again = cutaway.DynamicCache([(keys, values) for keys, values in held])
    new = torch.tensor([[3], [4]])
    with torch.no_grad():
        want = theirs(new, past_key_values=other).logits
        for one in (held, again, copy.deepcopy(again).__class__(list(again))):
            assert torch.allclose(mine(new, past_key_values=one).logits, want, atol=1e-5)
    held.crop(-2)
    held.batch_repeat_interleave(2)
    assert held.get_seq_length() == 3 and held.layers[0].keys.shape[0] == 4
    held.reorder_cache(torch.tensor([3, 0]))
    assert torch.allclose(held.layers[0].keys[1], again.layers[0].keys[0][:, :3])
    held.reset()
    assert held.get_seq_length() == 0 and len(held) == 0 and held
    with torch.no_grad():
        fixed = cutaway.StaticCache(mine.config, max_cache_len=6)
        mine(ids, past_key_values=fixed)
        assert fixed.get_max_length() == 6
        with pytest.raises(InputError, match="max_cache_len=6"):
            mine(torch.cat((ids, ids), 1)[:, :3], past_key_values=fixed)
    empty = cutaway.DynamicCache()
    text = mine.generate(ids[:1], past_key_values=empty, max_new_tokens=3, eos_token_id=-1)
    assert torch.equal(text, mine.generate(ids[:1], max_new_tokens=3, eos_token_id=-1)) and empty.get_seq_length() == 6


def test_a_cache_that_is_filled_by_hand() -> None:
    held, other = cutaway.DynamicCache(), transformers.DynamicCache()
    for step in (3, 1, 2):
        for layer in range(2):
            x = torch.randn(2, 2, step, 4)
            mine, theirs = held.update(x, -x, layer), other.update(x, -x, layer)
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert held.get_seq_length() == other.get_seq_length() == 6
    both = cutaway.EncoderDecoderCache(held, cutaway.DynamicCache([(torch.ones(2, 2, 5, 4), torch.ones(2, 2, 5, 4))]))
    assert both.self_attention_cache.get_seq_length() == 6 and both.cross_attention_cache.get_seq_length() == 5
    assert both.is_updated == {0: True}


# -- tokenizers and configurations -------------------------------------------------------------------------------------


def test_a_vocabulary_that_is_learned(tmp_path: Path) -> None:
    theirs = tiny.wordpiece()
    theirs.save_pretrained(tmp_path)
    tokenizer = cutaway.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["a good good film and a great cast", "a bad bad film", "unbelievable acting"]
    new = tokenizer.train_new_from_iterator(iter([texts, texts]), 80, new_special_tokens=["<x>"], show_progress=False)
    same = theirs.train_new_from_iterator(iter([texts, texts]), 80, new_special_tokens=["<x>"], show_progress=False)
    assert len(new) == len(same) and type(new) is type(tokenizer)
    assert new.special_tokens_map.items() >= {"pad_token": "[PAD]", "cls_token": "[CLS]"}.items()
    assert new("a good film")["input_ids"][0] == new.cls_token_id and new.tokenize("<x> film")[0] == "<x>"
    assert new.decode(new("a good film")["input_ids"], skip_special_tokens=True) == "a good film"
    renamed = tokenizer.train_new_from_iterator(texts, 60, special_tokens_map={"[CLS]": "<s>"}, show_progress=False)
    assert renamed.cls_token == "<s>" and renamed("a")["input_ids"][0] == renamed.convert_tokens_to_ids("<s>")
    for file in new.save_vocabulary(tmp_path, "new"):
        assert Path(file).name.startswith("new-")
    (path,) = tokenizer.save_vocabulary(tmp_path)
    again = cutaway.BertTokenizer(path)
    assert again("a good film")["input_ids"] == tokenizer("a good film")["input_ids"]
    with pytest.raises(TokenizerError, match="by position"):
        cutaway.BertTokenizer(path, path)


def test_a_text_that_is_too_long_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny.wordpiece().save_pretrained(tmp_path)
    tokenizer = cutaway.AutoTokenizer.from_pretrained(tmp_path, model_max_length=6)
    tokenizer("a good film", verbose=False)
    tokenizer("a " * 9, truncation=True)
    assert not caplog.records
    for _ in range(3):
        tokenizer("a " * 9)
    assert [r.getMessage() for r in caplog.records if "11 tokens" in r.getMessage()] == [caplog.records[0].getMessage()]


def test_configurations(tmp_path: Path) -> None:
    import inspect

    config = cutaway.BertConfig(hidden_size=32)
    assert config.get_text_config() is config and config.sub_configs == {} and "hidden_size" in list(config)
    config.to_json_file(tmp_path / "other.json")
    assert json.loads((tmp_path / "other.json").read_text())["hidden_size"] == 32
    assert {"hidden_size", "num_labels"} - set(inspect.signature(cutaway.BertConfig).parameters) <= {"num_labels"}
    assert inspect.signature(cutaway.BertConfig).parameters["hidden_size"].default == 768
    assert issubclass(CheckpointError, RuntimeError)


# -- pipelines ---------------------------------------------------------------------------------------------------------


class PairPipeline(cutaway.Pipeline):
    def _sanitize_parameters(self, **kwargs: Any) -> Any:
        return ({"second": kwargs["second"]} if "second" in kwargs else {}), {}, {"round_to": kwargs.get("round_to", 3)}

    def preprocess(self, inputs: Any, second: str | None = None) -> Any:
        return self.tokenizer(inputs, text_pair=second, return_tensors="pt")

    def _forward(self, model_inputs: Any) -> Any:
        return self.model(**model_inputs)

    def postprocess(self, model_outputs: Any, round_to: int = 3) -> Any:
        scores = model_outputs.logits.softmax(-1)[0].tolist()
        return {"label": self.model.config.id2label[scores.index(max(scores))], "score": round(max(scores), round_to)}


class Louder(cutaway.TextClassificationPipeline):
    def postprocess(self, model_outputs: Any, **kwargs: Any) -> Any:
        return str(super().__class__) and model_outputs["logits"].argmax(-1).item()


class Rows(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        if i >= 3:
            raise IndexError(i)
        return {"text": ["a good film", "bad one", "great"][i], "n": i}


def test_pipelines_of_ones_own(tmp_path: Path) -> None:
    folder = tiny.classifier(tmp_path)
    model = cutaway.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = cutaway.AutoTokenizer.from_pretrained(folder)
    pipe = PairPipeline(model=model, tokenizer=tokenizer)
    one = pipe("a good film", second="great")
    wanted = model(**tokenizer("a good film", "great", return_tensors="pt")).logits.softmax(-1).max().item()
    assert one["score"] == pytest.approx(wanted, abs=1e-3)
    assert [found["label"] for found in pipe(["a good film", "bad one"])] == [
        pipe("a good film")["label"],
        pipe("bad one")["label"],
    ]
    from cutaway.pipelines.pt_utils import KeyDataset

    told = list(pipe(KeyDataset(Rows(), "text"), round_to=1))
    assert len(told) == 3 and all(round(found["score"], 1) == found["score"] for found in told)
    assert Louder(model=model, tokenizer=tokenizer)("a good film") in range(3)
    made = cutaway.pipeline("text-classification", str(folder), pipeline_class=PairPipeline)
    assert made("a good film") == pipe("a good film")
    with pytest.raises(InputError, match="define preprocess"):

        class Half(cutaway.FillMaskPipeline):
            def postprocess(self, model_outputs: Any) -> Any:
                return None


def test_a_data_set_with_a_length(tmp_path: Path) -> None:
    from cutaway.pipelines.pt_utils import KeyDataset

    folder = tiny.classifier(tmp_path)
    pipe = cutaway.pipeline("text-classification", str(folder), tokenizer=(str(folder), {"use_fast": True}))
    texts = [row["text"] for row in (Rows()[i] for i in range(3))]
    assert list(pipe(KeyDataset(Rows(), "text"))) == pipe(texts)
    small = cutaway.pipeline("text-classification", str(folder), tokenizer=(str(folder), {"model_max_length": 5}))
    assert small.tokenizer.model_max_length == 5


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cutaway.pipelines import factory

    monkeypatch.setattr(factory.PIPELINE_REGISTRY, "own", {})
    folder = tiny.classifier(tmp_path)
    cutaway.PIPELINE_REGISTRY.register_pipeline(
        "pair", pipeline_class=PairPipeline, pt_model=cutaway.AutoModelForSequenceClassification,
        default={"pt": (str(folder), None)},
    )  # fmt: skip
    assert "pair" in cutaway.PIPELINE_REGISTRY.get_supported_tasks()
    assert cutaway.pipeline("pair")("a good film") == cutaway.pipeline("pair", str(folder))("a good film")
    with pytest.raises(InputError, match="pictures"):
        cutaway.pipeline("pair", str(folder), image_processor="x")


def test_words_of_the_command_line_that_name_a_choice() -> None:
    read = cutaway.hf_argparser.make_choice_type_function(("a", 3))
    assert (read("a"), read("3"), read("b")) == ("a", 3, "b")


def test_the_tasks_by_their_names(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    registry = cutaway.PIPELINE_REGISTRY
    monkeypatch.setattr(registry, "own", {})
    register, auto = registry.register_pipeline, cutaway.AutoModelForSequenceClassification
    register("pair", pipeline_class=PairPipeline, pt_model=auto, default={"model": ("a/b", "c0ffee")}, type="text")
    entry: Any = registry.check_task("pair")[1]
    assert (entry["impl"], entry["pt"], entry["type"]) == (PairPipeline, (auto,), "text")
    assert entry["default"] == {"model": ("a/b", "c0ffee")} and not caplog.text
    ours = registry.supported_tasks["fill-mask"]
    register("fill-mask", pipeline_class=PairPipeline)
    assert "fill-mask is already registered" in caplog.text
    assert registry.supported_tasks["fill-mask"] is not ours
    registry.supported_tasks["fill-mask"] = ours
    assert registry.check_task("fill-mask")[1] is ours
    del registry.supported_tasks["pair"]
    assert "pair" not in registry.get_supported_tasks() and len(registry.supported_tasks) == len(
        set(registry.supported_tasks)
    )
    with pytest.raises(KeyError):
        entry["tf"]
    with pytest.raises(InputError, match="register_pipeline"):
        registry.supported_tasks["pair"] = ours


# -- from_pretrained ---------------------------------------------------------------------------------------------------


def test_weights_that_are_given(tmp_path: Path) -> None:
    folder = tiny.classifier(tmp_path)
    model = cutaway.AutoModelForSequenceClassification.from_pretrained(folder, from_tf=False, device_map="cpu")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    config = cutaway.AutoConfig.from_pretrained(folder)
    for state in (model.state_dict(), theirs.state_dict()):
        again, report = cutaway.BertForSequenceClassification.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True
        )
        assert not report.missing and not again.training
        ids = torch.tensor([[5, 6, 7]])
        assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-6)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("classifier")}
    _, report = cutaway.AutoModelForSequenceClassification.from_pretrained(
        folder, state_dict=state, output_loading_info=True
    )
    assert sorted(report.missing) == ["classifier.bias", "classifier.weight"]
    with pytest.raises(ConfigError, match="needs config="):
        cutaway.BertModel.from_pretrained(None, state_dict=state)
    with pytest.raises(CheckpointError, match="does not fit"):
        cutaway.BertModel.from_pretrained(
            None, config=config, state_dict={"embeddings.word_embeddings.weight": torch.zeros(2, 2)}
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [("from_tf", True), ("load_in_4bit", True), ("quantization_config", {"bits": 4}),
     ("device_map", {"a": 0, "b": 1}), ("device_map", "no device"), ("key_mapping", {"a": "b"})],
)  # fmt: skip
def test_arguments_that_ask_for_what_is_not_there(tmp_path: Path, name: str, value: Any) -> None:
    folder = tiny.classifier(tmp_path)
    with pytest.raises(ConfigError, match=name):
        cutaway.BertModel.from_pretrained(folder, **{name: value})
    with pytest.raises(HubError, match=r"no model\.fp16\.safetensors"):
        cutaway.BertModel.from_pretrained(folder, variant="fp16")
