"""Whole models from a filled hub cache, where making any socket is an error: the network is never tried."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film"]
FORBID = """
    import socket, sys
    tried = []
    def refuse(*arguments, **options):
        tried.append(arguments)
        raise OSError("sockets are forbidden")
    socket.socket = type("Forbidden", (socket.socket,), {"__init__": refuse})
    socket.create_connection = socket.getaddrinfo = refuse
"""


def cached(root: Path, name: str, *, shard: str) -> Path:
    """A hub cache as the client lays it out: files are links from the snapshot to blobs."""
    import cutaway

    repository = root / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "refs", repository / "blobs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = cutaway.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, num_labels=3, **sizes)
    cutaway.BertForSequenceClassification(config).save_pretrained(snapshot, max_shard_size=shard)
    (snapshot / "vocab.txt").write_text("\n".join(WORDS))
    for i, path in enumerate(sorted(snapshot.iterdir())):
        blob = repository / "blobs" / f"{i:064x}"
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("shard", ["5GB", "2KB"])
def test_a_model_and_its_tokenizer(tmp_path: Path, shard: str, offline: str) -> None:
    snapshot = cached(tmp_path / "cache", "someone/model", shard=shard)
    assert len(list(snapshot.glob("*.safetensors"))) == (1 if shard == "5GB" else 3)
    code = """
        import torch, cutaway
        name, folder = "someone/model", sys.argv[1]
        tokenizer = cutaway.AutoTokenizer.from_pretrained(name)
        batch = tokenizer(["a good film", "a"], padding=True, return_tensors="pt")
        assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 5, 3, 0, 0]]
        for kind in (cutaway.AutoModel, cutaway.AutoModelForSequenceClassification, cutaway.BertModel):
            model, there = kind.from_pretrained(name), kind.from_pretrained(folder)
            with torch.no_grad():
                assert torch.equal(model(**batch)[0], there(**batch)[0])
        assert cutaway.AutoConfig.from_pretrained(name).num_labels == 3
        assert not tried, tried
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FORBID) + textwrap.dedent(code), str(snapshot)],
        capture_output=True,
        text=True,
        env=environment | {"HF_HUB_OFFLINE": offline, "HF_HUB_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
