"""The vectors of a table's texts, kept in a file beside it: computed once, mapped into memory afterwards.

`NAME.vectors` is a safetensors file: `vectors` [texts, width] in the order of the table, and `digests` [texts, 16] of
these texts. What is valid is decided by content: a text that was changed gets a new vector and all others keep theirs,
and vectors of another model (by what it says of two short texts) are not used. While they are computed they go to
`NAME.vectors.partial`, so a job that was stopped goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cutaway.checkpoint.safetensors import SafetensorsFile, read_header
from cutaway.errors import CheckpointError, InputError
from cutaway.jsonfile import sync_folder, write_aside
from cutaway.locks.output_lock import OutputLock
from cutaway.texts.table import DIGEST, TextTable

ENDING = ".vectors"
FORMAT = "1"
PROBES = ["A short text, by which a model is known.", "2, 3, 5 and 7"]
SAME = 1e-3  # largest difference in a model's vectors of the probes: rounding is below, another model far above
AT_ONCE = 256  # texts that are computed, and then on the disk, together
FLOAT32 = "float32"
FORMATS = {FLOAT32: torch.float32, "float16": torch.float16}

Floats = NDArray[np.float32]


class TextEncoder(Protocol):
    """What gives vectors: an `Embedder`, or a model of sentence-transformers."""

    def encode_document(self, sentences: object, *args: object, **options: object) -> object:
        """Vectors of texts that are searched."""

    def encode_query(self, sentences: object, *args: object, **options: object) -> object:
        """Vectors of what is searched for."""


@dataclass(frozen=True)
class TextVectors:
    """matrix: a tensor [texts, width], float32 or float16, mapped from a file where there is one.

    computed: how many were computed for this; the others were there.
    cosine: whether vectors have length 1, so that inner products are cosines.
    """

    matrix: torch.Tensor
    computed: int
    cosine: bool = True
    file: Path | None = None

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def floats(self) -> Floats:
        """All vectors as float32 [texts, width], of length 1."""
        whole = torch.nn.functional.normalize(self.matrix.float(), dim=-1)
        return whole.numpy()


def vectors_beside(table: TextTable) -> Path | None:
    """Where a table's vectors are kept; None for a table that is no file."""
    return None if table.path is None else table.path.with_name(table.path.name + ENDING)


def text_vectors(
    table: TextTable,
    encoder: TextEncoder,
    file: Path | None = None,
    *,
    store: str | None = None,
    progress: Callable[[int, int], None] = lambda done, failed: None,
) -> TextVectors:
    """The vectors of a table's texts: those that the file holds, and the others computed and added to it.

    Args:
        encoder: the model.
        file: where they are kept; `vectors_beside` the table unless given, and nowhere for a table in memory.
        store: "float32", or "float16", half as large and exact to three digits; what the file has unless given.
        progress: told how many texts have their vectors.

    Raises:
        InputError: the model gives no vectors, some that are not finite, or compares them by distances.
        OutputError: another process is computing them.
    """
    if store not in (None, *FORMATS):
        raise InputError(f"store={store!r}: vectors are kept as {' or '.join(FORMATS)}.")
    if not hasattr(encoder, "encode_document"):
        raise InputError(
            f"model is a {type(encoder).__name__} ({encoder!r:.60}): pass what computes vectors, such as "
            'cutaway.Embedder("cutaway/minilm").'
        )
    kind = str(getattr(encoder, "similarity_fn_name", None) or "cosine")
    if kind not in ("cosine", "dot"):
        raise InputError(
            f"The model compares vectors by {kind} distance; searching here is by cosine or inner product."
        )
    cosine = kind == "cosine"
    file = file or vectors_beside(table)
    digests = table.digests()  # [texts, 16]
    probe = _encoded(encoder, PROBES, cosine)
    if file is None:
        found = _computed(table.texts, encoder, cosine, progress)
        return TextVectors(torch.from_numpy(found).to(FORMATS[store or FLOAT32]), len(table), cosine)
    with OutputLock(file, file=file.with_name(f".{file.name}.computing.lock")):
        return _kept(table, encoder, file, digests, probe, store, cosine, progress)


def _kept(
    table: TextTable,
    encoder: TextEncoder,
    file: Path,
    digests: NDArray[np.uint8],
    probe: Floats,
    store: str | None,
    cosine: bool,
    progress: Callable[[int, int], None],
) -> TextVectors:
    before = _read(file, probe, cosine)
    if store is None:
        store = FLOAT32 if before is None else str(before[1].dtype).removeprefix("torch.")
    dtype = FORMATS[store]
    if before is not None and before[1].dtype == dtype and np.array_equal(before[0], digests):
        return TextVectors(before[1], 0, cosine, file)
    if before is not None and before[1].dtype != dtype:  # rounding goes one way alone
        before = None if dtype == torch.float32 else (before[0], before[1].to(dtype))
    partial = _Partial(file.with_name(file.name + ".partial"), probe, store, cosine)
    place: dict[bytes, tuple[torch.Tensor, int]] = {}
    for known, matrix in (before or (digests[:0], torch.empty(0)), partial.read()):
        place |= {key: (matrix, i) for i, key in enumerate(_keys(known))}
    keys = _keys(digests)
    wanted = {key: i for i, key in enumerate(keys) if key not in place}  # each text once
    missing = sorted(wanted.values(), key=lambda i: len(table.texts[i]))
    progress(len(place.keys() & set(keys)), 0)
    with partial:
        done = len(table) - len(missing)
        for start in range(0, len(missing), AT_ONCE):
            numbers = missing[start : start + AT_ONCE]
            made = _encoded(encoder, [table.texts[i] for i in numbers], cosine)
            wrong = next((i for i, row in zip(numbers, made, strict=True) if not np.isfinite(row).all()), None)
            if wrong is not None:
                raise InputError(f"The model's vector of row {table.rows[wrong]} is not finite; try --dtype float32.")
            matrix = torch.from_numpy(made).to(dtype)
            partial.write(digests[numbers], matrix)
            place |= {keys[i]: (matrix, at) for at, i in enumerate(numbers)}
            done += len(numbers)
            progress(done, 0)
    whole = torch.stack([place[key][0][place[key][1]] for key in keys])  # [texts, width]
    _write(file, digests, whole, probe, cosine)
    partial.forget()
    kept = _read(file, probe, cosine)
    assert kept is not None
    return TextVectors(kept[1], len(missing), cosine, file)


def _computed(texts: Sequence[str], encoder: TextEncoder, cosine: bool, progress: Callable[[int, int], None]) -> Floats:
    parts = []
    for start in range(0, len(texts), AT_ONCE):
        parts.append(_encoded(encoder, texts[start : start + AT_ONCE], cosine))
        progress(min(start + AT_ONCE, len(texts)), 0)
    return np.concatenate(parts)


def _encoded(encoder: TextEncoder, texts: Sequence[str], cosine: bool) -> Floats:
    return as_floats(encoder.encode_document(list(texts)), cosine)


def as_floats(made: object, cosine: bool) -> Floats:
    """A model's vectors as float32 [texts, width]; with `cosine`, of length 1."""
    found: Floats = np.ascontiguousarray(made, dtype=np.float32)
    if cosine:
        found = found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
    return found


def _keys(digests: NDArray[np.uint8]) -> list[bytes]:
    whole = digests.tobytes()
    return [whole[i : i + DIGEST] for i in range(0, len(whole), DIGEST)]


def _about(probe: Floats, cosine: bool, store: str) -> dict[str, str]:
    return {
        "format": FORMAT,
        "compared": "cosine" if cosine else "dot",
        "store": store,
        "probe": json.dumps([[round(float(x), 6) for x in row] for row in probe]),
    }


def _is_same_model(about: dict[str, str], probe: Floats, cosine: bool) -> bool:
    try:
        before = np.array(json.loads(about["probe"]), dtype=np.float32)
    except (KeyError, ValueError, TypeError):
        return False
    if about.get("format") != FORMAT or about.get("compared") != ("cosine" if cosine else "dot"):
        return False
    scale = max(float(np.abs(probe).max()), 1e-12)
    return before.shape == probe.shape and float(np.abs(before - probe).max()) <= SAME * scale


def _read(file: Path, probe: Floats, cosine: bool) -> tuple[NDArray[np.uint8], torch.Tensor] | None:
    """(digests, vectors) of a file that this model made; None for any other: it is only a store, and is made anew."""
    if not file.is_file():
        return None
    try:
        entries, about = read_header(file)
        if not _is_same_model(about, probe, cosine) or set(entries) != {"vectors", "digests"}:
            return None
        stored = SafetensorsFile(file)
        matrix, digests = stored.read("vectors"), stored.read("digests").numpy()
    except CheckpointError:
        return None
    right = digests.shape == (len(matrix), DIGEST) and matrix.ndim == 2 and matrix.shape[1] == probe.shape[1]
    return (digests, matrix) if right and matrix.dtype in FORMATS.values() else None


def _write(file: Path, digests: NDArray[np.uint8], whole: torch.Tensor, probe: Floats, cosine: bool) -> None:
    from safetensors.torch import save_file

    tensors = {"vectors": whole.contiguous(), "digests": torch.from_numpy(digests.copy())}
    about = _about(probe, cosine, str(whole.dtype).removeprefix("torch."))
    write_aside(file, lambda aside: save_file(tensors, aside, about))


class _Partial:
    """Vectors on their way: one line that says of what model, then records of a digest and a vector."""

    def __init__(self, path: Path, probe: Floats, store: str, cosine: bool) -> None:
        self.path, self.probe, self.cosine, self.store = path, probe, cosine, store
        self.size = DIGEST + probe.shape[1] * (2 if store == "float16" else 4)

    def read(self) -> tuple[NDArray[np.uint8], torch.Tensor]:
        """What an earlier run has left: whole records alone; none where another model made them."""
        none = np.empty((0, DIGEST), dtype=np.uint8), torch.empty(0, self.probe.shape[1])
        if not self.path.is_file():
            return none
        head, _, rest = self.path.read_bytes().partition(b"\n")
        try:
            about = json.loads(head)
        except ValueError:
            about = None
        if (
            not isinstance(about, dict)
            or not _is_same_model(about, self.probe, self.cosine)
            or about.get("store") != self.store
        ):
            self.path.unlink()
            return none
        records = (
            np.frombuffer(rest[: len(rest) // self.size * self.size], dtype=np.uint8).reshape(-1, self.size).copy()
        )
        numbers = (
            records[:, DIGEST:].copy().view(np.float16 if self.store == "float16" else np.float32)
        )  # [records, width]
        return records[:, :DIGEST].copy(), torch.from_numpy(numbers)

    def __enter__(self) -> _Partial:
        if not self.path.exists():
            self.path.write_bytes(json.dumps(_about(self.probe, self.cosine, self.store)).encode() + b"\n")
            sync_folder(self.path.absolute().parent)
        with self.path.open("rb") as file:  # what a kill left half written is cut off
            head = len(file.readline())
        os.truncate(self.path, head + (self.path.stat().st_size - head) // self.size * self.size)
        self.file = self.path.open("ab")
        return self

    def write(self, digests: NDArray[np.uint8], matrix: torch.Tensor) -> None:
        """Append; when this returns, a kill no longer takes them."""
        numbers = matrix.contiguous().numpy().view(np.uint8)  # [texts, bytes of a vector]
        self.file.write(np.concatenate([digests, numbers], axis=1).tobytes())
        self.file.flush()
        os.fsync(self.file.fileno())

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
