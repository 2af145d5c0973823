"""cutaway.generate.settings: generation_config.json and the object that holds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from cutaway.errors import ConfigError, GenerationError, HubError
from cutaway.generate import GenerationConfig
from cutaway.generate.settings import KNOWN


def test_round_trip_loses_nothing(tmp_path: Path) -> None:
    stored = {
        "temperature": 0.6,
        "eos_token_id": [1, 2],
        "transformers_version": "4.40",
        "own_field": {"a": 1},
        "num_beams": 2,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.temperature == 0.6
    assert config.top_p is None
    assert config.own_field == {"a": 1}
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == stored
    assert GenerationConfig.from_pretrained(tmp_path, temperature=0.9).temperature == 0.9
    assert GenerationConfig.from_pretrained(tmp_path / "again") == config
    assert "temperature" in repr(config)


def test_what_transformers_writes_is_read(tmp_path: Path) -> None:
    theirs = transformers.GenerationConfig(
        max_new_tokens=7, do_sample=True, top_p=0.9, eos_token_id=[3, 4], pad_token_id=0
    )
    theirs.save_pretrained(tmp_path)
    ours = GenerationConfig.from_pretrained(tmp_path)
    assert (ours.max_new_tokens, ours.do_sample, ours.top_p, ours.eos_token_id, ours.pad_token_id) == (
        7,
        True,
        0.9,
        [3, 4],
        0,
    )
    ours.save_pretrained(tmp_path)
    assert transformers.GenerationConfig.from_pretrained(tmp_path).max_new_tokens == 7


def test_every_setting_of_upstream_is_known() -> None:
    internal = {"transformers_version", "continuous_batching_config"}
    public = {name for name in vars(transformers.GenerationConfig()) if not name.startswith("_")}
    assert public - internal - KNOWN == set()


def test_what_a_file_holds_of_a_call(tmp_path: Path) -> None:
    config = GenerationConfig(sequence_bias={(3, 4): -2.0}, logits_processor=[len], num_beams=2)
    config.save_pretrained(tmp_path)
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again.to_dict() == {"num_beams": 2, "sequence_bias": [[[3, 4], -2.0]]}
    assert transformers.GenerationConfig.from_pretrained(tmp_path).sequence_bias == again.sequence_bias


def test_from_model_config() -> None:
    config = GenerationConfig.from_model_config(
        {"eos_token_id": 5, "num_beams": 4, "output_attentions": True, "hidden_size": 8, "max_length": None}
    )
    assert config.to_dict() == {"eos_token_id": 5, "num_beams": 4}


def test_update_returns_what_is_not_a_setting() -> None:
    config = GenerationConfig()
    assert config.update(top_k=3, colour="red") == {"colour": "red"}
    assert config.top_k == 3


def test_wrong_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="Did you mean 'temperature'"):
        GenerationConfig(temprature=1.0)
    for content in ("{", "[1]", '{"a":' + "[" * 100 + "]" * 100 + "}"):
        (tmp_path / "generation_config.json").write_text(content)
        with pytest.raises(ConfigError, match=r"generation_config\.json"):
            GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(HubError):
        GenerationConfig.from_pretrained(tmp_path / "empty")
