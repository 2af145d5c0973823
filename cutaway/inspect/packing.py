"""Many numbers in little text: whole steps of one size, deflated, as base64.

A page of 12 layers x 12 heads x 512 tokens holds 38 million weights. Steps of one size, with a code that is shorter for
the frequent (small) ones, lose least for their size; the step is the finest that fits, and what it costs is stated.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from cutaway.inspect.measures import Array

LEVELS = (65535, 16383, 4095, 2895, 2047, 1447, 1023, 723, 511, 361, 255, 181, 127, 90, 63)


def pack(values: Array, budget: float) -> dict[str, Any]:
    """Numbers from 0 up, as text of at most `budget` characters if the coarsest step allows it.

    Returns:
        shape; `step`, the size of a step, so that value = code * step; `error`, the largest difference from the true
        values; `bytes`, the low and (where a code needs it) the high bytes of the codes, each deflated (zlib) and in
        base64.
    """
    values = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = max(float(values.max(initial=0.0)), 1e-30)
    for levels in LEVELS:
        codes = np.rint(np.clip(values, 0, None) * np.float32(levels / top)).astype(np.uint16)
        if levels != LEVELS[-1] and _estimate(codes) > budget:
            continue
        planes = [codes.astype(np.uint8)] + ([(codes >> 8).astype(np.uint8)] if levels > 255 else [])
        texts = [base64.b64encode(zlib.compress(plane.tobytes(), 4)).decode() for plane in planes]
        if sum(map(len, texts)) <= budget or levels == LEVELS[-1]:
            break
    step = top / levels
    return {
        "shape": list(values.shape),
        "step": step,
        "error": float(np.abs(codes * np.float32(step) - values).max(initial=0.0)),
        "bytes": texts,
    }


def _estimate(codes: np.ndarray[Any, np.dtype[np.uint16]]) -> float:
    """Characters that no code of single values goes below: their entropy, or (runs of zeros) somewhat less."""
    counts = np.bincount(codes.ravel())
    shares = counts[counts > 0] / max(codes.size, 1)
    return float(-(shares * np.log2(shares)).sum()) * codes.size / 8 * 4 / 3 * 0.8
