"""llama.cpp through llama-cpp-python, on a GGUF file as it is."""

from __future__ import annotations

from pathlib import Path

from peers.memory import resident_megabytes

MOST = 8  # sequences at a time


class Decoder:
    """Greedy continuation of one prompt at a time; `precision` is the name of the file's own quantization."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import llama_cpp

        self.version = llama_cpp.__version__
        self.before = resident_megabytes()
        options = {"n_ctx": 2048, "n_threads": threads, "n_threads_batch": threads, "verbose": False}
        self.model = llama_cpp.Llama(str(folder), **options)

    def continued(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            self.model.reset()
            tokens = self.model.generate(prompt, temp=0.0, repeat_penalty=1.0, top_k=1)
            answers.append([next(tokens) for _ in range(new)])
        return answers

    def prompt(self, ids: list[int]) -> list[float]:
        """The logits after a prompt."""
        self.model.reset()
        self.model.eval(ids)
        logits: list[float] = self.model._ctx.get_logits_ith(-1)[: self.model.n_vocab()]
        return logits

    def memory(self) -> float:
        """MB above what the imports took."""
        return resident_megabytes() - self.before


class Batched:
    """Several prompts of one length at a time: one batch a step, a sequence of the cache each."""

    def __init__(self, folder: Path, precision: str, threads: int, build: Path) -> None:
        import llama_cpp

        self.version = llama_cpp.__version__
        self.cpp = llama_cpp
        options = {"n_ctx": 2048 * MOST, "n_seq_max": MOST, "n_threads": threads, "n_threads_batch": threads}
        model = llama_cpp.llama_model_default_params()
        context = llama_cpp.llama_context_default_params()
        for name, value in options.items():
            setattr(context, name, value)
        self.model = llama_cpp.llama_model_load_from_file(str(folder).encode(), model)
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(2048, 0, 1)

    def step(self, rows: list[list[int]], at: int) -> list[int]:
        """One pass over the next tokens of each sequence, from place `at` on; the likeliest token after each."""
        import numpy as np

        batch, last = self.batch, []
        batch.n_tokens = sum(map(len, rows))
        i = 0
        for sequence, row in enumerate(rows):
            for j, token in enumerate(row):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, at + j, 1
                batch.seq_id[i][0], batch.logits[i] = sequence, j == len(row) - 1
                i += 1
            last.append(i - 1)
        if self.cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        logits = (self.cpp.llama_get_logits_ith(self.context, i) for i in last)
        return [int(np.ctypeslib.as_array(row, (self.size,)).argmax()) for row in logits]

    def continued(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        self.cpp.llama_memory_clear(self.cpp.llama_get_memory(self.context), True)
        tokens = self.step(prompts, 0)
        answers = [[token] for token in tokens]
        for at in range(len(prompts[0]), len(prompts[0]) + new - 1):
            tokens = self.step([[token] for token in tokens], at)
            for answer, token in zip(answers, tokens, strict=True):
                answer.append(token)
        return answers
