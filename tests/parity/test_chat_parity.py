"""Chat templates give what transformers makes of them."""

from __future__ import annotations

from typing import Any

from tokenizer_strings import Pair, padded

TOOL_TEMPLATE = """{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message['content'] | trim }}{% if
message.reasoning_content is defined %}({{ message.reasoning_content }}){% endif %}{% if message.role == 'assistant' %}
{% generation %}{{ message.content }}{% endgeneration %}{% endif %}{{ eos_token }}{% endfor %}{% if tools %}
{{ tools | tojson(indent=2) }}{% endif %}{% for d in documents or [] %}{{ d.title }}{% endfor %}{% if
add_generation_prompt %}[assistant]{% endif %}{{ extra | default('') }}"""


def weather(city: str, days: int = 3, unit: str | None = None, kinds: list[str] | None = None) -> dict[str, float]:
    """
    Tell the weather.

    In any city.

    Args:
        city: The name of the city,
            in English
        days: How far ahead
        unit: celsius or fahrenheit (choices: ["celsius", "fahrenheit"])
        kinds: What to tell

    Returns:
        The temperature of each day
    """
    return {city: float(days)}


CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello, who are you?"}],
    [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": "Is 2 < 3?\nIs it?", "name": None},
        {"role": "assistant", "content": "Yes, <b>it is</b> ✓.", "thinking": "simple"},
    ],
]


def test_chat_templates(both: Pair) -> None:
    ours, theirs = padded(both)
    for template in (None if ours.chat_template else TOOL_TEMPLATE, TOOL_TEMPLATE):
        for how in (
            {},
            {"tokenize": False},
            {"tokenize": False, "add_generation_prompt": True},
            {"return_dict": False},
            {"tools": [weather], "tokenize": False},
            {"tools": [weather, {"type": "function"}], "documents": [{"title": "t", "text": "x"}], "extra": "<end>"},
        ):
            for chat in (*CHATS, CHATS):
                mine = ours.apply_chat_template(chat, chat_template=template, **how)
                other = theirs.apply_chat_template(chat, chat_template=template, **how)
                assert (dict(mine) if hasattr(mine, "keys") else mine) == (
                    dict(other) if hasattr(other, "keys") else other
                )
        for name in ("content", "thinking"):
            if template is None and name == "thinking":
                continue
            how = {"chat_template": template, "tokenize": False, "continue_final_message": name}
            if name == "content" and template is not None:
                continue  # this template writes the message twice, so it has no one place to go on at
            assert ours.apply_chat_template(CHATS[1], **how) == theirs.apply_chat_template(CHATS[1], **how)
    mask: dict[str, Any] = {"return_assistant_tokens_mask": True, "chat_template": TOOL_TEMPLATE}
    mine, other = ours.apply_chat_template(CHATS[1], **mask), theirs.apply_chat_template(CHATS[1], **mask)
    assert mine["input_ids"] == other["input_ids"]
    assert sum(mine["assistant_masks"]) > 2
    tensors: dict[str, Any] = {"return_tensors": "pt", "padding": True, "chat_template": TOOL_TEMPLATE}
    mine, other = ours.apply_chat_template(CHATS, **tensors), theirs.apply_chat_template(CHATS, **tensors)
    assert bool((mine["input_ids"] == other["input_ids"]).all())
