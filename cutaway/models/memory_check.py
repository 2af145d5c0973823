"""Whether a model fits into this machine, known before anything of it is built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cutaway.config.architecture import Architecture, Distances, DistanceWaves, Relative, Stack
from cutaway.errors import ConfigError

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

# where a container's bound is written, in bytes or "max"
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def parameter_count(architecture: Architecture) -> int:
    """The numbers in the matrices of a base model; biases and norms, under a hundredth of them, are left out."""
    stack, decoder = architecture.stack, architecture.decoder
    count = _stack_count(stack) + stack.embedding.vocab_size * stack.width
    if architecture.pooler:
        count += stack.hidden_size**2
    if decoder is None:
        return count
    own_table = 0 if architecture.shared_tokens else decoder.embedding.vocab_size * decoder.width
    return count + _stack_count(decoder) + own_table


def _stack_count(stack: Stack) -> int:
    """All but the table of tokens, which two stacks may share."""
    width, attention, mlp = stack.hidden_size, stack.attention, stack.feed_forward
    attended = 2 * width * attention.head_size * (attention.n_heads + attention.n_kv_heads)
    block = attended * (2 if stack.cross else 1) + width * mlp.width * (3 if mlp.gated else 2)
    learned, relative = stack.embedding.positions, stack.positions
    rows = (0 if learned is None or learned.endless else learned.size) + stack.embedding.n_types
    buckets = 0
    if isinstance(relative, Relative):
        buckets = relative.buckets * attention.n_heads * (stack.n_blocks if relative.per_layer else 1)
    distances = attention.distances
    if isinstance(distances, DistanceWaves):
        block += width * attention.head_size * attention.n_heads
    elif isinstance(distances, Distances):
        rows_of_own = 0 if distances.shared else distances.to_keys + distances.to_queries
        block += rows_of_own * width * attention.head_size * attention.n_heads
        buckets += 2 * distances.span * width
    if stack.convolution is not None:
        buckets += width * width * stack.convolution.size // stack.convolution.groups
    leading = 0 if stack.embedding.width is None else width * stack.width * (1 + stack.projects_out)
    return stack.n_blocks * block + rows * stack.width + leading + buckets


def machine_memory() -> int:
    """Bytes of memory that this process can have: the machine's, or less in a container."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 62
    for limit in _LIMITS:
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            memory = min(memory, int(text))
    return memory


def check_memory(config: PretrainedConfig, count: int, itemsize: int | None = None) -> None:
    """ConfigError where `count` numbers, of the default dtype or of `itemsize` bytes, are more than the memory holds.

    Nothing is checked where layers are laid out on the meta device, or built on another device than the CPU.
    """
    if torch.get_default_device().type != "cpu":
        return
    needed = count * (torch.get_default_dtype().itemsize if itemsize is None else itemsize)
    if needed > (there := machine_memory()):
        sizes = {
            name: value
            for name, value in config.to_dict().items()
            if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_id")
        }
        sizes["num_labels"] = config.num_labels
        largest = ", ".join(f"{n} = {sizes[n]:,}" for n in sorted(sizes, key=lambda n: -sizes[n])[:5])
        raise ConfigError(
            f"The config asks for new weights of {needed / 1e9:,.0f} GB, but the machine has {there / 1e9:,.0f} GB of "
            f"memory. Its largest sizes are {largest}; make them smaller."
        )
