"""One pytorch_model.bin or .pt file: tensors only, every declared size checked before anything is built.

Such a file is a pickle with storages beside it. Its opcodes are first walked, without running them: only what rebuilds
tensors may be named, and each storage must be as large as the file says. Only then `torch.load(weights_only=True)`
reads it, memory-mapped where the file is a zip archive (all files since torch 1.6).
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from cutaway.errors import CheckpointError
from cutaway.jsonfile import MEGABYTE

MAX_PICKLE = 16 * MEGABYTE
MAX_DIRECTORY = 8 * MEGABYTE
MAX_OPCODES = 400_000  # about 13,000 tensors; walking them takes well under a second

_STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "UntypedStorage": 1,
    "Float8_e4m3fnStorage": 1,
    "Float8_e5m2Storage": 1,
}
_ALLOWED = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch.nn.parameter Parameter",
    "torch.storage UntypedStorage",
    *(f"torch {name}" for name in _STORAGES),
    *(f"torch {name}" for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")),
}
_SKIPPED = {"BINPUT", "LONG_BINPUT", "TUPLE", "MARK", "NONE"}
_CONVERT = "Only tensors are read from pickles; save the model as safetensors instead."


class TorchFile:
    """The tensors of one file."""

    metadata: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            zipped = zipfile.is_zipfile(path)
            declared = _check_zip(path) if zipped else _check_legacy(path)
        except OSError as e:
            raise CheckpointError(f"{path} cannot be read: {e.strerror or e}.") from None
        except zipfile.BadZipFile as e:  # asked of an archive over several disks
            raise CheckpointError(f"{path} is a damaged archive: {e}. Download or save it again.") from None
        try:
            # A zip's storages are views of the mapped file and cannot grow; an older file is read into memory.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as e:  # whatever torch's unpickler stumbles over in a damaged file, struct.error included
            raise CheckpointError(f"{path} cannot be read: {_first_line(e)} {_CONVERT}") from e
        self._tensors = _tensors_of(path, loaded)
        _check_extents(path, self._tensors, declared)

    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """The stored dtype."""
        return self._tensors[name].dtype

    def read(self, name: str) -> torch.Tensor:
        """The tensor, mapped from the file where it is a zip."""
        return self._tensors[name]

    def close(self) -> None:
        """Forget the tensors; those that were read stay valid."""
        self._tensors = {}


def _first_line(e: BaseException) -> str:
    text = str(e).strip().split("\n")[0][:200] or type(e).__name__
    return text if text.endswith((".", "!")) else text + "."


def _tensors_of(path: Path, loaded: object) -> dict[str, torch.Tensor]:
    if isinstance(loaded, dict) and not any(isinstance(v, torch.Tensor) for v in loaded.values()):
        inner = loaded.get("state_dict")
        loaded = inner if isinstance(inner, dict) else loaded
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not named tensors. Give a state_dict.")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            what = f"{str(name)[:80]!r} is a {type(value).__name__}"
            raise CheckpointError(f"{path}: {what}, not a tensor with a name. Save model.state_dict() alone.")
    return {name: value.detach() for name, value in loaded.items()}


def _check_extents(path: Path, tensors: dict[str, torch.Tensor], declared: int) -> None:
    """No tensor is larger than its storage (an expanded one would be), and the storages are what was declared."""
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        held = tensor.untyped_storage()
        storages[held.data_ptr()] = held.nbytes()
        if tensor.numel() * tensor.element_size() > held.nbytes():
            raise CheckpointError(f"{path}: tensor {name[:200]!r} of {tuple(tensor.shape)} is larger than its storage.")
    if sum(storages.values()) > declared:
        raise CheckpointError(f"{path}: its tensors take more than the {declared:,} bytes that it declares.")


def _check_zip(path: Path) -> int:
    """Check the archive and its pickle; the bytes of its storages."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 64))
        tail = file.read()
    directory = int.from_bytes(tail[(i := tail.rfind(b"PK\5\6")) + 12 : i + 16], "little")
    if directory == 0xFFFFFFFF and (i := tail.rfind(b"PK\6\6")) >= 0:
        directory = int.from_bytes(tail[i + 40 : i + 48], "little")
    if directory > min(MAX_DIRECTORY, size):
        raise CheckpointError(f"{path}: the archive's list of files takes {directory:,} bytes. The file is damaged.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, RuntimeError) as e:
        raise CheckpointError(f"{path} is a damaged archive: {e}. Download or save it again.") from None
    with archive:
        members = archive.infolist()
        end = 0
        for member in sorted(members, key=lambda m: m.header_offset):
            name = member.filename[:100]
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise CheckpointError(f"{path}: {name!r} is compressed; torch stores tensors as they are. Refused.")
            if member.header_offset < end or member.header_offset + 30 + member.file_size > size:
                raise CheckpointError(
                    f"{path}: {name!r} declares {member.file_size:,} bytes, more than the file of {size:,} bytes has "
                    "for it. It is truncated or damaged; download or save it again."
                )
            end = member.header_offset + 30 + member.file_size
        pickles = [m for m in members if m.filename.endswith("/data.pkl") and m.filename.count("/") == 1]
        if len(pickles) != 1 or len({m.filename for m in members}) != len(members):
            raise CheckpointError(f"{path} is a zip archive, but not one of torch's (one data.pkl). {_CONVERT}")
        if pickles[0].file_size > MAX_PICKLE:
            raise CheckpointError(f"{path}: data.pkl takes {pickles[0].file_size:,} bytes; at most {MAX_PICKLE:,}.")
        root = pickles[0].filename.removesuffix("data.pkl")
        records = {m.filename.removeprefix(root + "data/"): m.file_size for m in members}
        try:
            code = archive.read(pickles[0])
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{path} is a damaged archive: {e}. Download or save it again.") from None
    storages = _walk(path, io.BytesIO(code))
    for key, declared in storages.items():
        if declared > records.get(key, -1):
            raise CheckpointError(
                f"{path}: storage {key[:40]!r} is declared with {declared:,} bytes, but the archive has "
                f"{records.get(key, 0):,}. The file is damaged; download or save it again."
            )
    return sum(storages.values())


def _check_legacy(path: Path) -> int:
    """Check a file from before torch 1.6: five pickles, then the storages; the bytes of the storages."""
    size = path.stat().st_size
    with path.open("rb") as file:
        code = io.BytesIO(file.read(MAX_PICKLE))
    storages: dict[str, int] = {}
    for _ in range(5):  # magic number, protocol, system, the object, the storages' keys
        storages |= _walk(path, code)
    if (declared := sum(storages.values())) > size:
        raise CheckpointError(
            f"{path}: its storages are declared with {declared:,} bytes, but the file has {size:,}. It is truncated or "
            "damaged; download or save it again."
        )
    return declared


def _walk(path: Path, code: io.BytesIO) -> dict[str, int]:
    """The storages that a pickle declares, key -> bytes, by walking its opcodes; nothing is run.

    A storage is a persistent id whose tuple ends in: class, key, location, number of elements (and, in older files, a
    view, which is None). Those four may come from the memo.
    """
    memo: dict[int, Any] = {}
    pushed: list[Any] = []  # what the last opcodes put on the stack, as far as a persistent id needs it
    storages: dict[str, int] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(code)):
            name, value = opcode.name, cast(Any, argument)
            if count > MAX_OPCODES:
                raise CheckpointError(f"{path}: the pickle has more than {MAX_OPCODES:,} steps. {_CONVERT}")
            if name in {"BINPUT", "LONG_BINPUT"}:
                memo[value] = pushed[-1] if pushed else None
            elif name in {"BINGET", "LONG_BINGET"}:
                pushed.append(memo.get(value))
            elif name in {"GLOBAL", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}:
                if name == "GLOBAL" and value not in _ALLOWED:
                    raise CheckpointError(
                        f"{path} names {str(value)[:100]!r}, which is not part of a tensor. {_CONVERT}"
                    )
                pushed.append((name == "GLOBAL", value))
            elif name in {"INST", "OBJ", "STACK_GLOBAL", "REDUCE_EX", "EXT1", "EXT2", "EXT4", "PERSID", "NEWOBJ_EX"}:
                raise CheckpointError(f"{path}: the pickle uses {name}, which tensors do not need. {_CONVERT}")
            elif name == "BINPERSID":
                key, declared = _storage(path, pushed)
                if storages.setdefault(key, declared) != declared:
                    raise CheckpointError(f"{path}: storage {key[:40]!r} is declared with two sizes. It is damaged.")
            elif name == "PROTO" and value != 2:
                raise CheckpointError(
                    f"{path}: the pickle has protocol {value}; torch writes tensors with 2. {_CONVERT}"
                )
            elif name not in _SKIPPED:
                pushed.clear()
    except (ValueError, IndexError, KeyError) as e:
        if isinstance(e, CheckpointError):
            raise
        raise CheckpointError(f"{path} is neither a zip archive nor a pickle of tensors: {_first_line(e)}") from None
    return storages


def _storage(path: Path, pushed: list[Any]) -> tuple[str, int]:
    match pushed[-5:]:
        case [(False, "storage"), (True, str(kind)), (False, str(key)), (False, str()), (False, int(count))]:
            width = _STORAGES.get(kind.rpartition(" ")[2])
            if width is not None and 0 <= count < 1 << 48:
                return key, count * width
    raise CheckpointError(f"{path}: the pickle declares a storage in a way that torch does not. {_CONVERT}")
