"""The kernels' tests run once for each set of instructions that this processor has, not only for the best."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import pytest
import torch  # noqa: F401  its OpenMP is the kernels'

from cutaway import native
from cutaway.nn import kernel_graph
from cutaway.nn.cpu import ops


def _runnable() -> dict[str, CDLL]:
    found = {} if native.LIBRARY is None else {native.NAME: native.LIBRARY}
    for name, (file, label) in native.INSTRUCTIONS.items():
        library = native.load(Path(native.__file__).with_name(file), label)[0]
        if name not in found and library is not None:
            found[name] = library
    return found


RUNNABLE = _runnable()


def use(name: str, patch: pytest.MonkeyPatch) -> None:
    """Every kernel from here on is the one for these instructions."""
    library = RUNNABLE[name]
    patch.setattr(native, "LIBRARY", library)
    patch.setattr(native, "NAME", name)
    patch.setattr(native, "BF16", bool(library.cw_bf16_supported()))
    patch.setattr(ops, "_RUN", library.cw_run)
    patch.setattr(kernel_graph, "_REPLAY", library.cw_replay)


@pytest.fixture(scope="module", params=list(RUNNABLE))
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        use(request.param, patch)
        yield request.param
