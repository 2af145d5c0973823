"""Every kind of save over an older one, with each of its system calls failing in turn: the program that a test runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from failing_disk import FULL, ONE, Disk
from tokenizers import Tokenizer, models, pre_tokenizers

import cutaway
from cutaway.errors import CheckpointError, CutawayError, HubError
from cutaway.generate.settings import GenerationConfig
from cutaway.hub.folder_save import folder_save
from cutaway.inspect.trace import trace_file
from cutaway.jobs import TASKS, Job, TableReader, TableWriter
from cutaway.nn.activations.recorder import Recorder
from cutaway.nn.kv_cache import Cache
from cutaway.train import saving
from cutaway.train.serialization import read_tensors, write_tensors

torch.set_num_threads(1)
SIZES = {"old": 12, "new": 14}


def model(which: str) -> Any:
    torch.manual_seed(SIZES[which])
    config = cutaway.GPT2Config(
        vocab_size=SIZES[which], n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=1
    )
    made = cutaway.GPT2LMHeadModel(config).eval()
    made.generation_config.max_new_tokens = SIZES[which]
    return made


def tokenizer(which: str) -> Any:
    words = {f"w{i}": i for i in range(SIZES[which])}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    template = {"default": f"{{{{ '{which}' }}}}", which: which} if which == "old" else None
    return cutaway.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", chat_template=template)


def with_adapter(which: str) -> Any:
    made = MODELS["old"]
    if getattr(made, "active_adapter", None) is None:
        made.add_adapter(cutaway.LoraConfig(r=2, target_modules=["c_attn"], lora_alpha=4))
    for name, value in made.named_parameters():
        if "lora" in name:
            value.data.fill_(SIZES[which])
    return made


def digest(tensors: dict[str, torch.Tensor]) -> str:
    told = hashlib.sha256()
    for name in sorted(tensors):
        told.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return told.hexdigest()


def read_model(folder: Path) -> Any:
    made = cutaway.GPT2LMHeadModel.from_pretrained(folder)
    return made.config.vocab_size, digest(dict(made.state_dict())), made.generation_config.max_new_tokens


def read_tokenizer(folder: Path) -> Any:
    found = cutaway.AutoTokenizer.from_pretrained(folder)
    return len(found), found.chat_template


def read_sharded(folder: Path) -> Any:
    return read_model(folder)


def save_both(which: str, folder: Path) -> None:
    with folder_save(folder) as save:
        MODELS[which].save_pretrained(save.aside)
        TOKENIZERS[which].save_pretrained(save.aside)


def save_sharded(which: str, folder: Path) -> None:
    MODELS[which].save_pretrained(folder, max_shard_size="1KB" if which == "new" else "5GB")


def save_single(which: str, folder: Path) -> None:
    MODELS[which].save_pretrained(folder, max_shard_size="1KB" if which == "old" else "5GB")


def save_adapter(which: str, folder: Path) -> None:
    with_adapter(which).save_adapter(folder)


def read_adapter(folder: Path) -> Any:
    fields = json.loads((folder / "adapter_config.json").read_text())
    return fields["r"], digest(read_tensors(folder / "adapter_model.safetensors"))


def save_cache(which: str, folder: Path) -> None:
    CACHES[which].save(folder / "cache.safetensors")


def read_cache(folder: Path) -> Any:
    return Cache.load(folder / "cache.safetensors").longest


def save_trace(which: str, folder: Path) -> None:
    array = torch.full((4, 4), float(SIZES[which])).numpy()
    trace_file.write(folder / "run.trace", {"which": which}, {"a": array}, {})


def read_trace(folder: Path) -> Any:
    tree, arrays, _ = trace_file.read(folder / "run.trace")
    return tree["which"], float(arrays["a"][0, 0])


def save_checkpoint(which: str, folder: Path) -> None:
    def fill(aside: Path) -> None:
        save_both(which, aside)
        write_tensors(aside / "training.safetensors", {"x": torch.ones(SIZES[which])})

    saving.sweep(folder)
    saving.write(folder, 1, fill)


def read_checkpoint(folder: Path) -> Any:
    found, _ = saving.newest(folder)
    assert found is not None
    return read_model(found), read_tokenizer(found)


def record(which: str, folder: Path) -> None:
    if which == "old":  # a recording never goes over another one
        return
    if (folder / "r").exists():
        shutil.rmtree(folder / "r")
    with MODELS["new"].record("blocks.0.resid", to=folder / "r"):
        MODELS["new"](torch.tensor([[1, 2, 3]]))
        MODELS["new"](torch.tensor([[1, 2]]))


def read_recording(folder: Path) -> Any:
    try:
        return [list(run["blocks.0.resid"].shape) for run in Recorder.load(folder / "r").runs]
    except CheckpointError:
        return None


def label(texts: list[str], **settings: Any) -> Any:
    return [[{"label": text, "score": 0.5}] for text in texts]


def table(ending: str) -> Callable[[str, Path], None]:
    def save(which: str, folder: Path) -> None:
        if which == "old":
            (folder / "in.txt").write_text("".join(f"{i}\n" for i in range(10)))
            return
        with TableWriter(folder / f"out{ending}", {}) as writer:
            Job(label, replace(TASKS["text-classification"], at_once=4)).run(TableReader(folder / "in.txt"), writer)

    return save


def read_table(ending: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        path = folder / f"out{ending}"
        return [row.values["label"] for row in TableReader(path).rows()] if path.exists() else None

    return read


MODELS = {which: model(which) for which in SIZES}
TOKENIZERS = {which: tokenizer(which) for which in SIZES}
CACHES = {w: MODELS[w](torch.ones(1, n, dtype=torch.int64), use_cache=True).past_key_values
          for w, n in (("old", 3), ("new", 5))}  # fmt: skip
KINDS: dict[str, tuple[Callable[[str, Path], None], Callable[[Path], Any]]] = {
    "model, one file over shards": (save_single, read_model),
    "model, shards over one file": (save_sharded, read_model),
    "model and tokenizer": (save_both, lambda folder: (read_model(folder), read_tokenizer(folder))),
    "tokenizer": (lambda which, folder: TOKENIZERS[which].save_pretrained(folder), read_tokenizer),
    "config": (
        lambda which, folder: MODELS[which].config.save_pretrained(folder),
        lambda folder: cutaway.AutoConfig.from_pretrained(folder).vocab_size,
    ),
    "generation config": (
        lambda which, folder: MODELS[which].generation_config.save_pretrained(folder),
        lambda folder: GenerationConfig.from_pretrained(folder).max_new_tokens,
    ),
    "cache": (save_cache, read_cache),
    "trace": (save_trace, read_trace),
    "recording": (record, read_recording),
    "checkpoint of a training": (save_checkpoint, read_checkpoint),
    "adapter": (save_adapter, read_adapter),
    "table, csv": (table(".csv"), read_table(".csv")),
    "table, parquet": (table(".parquet"), read_table(".parquet")),
}


def prepared(kind: str, pristine: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(pristine, folder)


def check(kind: str, root: Path, stride: int) -> str:
    """Old or new after each call that fails (each rename, of others one in `stride`); new after the next save."""
    save, read = KINDS[kind]
    disk, folder, pristine = Disk(), root / "folder", root / "pristine"
    if kind == "adapter":
        with_adapter("old")
    pristine.mkdir()
    save("old", pristine)
    old = read(pristine)
    prepared(kind, pristine, folder)
    calls, renames = disk.calls(lambda: save("new", folder))
    new, whole = read(folder), sorted(p.name for p in folder.rglob("*"))
    assert old != new, kind
    seen = {"old": 0, "new": 0}
    for how in (ONE, FULL, None):
        for at in range(1, calls + 1):
            if at % stride and not (at in renames and how is not FULL):
                continue
            prepared(kind, pristine, folder)
            at_fault = f"{kind}, call {at} of {calls}, {how}"
            if how is None:
                assert disk.killed(at, lambda: save("new", folder)), at_fault
                error: Exception | None = None
            else:
                error = disk.failing(how, at, lambda: save("new", folder))
                assert error is None or isinstance(error, (OSError, CutawayError)), (at_fault, repr(error))
            try:
                found = read(folder)
            except (CutawayError, HubError) as unreadable:
                raise AssertionError(f"{at_fault}: it does not load: {unreadable}") from unreadable
            assert found in (old, new), f"{at_fault}: a mix: {found}"
            assert how is None or error is not None or found == new, f"{at_fault}: old without an error"
            seen["new" if found == new else "old"] += 1
            if how is not None and at % 4:
                continue
            try:
                save("new", folder)
            except CutawayError as unfinished:  # a table that is there is not written again
                if "exists" not in str(unfinished):
                    raise
            assert read(folder) == new, at_fault
            left = sorted(p.name for p in folder.rglob("*"))
            assert left == whole, f"{at_fault}: left behind: {set(left) ^ set(whole)}"
    return f"{kind}: {calls} calls, {seen}"


if __name__ == "__main__":
    for kind in KINDS:
        if len(sys.argv) > 3 and kind != sys.argv[3]:
            continue
        root = Path(sys.argv[1]) / kind.replace(" ", "-").replace(",", "")
        root.mkdir()
        print(check(kind, root, int(sys.argv[2])), flush=True)
