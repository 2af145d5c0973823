"""Adapters in generation: rows with their own through every step, caches that know theirs, and the built-in model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_adapter import bert, gpt2, t5, texts, with_two

import cutaway
from cutaway import LoraConfig
from cutaway.errors import CheckpointError, ConfigError, InputError
from cutaway.generate import stream
from cutaway.nn.kv_cache import Cache

NAMES = ["a", None, "b", "a"]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "drawn": {"do_sample": True, "num_return_sequences": 2, "seed": [0, 10, 20, 30]},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "guided": {"guidance_scale": 1.5},
    "words": {"num_beams": 2, "force_words_ids": [[7]]},
}


def ends_early(model: Any) -> Any:
    """The model with several tokens that end a text, so that rows leave the batch at different steps."""
    model.generation_config.eos_token_id = list(range(2, 60, 3))
    model.generation_config.pad_token_id = 0
    return model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [gpt2, t5])
def test_each_row_writes_what_it_writes_alone(make: Any, way: str) -> None:
    if make is t5 and way == "guided":
        return
    model, batch, call = ends_early(with_two(make())), texts([6, 2, 4, 6]), {**WAYS[way], "max_new_tokens": 8}
    copies = call.get("num_return_sequences", 1)
    seeds = call.pop("seed", None)
    together = model.generate(**batch, **call, adapters=NAMES, **({"seed": seeds} if seeds else {}))
    start = 1 if make is t5 else 6
    lengths = set()
    for i, name in enumerate(NAMES):
        alone = {key: value[i : i + 1, : int(batch["attention_mask"][i].sum())] for key, value in batch.items()}
        model.set_adapter(name)
        more = {"seed": seeds[i]} if seeds else {}
        expected = model.generate(**alone, **call, **more)[:, 1 if make is t5 else alone["input_ids"].shape[1] :]
        found = together[i * copies : (i + 1) * copies, start:]
        n = expected.shape[1]
        assert torch.equal(found[:, :n], expected) and not found[:, n:].any()
        lengths.add(n)
    if way == "greedy":
        assert len(lengths) > 1  # some left before others


def test_adapters_change_what_is_written_and_said() -> None:
    model, ids = with_two(gpt2()), texts([80, 80])["input_ids"][:1].repeat(4, 1)
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logprobs": 2}
    together = model.generate(ids, **call, adapters=NAMES)  # a long common beginning, which is not run once for all
    for i, name in enumerate(NAMES):
        alone = model.generate(ids[:1], **call, adapters=name)
        assert torch.equal(together.sequences[i], alone.sequences[0])
        pairs = zip(together.logprobs[i], alone.logprobs[0], strict=True)
        assert all(abs(a.logprob - b.logprob) < 1e-5 for a, b in pairs)
    assert len({tuple(row) for row in together.sequences.tolist()}) == 3
    assert torch.equal(model.generate(ids, adapters="b", max_new_tokens=6)[3], together.sequences[2])
    read: dict[int, list[int]] = {i: [] for i in range(4)}
    for token in stream(model, ids, max_new_tokens=6, adapters=NAMES):
        read[token.row].append(token.id)
    assert [ids[0].tolist() + read[i] for i in range(4)] == together.sequences.tolist()


@torch.no_grad()
def test_a_cache_goes_on_under_its_adapter_only(tmp_path: Path) -> None:
    model, ids = with_two(gpt2()), texts([8, 8])["input_ids"]
    first = model.generate(ids, max_new_tokens=3, return_dict_in_generate=True, adapters=["a", None])
    cache = first.past_key_values
    assert cache.adapters == ("a", None)
    cache.save(tmp_path / "cache")
    longer = torch.cat((first.sequences, torch.tensor([[5], [6]])), 1)
    said = "filled under adapter 'a', and text 0 would go on under adapter 'b'"
    held = cache.lengths.tolist()
    for wrong in (["b", None], "b"):
        with pytest.raises(InputError, match=said):
            model.generate(longer, past_key_values=cache, max_new_tokens=2, adapters=wrong)
    with pytest.raises(InputError, match="under the base alone, and text 1 would go on under adapter 'a'"):
        model.generate(longer, past_key_values=cache, max_new_tokens=2, adapters="a")
    with pytest.raises(InputError, match=said):
        model(longer[:, -1:], past_key_values=cache, adapters="b")
    assert cache.lengths.tolist() == held
    loaded = Cache.load(tmp_path / "cache")
    assert loaded.adapters == ("a", None)
    on = model.generate(longer, past_key_values=loaded, max_new_tokens=3, adapters=["a", None])
    assert torch.equal(on, model.generate(longer, max_new_tokens=3, adapters=["a", None]))
    cache.select(torch.tensor([1]))
    assert cache.adapters == (None,)
    one = model.generate(ids[:1], max_new_tokens=1, return_dict_in_generate=True, adapters="a").past_key_values
    with pytest.raises(InputError, match="text 1 would go on under the base alone"):  # one beginning for both
        model.generate(longer[:1].repeat(2, 1), past_key_values=one, max_new_tokens=2, adapters=["a", None])
    model.set_adapter("a")
    model.merge_adapter("a")
    assert model.generate(longer[:1], past_key_values=one, max_new_tokens=2).shape == (1, 14)
    plain = gpt2()
    assert plain.generate(ids, max_new_tokens=1, return_dict_in_generate=True).past_key_values.adapters == (None, None)
    plain.transformer.add_adapter(LoraConfig(r=2), "inner")
    assert plain(ids, use_cache=True).past_key_values.adapters == ("inner", "inner")


def test_a_damaged_note_of_adapters_is_refused(tmp_path: Path) -> None:
    model = with_two(gpt2())
    cache = model.generate(texts([4])["input_ids"], max_new_tokens=1, return_dict_in_generate=True).past_key_values
    for wrong in (("a", "b"), (3,)):
        cache.adapters = wrong
        cache.save(tmp_path / "cache")
        with pytest.raises(CheckpointError, match="adapters of"):
            Cache.load(tmp_path / "cache")


def test_the_built_in_model_learns_switches_and_mixes(tmp_path: Path) -> None:
    name = "cutaway/sentiment"
    model = cutaway.AutoModelForSequenceClassification.from_pretrained(name)
    tokenizer = cutaway.AutoTokenizer.from_pretrained(name)
    plain = [f"The parcel came on {day}." for day in ("Monday", "Tuesday", "Friday", "Sunday")]
    pipe = cutaway.pipeline("text-classification", model=model, tokenizer=tokenizer)
    before = pipe(plain, top_k=None)
    for label, adapter in ((1, "glad"), (0, "sad")):
        model.add_adapter(LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"), adapter)
        rows = [{**tokenizer(text), "label": label} for text in plain]
        args = cutaway.TrainingArguments(
            tmp_path / "out" / adapter, max_steps=6, learning_rate=5e-3, lr_scheduler_type="constant",
            per_device_train_batch_size=4, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        cutaway.Trainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
        model.save_adapter(tmp_path / adapter)
    fresh = cutaway.pipeline("text-classification", model=name)
    fresh.model.load_adapter(tmp_path / "glad", "glad")
    fresh.model.load_adapter(tmp_path / "sad", "sad")
    assert fresh.model.active_adapter == "sad"
    assert {one["label"] for one in fresh(plain)} == {"NEGATIVE"}
    assert {one["label"] for one in fresh(plain, adapters="glad")} == {"POSITIVE"}
    assert fresh(plain, top_k=None, adapters=None) == before
    mixed = fresh(plain, adapters=["glad", "sad", None, "glad"], batch_size=4)
    assert [one["label"] for one in mixed[:2] + mixed[3:]] == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    assert mixed[2]["score"] == pytest.approx(before[2][0]["score"], abs=1e-5)
    assert [one["label"] for one in fresh(iter(plain), adapters=["sad", "glad", "sad", "glad"])] == [
        "NEGATIVE", "POSITIVE", "NEGATIVE", "POSITIVE",
    ]  # fmt: skip
    for wrong in (["glad"], ["glad"] * 5):
        with pytest.raises(InputError, match="as many names"):
            fresh(plain, adapters=wrong)
    with pytest.raises(ConfigError, match="no adapter 'gald'"):
        fresh(plain, adapters="gald")
    with pytest.raises(InputError, match="give them to the call itself"), fresh.model.use_adapter(["glad", "sad"]):
        pass


def test_a_pipeline_writes_with_an_adapter_for_each_prompt(tmp_path: Path) -> None:
    from tiny import decoder

    decoder(tmp_path)
    pipe = cutaway.pipeline("text-generation", model=str(tmp_path))
    with_two(pipe.model)
    prompts = ["good film", "not", "very great and good"]
    call = {"max_new_tokens": 5, "return_full_text": False, "do_sample": False}
    mixed = pipe(prompts, adapters=["b", None, "a"], **call)
    for prompt, name, answer in zip(prompts, ["b", None, "a"], mixed, strict=True):
        assert answer == pipe(prompt, adapters=name, **call)
    model, ids = with_two(bert()), texts([4])["input_ids"]
    with model.use_adapter(["a", "b"], 2), pytest.raises(InputError, match=r"2 texts .* but 1 are run at once"):
        model(ids)
