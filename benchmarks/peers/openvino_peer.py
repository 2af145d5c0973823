"""OpenVINO on the CPU, fp32 or bf16."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.batches import Tokens, sorted_vectors
from peers.onnx_export import exported, named


class Encoder:
    """A compiled model over the exported file, tuned for throughput on the given threads."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import openvino

        self.version = openvino.__version__.split("-")[0]
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",  # one request at a time with every thread, as all others are measured
        }
        self.model = openvino.Core().compile_model(exported(folder, build), "CPU", settings)
        self.tokens = Tokens(folder)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        states: np.ndarray = self.model(named(ids, mask))[0]
        return states

    def vectors(self, texts: list[str]) -> np.ndarray:
        return sorted_vectors(self.tokens, texts, self.run)
