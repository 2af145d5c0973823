"""A save is whole or was not: with each system call failing in turn, or the process killed at it, the folder loads."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import failing_disk
import pytest
import torch

import cutaway
from cutaway.errors import CheckpointError, OutputError
from cutaway.hub import folder_save
from cutaway.hub.files import resolve
from cutaway.jsonfile import write_aside, write_text

KINDS = 13


@pytest.mark.skipif(failing_disk.compiler() is None, reason="needs a C compiler, on Linux")
def test_every_save_is_whole_or_was_not(fast_disk: Path) -> None:
    said = failing_disk.run(Path(__file__).parents[1] / "failing_saves.py", fast_disk, "8").splitlines()
    assert len(said) == KINDS, said


def tiny(seed: int) -> cutaway.BertForSequenceClassification:
    torch.manual_seed(seed)
    config = cutaway.BertConfig(
        vocab_size=20 + seed, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    return cutaway.BertForSequenceClassification(config)


def cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave `folder` as a kill just after the save had happened leaves it, with one file in its place."""
    finish = folder_save._finish
    calls = 0

    def stops(where: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # that of a save before this one
            finish(where)
            return
        pending = where / folder_save.PENDING
        (pending / "config.json").replace(where / "config.json")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder_save, "_finish", stops)
        with pytest.raises(KeyboardInterrupt):
            tiny(2).save_pretrained(folder)


def test_a_save_that_was_cut_off_is_finished_by_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(1).save_pretrained(tmp_path, max_shard_size="1KB")
    cut_off(tmp_path, monkeypatch)
    assert (tmp_path / "model.safetensors.index.json").exists()
    loaded = cutaway.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.classifier.weight, tiny(2).classifier.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_cannot_be_written_is_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(1).save_pretrained(tmp_path, max_shard_size="1KB")
    cut_off(tmp_path, monkeypatch)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    def read_only(*arguments: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("cutaway.locks.output_lock.os.open", read_only)
        loaded = cutaway.BertForSequenceClassification.from_pretrained(tmp_path)
        names = resolve(tmp_path).names()
    assert torch.equal(loaded.classifier.weight, tiny(2).classifier.weight)
    assert names == ["config.json", "model.safetensors"]
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "linked/x", ".cutaway-save/x"])
def test_a_list_of_a_save_names_only_files_of_its_folder(name: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "model", tmp_path / "x"
    (inside / folder_save.PENDING).mkdir(parents=True)
    (inside / "linked").symlink_to(tmp_path)
    outside.write_text("stays")
    for files, gone in (([name], []), ([], [name])):
        (inside / folder_save.PENDING / folder_save.LIST).write_text(json.dumps({"files": files, "gone": gone}))
        with pytest.raises(CheckpointError, match="must list files of this folder"):
            resolve(inside)
    assert outside.read_text() == "stays"


def test_a_part_that_fails_takes_the_rest_with_it(tmp_path: Path) -> None:
    tiny(1).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails() -> None:
        with folder_save.folder_save(tmp_path):
            raise ValueError("such")

    def save() -> None:
        with folder_save.folder_save(tmp_path):
            tiny(2).config.save_pretrained(tmp_path)
            with pytest.raises(ValueError, match="such"):
                fails()

    with pytest.raises(OutputError, match="a part of the save failed"):
        save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saves_of_one_folder_from_many_threads_do_not_mix(tmp_path: Path) -> None:
    made = {seed: tiny(seed) for seed in range(4)}
    errors: list[BaseException] = []

    def save(seed: int) -> None:
        try:
            for _ in range(5):
                made[seed].save_pretrained(tmp_path)
                write_text(tmp_path / "note.txt", str(seed) * 10_000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(seed,)) for seed in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    loaded = cutaway.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.classifier.weight, made[loaded.config.vocab_size - 20].classifier.weight)
    assert len(set((tmp_path / "note.txt").read_text())) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "note.txt"]


def test_what_another_tokenizer_left_does_not_become_this_one_s(tmp_path: Path) -> None:
    first = cutaway.AutoTokenizer.from_pretrained("cutaway/sentiment")
    first.chat_template = {"default": "{{ 1 }}", "other": "{{ 2 }}"}
    first.save_pretrained(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<old>": 9}')
    first.chat_template = None
    first.save_pretrained(tmp_path)
    again = cutaway.AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template is None
    assert "<old>" not in again.get_vocab()


def test_files_have_the_usual_rights(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        tiny(1).save_pretrained(tmp_path / "model")
        write_aside(tmp_path / "one", lambda aside: (aside.write_text("x"), aside.chmod(0o600)))
    finally:
        os.umask(umask)
    files = [tmp_path / "one", *(tmp_path / "model").iterdir()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}
