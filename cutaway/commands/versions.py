"""What `cutaway --version` says: what a report of a fault must name."""

from __future__ import annotations

import platform

from cutaway import __version__


def versions() -> list[str]:
    """Lines with the versions of cutaway, Python and torch, and the kernels that run here."""
    lines = [f"cutaway {__version__}", f"python {platform.python_version()}"]
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries is missing
        return [
            *lines,
            f"torch cannot be imported: {' '.join(str(error).split())}",
            "kernels: none (they need torch's threads)",
        ]
    from cutaway import native  # after torch, whose OpenMP it takes

    return [*lines, f"torch {torch.__version__}", f"kernels: {native.description()}"]
