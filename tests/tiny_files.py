"""Small sound files of formats that the tests damage: a wordpiece folder, a sentencepiece model, a GGUF."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np


def write_wordpiece(folder: Path, template: str) -> None:
    """A BERT tokenizer with a chat template."""
    from cutaway.tokenization.wordpiece import BertTokenizer

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "eu", "a", "##b")
    made = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, chat_template=template)
    made.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))


def sentencepiece_model(pieces: list[tuple[str, float]], algorithm: int = 1) -> bytes:
    """The bytes of a sentencepiece model with these pieces and scores; piece 0 is the unknown one."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    found = b""
    for number, (piece, score) in enumerate(pieces):
        kind = bytes([3 << 3, 2]) if number == 0 else b""
        found += field(1, field(1, piece.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + kind)
    return found + field(2, bytes([3 << 3, algorithm]))


def write_sentencepiece(folder: Path) -> None:
    """A T5 tokenizer of a few pieces."""
    folder.mkdir()
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -1.0), ("a", -2.0), ("b", -2.0), ("ab", -1.5)]
    (folder / "spiece.model").write_bytes(sentencepiece_model(pieces))
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))


def write_gguf(folder: Path) -> None:
    """A Llama of one block with a byte-level tokenizer."""
    from gguf import GGUFWriter

    from cutaway.tokenization.gguf import byte_letters

    folder.mkdir()
    tokens = ["<s>", *byte_letters().values(), "ab"]
    writer = GGUFWriter(str(folder / "model.gguf"), "llama")
    for name, value in (
        ("context_length", 32), ("embedding_length", 16), ("block_count", 1), ("feed_forward_length", 24),
        ("attention.head_count", 2), ("attention.head_count_kv", 2), ("rope.dimension_count", 8),
    ):  # fmt: skip
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    draw = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 16), "output_norm": (16,), "blk.0.attn_norm": (16,), "blk.0.ffn_norm": (16,)}
    shapes |= {f"blk.0.{name}": (16, 16) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {"blk.0.ffn_gate": (24, 16), "blk.0.ffn_up": (24, 16), "blk.0.ffn_down": (16, 24)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
