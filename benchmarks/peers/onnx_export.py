"""The ONNX file that ONNX Runtime and OpenVINO read, written once for each model by torch.onnx."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np


def exported(folder: Path, build: Path) -> Path:
    """The file for the encoder in `folder`: input_ids, attention_mask int64 [B, L] -> states [B, L, H]."""
    file = build / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}.onnx"
    if not file.exists():
        write(folder, file)
    return file


def write(folder: Path, file: Path) -> None:
    import torch
    import transformers

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            types = torch.zeros_like(input_ids)
            states: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids=types, return_dict=False)[0]
            return states

    ids = torch.randint(5, 999, (3, 20))
    axes = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=2, max=512)}
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".part")
    torch.onnx.export(
        States(),
        (ids, torch.ones_like(ids)),
        aside,
        dynamo=True,
        dynamic_shapes=(axes, axes),
        input_names=["input_ids", "attention_mask"],
        output_names=["states"],
        external_data=False,
        verbose=False,
    )
    aside.rename(file)


def named(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"input_ids": ids, "attention_mask": mask}
