"""Named tensors from a checkpoint's files, whatever their format, and back to safetensors.

Tensors are memory-mapped and keep their stored dtype; nothing is read before it is asked for, and every size that a
file declares is checked before memory is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import torch

from cutaway.checkpoint.gguf_blocks import StoredBlocks
from cutaway.checkpoint.safetensors import SafetensorsFile
from cutaway.checkpoint.torch_pickle import TorchFile
from cutaway.errors import CheckpointError, HubError, nearest
from cutaway.hub.files import Files, inside
from cutaway.hub.folder_save import folder_save
from cutaway.jsonfile import MEGABYTE, read_json

WEIGHTS = "model.safetensors"
TORCH_WEIGHTS = ("pytorch_model.bin", "pytorch_model.pt", "model.pt")
INDEX = ".index.json"
MAX_SHARDS = 10_000
INT8 = "cutaway_int8"  # the metadata key of a file whose matrices are int8 rows with one float32 scale each
SCALE = ".scale"
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")  # what `save_checkpoint` writes


class Source(Protocol):
    """One file of tensors."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says about itself."""

    def names(self) -> list[str]:
        """The names of the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """The stored dtype."""

    def read(self, name: str) -> torch.Tensor:
        """The tensor."""

    def close(self) -> None:
        """Close the file."""


class Checkpoint:
    """The tensors of a checkpoint by name, over one file or many. A context manager."""

    def __init__(self, format: Literal["safetensors", "torch", "gguf"], sources: Mapping[str, Source]) -> None:
        self.format = format
        self._sources = list(sources.values())
        self._where: dict[str, Source] = {}
        for file, source in sources.items():
            for name in source.names():
                if name in self._where:
                    raise CheckpointError(f"The tensor {name!r} is in two files of the checkpoint, also in {file!r}.")
                self._where[name] = source
        self._scaled = {
            name
            for name, source in self._where.items()
            if INT8 in source.metadata and source.dtype(name) == torch.int8 and name + SCALE in self._where
        }
        for name in self._scaled:
            scale = self._where[name + SCALE]
            rows = self._where[name].shape(name)[:1]
            if scale.shape(name + SCALE) != rows or scale.dtype(name + SCALE) != torch.float32:
                raise CheckpointError(
                    f"{name + SCALE!r} must hold one float32 for each of the {rows} rows of {name!r}."
                )

    def names(self) -> list[str]:
        """The names of the tensors, in the files' order."""
        return [n for n in self._where if not (n.endswith(SCALE) and n.removesuffix(SCALE) in self._scaled)]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._source(name).shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype that `read` gives: the stored one (float32 for int8 rows)."""
        return torch.float32 if name in self._scaled else self._source(name).dtype(name)

    def read(self, name: str) -> torch.Tensor:
        """The tensor: a view of the mapped file, or computed where it is stored quantized (int8 rows, GGUF)."""
        tensor = self._source(name).read(name)
        if name in self._scaled:
            scale = self._where[name + SCALE].read(name + SCALE)
            tensor = tensor.to(torch.float32).mul_(scale.view(-1, *[1] * (tensor.dim() - 1)))  # [rows, 1, ...]
        return tensor

    def blocks(self, name: str) -> StoredBlocks | None:
        """The matrix as it lies in blocks of a GGUF file; None where there are none that can be read in place."""
        found: Callable[[str], StoredBlocks | None] | None = getattr(self._source(name), "blocks", None)
        return None if found is None else found(name)

    def dequantized_types(self) -> list[str]:
        """The types of a GGUF file's matrices that `blocks` cannot give."""
        sources = (getattr(source, "dequantized_types", None) for source in self._sources)
        return [name for found in sources if found is not None for name in found()]

    def maps(self, name: str) -> bool:
        """Whether `read` gives pages of the file itself, not numbers computed from it."""
        return self.format != "gguf" and name not in self._scaled

    def _source(self, name: str) -> Source:
        source = self._where.get(name)
        if source is None:
            raise CheckpointError(f"The checkpoint has no tensor {name!r}.{nearest(name, self._where)}")
        return source

    def close(self) -> None:
        """Close the files; tensors that were read stay valid."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def varied(name: str, variant: str | None) -> str:
    """The name of a file of a variant: model.safetensors of "fp16" is model.fp16.safetensors.

    CheckpointError unless the variant is a word that file names can hold.
    """
    if variant is None:
        return name
    if not isinstance(variant, str) or not re.fullmatch(r"[\w+-]{1,40}", variant):
        raise CheckpointError(f"variant is {variant!r:.80}; give a short word, such as 'fp16'.")
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{variant}.{ending}"


def open_checkpoint(files: Files, *, gguf_file: str | None = None, variant: str | None = None) -> Checkpoint:
    """Open the weights among `files`.

    In this order: `gguf_file` if it is given, model.safetensors, its shards, pytorch_model.bin, its shards, .pt; with a
    variant, its files alone. HubError if there are none, CheckpointError if they are damaged or unsafe.
    """
    if gguf_file is not None:
        from cutaway.checkpoint.gguf import read_gguf

        return Checkpoint("gguf", {gguf_file: read_gguf(files.require(gguf_file)).tensors})
    weights = varied(WEIGHTS, variant)
    if path := files.get(weights):
        return Checkpoint("safetensors", {weights: SafetensorsFile(path)})
    if index := files.get(varied(WEIGHTS + INDEX, variant)):
        return _open_shards(files, index)
    for name in TORCH_WEIGHTS:
        if path := files.get(varied(name, variant)):
            return Checkpoint("torch", {varied(name, variant): TorchFile(path)})
        if index := files.get(varied(name + INDEX, variant)):
            return _open_shards(files, index)
    others = ", ".join(varied(name, variant) for name in TORCH_WEIGHTS)
    raise HubError(files.missing(f"{weights} (nor {varied(WEIGHTS + INDEX, variant)}, {others})"))


def _open_shards(files: Files, index: Path) -> Checkpoint:
    fields = read_json(index, CheckpointError, max_bytes=32 * MEGABYTE)
    where = fields.get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(v, str) for v in where.values()):
        raise CheckpointError(f"{index}: weight_map must name the file of each tensor. Download or save it again.")
    shards = sorted(set(where.values()))
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"{index} names {len(shards):,} files; at most {MAX_SHARDS:,} are read.")
    endings = {".safetensors"} if ".safetensors" in index.name else {".bin", ".pt"}
    paths: dict[str, Path] = {}
    for shard in shards:
        try:
            inside(shard)
        except HubError as e:
            raise CheckpointError(f"{index}: {e}") from None
        if Path(shard).suffix not in endings:
            raise CheckpointError(f"{index} names {shard[:200]!r}, which is no {' or '.join(sorted(endings))} file.")
        path = files.get(shard)
        if path is None:
            raise CheckpointError(f"{index} names {shard[:200]!r}, which is not there. Download or save it again.")
        # The hub's cache links files, so a shard may be a link; a folder on the way to it may not lead outside.
        if not path.parent.resolve().is_relative_to(index.parent.resolve()):
            raise CheckpointError(
                f"{index} names {shard[:200]!r}, which leaves the checkpoint's folder through a link. Put the file "
                "into the folder."
            )
        paths[shard] = path
    if endings == {".safetensors"}:
        checkpoint = Checkpoint("safetensors", {shard: SafetensorsFile(path) for shard, path in paths.items()})
    else:
        checkpoint = Checkpoint("torch", {shard: TorchFile(path) for shard, path in paths.items()})
    if absent := sorted(name for name in where if name not in checkpoint._where):
        listing = ", ".join(repr(n[:200]) for n in absent[:3])
        raise CheckpointError(f"{index} names {len(absent)} tensors that no file holds: {listing}. It is incomplete.")
    return checkpoint


def quantize_rows(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 values and one float32 scale per row: tensor [rows, ...] is about values * scale[row].

    The scale is max|row| / 127, so the largest value of each row is exact and the error is at most half a scale.
    CheckpointError if the tensor holds NaN or infinity.
    """
    values = tensor.detach().to(torch.float32)
    scale = values.abs().flatten(1).amax(1) / 127  # [rows]
    if not bool(torch.isfinite(scale).all()):
        raise CheckpointError("A tensor with NaN or infinity cannot be stored as int8.")
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale)).view(
        -1, *[1] * (values.dim() - 1)
    )  # [rows, 1, ...]
    return (values / divisor).round_().clamp_(-127, 127).to(torch.int8), scale


def save_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    max_shard_size: int | str = "5GB",
    int8: bool = False,
    variant: str | None = None,
) -> None:
    """Write model.safetensors into `folder` (made if needed), or shards with an index if it is larger than the limit.

    All files are written aside and then count at once (`hub.folder_save`), so an existing checkpoint, even one that is
    mapped now, is never half replaced. Tensors that share memory are the caller's business: pass each once. With
    `int8`, floating matrices are stored as int8 rows with scales (`quantize_rows`), which only cutaway reads. With a
    `variant` its word stands in the files' names (`varied`), and only an earlier save of that variant is replaced.
    """
    limit = _bytes(max_shard_size)
    shards = _planned(_stored(tensors, int8), limit)
    count = len(shards)
    first, ending = varied(WEIGHTS, variant).removesuffix(".safetensors"), ".safetensors"
    names = [first + ending] if count == 1 else [f"{first}-{i + 1:05}-of-{count:05}{ending}" for i in range(count)]
    metadata = {"format": "pt"} | ({INT8: "rows"} if int8 else {})
    with folder_save(folder) as save:
        for name, shard in zip(names, shards, strict=True):
            _write_shard(save.aside / name, shard, metadata)
        if count > 1:
            where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
            total = sum(t.nbytes for shard in shards for t in shard.values())
            save.write_text(varied(WEIGHTS + INDEX, variant), _index(where, total))
        # what an earlier save left would be read instead of, or beside, the new files
        replaced = _OURS if variant is None else _of_variant(variant)
        save.remove(*(old.name for old in save.folder.iterdir() if replaced.fullmatch(old.name)))


def _of_variant(variant: str) -> re.Pattern[str]:
    word = re.escape(variant)
    return re.compile(rf"model\.{word}(-\d{{5}}-of-\d{{5}})?\.safetensors|model\.safetensors\.index\.{word}\.json")


def _stored(tensors: Mapping[str, torch.Tensor], int8: bool) -> dict[str, torch.Tensor]:
    if not tensors:
        raise CheckpointError("There are no tensors to save.")
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"{name!r} is no dense tensor with values ({type(tensor).__name__}); it cannot be saved."
            )
        if int8 and tensor.dim() == 2 and tensor.is_floating_point():
            if name + SCALE in tensors:
                raise CheckpointError(f"{name + SCALE!r} is already a tensor; its name is needed for the scales.")
            stored[name], stored[name + SCALE] = quantize_rows(tensor)
        else:
            stored[name] = tensor.detach()
    return stored


def _planned(tensors: dict[str, torch.Tensor], limit: int) -> list[dict[str, torch.Tensor]]:
    """Shards in the given order, each at most `limit` bytes, or one tensor."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _write_shard(path: Path, shard: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in shard.items()}, path, metadata)
    except (RuntimeError, ValueError) as e:  # tensors that share memory
        raise CheckpointError(f"The weights cannot be saved: {e}") from e


def _index(where: dict[str, str], total: int) -> str:
    import json

    fields: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": where}
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _bytes(size: int | str) -> int:
    """Bytes from 5_000_000_000 or "5GB" (powers of ten) or "5GiB" (powers of two)."""
    if isinstance(size, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B\s*", size.upper())):
        number, unit, binary = found.groups()
        size = int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit or " "))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise CheckpointError(f"max_shard_size is {size!r}; give bytes, or text such as '5GB'.")
    return size
