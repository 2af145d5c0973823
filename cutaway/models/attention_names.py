"""What other software calls its attention: names that a script may give, of which none changes anything here."""

from __future__ import annotations

from cutaway.errors import ConfigError

_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")


def check_attention(name: object) -> None:
    """ConfigError unless `name` is what some software calls its attention, or None."""
    base = str(name).removeprefix("paged|")
    if name is not None and base not in _ATTENTIONS and "/" not in base:  # "owner/name": kernels from the hub
        raise ConfigError(
            f'Specified `attn_implementation="{name}"` is not supported: there is one attention here, whatever it is '
            f"called; the names that are known are {', '.join(_ATTENTIONS)}."
        )
