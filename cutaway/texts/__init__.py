"""Texts without labels: search them, find topics and duplicates, compare annotators, label them."""

from cutaway.texts.agreement import Agreement, agree
from cutaway.texts.duplicates import Copy, Duplicates, dedupe
from cutaway.texts.table import TextTable, read_texts
from cutaway.texts.text_search import Hit, TextSearch, search
from cutaway.texts.vectors import TextVectors, text_vectors

__all__ = [
    "Agreement",
    "Copy",
    "Duplicates",
    "Hit",
    "TextSearch",
    "TextTable",
    "TextVectors",
    "agree",
    "dedupe",
    "read_texts",
    "search",
    "text_vectors",
]
