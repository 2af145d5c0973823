"""ONNX Runtime: fp32 with all graph optimizations, and int8 by its dynamic quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.batches import Tokens, sorted_vectors
from peers.onnx_export import exported, named


class Encoder:
    """A session over the exported file."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        file = exported(folder, build)
        if precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            plain, file = file, file.with_suffix(".int8.onnx")
            if not file.exists():
                quantize_dynamic(plain, file, per_channel=True, weight_type=QuantType.QInt8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.tokens = Tokens(folder)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        states: np.ndarray = self.session.run(None, named(ids, mask))[0]
        return states

    def vectors(self, texts: list[str]) -> np.ndarray:
        return sorted_vectors(self.tokens, texts, self.run)
