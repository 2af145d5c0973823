"""Every field of every file of a checkpoint: used, known to be without effect, or refused."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
from pathlib import Path
from typing import Any

import field_tables
import pytest
import tiny
import torch
import transformers
from peft import LoraConfig as PeftConfig

from cutaway import auto
from cutaway.auto import FAMILIES, AutoModel, AutoModelForCausalLM, config_class
from cutaway.checkpoint.field_table import _said
from cutaway.config import config_fields
from cutaway.errors import CheckpointError, ConfigError, CutawayError, InputError, TokenizerError
from cutaway.generate import settings
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.lora_config import TABLE as ADAPTER
from cutaway.nn.lora_config import LoraConfig
from cutaway.pipelines.sentence_modules import sentence_modules
from cutaway.tokenization.registry import load_tokenizer

# One small model of each spelling of sizes.
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50,
    "max_position_embeddings": 32, "embedding_size": 16, "num_key_value_heads": 2, "head_dim": 8,
    "word_embed_proj_dim": None, "rotary_dim": 4,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "dim": 16, "n_layers": 2,
    "n_heads": 2, "hidden_dim": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "d_model": 16,
    "d_kv": 8,
    "d_ff": 24, "num_layers": 2, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "ffn_dim": 24,
}  # fmt: skip


SAME = {"attention_head_size": 8, "embedding_size": 16, "pooler_hidden_size": 16}


def small(family: str, **fields: Any) -> Any:
    kind = config_class(family)
    mapped = set(kind.attribute_map)
    own = {name: value for name, value in SMALL.items() if name in kind._class_defaults() and name not in mapped}
    if family == "gpt2":
        own |= {"pad_token_id": 1}
    return kind(**{**own, **fields})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_published_field_has_a_row(family: str) -> None:
    rows = config_fields.rows(config_class(family))
    published = transformers.CONFIG_MAPPING[family]().to_dict()
    named = {n for n in inspect.signature(transformers.CONFIG_MAPPING[family].__init__).parameters if n != "self"}
    assert sorted((published.keys() | named) - rows.keys() - {"kwargs", "args"}) == []
    for name, value in published.items():  # what a published config says by default can be built
        allowed = {**config_fields.REFUSED, **config_class(family).refused}.get(name)
        if rows[name].does == "refused" and allowed is not None:
            assert allowed.allows(value), name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_table_says_is_true(family: str) -> None:
    """Fields of a family that are used are read while its models are built; the others are not."""
    seen: set[str] = set()

    class Watched(config_class(family)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            seen.add(name)
            return super().__getattribute__(name)

        def aside(self, name: str, default: Any) -> Any:
            seen.add(name)
            return super().aside(name, default)

        def stated(self, name: str, default: object = None) -> Any:
            seen.add(name)
            return super().stated(name, default)

    module, first = FAMILIES[family]
    classes = [
        kind
        for name, kind in vars(importlib.import_module(module)).items()
        if name.startswith(first)
        and isinstance(kind, type)
        and issubclass(kind, PreTrainedModel)
        and "PreTrained" not in name
    ]
    base = small(family)
    variants: list[dict[str, Any]] = [{}]
    rope = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 5000.0}
    if config_fields.rows(config_class(family))["rope_scaling"].does == "used":
        variants += [{"rope_parameters": rope}] if family not in ("modernbert", "gemma3_text") else []
    if "use_sliding_window" in base._class_defaults():
        variants += [{"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}]
    if family == "deberta-v2":
        variants += [
            {"relative_attention": True, "pos_att_type": "c2p", "position_buckets": 8, "conv_kernel_size": 3, **SAME}
        ]
    if family == "phi3":
        variants += [{"sliding_window": 4}]
    for variant in variants:
        watched = Watched(**{**{k: v for k, v in vars(base).items() if not k.startswith("_")}, **variant})
        seen.clear()
        architecture = FAMILY_OF[family].to_architecture(watched)
        built = set(seen)
        for kind in classes:
            seen.clear()
            kind(watched)
            built |= seen
        READ.setdefault(family, set()).update(built)
    mapped = config_class(family).attribute_map
    read = {mapped.get(name, name) for name in READ[family]}
    shared = config_fields.rows(config_fields._Shared)
    elsewhere = {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "num_labels", "vocab_size"}
    for name, row in config_fields.rows(config_class(family)).items():
        if shared.get(name) == row or name in elsewhere | config_fields.GENERATION:
            continue
        if row.does == "used":
            assert mapped.get(name, name) in read, f"{family}: {name} is said to be used, but nobody reads it"
        elif row.does == "without effect":
            # ALBERT's and MPNet's stacks are BERT's, and some of their heads have BERT's rates
            ours = read - {"is_decoder", "classifier_dropout"}
            assert name not in ours, f"{family}: {name} is said to be without effect, but is read"
    assert architecture.stack.n_layers == 2


FAMILY_OF = {
    name: getattr(importlib.import_module(module), f"{first}Model").family for name, (module, first) in FAMILIES.items()
}
READ: dict[str, set[str]] = {}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_built_is_refused_by_name(family: str) -> None:
    rows = config_fields.rows(config_class(family))
    for name, allowed in {**config_fields.REFUSED, **config_class(family).refused}.items():
        if rows[name].does != "refused":
            continue
        for value in allowed.values:
            config_fields.check_fields(small(family, **{name: value}))
        wrong = {"some": "thing"}
        with pytest.raises(ConfigError, match=rf"^{name} is .*not build for {family}\. \w"):
            AutoModel.from_config(small(family, **{name: wrong}))


def test_a_field_of_another_family_is_no_error_until_it_says_something(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "one")
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(
        json.dumps({**fields, "sliding_window": None, "rope_interleaved": False, "quantization_config": None})
    )
    AutoModelForCausalLM.from_pretrained(folder)
    path.write_text(json.dumps({**fields, "final_logit_softcapping": 30.0}))
    with pytest.raises(ConfigError, match=r"final_logit_softcapping is 30\.0.*another family"):
        AutoModelForCausalLM.from_pretrained(folder)
    path.write_text(json.dumps({**fields, "quantization_config": {"bits": 4}}))
    with pytest.raises(ConfigError, match=r"quantization_config is .*load the model they were made from"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_a_field_that_nobody_knows_is_kept_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny.decoder(tmp_path / "one")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "my_own_note": {"a": 1}}))
    _said.clear()
    with caplog.at_level(logging.WARNING, "cutaway"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(folder)
    said = [record.getMessage() for record in caplog.records if "my_own_note" in record.getMessage()]
    assert len(said) == 1 and "change nothing" in said[0]
    model.save_pretrained(tmp_path / "two")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["my_own_note"] == {"a": 1}


@pytest.mark.parametrize("family", ["opt", "bart", "mbart", "pegasus", "marian"])
def test_layers_are_not_dropped_in_training_in_silence(family: str) -> None:
    name = "layerdrop" if family == "opt" else "encoder_layerdrop"
    model = AutoModel.from_config(small(family, **{name: 0.1})).eval()
    with pytest.raises(ConfigError, match=rf"{name} is 0\.1, which cutaway does not train with"):
        model.train()
    setattr(model.config, name, 0.0)
    assert model.train().training


@pytest.mark.parametrize("removed", [True, False])
def test_opt_without_its_final_norm(tmp_path: Path, removed: bool) -> None:
    torch.manual_seed(0)
    fields = {"ffn_dim": 24, "word_embed_proj_dim": 16, "_remove_final_layer_norm": removed}
    sizes = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
    theirs = transformers.OPTForCausalLM(transformers.OPTConfig(**sizes, **fields, init_std=0.5)).eval()
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[4, 5, 6, 7]])
    assert hasattr(ours.model, "final_norm") != removed
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)
    ours.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["_remove_final_layer_norm"] is removed


@pytest.mark.parametrize("family", ["t5", "bart", "mbart", "pegasus", "marian"])
def test_float16_that_overflows_is_bounded_as_upstream(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(small(family)).eval()
    block = model.encoder.blocks[1]
    layer = block.mlp_norm if family in ("bart", "marian") else block.mlp.down  # the last that is added or scaled
    with torch.no_grad():
        layer.weight.mul_(1e6 if layer is not block.mlp_norm else 1e5)
    model.half()
    ids = torch.tensor([[4, 5, 6, 2]])
    out = model(ids, decoder_input_ids=ids)
    assert out.encoder_last_hidden_state.isfinite().all() and out.last_hidden_state.isfinite().all()
    plain = torch.tensor([torch.inf, -torch.inf, 7.0, torch.nan])
    assert block_module.within_float16(plain) is plain
    most = torch.finfo(torch.float16).max - 1000
    torch.testing.assert_close(
        block_module.within_float16(plain.half()), torch.tensor([most, -most, 7.0, torch.nan]).half(), equal_nan=True
    )


block_module = importlib.import_module("cutaway.nn.block")


def test_one_label_is_nothing_to_choose_from(tmp_path: Path) -> None:
    model = auto.AutoModelForSequenceClassification.from_pretrained(
        tiny.classifier(tmp_path, labels=1), problem_type="single_label_classification"
    )
    with pytest.raises(InputError, match=r"single_label_classification.* with one label.*regression"):
        model(torch.tensor([[2, 5, 3]]), labels=torch.tensor([0]))


# -- the other files ---------------------------------------------------------------------------------------------


def test_the_page_is_what_the_code_says() -> None:
    written = field_tables.PAGE.read_text(encoding="utf-8")
    assert written == field_tables.page(), "docs/config-fields.md is old; run python tests/field_tables.py"


def test_settings_of_generation() -> None:
    published = transformers.GenerationConfig().to_dict()
    assert sorted(published.keys() - settings.TABLE.known) == []
    told = settings.TABLE.used | settings.TABLE.refused.keys()
    other = {*config_fields.USED, "assistant_model", "custom_generate"}
    assert told - other - {"json_schema", "regex", "grammar"} == config_fields.GENERATION


def test_adapters() -> None:
    assert sorted(PeftConfig().to_dict().keys() - ADAPTER.known) == []
    plain = {**PeftConfig().to_dict(), "peft_type": "LORA"}
    LoraConfig.from_file(plain, "here")
    for name in ADAPTER.refused:
        with pytest.raises(CheckpointError, match=rf"here: {name} is .*merge_and_unload"):
            LoraConfig.from_file({**plain, name: "something"}, "here")


def test_tokenizer_files(tmp_path: Path) -> None:
    tiny.wordpiece().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    assert sorted(fields.keys() - field_tables.TOKENIZER.known) == []
    for name in field_tables.TOKENIZER.refused:
        path.write_text(json.dumps({**fields, name: {"enable_sampling": True}}))
        with pytest.raises(TokenizerError, match=rf"{name} is "):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("sentence_bert_config.json", "query_length", 32),
        ("sentence_bert_config.json", "processing_kwargs", {"text": {"max_length": 8}}),
        ("config_sentence_transformers.json", "model_type", "SparseEncoder"),
        ("config_sentence_transformers.json", "truncate_dim", 8),
    ],
)
def test_files_of_sentence_transformers(tmp_path: Path, file: str, field: str, value: Any) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny.classifier(tmp_path / "plain")
    SentenceTransformer(str(folder), device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert sentence_modules(str(tmp_path / "saved")) is not None
    for name, table in (("config_sentence_transformers.json", 0), ("sentence_bert_config.json", 1)):
        assert sorted(json.loads((tmp_path / "saved" / name).read_text()).keys() - TABLES[table].known) == []
    path = tmp_path / "saved" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CutawayError, match=rf"{file}: {field} is "):
        sentence_modules(str(tmp_path / "saved"))


TABLES = [
    field_tables.SENTENCE["config_sentence_transformers.json"],
    field_tables.SENTENCE["sentence_bert_config.json"],
]
