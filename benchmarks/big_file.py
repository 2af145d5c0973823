"""A file shaped like Llama 2 with 7 billion weights in Q4_0 (3.8 GB, random blocks), loaded and asked for a few tokens.

    python benchmarks/big_file.py FILE.gguf [--threads 2] [--new 8]

FILE is written where it is not there yet; delete it afterwards. Memory and rates are printed for cutaway and, where
llama-cpp-python is installed, for llama.cpp, each in a process of its own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from decoder import LLAMA_CPP, OURS, prompts
from process import Entry, Worker

WIDTH, INNER, WORDS, BLOCKS, HEADS = 4096, 11_008, 32_000, 32, 32
SCALE = np.float16(0.004)  # of every block: numbers have a standard deviation of 0.018


def matrices() -> dict[str, tuple[int, int]]:
    """Rows and inputs by name, in the order of the file."""
    shapes = {"token_embd": (WORDS, WIDTH), "output": (WORDS, WIDTH)}
    for i in range(BLOCKS):
        shapes |= {f"blk.{i}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")}
        shapes[f"blk.{i}.ffn_down"] = (WIDTH, INNER)
    return {f"{name}.weight": shape for name, shape in shapes.items()}


def random_blocks(draw: np.random.Generator, rows: int, inputs: int) -> np.ndarray:
    """[rows, bytes of a row] in Q4_0: a scale of 16 bits and 32 numbers of 4 bits in each 18 bytes."""
    blocks = np.empty((rows, inputs // 32, 18), np.uint8)
    blocks[:, :, :2] = np.frombuffer(SCALE.tobytes(), np.uint8)
    blocks[:, :, 2:] = np.frombuffer(draw.bytes(rows * inputs // 2), np.uint8).reshape(rows, -1, 16)
    flat: np.ndarray = blocks.reshape(rows, -1)
    return flat


def write(path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    aside = path.with_suffix(".part")
    writer = GGUFWriter(aside, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(2)
    writer.add_quantization_version(2)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *(f"▁w{i}" for i in range(WORDS - 259))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(i) for i in range(WORDS)])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (WORDS - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    norms = ["output_norm.weight"] + [f"blk.{i}.{part}_norm.weight" for i in range(BLOCKS) for part in ("attn", "ffn")]
    kind = GGMLQuantizationType.Q4_0
    for name, (rows, inputs) in matrices().items():
        size = inputs // 32 * 18
        writer.add_tensor_info(name, (rows, size), np.dtype(np.uint8), rows * size, raw_dtype=kind)
    for name in norms:
        writer.add_tensor_info(name, (WIDTH,), np.dtype(np.float32), WIDTH * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    draw = np.random.default_rng(0)
    for rows, inputs in matrices().values():
        writer.write_tensor_data(random_blocks(draw, rows, inputs))
    for _ in norms:
        writer.write_tensor_data(np.ones(WIDTH, np.float32))
    writer.close()
    aside.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--new", type=int, default=8, help="tokens that are written after the first")
    options = parser.parse_args()
    file: Path = options.file.resolve()
    if not file.exists():
        write(file)
    print(f"{file.name}: {file.stat().st_size / 1e6:,.0f} MB")
    ids = prompts(1, WORDS)
    for entry in (Entry("cutaway", OURS, "blocks"), Entry("llama.cpp", LLAMA_CPP, "q4_0")):
        try:
            worker = Worker(entry, file, options.threads)
        except RuntimeError as error:
            print(f"left out: {error}")
            continue
        first = worker.ask("continued", ids, 1)["seconds"]
        seconds = worker.ask("continued", ids, 1 + options.new)["seconds"] - worker.ask("continued", ids, 1)["seconds"]
        memory = float(worker.result("memory"))
        print(
            f"{entry.name}: loaded after {worker.start['seconds']:.1f} s, first token after {first:.1f} s more, "
            f"{options.new / seconds:.2f} tokens a second, {memory:,.0f} MB above imports"
        )
        worker.close()


if __name__ == "__main__":
    main()
