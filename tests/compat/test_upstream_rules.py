"""What upstream's own tests ask of a model, a batch and a training, and scripts lean on: tried in both libraries."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
import transformers
from parity.pairs import pair

import cutaway
from cutaway.errors import CheckpointError, ConfigError, GenerationError, HubError, InputError
from cutaway.train import loop
from cutaway.train.callback import Callbacks, states_of_format_2
from cutaway.train.hooks import ItemCount

SEQ2SEQ = "ForConditionalGeneration"
IDS = torch.tensor([[5, 6, 7, 8, 9], [5, 9, 9, 6, 7]])


def test_the_name_of_the_base_config_and_what_libraries_ask_of_a_class(tmp_path: Path) -> None:
    assert cutaway.PretrainedConfig is cutaway.PreTrainedConfig
    assert [c.__name__ for c in cutaway.GPT2Config.__mro__][1] == "PreTrainedConfig"
    assert len(cutaway.GPT2Config(n_layer=3).per_layer_config) == 3 and cutaway.BertModel._supports_sdpa
    config = cutaway.BertConfig(attn_implementation="eager")
    assert config._attn_implementation == "eager" and "eager" not in config.to_json_string()
    config._attn_implementation = "sdpa"
    assert config._attn_implementation == "sdpa" and config == cutaway.BertConfig()
    folder = tiny.decoder(tmp_path)
    model = cutaway.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == "sdpa"
    for wrong in ("foo", 3):
        with pytest.raises(ConfigError, match="not supported"):
            model.set_attn_implementation(wrong)
        with pytest.raises(ConfigError, match="not supported"):
            cutaway.AutoModel.from_pretrained(folder, attn_implementation=wrong)
    kind = type(model.get_input_embeddings())
    assert type(model.resize_token_embeddings(model.config.vocab_size + 3)) is kind


def test_a_model_of_a_config_has_the_dtype_that_is_asked_for_or_the_configs() -> None:
    fields: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 11, "n_positions": 8}
    for asked in ({}, {"dtype": torch.bfloat16}, {"torch_dtype": "float16"}, {"dtype": "float64"}):
        for own in ({}, {"dtype": "bfloat16"}):
            dtypes = []
            for library in (cutaway, transformers):
                config = library.GPT2Config(**fields, **own)
                dtypes.append(library.AutoModelForCausalLM.from_config(config, **asked).dtype)
            assert dtypes[0] == dtypes[1], (asked, own)
    model = cutaway.AutoModel.from_config(cutaway.GPT2Config(**fields), attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match="dtype"):
        cutaway.AutoModel.from_config(cutaway.GPT2Config(**fields), dtype="int3")


def test_gradient_checkpointing_that_the_config_asks_for() -> None:
    fields: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 11, "n_positions": 8}
    config = cutaway.GPT2Config(**fields, gradient_checkpointing=True)
    assert cutaway.GPT2LMHeadModel(config).is_gradient_checkpointing
    assert not cutaway.GPT2LMHeadModel(cutaway.GPT2Config(**fields)).is_gradient_checkpointing


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_files_of_a_variant_are_read_by_both(tmp_path: Path, shards: str) -> None:
    theirs, ours = pair("gpt2", "LMHeadModel")
    mine, yours = tmp_path / "mine", tmp_path / "yours"
    ours.save_pretrained(mine, variant="fp16", max_shard_size=shards)
    theirs.save_pretrained(yours, variant="fp16", max_shard_size=shards)
    names = [{p.name for p in folder.iterdir() if "fp16" in p.name} for folder in (mine, yours)]
    assert names[0] == names[1] and (len(names[0]) > 1) == (shards == "20KB")
    with torch.no_grad():
        wanted = theirs(IDS).logits
        for folder in (mine, yours):
            assert torch.allclose(
                cutaway.GPT2LMHeadModel.from_pretrained(folder, variant="fp16")(IDS).logits, wanted, atol=1e-5
            )
        read = transformers.GPT2LMHeadModel.from_pretrained(mine, variant="fp16").eval()
        assert torch.allclose(read(IDS).logits, wanted, atol=1e-5)
    with pytest.raises(HubError, match=r"model\.safetensors"):
        cutaway.GPT2LMHeadModel.from_pretrained(mine)
    ours.save_pretrained(mine)  # beside it
    assert names[0] <= {p.name for p in mine.iterdir()}
    ours.save_pretrained(mine, variant="fp16")
    assert [p.name for p in mine.iterdir() if "fp16" in p.name] == ["model.fp16.safetensors"]
    for wrong in ("../x", "", "a.b", 3):
        with pytest.raises(CheckpointError, match="variant"):
            ours.save_pretrained(tmp_path / "wrong", variant=wrong)


@pytest.mark.filterwarnings("ignore:Passing `(repetition_penalty|no_repeat_ngram_size)`")
@pytest.mark.parametrize(("family", "ending"), [("gpt2", "LMHeadModel"), ("llama", "ForCausalLM")])
@pytest.mark.parametrize(
    "how",
    [
        {"max_new_tokens": 6},
        {"max_length": 9, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2},
    ],
)
def test_generate_from_vectors(family: str, ending: str, how: dict[str, Any]) -> None:
    theirs, ours = pair(family, ending, eos_token_id=98, pad_token_id=0)
    vectors = theirs.get_input_embeddings()(IDS).detach()
    mask = torch.ones_like(IDS)
    mask[1, :2] = 0
    how = {**how, "pad_token_id": 1}  # upstream's beams take 0 for none
    for given in ({}, {"input_ids": IDS}):
        if "repetition_penalty" in how and not given:
            mask = torch.ones_like(IDS)  # upstream takes the padding of the prompt off the answer that it penalizes
        wanted = theirs.generate(inputs_embeds=vectors, attention_mask=mask, **given, **how)
        assert torch.equal(ours.generate(inputs_embeds=vectors, attention_mask=mask, **given, **how), wanted)
    right = torch.cat((vectors[1:, 2:], vectors[1:, :2]), 1)  # padding on the other side changes nothing
    answer = ours.generate(inputs_embeds=right, attention_mask=torch.tensor([[1, 1, 1, 0, 0]]), **how)
    assert torch.equal(answer, ours.generate(inputs_embeds=vectors[1:, 2:], **{**how, **_shorter(how)}))


def _shorter(how: dict[str, Any]) -> dict[str, Any]:
    return {"max_length": how["max_length"] - 2} if "max_length" in how else {}


def test_an_encoder_reads_vectors_and_what_they_cannot_do_is_said() -> None:
    theirs, ours = pair("t5", SEQ2SEQ, decoder_start_token_id=0)
    vectors = theirs.get_input_embeddings()(IDS).detach()
    wanted = theirs.generate(inputs_embeds=vectors, max_new_tokens=5)
    assert torch.equal(ours.generate(inputs_embeds=vectors, max_new_tokens=5), wanted)
    with pytest.raises(GenerationError, match="stands for"):
        ours.generate(IDS, inputs_embeds=vectors)
    decoder = pair("gpt2", "LMHeadModel")[1]
    with pytest.raises(GenerationError, match="use_cache"):
        decoder.generate(inputs_embeds=vectors, use_cache=False)
    with pytest.raises(InputError, match="input_ids"):
        decoder.generate(IDS[:, :2], inputs_embeds=vectors)


@pytest.mark.parametrize(("family", "ending"), [("gpt2", "LMHeadModel"), ("bart", "ForConditionalGeneration")])
def test_shapes_of_what_generate_shows_without_a_cache(family: str, ending: str) -> None:
    shapes = []
    for model in pair(family, ending):
        how = {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True}
        if hasattr(model, "set_attn_implementation"):
            model.set_attn_implementation("eager")
        out = model.generate(IDS, max_new_tokens=3, min_new_tokens=3, use_cache=False, **how)
        side = "decoder_" if family == "bart" else ""
        shapes.append([[x.shape for x in step] for k in ("attentions", "hidden_states") for step in out[side + k]])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("how", [{"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2},
                                 {"do_sample": True, "num_return_sequences": 2}])  # fmt: skip
def test_what_the_encoder_said_has_one_row_for_each_prompt(how: dict[str, Any]) -> None:
    shapes = []
    for model in pair("t5", SEQ2SEQ, decoder_start_token_id=0):
        asked = {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True}
        model.set_attn_implementation("eager")
        out = model.generate(IDS, max_new_tokens=2, min_new_tokens=2, **asked, **how)
        found = [x.shape for name in ("encoder_attentions", "encoder_hidden_states") for x in out[name]]
        shapes.append([*found, out.cross_attentions[0][0].shape, out.decoder_attentions[1][0].shape])
    assert shapes[0] == shapes[1]


def test_a_known_answer_leaves_no_cache_where_upstream_leaves_none() -> None:
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0}
    for family, ending in (("bart", SEQ2SEQ), ("t5", SEQ2SEQ), ("marian", "MTModel")):
        with torch.no_grad():
            kept = [model(IDS, labels=IDS).past_key_values is not None for model in pair(family, ending, **ids)]
        assert kept[0] == kept[1], family


def test_looking_at_the_number_is_free_and_calculating_with_it_counts() -> None:
    loss = torch.tensor(8.0)
    for look in (lambda n: n.item(), lambda n: f"{n.item():.1f}", lambda n: print(n.item()), lambda n: n.item() > 3):
        count = ItemCount.of(4)
        look(count)
        assert not count.used
    for use in (lambda n: loss / n.item(), lambda n: 8.0 / n.item(), lambda n: torch.div(loss, n.item()),
                lambda n: n.item() * 2, lambda n: loss * (1 / n.item())):  # fmt: skip
        count = ItemCount.of(4)
        assert float(use(count)) in (2.0, 8.0) and count.used


def test_labels_of_some_rows_alone_are_an_error(tmp_path: Path) -> None:
    tokenizer = tiny.wordpiece()
    collate = cutaway.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [5, 6]}]
    with pytest.raises(InputError, match="1 of the 2 rows"):
        collate(rows)
    assert collate(rows[:1])["labels"].tolist() == [[-100, 6, 7]]
    assert collate(rows[1:])["labels"].tolist() == [[5, 6]]


def test_states_of_callbacks_in_older_checkpoints() -> None:
    before = [["A", {"attributes": {"n": 3}}], ["B", {"count": 1, "best": 0.5}], ["C", {}]]
    found = states_of_format_2(before)
    assert found == [
        ["A", {"exported": {"attributes": {"n": 3}}}],
        ["B", {"own": {"count": 1, "best": 0.5}}],
        ["C", {}],
    ]


def test_a_checkpoint_of_format_2_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"input_ids": [5 + i, 6, 7], "labels": [5 + i, 6, 7]} for i in range(8)]
    folder = tiny.decoder(tmp_path / "model")

    def trained(output: str, resume: Any = None) -> Any:
        args = cutaway.TrainingArguments(
            str(tmp_path / output), use_cpu=True, disable_tqdm=True, report_to="none", num_train_epochs=2, save_steps=2,
            per_device_train_batch_size=4, eval_strategy="steps", eval_steps=2, metric_for_best_model="loss",
            load_best_model_at_end=True,
        )  # fmt: skip
        trainer = cutaway.Trainer(
            cutaway.AutoModelForCausalLM.from_pretrained(folder), args, train_dataset=rows, eval_dataset=rows,
            callbacks=[cutaway.EarlyStoppingCallback(early_stopping_patience=3)],
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    states = Callbacks.state_dict

    def of_format_2(self: Callbacks) -> list[Any]:
        found = [
            [name, s.get("own") or {"attributes": s["exported"]["attributes"]} if s else s] for name, s in states(self)
        ]
        assert any(state for _, state in found)
        return found

    weights = []
    for version in (2, 1):
        with monkeypatch.context() as patched:
            patched.setattr(Callbacks, "state_dict", of_format_2)
            patched.setattr(loop, "_VERSION", version)
            weights.append(trained(f"whole-{version}").model.state_dict())
    again = trained("again", str(tmp_path / "whole-2" / "checkpoint-2")).model.state_dict()
    assert all(torch.equal(value, weights[0][name]) for name, value in again.items())
    with pytest.raises(CheckpointError, match="reads 2 and 3"):
        trained("older", str(tmp_path / "whole-1" / "checkpoint-2"))


def test_a_loop_of_ones_own_goes_on_after_padding() -> None:
    theirs, ours = pair("llama", "ForCausalLM")
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    both = []
    for model in (theirs, ours):
        with torch.no_grad():
            cache = model(IDS, attention_mask=mask, use_cache=True).past_key_values
        both.append((cache.get_seq_length(), cache.layers[0].get_seq_length(), cache.layers[1].keys[1]))
        assert cache.layers[0].keys.shape == (2, 2, 5, 8) and cache.layers[0].values.shape[2] == 5
    assert both[0][:2] == both[1][:2] == (5, 5) and torch.allclose(both[0][2], both[1][2], atol=1e-5)
    with torch.no_grad():
        plain = ours(IDS, use_cache=True).past_key_values
    assert plain.layers[0].keys.data_ptr() == plain.buffer[0].data_ptr()  # a view


def test_small_names_that_model_code_imports() -> None:
    from transformers.models.bart.modeling_bart import shift_tokens_right as theirs

    from cutaway.models.bart.modeling_bart import shift_tokens_right  # type: ignore[import-not-found]
    from cutaway.training_args import OptimizerNames  # type: ignore[import-not-found]

    labels = torch.tensor([[5, 6, -100], [7, 8, 9]])
    assert torch.equal(shift_tokens_right(labels, 1, 2), theirs(labels, 1, 2))
    assert shift_tokens_right(labels, 1).tolist() == [[6, 5, 6], [9, 7, 8]]
    args = cutaway.TrainingArguments("x", optim=OptimizerNames.ADAFACTOR, use_cpu=True)
    assert args.optim == "adafactor" and OptimizerNames("sgd") is OptimizerNames.SGD
    from cutaway.train.arguments import Optim

    assert {one.value for one in OptimizerNames} == set(get_args(Optim))
    model = pair("gpt2", "Model")[1]
    assert model.vocab_size == 99 and model.resize_token_embeddings(101).num_embeddings == model.vocab_size == 101
    with pytest.raises(InputError, match="pad_to_multiple_of"):
        model.resize_token_embeddings(101, pad_to_multiple_of=1.3)


def test_a_collator_takes_the_name_of_a_model() -> None:
    tokenizer = tiny.wordpiece()
    rows = [{"input_ids": [5, 6], "labels": [7]}, {"input_ids": [5], "labels": [7, 8]}]
    batch = cutaway.DataCollatorForSeq2Seq(tokenizer, model="google-t5/t5-small")(rows)
    assert batch["labels"].tolist() == [[7, -100], [7, 8]] and "decoder_input_ids" not in batch


def test_inputs_of_the_next_step_keep_what_a_script_adds() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = cutaway.AutoModelForCausalLM.from_pretrained(tiny.decoder(Path(folder)))
        assert model.prepare_inputs_for_generation(IDS, mine=3)["mine"] == 3


def test_samplers_and_shards_give_upstreams_order() -> None:
    import transformers.trainer_pt_utils as theirs

    import cutaway.trainer_pt_utils as mine  # type: ignore[import-not-found]

    lengths = [(7 * i) % 23 + 1 for i in range(53)]
    rows = [{"input_ids": [1] * n} for n in lengths]
    for given in ({"lengths": lengths}, {"dataset": rows}):
        orders = [
            list(m.LengthGroupedSampler(3, **given, generator=torch.Generator().manual_seed(4))) for m in (mine, theirs)
        ]
        assert orders[0] == orders[1] and sorted(orders[0]) == list(range(53))
    for rank in (0, 1):
        for drop_last in (False, True):
            how = {"num_replicas": 2, "rank": rank, "drop_last": drop_last}
            assert _same(mine, theirs, "DistributedLengthGroupedSampler", 4, lengths=lengths, **how)
            how = {"num_processes": 2, "process_index": rank, "drop_last": drop_last}
            for n in (9, 16, 3):
                assert _same(mine, theirs, "ShardSampler", list(range(n)), 4, **how)
                assert _same(mine, theirs, "IterableDatasetShard", list(range(n)), 4, **how)
        for n in (9, 16):
            how = {"num_replicas": 2, "rank": rank}
            assert _same(mine, theirs, "DistributedSamplerWithLoop", list(range(n)), 4, **how)
    with pytest.raises(ConfigError, match="input_ids"):
        mine.LengthGroupedSampler(2, dataset=[{"text": "a"}])


def _same(mine: Any, theirs: Any, name: str, *args: Any, **kwargs: Any) -> bool:
    found, wanted = (list(getattr(m, name)(*args, **kwargs)) for m in (mine, theirs))
    return bool(
        found == wanted and len(getattr(mine, name)(*args, **kwargs)) == len(getattr(theirs, name)(*args, **kwargs))
    )


def test_small_parts_of_a_trainer(tmp_path: Path) -> None:
    import transformers.trainer_pt_utils as their_parts
    import transformers.trainer_utils as theirs

    import cutaway.trainer_pt_utils as parts
    import cutaway.trainer_utils as mine  # type: ignore[import-not-found]

    for n in (5, 10, 15, 20):
        (tmp_path / f"checkpoint-{n}").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    for best in (None, tmp_path / "checkpoint-5", tmp_path / "checkpoint-20"):
        given = None if best is None else str(best)
        found, wanted = (m.sort_checkpoints(str(tmp_path), best_model_checkpoint=given) for m in (mine, theirs))
        assert [Path(p).name for p in found] == [Path(p).name for p in wanted]
    mine.rotate_checkpoints(tmp_path, 2, tmp_path / "checkpoint-5")
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint-5", "checkpoint-20", "checkpoint-x"}
    mine.rotate_checkpoints(tmp_path, 1, tmp_path / "checkpoint-5")
    assert len(list(tmp_path.iterdir())) == 3
    patterns = (["attn", r".*\.mlp\..*"], ["layer.0.attn"], r".*attn.*", "layer.0.attn", [r".*mlp$"])
    for pattern in patterns:
        for key in ("layer.0.attn", "layer.1.mlp.up", "layer.1.mlp", "head"):
            found, wanted = (m.check_target_module_exists(pattern, key, return_is_regex=True) for m in (mine, theirs))
            assert found == wanted, (pattern, key)
    for library in (mine, theirs):
        tried: list[int] = []

        @library.find_executable_batch_size(starting_batch_size=16, auto_find_batch_size=True)
        def fits(batch_size: int, tried: list[int] = tried) -> int:
            tried.append(batch_size)
            if batch_size > 10:
                raise RuntimeError("CUDA out of memory.")
            return batch_size

        assert fits() == 10 and tried == [16, 14, 12, 10]
    collate = mine.RemoveColumnsCollator(lambda rows: rows, ["a"])
    assert collate([{"a": 1, "b": 2}, [3]]) == [{"a": 1}, [3]]
    for concat in (True, False):
        arrays = []
        for library in (parts, their_parts):
            held = library.EvalLoopContainer(do_nested_concat=concat, padding_index=-100)
            for n, width in ((2, 3), (1, 5)):
                held.add((torch.ones(n, width), {"loss": torch.tensor(1.0 * n)}))
                held.to_cpu_and_numpy()
            arrays.append(held.get_arrays())
        assert str(arrays[0]) == str(arrays[1])


def test_guesses_tensors_and_the_report_of_a_load(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from cutaway.generation import PromptLookupCandidateGenerator  # type: ignore[import-not-found]
    from cutaway.modeling_utils import load_state_dict  # type: ignore[import-not-found]
    from cutaway.pytorch_utils import id_tensor_storage  # type: ignore[import-not-found]

    text = torch.tensor([[7, 3, 4, 5, 0, 6, 3, 4]])
    guesses = PromptLookupCandidateGenerator(num_output_tokens=3).get_candidates(text)[0]
    assert guesses.tolist() == [[*text[0].tolist(), 5, 0, 6]]
    ended = PromptLookupCandidateGenerator(eos_token_id=torch.tensor([0]), max_matching_ngram_size=1)
    assert ended.get_candidates(text)[0].tolist() == [[*text[0].tolist(), 5]]
    held = torch.arange(6.0)
    assert id_tensor_storage(held) == id_tensor_storage(held[2:]) != id_tensor_storage(held.clone())
    save_file({"a": held}, tmp_path / "a.safetensors")
    torch.save({"a": held}, tmp_path / "a.bin")
    for name in ("a.safetensors", "a.bin"):
        assert torch.equal(load_state_dict(tmp_path / name)["a"], held)
    theirs, _ = pair("gpt2", "Model")
    theirs.save_pretrained(tmp_path / "theirs")
    reports = [
        library.GPT2ForTokenClassification.from_pretrained(tmp_path / "theirs", output_loading_info=True)[1]
        for library in (cutaway, transformers)
    ]
    assert dict(reports[0]) == {name: reports[1][name] for name in reports[0].keys()}  # noqa: SIM118


def test_small_names_that_other_libraries_import(tmp_path: Path) -> None:
    from cutaway.utils import copy_func, http_user_agent
    from cutaway.utils.peft_utils import find_adapter_config_file

    def add(a: int, b: int = 2, *, c: int = 3) -> int:
        """Their sum."""
        return a + b + c

    copied = copy_func(add)
    copied.__doc__ = "Another."
    assert copied(1) == 6 and copied is not add and add.__doc__ == "Their sum." and copied.__name__ == "add"
    assert http_user_agent({"task": "x"}).endswith("; task/x") and "cutaway/" in http_user_agent()
    assert find_adapter_config_file(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text("{}")
    assert find_adapter_config_file(tmp_path) == str(tmp_path / "adapter_config.json")
    theirs = transformers.TrainingArguments._VALID_DICT_FIELDS
    assert set(cutaway.TrainingArguments._VALID_DICT_FIELDS) <= set(theirs)


@pytest.mark.parametrize("name", ["Qwen2Config", "Qwen3Config", "Qwen3MoeConfig"])
@pytest.mark.parametrize("window", [{}, {"sliding_window": 64}])
@pytest.mark.parametrize("used", [{}, {"use_sliding_window": True}])
def test_a_window_that_is_not_used_is_none(name: str, window: dict[str, Any], used: dict[str, Any]) -> None:
    theirs, ours = (getattr(library, name)(**window, **used) for library in (transformers, cutaway))
    assert ours.sliding_window == theirs.sliding_window == ours.to_dict()["sliding_window"]
    assert type(ours).from_dict(ours.to_dict()).sliding_window == theirs.sliding_window


def test_a_model_has_the_size_of_its_vocabulary() -> None:
    for _, ours in (pair("bert", "ForMaskedLM"), pair("llama", "ForCausalLM"), pair("t5", SEQ2SEQ)):
        assert ours.vocab_size == ours.base_model.vocab_size == ours.config.vocab_size
        ours.resize_token_embeddings(ours.config.vocab_size + 3)
        assert ours.vocab_size == ours.config.vocab_size

    class Mine(cutaway.PreTrainedModel):
        config_class = cutaway.BertConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.vocab_size = 7  # as many scripts do

    assert Mine(cutaway.BertConfig()).vocab_size == 7
    assert cutaway.BartForConditionalGeneration._keys_to_ignore_on_load_missing == ["final_logits_bias"]


def test_labels_of_tokens_may_lie_end_to_end() -> None:
    labels = torch.tensor([[0, 1, -100, 1, 0], [1, 1, 0, 0, -100]])
    theirs, ours = pair("bert", "ForTokenClassification", num_labels=2)
    losses = [model(input_ids=IDS, labels=labels.flatten()).loss for model in (theirs, ours)]
    assert torch.allclose(*losses, atol=1e-5) and torch.equal(losses[1], ours(input_ids=IDS, labels=labels).loss)
    with pytest.raises(InputError, match="must be"):
        ours(input_ids=IDS, labels=labels.flatten()[:9])
