"""Chat templates: what they may see and do, and what goes wrong with them."""

from __future__ import annotations

import dataclasses
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cutaway.errors import TokenizerError
from cutaway.tokenization import chat_worker
from cutaway.tokenization.registry import load_tokenizer
from cutaway.tokenization.wordpiece import BertTokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "user", "assistant", "hi", "yes", ":")
PLAIN = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


def made(template: Any = None) -> BertTokenizer:
    return BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}, chat_template=template)


def say(template: str, chat: Any = CHAT, **how: Any) -> str:
    text: str = made(template).apply_chat_template(chat, tokenize=False, **how)
    return text


def test_text_and_ids() -> None:
    tokenizer = made(PLAIN)
    assert say(PLAIN) == "user:hi assistant:yes "
    assert say(PLAIN, add_generation_prompt=True) == "user:hi assistant:yes assistant:"
    assert say(PLAIN, [CHAT, CHAT[:1]]) == ["user:hi assistant:yes ", "user:hi "]
    assert dict(tokenizer.apply_chat_template(CHAT))["input_ids"] == [5, 9, 7, 6, 9, 8]
    assert tokenizer.apply_chat_template(CHAT, return_dict=False) == [5, 9, 7, 6, 9, 8]
    tensor = tokenizer.apply_chat_template(CHAT, return_tensors="pt", return_dict=False)
    assert tensor.tolist() == [[5, 9, 7, 6, 9, 8]]
    short = tokenizer.apply_chat_template(CHAT, truncation=True, max_length=4)
    assert short["input_ids"] == [5, 9, 7, 6] and short.cut == [2]
    assert tokenizer.apply_chat_template(CHAT, tokenizer_kwargs={"return_length": True})["length"] == [6]


def test_going_on_with_the_last_message() -> None:
    assert say(PLAIN, continue_final_message=True) == "user:hi assistant:yes"
    trimmed = "{% for m in messages %}{{ m.content | trim }}<end>{% endfor %}"
    assert say(trimmed, [{"role": "assistant", "content": "well, "}], continue_final_message=True) == "well,"
    blocks = "{% for m in messages %}{% for b in m.content %}{{ b.text }}{% endfor %}<end>{% endfor %}"
    parts = [{"role": "assistant", "content": [{"text": "one "}, {"text": "two"}]}]
    assert say(blocks, parts, continue_final_message=True) == "one two"
    for how, says in (
        ({"continue_final_message": True, "add_generation_prompt": True}, "only one of them"),
        ({"continue_final_message": "thoughts"}, "no 'thoughts'"),
    ):
        with pytest.raises(TokenizerError, match=says):
            say(PLAIN, **how)
    with pytest.raises(TokenizerError, match="leaves out the last message"):
        say("{{ messages[0].content }}", continue_final_message=True)
    with pytest.raises(TokenizerError, match="does not use 'content'"):
        say("fixed", continue_final_message=True)
    with pytest.raises(TokenizerError, match="no text to go on with"):
        say(blocks, [{"role": "assistant", "content": []}], continue_final_message=True)


def test_what_the_assistant_wrote_is_marked() -> None:
    template = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %} {% endfor %}"
    )
    tokenizer = made(template)
    encoding = tokenizer.apply_chat_template(CHAT, return_assistant_tokens_mask=True)
    assert encoding["input_ids"] == [5, 9, 7, 6, 9, 8]
    assert encoding["assistant_masks"] == [0, 0, 0, 0, 0, 1]
    both = tokenizer.apply_chat_template(
        [CHAT, CHAT[:1]], return_assistant_tokens_mask=True, return_tensors="pt", padding=True
    )
    assert both["assistant_masks"].tolist() == [[0, 0, 0, 0, 0, 1], [0] * 6]
    with pytest.raises(TokenizerError, match="generation"):
        made(PLAIN).apply_chat_template(CHAT, return_assistant_tokens_mask=True)


def test_templates_by_name() -> None:
    tokenizer = made([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}])
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "d"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, tools=[{"type": "function"}]) == "t"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template="tool_use") == "t"
    assert tokenizer.get_chat_template("{{ 1 }}") == "{{ 1 }}"
    tokenizer.chat_template = {"a": "x", "b": "y"}
    with pytest.raises(TokenizerError, match=r"\['a', 'b'\]"):
        tokenizer.get_chat_template()
    tokenizer.chat_template = None
    with pytest.raises(TokenizerError, match="has no chat template"):
        tokenizer.apply_chat_template(CHAT)


def test_templates_are_saved_beside_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = made(PLAIN)
    tokenizer.save_pretrained(tmp_path / "one")
    assert (tmp_path / "one" / "chat_template.jinja").read_text() == PLAIN
    assert load_tokenizer(str(tmp_path / "one")).chat_template == PLAIN
    tokenizer.chat_template = {"default": "d", "tool_use": "t"}
    tokenizer.save_pretrained(tmp_path / "two")
    assert load_tokenizer(str(tmp_path / "two")).chat_template == {"default": "d", "tool_use": "t"}
    tokenizer.chat_template = {"../out": "x"}
    with pytest.raises(TokenizerError, match="cannot be a file name"):
        tokenizer.save_pretrained(tmp_path / "three")
    assert not (tmp_path / "out.jinja").exists()


def test_a_template_sees_only_plain_data() -> None:
    @dataclasses.dataclass
    class Message:
        role: str
        content: Any

    assert say(PLAIN, [Message("user", "hi")]) == "user:hi "
    seen = "{{ messages[0].content }}"
    assert say(seen, [{"role": "user", "content": Path("/secret")}]) == "<PosixPath>"
    assert say(seen, [{"role": "user", "content": np.float32(0.5)}]) == "0.5"
    assert say("{{ messages[0].content is defined }}", [{"role": "user", "content": None}]) == "False"
    assert say("{{ messages | tojson }}", [{"role": "a", "content": "<b>é"}]) == '[{"role": "a", "content": "<b>é"}]'


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__name__ }}",
        "{% set _ = messages.append(1) %}",
        "{{ 'x' * 10000001 }}",
        "{{ 10000001 * 'x' }}",
        "{{ 9 ** 65 }}",
        "{% for i in range(100001) %}{% endfor %}",
        "{% set n = namespace(a=1) %}{% set n.__class__ = 2 %}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include 'x' %}",
        "{{ open('/etc/passwd') }}",
        "{{ raise_exception('not this way') }}",
        "{{ messages[5].content.x }}",
        "{% for %}",
        "{{ " + "(" * 5000,
    ],
)
def test_a_template_that_does_more_fails(template: str) -> None:
    with pytest.raises(TokenizerError, match=r"(?i)chat template (failed|is not valid)"):
        say(template)


@pytest.mark.parametrize(
    ("bound", "value", "template", "says"),
    [
        # each is modest work elsewhere, and just past a bound that is set low here
        (
            "SECONDS",
            0.02,
            "{% for i in range(5000) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
            "0.02 seconds",
        ),
        ("SECONDS", 0.02, "{{ range(90000) | sort(reverse=true) | join | length }}" * 4, "0.02 seconds"),
        ("MEMORY", 8 * 2**20, "{% set a = 'x' * 9000000 %}{% set b = a ~ a %}", "8 MB of memory"),
        ("MEMORY", 8 * 2**20, "{{ 'x' | center(20000000) }}", "8 MB of memory"),
        ("MOST_CHARACTERS", 1000, "{% for i in range(99) %}{{ 'x' * 90 }}{% endfor %}", "characters of text"),
    ],
)
def test_a_template_that_costs_too_much_is_stopped(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: Any, template: str, says: str
) -> None:
    say(PLAIN)  # the process is there, so what follows is measured without its start
    monkeypatch.setattr(chat_worker, bound, value)
    with pytest.raises(TokenizerError, match=f"stopped after .*{says}"):
        say(template)
    monkeypatch.undo()
    assert say(PLAIN) == "user:hi assistant:yes "  # what comes next finds a fresh process


def test_the_bounds_grow_with_the_conversation() -> None:
    long = "é" * 3_000_000
    assert say(PLAIN, [{"role": "user", "content": long}]) == f"user:{long} "


def test_data_reaches_the_template_as_it_is() -> None:
    chat = [{"role": "user", "content": "half \ud800 a pair", "n": {1: (2, 3.5, float("inf"), 2**70)}}]
    seen = say("{{ messages[0].content }}|{{ messages[0].n[1] }}", chat)
    assert seen == f"half \ud800 a pair|{(2, 3.5, float('inf'), 2**70)}"


def test_nesting_without_end_is_an_error() -> None:
    message: dict[str, Any] = {"role": "user", "content": "hi"}
    message["self"] = message
    with pytest.raises(TokenizerError, match="holds itself"):
        say(PLAIN, [message])
    deep: Any = "hi"
    for _ in range(200):
        deep = [deep]
    assert say("{{ messages[0].role }}", [{"role": "user", "content": deep}]) == "user"


def test_threads_and_forks_share_nothing_they_should_not() -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [f"user{i}" for i in range(40)]
        assert [*pool.map(lambda name: say(PLAIN, [{"role": name, "content": "hi"}]), names)] == [
            f"{name}:hi " for name in names
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads
        child = os.fork()
    if child == 0:
        os._exit(0 if say(PLAIN) == "user:hi assistant:yes " else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert say(PLAIN) == "user:hi assistant:yes "


def test_a_process_that_ends_or_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    say(PLAIN)
    worker = chat_worker._worker
    assert worker is not None
    worker.process.kill()
    with pytest.raises(TokenizerError, match="ended with code -9"):
        say(PLAIN)
    monkeypatch.setattr(chat_worker.spawn, "get_executable", lambda: b"/nowhere/python")
    with pytest.raises(TokenizerError, match=r"cannot be started: .*'/nowhere/python'.*set_executable"):
        say(PLAIN)
    monkeypatch.setattr(chat_worker.spawn, "get_executable", lambda: b"/bin/true")
    with pytest.raises(TokenizerError, match="it did not answer"):
        say(PLAIN)
    monkeypatch.undo()
    assert say(PLAIN) == "user:hi assistant:yes "


@pytest.mark.parametrize("chat", [[], "hi", None, {"role": "user"}, ["hi"], [3]])
def test_what_is_no_conversation(chat: Any) -> None:
    with pytest.raises(TokenizerError, match=r"A (conversation|message) is"):
        say(PLAIN, chat)


def test_documents_are_mappings() -> None:
    with pytest.raises(TokenizerError, match="'title' and 'text'"):
        say(PLAIN, documents=["text"])
