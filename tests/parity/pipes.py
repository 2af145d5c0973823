"""What the parity tests of the pipelines share: upstream's pipeline on the same folder, and equality in form."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# tests/tiny.py, the maker of whole checkpoints; in this folder `tiny` is another file
_spec = importlib.util.spec_from_file_location("checkpoints", Path(__file__).parent.parent / "tiny.py")
assert _spec is not None and _spec.loader is not None
checkpoints = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(checkpoints)


def upstream(task: str, folder: Any, **settings: Any) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.pipeline(task, model=str(folder), device="cpu", **settings)


def same(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Equal in form, texts and whole numbers; other numbers to `tolerance`."""
    if isinstance(theirs, torch.Tensor):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key], tolerance)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b, tolerance)
    elif isinstance(theirs, float | np.floating):
        assert isinstance(ours, float)
        assert ours == pytest.approx(float(theirs), abs=tolerance, rel=tolerance)
    else:
        assert ours == theirs
