import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from cutaway.errors import HubError
from cutaway.hub import files as hub_files
from cutaway.hub.files import Files, HubFiles, builtin_names, inside, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def folder(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def cache(root: Path, name: str, *, absent: tuple[str, ...] = (), **files: str) -> Path:
    """A hub cache as the hub's client fills it: blobs, links to them in a snapshot, refs, and what does not exist."""
    repository = root / ("models--" + name.replace("/", "--"))
    snapshot = folder(repository / "snapshots" / COMMIT)
    blobs = folder(repository / "blobs")
    folder(repository / "refs", main=COMMIT)
    for i, (file, text) in enumerate(files.items()):
        (blobs / str(i)).write_text(text)
        link = snapshot / file.replace("__", ".")
        link.symlink_to(os.path.relpath(blobs / str(i), link.parent))
    for file in absent:
        folder(repository / ".no_exist" / COMMIT, **{file.replace(".", "__"): ""})
    return root


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"the network was asked for {arguments} {options}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(hub_files, "_connected", lambda: True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


# -- folders -----------------------------------------------------------------------------------------------------


def test_a_folder(tmp_path):
    files = resolve(folder(tmp_path / "model", config__json="{}"))
    assert files.folder == tmp_path / "model"
    assert files.require("config.json") == files.get("config.json") == tmp_path / "model" / "config.json"
    assert files.get("absent.txt") is None
    assert files.names() == ["config.json"]
    assert resolve(files) is files
    with pytest.raises(HubError, match=r"has no absent\.txt; it holds config\.json"):
        files.require("absent.txt")


def test_a_folder_wins_over_the_hub_and_the_builtin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gpt2", "distilbert/distilbert-base-cased", "cutaway/sentiment"):
        folder(tmp_path / name, config__json="{}")
        assert resolve(name).require("config.json").resolve() == (tmp_path / name / "config.json").resolve()


def test_subfolders(tmp_path):
    folder(tmp_path / "model" / "inner", config__json="{}")
    assert resolve(tmp_path / "model", subfolder="inner").get("config.json")
    for bad in ("../model/inner", "/etc", "other"):
        with pytest.raises(HubError, match=r"leaves|no subfolder"):
            resolve(tmp_path / "model", subfolder=bad)


def test_a_folder_without_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "gpt2", notes__txt="")
    with pytest.raises(
        HubError, match=r"'gpt2'.*has no config\.json; it holds notes\.txt.*rename or leave this folder"
    ):
        resolve("gpt2").require("config.json")


def test_a_file_and_names_that_cannot_be(tmp_path):
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(HubError, match=r"gguf_file='model\.gguf'"):
        resolve(tmp_path / "model.gguf")
    for bad in ("", "  ", "a\0b", "/no/such/folder", "./none", "~/no-such-folder", "a/b/c", "a b", "x" * 300, "a--b"):
        with pytest.raises(HubError):
            resolve(bad)
    with pytest.raises(HubError, match="no folder"):
        resolve(tmp_path / "none")


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "C:x", "\\\\host\\x", "", "a\0", ".."]
)
def test_names_that_escape(tmp_path, name):
    (tmp_path / "x").write_text("secret")
    with pytest.raises(HubError, match="leaves"):
        inside(name)
    with pytest.raises(HubError, match="leaves"):
        Files("m", folder(tmp_path / "m")).get(name)


def test_builtins(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_files, "BUILTIN", tmp_path / "none")
    assert builtin_names() == []
    folder(tmp_path / "builtin" / "sentiment", config__json="{}")
    folder(tmp_path / "builtin" / "unfinished")
    monkeypatch.setattr(hub_files, "BUILTIN", tmp_path / "builtin")
    assert builtin_names() == ["cutaway/sentiment"]
    assert resolve("cutaway/sentiment").require("config.json").parent.name == "sentiment"


# -- the cache ---------------------------------------------------------------------------------------------------


def test_the_cache_answers_without_the_network(tmp_path):
    cache(tmp_path, "someone/model", absent=("model.safetensors.index.json",), config__json="{}", tokenizer__json="{}")
    files = resolve("someone/model", cache_dir=tmp_path)
    assert files.require("config.json").read_text() == "{}"
    assert files.get("model.safetensors.index.json") is None  # known not to exist
    assert files.get("tokenizer_config.json") is None  # the tokenizer is there, so this was asked for before
    assert files.names() == ["config.json", "tokenizer.json"]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_offline_only_the_cache(tmp_path, monkeypatch, how):
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    only = True if how == "argument" else None
    cache(tmp_path, "model", config__json="{}")
    files = resolve("model", cache_dir=tmp_path, local_files_only=only)
    assert files.get("vocab.txt") is None
    with pytest.raises(HubError, match=r"has no vocab\.txt of 'model', and only the cache is used"):
        files.require("vocab.txt")
    with pytest.raises(HubError, match=r"'other'.*not in the cache.*built-in model 'cutaway/sentiment'"):
        resolve("other", cache_dir=tmp_path, local_files_only=only)
    with pytest.raises(HubError, match="revision 'v2'"):
        resolve("model", cache_dir=tmp_path, local_files_only=only, revision="v2")
    assert resolve("model", cache_dir=tmp_path, local_files_only=only, revision=COMMIT).get("config.json")
    with pytest.raises(HubError, match="leaves"):
        resolve("model", cache_dir=tmp_path, local_files_only=only, revision="../../x")


def test_a_filled_cache_with_sockets_forbidden(tmp_path):
    """In a process of its own, where making any socket is an error and is counted."""
    config = {"model_type": "bert", "hidden_size": 8}
    cache(tmp_path, "someone/model", config__json=json.dumps(config), vocab__txt="a", model__safetensors="x")
    code = """
        import socket, sys
        tried = []
        def refuse(*arguments, **options):
            tried.append(arguments)
            raise OSError("sockets are forbidden")
        socket.socket = type("Forbidden", (socket.socket,), {"__init__": refuse})
        socket.create_connection = socket.getaddrinfo = refuse
        from cutaway.config.config import PretrainedConfig
        from cutaway.hub.files import resolve
        assert PretrainedConfig.from_pretrained("someone/model", cache_dir=sys.argv[1]).hidden_size == 8
        files = resolve("someone/model", cache_dir=sys.argv[1])
        assert files.require("model.safetensors") and files.require("vocab.txt")
        for absent in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "pytorch_model.bin"):
            assert files.get(absent) is None
        assert not tried, tried
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# -- the hub -----------------------------------------------------------------------------------------------------


class Hub:
    """Stands for the hub: `hf_hub_download` from a dict of files, into a folder like the cache's."""

    def __init__(self, root: Path, **files: str) -> None:
        self.root, self.files, self.asked, self.options = (
            root,
            {k.replace("__", "."): v for k, v in files.items()},
            [],
            {},
        )

    def __call__(self, name: str, filename: str, **options: object) -> str:
        self.asked.append(filename)
        self.options = options
        if filename not in self.files:
            raise errors.EntryNotFoundError(filename)
        path = self.root / ("models--" + name.replace("/", "--")) / "snapshots" / COMMIT / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.files[filename])
        return str(path)


def test_files_are_downloaded_when_they_are_asked_for(tmp_path, monkeypatch):
    there = Hub(tmp_path, config__json="{}", tokenizer__json="{}", tokenizer_config__json="{}", model__safetensors="x")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", there)
    files = resolve("someone/model", cache_dir=tmp_path, token="secret", revision="v1")
    assert isinstance(files, HubFiles)
    assert there.asked == []
    assert files.folder is None
    assert files.require("config.json").read_text() == "{}"
    assert there.options == {"revision": "v1", "token": "secret", "cache_dir": tmp_path}
    assert files.get("config.json") is not None
    assert there.asked == ["config.json"]
    assert files.get("tokenizer.json") is not None
    assert there.asked[-1] == "tokenizer.json"
    assert "tokenizer_config.json" in there.asked  # before the vocabulary, which then proves that it was
    assert files.get("generation_config.json") is None
    assert files.get("model.safetensors") is not None
    assert there.asked.count("generation_config.json") == 1
    assert there.options["revision"] == COMMIT  # all from the commit of the first file
    assert files.get("absent.bin") is None
    with pytest.raises(HubError, match=r"'someone/model'.*has no absent\.bin"):
        files.require("absent.bin")
    assert "secret" not in repr(files)


def test_the_newest_revision_on_request(tmp_path, monkeypatch):
    cache(tmp_path, "model", config__json="old")
    there = Hub(tmp_path / "new", config__json="new")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", there)
    assert resolve("model", cache_dir=tmp_path).require("config.json").read_text() == "old"
    assert resolve("model", cache_dir=tmp_path, local_files_only=False).require("config.json").read_text() == "new"


def test_half_a_vocabulary_is_completed(tmp_path, monkeypatch):
    cache(tmp_path, "model", vocab__json="{}")
    there = Hub(tmp_path, merges__txt="", tokenizer_config__json="{}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", there)
    files = resolve("model", cache_dir=tmp_path)
    assert files.get("merges.txt") is not None
    assert files.get("tokenizer_config.json") is not None
    assert files.get("tokenizer.json") is None
    asked = len(there.asked)
    assert resolve("model", cache_dir=tmp_path).get("spiece.model") is None
    assert len(there.asked) == asked


def test_a_subfolder_of_a_repository(tmp_path, monkeypatch):
    there = Hub(tmp_path, config__json="outer")
    there.files["inner/config.json"] = "inner"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", there)
    files = resolve("model", cache_dir=tmp_path, subfolder="inner")
    assert files.require("config.json").read_text() == "inner"
    assert files.folder is not None
    assert files.folder.name == "inner"


def test_no_connection(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hub_files, "_connected", lambda: False)
    with pytest.raises(HubError, match=r"'some/name'.*no connection to the hub.*folder.*cutaway/sentiment.*token="):
        resolve("some/name", cache_dir=tmp_path).require("config.json")
    cache(tmp_path, "model", config__json="{}")
    files = resolve("model", cache_dir=tmp_path)
    assert files.get("vocab.txt") is None
    assert files.get("merges.txt") is None
    assert caplog.text.count("cannot be reached") == 1
    with pytest.raises(HubError, match="no connection"):
        files.require("vocab.txt")


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        (errors.RepositoryNotFoundError, "no such repository, or it is private"),
        (errors.GatedRepoError, "it is gated, and this token"),
        (errors.RevisionNotFoundError, "no such revision"),
        (OSError, "disk full"),
        (ValueError, "disk full"),
    ],
)
def test_why_a_name_cannot_be_had(tmp_path, monkeypatch, cause, why):
    def fail(*arguments, **options):
        if issubclass(cause, errors.HfHubHTTPError):
            web = sys.modules[errors.Response.__module__.split(".")[0]]  # httpx or httpx2, whichever the client uses
            raise cause("no", response=web.Response(404, request=web.Request("GET", "https://example.org")))
        raise cause("disk full")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(HubError, match=why) as caught:
        resolve("some/name", cache_dir=tmp_path).require("config.json")
    assert "some/name" in str(caught.value)
    assert "cutaway/sentiment" in str(caught.value)
    assert isinstance(caught.value, OSError)


def test_a_misspelt_builtin_is_answered(tmp_path, monkeypatch):
    folder(tmp_path / "builtin" / "sentiment", config__json="{}")
    monkeypatch.setattr(hub_files, "BUILTIN", tmp_path / "builtin")
    with pytest.raises(HubError, match=r"Did you mean 'cutaway/sentiment'\?"):
        resolve("cutaway/sentimental", cache_dir=tmp_path, local_files_only=True)


def test_resolving_a_folder_imports_no_client(tmp_path):
    code = (
        "import sys; from cutaway.hub.files import resolve; resolve(sys.argv[1]); "
        "assert 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_the_hubs_arguments_are_listed_in_one_place():
    import inspect

    import cutaway
    from cutaway.hub.files import HUB_OPTIONS, hub_options, resolve, take_hub_options

    assert set(HUB_OPTIONS) == set(inspect.signature(resolve).parameters) - {"name"}
    call = {"revision": "main", "dtype": "float32", "subfolder": None}
    assert hub_options(call) == {"revision": "main", "subfolder": None} == take_hub_options(call)
    assert call == {"dtype": "float32"}
    listed = [
        str(path.relative_to(Path(cutaway.__file__).parent))
        for path in Path(cutaway.__file__).parent.rglob("*.py")
        if '"cache_dir", "local_files_only"' in path.read_text(encoding="utf-8")
    ]
    assert not listed
