"""transformers, three ways: its pipeline, the model on batches sorted by length, and `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from peers.batches import LONGEST, Tokens, sorted_vectors


def dtype(precision: str) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


class Pipeline:
    """`pipeline("feature-extraction")`, batches in the order given, then the mean over real tokens."""

    batch = 32

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.version = transformers.__version__
        self.pipe = transformers.pipeline("feature-extraction", model=str(folder), dtype=dtype(precision), device="cpu")
        self.tokens = Tokens(folder)

    def vectors(self, texts: list[str]) -> np.ndarray:
        options = {"tokenize_kwargs": {"truncation": True, "max_length": LONGEST}, "return_tensors": True}
        lengths = [len(ids) for ids in self.tokens.ids(texts)]  # its answer is padded and carries no mask
        states = self.pipe(texts, batch_size=self.batch, **options)
        return np.stack([s.float().numpy()[0, :n].mean(axis=0) for s, n in zip(states, lengths, strict=True)])


class PipelineOneByOne(Pipeline):
    """The same without batches."""

    batch = 1


class Encoder:
    """`AutoModel` on padded batches of texts of like length."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.version = transformers.__version__
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=dtype(precision)).eval()
        self.tokens = Tokens(folder)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            out = self.model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        states: np.ndarray = out.last_hidden_state.float().numpy()
        return states

    def vectors(self, texts: list[str]) -> np.ndarray:
        return sorted_vectors(self.tokens, texts, self.run)


class Decoder:
    """`model.generate`, greedy."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.version = transformers.__version__
        where: dict[str, Any] = {}
        if folder.is_file():
            folder, where["gguf_file"] = folder.parent, folder.name
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype(precision), **where).eval()

    def continued(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        import torch

        ids = torch.tensor(prompts)
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        answers: list[list[int]] = out[:, ids.shape[1] :].tolist()
        return answers

    def prompt(self, ids: list[int]) -> list[float]:
        """The logits after a prompt, of a cache that is filled."""
        import torch

        with torch.inference_mode():
            out = self.model(input_ids=torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        logits: list[float] = out.logits[0, -1].float().tolist()
        return logits


class Translator:
    """`model.generate` of an encoder-decoder: source ids [texts][length], greedy or by beams."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.version = transformers.__version__
        load = transformers.AutoModelForSeq2SeqLM.from_pretrained
        self.model = load(folder, dtype=dtype(precision)).eval()

    def translated(self, sources: list[list[int]], new: int, beams: int) -> list[list[int]]:
        import torch

        ids = torch.tensor(sources)
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "num_beams": beams}
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        answers: list[list[int]] = out[:, 1:].tolist()
        return answers
