import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.config.config import PreTrainedConfig, PretrainedConfig
from cutaway.errors import ConfigError, HubError


class TinyConfig(PretrainedConfig):
    model_type = "tiny"
    defaults = {"n_embd": 8, "n_layer": 2, "rope": {"theta": 1e4}, "act": "gelu", "scale": True, "eps": 1e-5}
    attribute_map = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}


def write(folder, text: str):
    (folder / "config.json").write_text(text)
    return folder


def saved(config: PretrainedConfig, folder) -> dict[str, Any]:
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


# -- fields ------------------------------------------------------------------------------------------------------


def test_defaults_are_merged_and_not_shared():
    one, two = TinyConfig(), TinyConfig(n_layer=5)
    one.rope["theta"] = 5.0
    assert (two.rope, two.n_layer, one.n_layer) == ({"theta": 1e4}, 5, 2)
    assert PreTrainedConfig is PretrainedConfig

    class Wider(TinyConfig):
        defaults = {"n_embd": 16}

    assert (Wider().n_embd, Wider().act) == (16, "gelu")


def test_attribute_map_reads_and_writes():
    config = TinyConfig(hidden_size=32)
    assert (config.n_embd, config.hidden_size) == (32, 32)
    config.num_hidden_layers = 9
    assert config.n_layer == 9
    assert "hidden_size" not in config.to_dict()
    with pytest.raises(ConfigError, match="two names of one"):
        TinyConfig(hidden_size=32, n_embd=16)


def test_an_unknown_attribute_names_the_nearest():
    with pytest.raises(AttributeError, match="n_layer"):
        _ = TinyConfig().n_layers


HOSTILE = {
    "to_dict": 1,
    "__class__": "x",
    "__init__": None,
    "_x": {"a": 1},
    "_given": ["n_embd"],
    "attribute_map": {"to_dict": "n_embd"},
    "defaults": {},
    "self": 3,
    "from_pretrained": "print",
    "integer": 4,
    "__dict__": {"n_embd": 1},
    "": 0,
}


def test_no_field_of_a_file_hides_a_method(tmp_path):
    fields = {"model_type": "tiny", "n_embd": 16, **HOSTILE}
    config = TinyConfig.from_pretrained(write(tmp_path, json.dumps(fields)))
    assert type(config) is TinyConfig
    assert config.integer("n_embd") == 16
    assert callable(config.to_dict)
    out = saved(config, tmp_path)
    assert {k: out[k] for k in fields} == fields
    kept = TinyConfig(**{k: v for k, v in fields.items() if k != "self"})
    assert callable(kept.to_dict)
    assert kept.attribute_map == TinyConfig.attribute_map


def test_a_users_class_with_plain_class_attributes():
    class Mine(PretrainedConfig):
        depth = 3

        def width(self) -> int:
            return 1

    mine = Mine(depth=4, width=9)
    assert (mine.depth, mine.width(), Mine.depth) == (4, 1, 3)


# -- labels ------------------------------------------------------------------------------------------------------


def test_labels_with_string_and_integer_keys():
    for names in ({"0": "A", "1": "B", "2": "C"}, {0: "A", 1: "B", 2: "C"}, ["A", "B", "C"]):
        config = TinyConfig(id2label=names)
        assert config.id2label == {0: "A", 1: "B", 2: "C"}
        assert config.label2id == {"A": 0, "B": 1, "C": 2}
        assert config.num_labels == 3


def test_num_labels_in_both_directions():
    config = TinyConfig()
    assert (config.num_labels, config.id2label) == (2, {0: "LABEL_0", 1: "LABEL_1"})
    config.num_labels = 3
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    config.id2label = {0: "neg", 1: "pos"}
    config.num_labels = 2  # the same number keeps the names
    assert config.id2label == {0: "neg", 1: "pos"}
    config.label2id = {"a": 1, "b": 0}
    assert config.id2label == {0: "b", 1: "a"}
    config.label2id = {"yes": 1, "ja": 1, "no": 0}  # two names for one id: kept, the names by id stay
    assert (config.label2id["ja"], config.num_labels) == (1, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_labels": 3, "id2label": {0: "a"}},
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
        {"id2label": {"0": "a", 0: "b"}},
        {"id2label": {"x": "a"}},
        {"id2label": {"-1": "a"}},
        {"id2label": 5},
        {"id2label": {0: {}}},
        {"label2id": {"a": None}},
        {"label2id": 7},
        {"num_labels": True},
        {"num_labels": 0},
        {"num_labels": 10**12},
        {"num_labels": float("nan")},
        {"problem_type": "guess"},
        {"dtype": "__class__"},
    ],
)
def test_labels_and_choices_that_cannot_be(fields):
    with pytest.raises(ConfigError):
        TinyConfig(**fields)


def test_an_override_replaces_the_labels_of_the_file(tmp_path):
    write(tmp_path, '{"model_type": "tiny", "id2label": {"0": "N", "1": "P"}, "label2id": {"N": 0, "P": 1}}')
    assert TinyConfig.from_pretrained(tmp_path, num_labels=3).id2label[2] == "LABEL_2"
    assert TinyConfig.from_pretrained(tmp_path, num_labels=2).id2label == {0: "N", 1: "P"}
    assert TinyConfig.from_pretrained(tmp_path, id2label={0: "x"}).label2id == {"x": 0}


# -- round trip --------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
known = {"id2label", "label2id", "num_labels", "dtype", "torch_dtype", "problem_type", "name_or_path", "model_type"}


@given(st.dictionaries(st.text(max_size=10) | st.sampled_from(sorted(HOSTILE)), json_values, max_size=5))
def test_unknown_fields_survive(tmp_path_factory, fields):
    folder = tmp_path_factory.mktemp("config")
    fields = {k: v for k, v in fields.items() if k not in known | TinyConfig.attribute_map.keys()}
    write(folder, json.dumps({"model_type": "tiny", **fields}))
    config = TinyConfig.from_pretrained(folder)
    out = saved(config, folder)
    assert {k: out[k] for k in fields} == fields
    assert TinyConfig.from_pretrained(folder) == config == copy.deepcopy(config) == pickle.loads(pickle.dumps(config))


def test_what_the_file_named_is_written_again(tmp_path):
    fields = {
        "_name_or_path": "x",
        "architectures": None,
        "model_type": "tiny",
        "num_labels": 2,
        "output_attentions": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "transformers_version": "4.1.0",
        "use_cache": True,
    }
    out = saved(TinyConfig.from_pretrained(write(tmp_path, json.dumps(fields))), tmp_path)
    assert {k: out.get(k) for k in fields} == fields
    assert out.keys() - fields.keys() == TinyConfig.defaults.keys()


def test_the_base_class_keeps_any_model_type(tmp_path):
    config = PretrainedConfig.from_pretrained(write(tmp_path, '{"model_type": "other", "x": 1}'))
    assert config.model_type == "other"
    assert saved(config, tmp_path) == {"model_type": "other", "x": 1}
    assert PretrainedConfig.model_type == ""


def test_overrides_and_unused_ones(tmp_path):
    write(tmp_path, '{"model_type": "tiny"}')
    config, unused = TinyConfig.from_pretrained(
        tmp_path, return_unused_kwargs=True, n_layer=3, hidden_size=4, device_map="cpu", torch_dtype="bfloat16"
    )
    assert (config.n_layer, config.n_embd, unused) == (3, 4, {"device_map": "cpu"})
    assert config.to_dict()["dtype"] == "bfloat16"
    assert TinyConfig.from_pretrained(tmp_path, own="field").own == "field"
    assert TinyConfig.from_pretrained(tmp_path / "config.json").n_layer == 2
    assert TinyConfig.from_dict({"n_layer": 7}).n_layer == 7
    config.update({"n_layer": 1, "to_dict": 2})
    assert (config.n_layer, config.to_dict()["to_dict"]) == (1, 2)


def test_dtype_by_either_name():
    import torch

    for config in (TinyConfig(dtype="float16"), TinyConfig(torch_dtype=torch.float16)):
        assert config.dtype is config.torch_dtype is torch.float16
        assert '"dtype": "float16"' in config.to_json_string()
    assert TinyConfig().dtype is None


def test_a_config_that_holds_a_module(tmp_path, caplog):
    import torch

    class Custom(PretrainedConfig):
        def __init__(self, encoder, width, pooler=True, **kwargs):
            super().__init__(**kwargs)
            self.encoder = encoder
            self.width = width
            self.pooler = pooler

    config = Custom(torch.nn.Linear(2, 2), 7, num_labels=3)
    assert '"encoder": "<Linear>"' in repr(config)
    assert repr(config).startswith("Custom {")
    twin = copy.deepcopy(config)
    assert twin.encoder is not config.encoder
    assert pickle.loads(pickle.dumps(config.width)) == 7
    assert saved(config, tmp_path)["width"] == 7
    assert "without encoder" in caplog.text


def test_transformers_reads_ours_and_we_read_theirs(tmp_path):
    import transformers

    theirs = transformers.BertConfig(hidden_size=12, num_labels=3, dtype="float16", odd={"a": [1, {"b": None}]})
    theirs.save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    config = PretrainedConfig.from_pretrained(tmp_path)
    assert (config.num_labels, config.hidden_size, config.odd) == (3, 12, {"a": [1, {"b": None}]})
    assert saved(config, tmp_path) == {"tie_word_embeddings": True, **before}
    back = transformers.AutoConfig.from_pretrained(tmp_path)
    assert back.to_diff_dict() == theirs.to_diff_dict()


# -- bad files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": {"b": 1, "b": 2}}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "deeper"),
        ('{"a": ' + "[" * 500_000 + "]" * 500_000 + "}", "deeper"),
        ('{"a": [' + "{}," * 1_000_000 + "1]}", "at most"),
        ('{"a": "' + "x" * 5_000_000 + '"}', "larger"),
        ('{"a": 1' + "0" * 5000 + "}", "not valid JSON"),
    ],
)
def test_files_that_are_not_a_configuration(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        PretrainedConfig.from_pretrained(write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(ConfigError, match="not valid JSON"):
        PretrainedConfig.from_pretrained(tmp_path)


def test_a_folder_without_config(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(HubError, match=r"has no config\.json; it holds notes\.txt"):
        PretrainedConfig.from_pretrained(tmp_path)


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ConfigError, match="eps is nan"):
        TinyConfig(eps=float("nan")).save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_number_of_labels_comes_back_whatever_the_familys_own_is(tmp_path, count) -> None:
    from cutaway import AutoConfig, BartConfig, BertConfig

    for kind in (BartConfig, BertConfig):  # 3 and 2 by themselves
        kind(num_labels=count).save_pretrained(tmp_path)
        assert kind.from_pretrained(tmp_path).num_labels == count
        assert AutoConfig.from_pretrained(tmp_path).id2label == {i: f"LABEL_{i}" for i in range(count)}
