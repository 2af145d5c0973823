"""Damage to sound files of every format, by hand: `PYTHONPATH=.:tests python -m bad_input.damage 5000`.

Each file is read as a user would read it. What came of it is counted: read, or refused with an error of cutaway's. An
error of another library, more than 1.5 s of the processor or more than 300 MB is printed and ends in exit code 1. The
same number (`--seed`) gives the same damage.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bad_input.case import SIZES
from bad_input.run import kilobytes
from cutaway import auto
from cutaway.errors import CutawayError
from cutaway.generate.settings import GenerationConfig
from cutaway.nn.activations.recorder import Recorder
from cutaway.nn.kv_cache import Cache
from cutaway.nn.lora_config import LoraConfig
from cutaway.pipelines.sentence_modules import cross_encoder, sentence_modules
from cutaway.tokenization.registry import load_tokenizer

SECONDS, MEGABYTES = 1.5, 300
IDS = torch.tensor([[3, 4, 5]])
CHAT = [{"role": "user", "content": "the eu"}]
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}{{ range(3) | join(',') }}"
SNIPPETS = (
    b"1e999", b"-1", b"9" * 25, b"[]", b"{}", b"null", b"true", b'"x"', b'"\\ud800"', b"[[[[1]]]]", b"\0\0\0\0",
    b"\xff\xff\xff\xff",    b",", b'":', b"NaN", b"{{ m }}", b"{% for i in range(9) %}",
)  # fmt: skip


def run(folder: Path) -> None:
    """A model of the folder, once."""
    model = auto.AutoModel.from_pretrained(folder)
    inputs: dict[str, Any] = {"decoder_input_ids": IDS} if model.is_encoder_decoder else {}
    with torch.no_grad():
        model(IDS, **inputs)


def adapted(folder: Path) -> None:
    auto.AutoModel.from_pretrained(folder).load_adapter(folder / "adapter")


def gguf(folder: Path) -> None:
    auto.AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf")
    load_tokenizer(folder, gguf_file="model.gguf")("ab 12")


def recorded(folder: Path) -> None:
    for values in Recorder.load(folder / "recording").runs:
        for address in values:
            values[address]


def modules(folder: Path) -> None:
    sentence_modules(str(folder))
    cross_encoder(str(folder))


def chat(folder: Path) -> None:
    load_tokenizer(folder).apply_chat_template(CHAT)


def sound(folder: Path) -> dict[str, tuple[Path, list[str], Callable[[Path], object]]]:
    """{format: (folder, files that are damaged, how they are read)}."""
    from tiny_files import write_gguf, write_sentencepiece, write_wordpiece

    found: dict[str, tuple[Path, list[str], Callable[[Path], object]]] = {}
    for family in ("bert", "gpt2", "llama", "t5", "bart"):
        made = auto.AutoModel.from_config(auto.config_class(family)(**SIZES[family])).eval()
        made.save_pretrained(folder / family)
        found[f"{family}: config.json"] = (folder / family, ["config.json"], run)
        found[f"{family}: safetensors"] = (folder / family, ["model.safetensors"], run)
    pickled = folder / "pickled"
    made = auto.AutoModel.from_config(auto.config_class("bert")(**SIZES["bert"])).eval()
    made.save_pretrained(pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(load_file(folder / "bert" / "model.safetensors"), pickled / "pytorch_model.bin")
    found["pytorch_model.bin"] = (pickled, ["pytorch_model.bin"], run)
    made.add_adapter(LoraConfig(r=2))
    made.save_pretrained(folder / "bert" / "base")
    made.save_adapter(folder / "bert" / "adapter")
    files = [f"adapter/{p.name}" for p in sorted((folder / "bert" / "adapter").iterdir())]
    found["adapter"] = (folder / "bert", files, adapted)
    decoder = auto.AutoModel.from_pretrained(folder / "gpt2")
    with torch.no_grad():
        decoder(IDS, use_cache=True).past_key_values.save(folder / "gpt2" / "cache.safetensors")
        with decoder.record("blocks.*.attn.pattern", to=folder / "gpt2" / "recording"):
            decoder(IDS)
    found["cache"] = (folder / "gpt2", ["cache.safetensors"], lambda f: Cache.load(f / "cache.safetensors"))
    files = [f"recording/{p.name}" for p in sorted((folder / "gpt2" / "recording").iterdir())]
    found["recording"] = (folder / "gpt2", files, recorded)
    (folder / "gpt2" / "generation_config.json").write_text(json.dumps({"max_length": 9, "top_k": 3, "num_beams": 2}))
    found["generation_config.json"] = (folder / "gpt2", ["generation_config.json"], GenerationConfig.from_pretrained)
    write_wordpiece(folder / "words", TEMPLATE)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        found[name] = (folder / "words", [name], chat)
    found["chat_template.jinja"] = (folder / "words", ["chat_template.jinja"], chat)
    write_sentencepiece(folder / "pieces")
    found["sentencepiece"] = (folder / "pieces", ["spiece.model"], lambda f: load_tokenizer(f)("ab"))
    found["merges from sentencepiece"] = (folder / "llama", ["tokenizer.model"], lambda f: load_tokenizer(f)("ab"))
    (folder / "llama" / "tokenizer.model").write_bytes((folder / "pieces" / "spiece.model").read_bytes())
    write_gguf(folder / "quantized")
    found["GGUF"] = (folder / "quantized", ["model.gguf"], gguf)
    sentence = folder / "sentence"
    sentence.mkdir()
    for name, fields in {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "x.Transformer"},
                         {"idx": 1, "name": "1", "path": "1_Pooling", "type": "x.Pooling"}],
        "sentence_bert_config.json": {"max_seq_length": 20, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"q": "a"}, "default_prompt_name": "q", "similarity_fn_name": "dot"
        },
        "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": True},
        "config.json": {"model_type": "bert"},
    }.items():  # fmt: skip
        (sentence / name).parent.mkdir(exist_ok=True)
        (sentence / name).write_text(json.dumps(fields))
        if name != "config.json":
            found[f"sentence-transformers: {name}"] = (sentence, [name], modules)
    return found


def damage(draw: random.Random, content: bytes) -> bytes:
    """Bytes changed, taken out or put in, or the end cut off."""
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(made) + 1) if draw.random() < 0.5 else draw.randrange(min(len(made), 400) + 1)
        kind = draw.randrange(5)
        if kind == 0 and place < len(made):
            made[place] = draw.randrange(256)
        elif kind == 1:
            made[place:place] = draw.choice(SNIPPETS)
        elif kind == 2:
            del made[place : place + draw.randint(1, 30)]
        elif kind == 3:
            made[place : place + 4] = draw.choice(SNIPPETS)
        elif draw.random() < 0.3:
            del made[place:]
    return bytes(made)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    torch.manual_seed(0)
    counts: Counter[str] = Counter()
    wrong, longest, largest = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as name:
        formats = sound(Path(name))
        for folder, _, read in formats.values():
            read(folder)  # sound as they are, and every import is done
        for number in range(asked.count):
            kind = list(formats)[number % len(formats)]
            folder, files, read = formats[kind]
            path = folder / draw.choice(files)
            content = path.read_bytes()
            path.write_bytes(damage(draw, content))
            Path("/proc/self/clear_refs").write_text("5")
            before, start, error = kilobytes("VmRSS"), time.process_time(), None
            try:
                read(folder)
            except KeyboardInterrupt:
                raise
            except BaseException as raised:
                error = raised
            seconds, grown = time.process_time() - start, (kilobytes("VmHWM") - before) / 1024
            path.write_bytes(content)
            longest, largest = max(longest, seconds), max(largest, grown)
            own = error is None or isinstance(error, CutawayError)
            counts["read" if error is None else "refused" if own else "an error of another library"] += 1
            if not own or seconds > SECONDS or grown > MEGABYTES:
                wrong += 1
                cost = f"{seconds:.2f} s, {grown:.0f} MB"
                print(f"{kind} {path.name} {number}: {cost}, {type(error).__name__}: {error!s:.300}")
    print(
        f"{asked.count} files of {len(formats)} formats: {dict(counts)}; at most {longest:.2f} s and {largest:.0f} MB"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
