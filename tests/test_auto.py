"""One name for every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from parity.tiny_models import CONFIGS, OTHER_NAMES, SECOND, make

import cutaway
from cutaway import auto
from cutaway.errors import ConfigError

TASKS = [n for n in dir(auto) if n.startswith("AutoModelFor")]


@pytest.mark.parametrize("family", [f for f in CONFIGS if f not in SECOND])
def test_each_task_gives_the_family_s_class(family: str) -> None:
    first, fields = CONFIGS[family]
    config = auto.AutoConfig.for_model(family, **fields)
    assert type(config).__name__ == f"{first}Config"
    assert type(auto.AutoModel.from_config(config)).__name__ == f"{first}Model"
    found, refused = 0, {}
    for task in TASKS:
        try:
            model = getattr(auto, task).from_config(config)
        except ConfigError as e:
            refused[task] = str(e)
            continue
        found += 1
        name = type(model).__name__
        assert (name.startswith(first) or name in OTHER_NAMES.values()) and type(model) is getattr(
            cutaway, type(model).__name__
        )
    assert found and all(family in said and task in said for task, said in refused.items())


def test_loading_by_the_config(tmp_path: Path) -> None:
    make("distilbert", "ForSequenceClassification").save_pretrained(tmp_path)
    assert type(auto.AutoConfig.from_pretrained(tmp_path)).__name__ == "DistilBertConfig"
    assert type(auto.AutoModel.from_pretrained(tmp_path)).__name__ == "DistilBertModel"
    model = auto.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_attentions=True)
    assert type(model).__name__ == "DistilBertForSequenceClassification" and model.config.output_attentions
    config = auto.AutoConfig.from_pretrained(tmp_path, output_hidden_states=True)
    assert auto.AutoModel.from_pretrained(tmp_path, config=config).config.output_hidden_states


def test_what_is_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="roberta"):
        auto.AutoConfig.for_model("roburta")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ConfigError, match=r"mamba.*bert"):
        auto.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="model_type"):
        auto.AutoModel.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="from_pretrained"):
        auto.AutoModel()
