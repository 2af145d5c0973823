import copy
import json
import pickle

import pytest
import transformers

import cutaway
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError


class Deep(PretrainedConfig):
    model_type = "deep"
    defaults = {"width": 12, "heads": 3, "kinds": None, "size": None}
    attribute_map = {"hidden_size": "width", "head_dim": "size"}
    derived = {
        "size": lambda config: config.width // config.heads,
        "kinds": lambda config: ["full"] * config.heads,
        "table": lambda config: {"theta": float(config.width)},
    }


FAMILIES = [
    "Llama", "Mistral", "Qwen2", "Qwen3", "Qwen3Moe", "Gemma", "Gemma2", "Gemma3Text", "Phi", "Phi3", "StableLm",
    "Olmo2", "Olmoe", "Granite", "Cohere", "Cohere2", "SmolLM3", "GPTNeoX", "GPTNeo", "Falcon", "OPT", "T5", "MT5",
    "UMT5",
    "ModernBert", "EuroBert", "Gte", "NomicBert", "JinaEmbeddingsV3", "Bert",
]  # fmt: skip
OPEN = (
    "num_key_value_heads", "num_kv_heads", "head_dim", "layer_types", "no_rope_layers", "rope_parameters",
    "num_decoder_layers", "dense_act_fn", "is_gated_act", "scale_decoder_outputs", "word_embed_proj_dim",
    "ffn_hidden_size", "attention_layers", "attention_types", "chunk_size_feed_forward",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_an_open_field_reads_as_upstream_has_it(family):
    theirs, ours = getattr(transformers, f"{family}Config")(), getattr(cutaway, f"{family}Config")()
    for name in OPEN:
        if hasattr(theirs, name):
            assert getattr(ours, name) == getattr(theirs, name), name


def test_t5_scales_where_its_output_is_tied():
    for tied in (True, False):
        theirs, ours = (library.T5Config(tie_word_embeddings=tied) for library in (transformers, cutaway))
        assert ours.scale_decoder_outputs == theirs.scale_decoder_outputs == tied


@pytest.mark.parametrize("family", ["Bart", "MBart", "Marian", "Pegasus", "M2M100"])
def test_layers_of_an_encoder_decoder_are_the_encoders(family):
    theirs, ours = (getattr(library, f"{family}Config")(encoder_layers=3) for library in (transformers, cutaway))
    assert ours.num_hidden_layers == theirs.num_hidden_layers == 3
    ours.num_hidden_layers = 2
    assert ours.encoder_layers == 2
    # older files hold both, and a later change of one alone
    assert type(ours).from_dict({"encoder_layers": 5, "num_hidden_layers": 12}).encoder_layers == 5
    assert type(ours).from_dict({"num_hidden_layers": 4}).encoder_layers == 4


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Phi3", "GPTNeoX"])
def test_older_spellings_read_as_the_table(family):
    fields = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}
    config = getattr(cutaway, f"{family}Config")(**fields)
    table = config.rope_parameters
    assert (table["rope_theta"], table["rope_type"], table["factor"]) == (500.0, "linear", 4.0)
    assert config.rope_scaling == fields["rope_scaling"] and config.rope_theta == 500.0
    plain = getattr(cutaway, f"{family}Config")()
    assert plain.rope_scaling is plain.rope_parameters and plain.rope_parameters["rope_type"] == "default"


def test_a_change_of_the_table_that_was_read_counts():
    config = cutaway.LlamaConfig(
        vocab_size=10, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8
    )
    plain = cutaway.LlamaModel(config).architecture.stack.positions
    config.rope_parameters["rope_theta"] = 77.0
    assert cutaway.LlamaModel(config).architecture.stack.positions.theta == 77.0 != plain.theta
    assert json.loads(config.to_json_string())["rope_parameters"]["rope_theta"] == 77.0
    assert "rope_scaling" not in config.to_dict()
    scaled = cutaway.LlamaConfig(rope_theta=77.0)
    scaled.rope_scaling = {"rope_type": "linear", "factor": 2.0}
    assert scaled.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}


def test_what_follows_follows_later_changes_and_is_not_written():
    config = Deep()
    kinds, table = config.kinds, config.table
    assert (config.size, config.head_dim, kinds, table) == (4, 4, ["full"] * 3, {"theta": 12.0})
    config.heads, config.width = 2, 40
    assert (config.size, config.kinds, config.table) == (20, ["full"] * 2, {"theta": 40.0})
    assert config.kinds is kinds and config.table is table
    written = config.to_dict()
    assert written["kinds"] is written["size"] is None and "table" not in written
    assert config.stated("size") is config.stated("head_dim") is None and config.stated("width") == 40
    config.size = 7
    assert config.head_dim == config.stated("head_dim") == 7
    config.size = None
    assert config.size == 20


def test_a_changed_list_becomes_a_field_and_others_do_not_share_it():
    config, other = Deep(), Deep()
    for each in (config, other):
        assert each.kinds == ["full"] * 3
    assert config == other
    config.kinds[1] = "near"
    assert config != other
    assert config.to_dict()["kinds"] == ["full", "near", "full"] and other.to_dict()["kinds"] is None
    for copied in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), Deep.from_dict(config.to_dict())):
        assert copied.kinds == ["full", "near", "full"]
    assert Deep().kinds == ["full"] * 3


def test_what_cannot_follow_is_no_field():
    config = Deep(heads=0)
    assert not hasattr(config, "size")
    with pytest.raises(AttributeError, match="does not follow"):
        _ = config.size


def test_fields_are_set_from_text_as_what_they_are():
    config = cutaway.GPT2Config()
    config.update_from_string("n_embd=10, resid_pdrop=0.25,scale_attn_weights=false,summary_type=first")
    assert (config.n_embd, config.hidden_size, config.resid_pdrop) == (10, 10, 0.25)
    assert (config.scale_attn_weights, config.summary_type) == (False, "first")
    for text, told in (
        ("n_embd", "sets no field"), ("n_embdd=3", "n_embd"), ("n_embd=many", "give a number"),
        ("scale_attn_weights=maybe", "true or false"), ("id2label=3", "as an attribute"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            config.update_from_string(text)
    assert config.n_embd == 10


def test_a_config_is_read_from_one_file(tmp_path):
    Deep(width=24).to_json_file(tmp_path / "any.json")
    assert Deep.from_json_file(tmp_path / "any.json").width == 24


@pytest.mark.parametrize(
    ("family", "beside"),
    [
        ("Llama", {"rope_theta": 500.0}),
        ("Llama", {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
        ("GPTNeoX", {"rotary_emb_base": 500, "rotary_pct": 0.5}),
        ("Phi", {"rope_theta": 500.0, "partial_rotary_factor": 1.0}),
    ],
)
def test_a_changed_table_counts_where_the_file_says_its_parts_beside_it(family, beside):
    plan = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8, **beside}
    config = getattr(cutaway, f"{family}Config")(vocab_size=10, **plan)
    changes = {"rope_theta": 77.0, "rope_type": "linear", "factor": 2.0}
    if "partial_rotary_factor" in config.rope_parameters:
        changes["partial_rotary_factor"] = 0.25
    for theta in (77.0, 88.0):  # twice: the table is a field of its own the second time
        config.rope_parameters.update(changes, rope_theta=theta)
        for each in (config, copy.deepcopy(config), type(config).from_dict(config.to_dict())):
            positions = getattr(cutaway, f"{family}Model")(each).architecture.stack.positions
            assert (positions.theta, positions.scaling.factor) == (theta, 2.0)
            assert positions.size == int(16 * changes.get("partial_rotary_factor", 1.0))


def test_what_is_set_after_a_change_of_the_table_is_not_lost():
    config = cutaway.LlamaConfig()
    config.rope_parameters["rope_theta"] = 77.0
    config.rope_scaling = {"rope_type": "linear", "factor": 2.0}
    assert (
        config.rope_scaling == {"rope_type": "linear", "factor": 2.0} and config.rope_parameters["rope_theta"] == 77.0
    )
    assert cutaway.LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0}).rope_theta == 10_000.0


def test_tables_of_each_kind_of_layer_say_the_scaling_beside_them():
    given = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 500.0}
    theirs, ours = (library.Gemma3TextConfig(**copy.deepcopy(given)) for library in (transformers, cutaway))
    assert ours.rope_parameters == theirs.rope_parameters
    assert ours.rope_parameters["full_attention"]["factor"] == 8.0
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    config = cutaway.Gemma3TextConfig(**sizes, num_hidden_layers=6, intermediate_size=8, **given)
    before = cutaway.Gemma3TextModel(config).architecture.stack.layer_positions
    config.rope_parameters["sliding_attention"]["rope_theta"] = 33.0
    after = cutaway.Gemma3TextModel(config).architecture.stack.layer_positions
    assert [each.scaling for each in after] == [each.scaling for each in before]
    assert [each.theta for each in after] == [33.0] * 5 + [500.0]


@pytest.mark.parametrize("read_before", [True, False])
def test_a_shallow_copy_keeps_its_own_changes(read_before):
    config = Deep()
    kinds = config.kinds if read_before else None
    other = copy.copy(config)
    other.kinds[1] = "near"
    other.table["theta"] = 5.0
    assert (config.kinds, config.table) == (["full"] * 3, {"theta": 12.0})
    assert (other.kinds, other.table) == (["full", "near", "full"], {"theta": 5.0})
    assert config != other and (kinds is None or config.kinds is kinds)
    third = copy.copy(config)
    third.heads = 2
    assert (third.kinds, config.kinds, kinds or config.kinds) == (["full"] * 2, ["full"] * 3, ["full"] * 3)


def test_the_older_fields_of_gpt_neox_read_as_its_table_says():
    config = cutaway.GPTNeoXConfig(rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 0.5})
    assert config.rope_theta == config.rotary_emb_base == 500.0
    assert config.partial_rotary_factor == config.rotary_pct == 0.5
    assert not {"rotary_emb_base", "rotary_pct"} & config.to_dict().keys()
    plain = cutaway.GPTNeoXConfig()
    assert (plain.rope_theta, plain.rotary_pct) == (10_000.0, 0.25)
    plain.rotary_pct = 0.5
    assert plain.to_dict()["rotary_pct"] == plain.rope_parameters["partial_rotary_factor"] == 0.5
