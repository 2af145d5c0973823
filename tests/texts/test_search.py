"""Vectors beside a table, and searching them."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import InputError, OutputError
from cutaway.locks.output_lock import OutputLock
from cutaway.texts import TextSearch, TextTable, TextVectors, read_texts, search, text_vectors, vectors
from cutaway.texts.text_search import inner_products, nearest_places


class Letters:
    """A model whose vectors are drawn from the letters of a text; it counts the texts that it has seen."""

    def __init__(self, width=8, salt="", similarity="cosine"):
        self.width, self.salt, self.seen, self.similarity_fn_name = width, salt, [], similarity

    def encode_document(self, sentences):
        self.seen += [text for text in sentences if text not in vectors.PROBES]
        return np.stack([self.vector(text) for text in sentences])

    encode_query = encode_document

    def vector(self, text):
        seed = int.from_bytes(hashlib.sha256((self.salt + text).encode()).digest()[:8], "little")
        return np.random.default_rng(seed).normal(size=self.width).astype(np.float32) * 3


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("id,text\n1,a good film\n2,a bad film\n3,\n4,rome\n5,a good film\n")
    return path


def test_a_table_names_the_rows_that_have_no_text(table):
    read = read_texts(table)
    assert (read.rows, read.left_out) == ([1, 2, 4, 5], {3: "'text' is empty"})
    assert read.values[2] == {"id": "4", "text": "rome"}
    assert "row 3" in read.left_out_note()


def test_vectors_are_computed_once_and_kept_beside_the_table(table):
    model = Letters()
    first = text_vectors(read_texts(table), model)
    assert sorted(model.seen) == ["a bad film", "a good film", "rome"]  # the same text once
    again = text_vectors(read_texts(table), model)
    assert (len(model.seen), again.computed) == (3, 0)
    assert torch.equal(first.matrix, again.matrix)
    assert (table.parent / "films.csv.vectors").is_file()
    assert not (table.parent / "films.csv.vectors.partial").exists()


def test_a_text_that_changed_is_computed_anew_and_no_other(table):
    model = Letters()
    text_vectors(read_texts(table), model)
    table.write_text("id,text\n4,rome\n1,a good film\n2,a fine film\n")
    found = text_vectors(read_texts(table), model)
    assert model.seen[3:] == ["a fine film"]
    assert np.allclose(found.matrix, unit([model.vector(t) for t in ("rome", "a good film", "a fine film")]), atol=1e-6)


def test_another_model_does_not_get_these_vectors(table):
    text_vectors(read_texts(table), Letters())
    other = Letters(salt="other")
    found = text_vectors(read_texts(table), other)
    assert found.computed == 3
    assert np.allclose(found.matrix[2], unit([other.vector("rome")])[0], atol=1e-6)
    wide = text_vectors(read_texts(table), Letters(width=5))
    assert wide.matrix.shape == (4, 5)


def test_a_damaged_file_is_made_anew(table):
    text_vectors(read_texts(table), Letters())
    file = table.parent / "films.csv.vectors"
    for content in (b"", b"nonsense", file.read_bytes()[:-7]):
        file.write_bytes(content)
        assert text_vectors(read_texts(table), Letters()).computed == 3


def test_what_a_stopped_run_has_computed_is_kept(table, monkeypatch):
    monkeypatch.setattr(vectors, "AT_ONCE", 1)

    class Stops(Letters):
        def encode_document(self, sentences):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().encode_document(sentences)

    with pytest.raises(KeyboardInterrupt):
        text_vectors(read_texts(table), Stops())
    partial = table.parent / "films.csv.vectors.partial"
    with partial.open("ab") as file:
        file.write(b"half a record")  # as a kill leaves it
    model = Letters()
    found = text_vectors(read_texts(table), model)
    assert len(model.seen) == 1
    assert np.allclose(found.matrix, unit([model.vector(t) for t in read_texts(table).texts]), atol=1e-6)
    assert not partial.exists()


def test_two_processes_do_not_compute_the_same(table):
    lock = OutputLock(table.parent / "films.csv.vectors", file=table.parent / ".films.csv.vectors.computing.lock")
    with lock, pytest.raises(OutputError, match="is being written"):
        text_vectors(read_texts(table), Letters())


def test_half_as_large_in_float16(table):
    exact = text_vectors(read_texts(table), Letters()).matrix
    model = Letters()
    half = text_vectors(read_texts(table), model, store="float16")
    assert (half.matrix.dtype, model.seen) == (torch.float16, [])  # rounded, not computed
    assert np.allclose(half.matrix.float(), exact, atol=1e-3)
    assert text_vectors(read_texts(table), model).matrix.dtype == torch.float16  # what is there stays
    assert text_vectors(read_texts(table), model, store="float32").computed == 3  # rounding cannot be undone


def test_vectors_that_are_not_finite_name_the_row(table):
    class Broken(Letters):
        def vector(self, text):
            return super().vector(text) * (np.nan if text == "rome" else 1)

    with pytest.raises(InputError, match="row 4 is not finite"):
        text_vectors(read_texts(table), Broken())


def test_a_model_that_compares_by_distance_is_refused(table):
    with pytest.raises(InputError, match="euclidean"):
        text_vectors(read_texts(table), Letters(similarity="euclidean"))


@pytest.mark.parametrize("store", ["float32", "float16"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_search_is_every_product(tmp_path, store, similarity):
    texts = [f"text {i}" for i in range(50)] + ["text 7"]
    model = Letters(similarity=similarity)
    read = read_texts(texts)
    kept = text_vectors(read, model, tmp_path / "v", store=store)
    hits = TextSearch(read, kept, model)(["text 7", "another"], top_k=4)
    matrix = np.stack([model.vector(text) for text in texts])
    for query, found in zip(("text 7", "another"), hits, strict=True):
        asked = model.vector(query)
        if similarity == "cosine":
            scores = unit(matrix) @ unit([asked])[0]
        else:
            scores = matrix @ asked
        bound = 2e-2 if store == "float16" else 1e-4
        assert np.allclose([hit.score for hit in found], np.sort(scores)[::-1][:4], atol=bound)
        assert np.allclose([hit.score for hit in found], scores[[hit.row - 1 for hit in found]], atol=bound)
    if similarity == "cosine":
        assert {hit.row for hit in hits[0][:2]} == {8, 51}
    [again] = search(texts, "text 7", model=model, top_k=4)
    assert [hit.score for hit in again] == pytest.approx([hit.score for hit in hits[0]], abs=bound)


def test_a_large_float16_matrix_is_read_in_blocks(monkeypatch):
    from cutaway.texts import text_search as module

    monkeypatch.setattr(module, "BLOCK", 7)
    matrix = torch.randn(30, 4).half()
    query = np.ones(4, dtype=np.float32)
    assert np.allclose(inner_products(matrix, query), matrix.float().numpy() @ query, atol=1e-5)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_nearest_places_are_those_of_a_full_sort(scores, top_k):
    values = np.array(scores, dtype=np.float32)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:top_k]
    assert nearest_places(values, top_k).tolist() == expected


def test_least_leaves_out_what_is_far():
    table = TextTable(["a", "b"], [1, 2], [{}, {}], "text", ["text"])
    model = Letters()
    kept = text_vectors(table, model)
    [hits] = TextSearch(table, kept, model)("a", least=0.99)
    assert [hit.row for hit in hits] == [1]
    with pytest.raises(InputError, match="do not belong"):
        TextSearch(table, TextVectors(kept.matrix[:1], 0), model)


def test_a_real_model_finds_what_is_meant(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "notes.txt"
    path.write_text("The invoice is still unpaid.\nOur cat sleeps all day.\nThe train to Rome was late.\n")
    code, out, err = call("search", str(path), "a pet that is tired", "--top-k", "1")
    assert code == 0, err
    assert "Our cat sleeps all day." in out and "Rome" not in out
    assert "cutaway/minilm" in err
    code, out, err = call(
        "search", str(path), "unpaid bills", "-m", "cutaway/minilm", "-o", str(tmp_path / "found.csv")
    )
    assert code == 0, err
    found = (tmp_path / "found.csv").read_text().splitlines()
    assert found[0] == "query,rank,score,row,text"
    assert re.match(r"unpaid bills,1,0\.\d+,1,The invoice is still unpaid\.", found[1])


def test_an_index_gives_the_same_nearest(tmp_path):
    pytest.importorskip("usearch")
    table = read_texts([f"text {i}" for i in range(300)])
    model = Letters(width=16)
    kept = text_vectors(table, model, tmp_path / "v.vectors")
    exact = TextSearch(table, kept, model)("text 5", top_k=3)
    for _ in range(2):  # built, and then read
        [found] = TextSearch(table, kept, model, "usearch")("text 5", top_k=3)
        assert [hit.row for hit in found] == [hit.row for hit in exact[0]]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in exact[0]], abs=1e-5)
    assert len(list(tmp_path.glob("*.usearch"))) == 1


def unit(rows):
    matrix = np.stack(rows) if isinstance(rows, list) else rows
    return matrix / np.linalg.norm(matrix, axis=-1, keepdims=True)
