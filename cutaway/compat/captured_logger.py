"""`testing_utils.CaptureLogger`: what a logger said inside a block. Example scripts use it to drop one warning."""

from __future__ import annotations

import io
import logging
from types import TracebackType


class CaptureLogger:
    """The messages of a logger inside a `with` block are in `.out`, as one text.

    Args:
        logger: a `logging.Logger`.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.io = io.StringIO()
        self.sh = logging.StreamHandler(self.io)
        self.out = ""

    def __enter__(self) -> CaptureLogger:
        self.logger.addHandler(self.sh)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.logger.removeHandler(self.sh)
        self.out = self.io.getvalue()

    def __repr__(self) -> str:
        return f"captured: {self.out}\n"
