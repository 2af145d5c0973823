"""Matrices of random blocks in every format that is read in place, without a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType

from cutaway.checkpoint.gguf_blocks import BLOCKS, StoredBlocks

KINDS = [GGMLQuantizationType(kind) for kind in BLOCKS]
# where the scales lie in a block, as half-precision numbers
_SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip


def random_blocks(kind: GGMLQuantizationType, n: int, k: int, half: int = 0, seed: int = 0) -> StoredBlocks:
    """[n, k] in blocks of any bytes, with scales about 0.01."""
    rng = np.random.default_rng(seed)
    per_block, size = BLOCKS[kind]
    if kind.name == "F32":
        data = rng.standard_normal((n, k), np.float32).view(np.uint8)
    elif kind.name == "F16":
        data = rng.standard_normal((n, k)).astype(np.float16).view(np.uint8)
    elif kind.name == "BF16":
        data = (rng.standard_normal((n, k), np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    else:
        blocks = rng.integers(0, 256, (n, k // per_block, size), np.uint8)
        for place in _SCALES[kind.name]:
            scale = (rng.uniform(0.5, 1.5, (n, k // per_block)) * 0.01).astype(np.float16)
            blocks[..., place : place + 2] = scale[..., None].view(np.uint8)
        data = blocks
    return StoredBlocks(torch.from_numpy(np.ascontiguousarray(data).reshape(n, -1)), int(kind), kind.name, k, half)


def mapped(blocks: StoredBlocks, path: Path) -> StoredBlocks:
    """The same, mapped from a file that is written at `path`."""
    path.write_bytes(bytes(100) + blocks.data.numpy().tobytes())  # not at the beginning of a page
    data = np.memmap(path, np.uint8, mode="c")[100:].view(np.ndarray)
    return replace(blocks, data=torch.from_numpy(data).view(blocks.data.shape), mapped=True)
