"""llama.cpp through llama-cpp-python, on a GGUF file as it is."""

from __future__ import annotations

from pathlib import Path


class Decoder:
    """Greedy continuation of one prompt at a time; `precision` is the name of the file's own quantization."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import llama_cpp

        self.version = llama_cpp.__version__
        options = {"n_ctx": 2048, "n_threads": threads, "n_threads_batch": threads, "verbose": False}
        self.model = llama_cpp.Llama(str(folder), **options)

    def continued(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            self.model.reset()
            tokens = self.model.generate(prompt, temp=0.0, repeat_penalty=1.0, top_k=1)
            answers.append([next(tokens) for _ in range(new)])
        return answers
